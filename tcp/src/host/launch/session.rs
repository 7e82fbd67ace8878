//! An interface taken, from the attachment to the last counter: program, sockets, settings, workers.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;

use synmill_engine::device::Device as _;
use synmill_engine::endpoint::{Application, Viewer};
use synmill_engine::flow::Address;
use synmill_engine::stats::{Counters, Snapshot};
use synmill_engine::worker::{Control, Phase};

use super::crew::Crew;
use super::jobs::{self, Clock, ForWorker, Made};
use super::ladder::{self, Reached, await_carrier};
use super::signals::Signals;
use crate::host::Error;
use crate::host::machine::cpu::Cpu;
use crate::host::nic::spread::Spread;
use crate::host::nic::{self, Interface, Link, link};
use crate::host::plan::{Plan, is_asked_for};
use crate::host::program::Program;
use crate::host::rings::XdpDevice;
use crate::text::{counted, hex, queues};

/// Most IPv6 addresses of a prefix whose multicast groups are joined one by one.
const MOST_GROUPS: u32 = 64;

/// An interface with the program attached and the sockets bound, before the workers start.
pub struct Taken {
    /// The interface as it was before the attachment.
    pub interface: Interface,
    /// The plan, amended by what the attachment changed.
    pub plan: Plan,
    /// The mode in force.
    pub mode: String,
    /// The clock of all workers.
    pub clock: Clock,
    refused: String,
    tell: fn(&str),
    _memberships: Vec<UdpSocket>,
    // The order of the drops: sockets close before the program is detached. The NIC's settings go while the program is attached, as they
    // were made: the detachment may change the queues, and resets some NICs.
    devices: Vec<Vec<XdpDevice>>,
    spread: Spread,
    program: Program,
}

/// An interface with workers at work.
pub struct Session {
    /// The interface taken.
    pub taken: Taken,
    /// The workers' connections, for other threads.
    pub viewers: Vec<Viewer>,
    /// The facts in force, a line each, without the plan's notes.
    pub facts: Vec<String>,
    control: Arc<Control>,
    counters: Vec<Arc<Counters>>,
    crew: Crew,
    cores: Vec<usize>,
    link: Link,
    /// Queues where busy polling is known to be off.
    busy_poll_stalls: u64,
    /// Known stalls, reported or not.
    tx_stalls: u64,
}

/// The remains of a session, for its report.
pub struct Left {
    /// The counters of all workers together, after the workers stopped.
    pub counts: Snapshot,
    /// The XDP program's counters.
    pub steering: Vec<(&'static str, u64)>,
    /// The failures on the way down, a line each.
    pub failures: Vec<String>,
}

impl Taken {
    /// Attaches the program, binds the sockets, and makes the NIC's settings. `tell` receives notes, a line each, until the session ends.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it. Nothing is left attached.
    pub fn new(
        interface: Interface,
        mut plan: Plan,
        signals: &mut Signals,
        tell: fn(&str),
    ) -> Result<Self, Error> {
        let mut program = Program::load(plan.mac, plan.buffers, None)?;
        let Reached { devices, mode, refused } = ladder::climb(&interface, &mut plan, &mut program, signals)?;
        let clock = Clock::start()?;
        let memberships = join_groups(&interface, &plan, tell);
        let spread = Spread::new(&interface.name, tell);
        // From here on a failure drops all in its order.
        let mut taken = Self {
            interface,
            plan,
            mode,
            clock,
            refused,
            tell,
            _memberships: memberships,
            devices,
            spread,
            program,
        };
        taken.bring(signals)?;
        Ok(taken)
    }

    /// Returns the RSS context of TCP's queues, 0 if all packets share one.
    #[must_use]
    pub const fn rss_context(&self) -> u32 {
        self.spread.context()
    }

    /// Makes the NIC bring packets to the queues, and the program bring frames to the sockets.
    fn bring(&mut self, signals: &mut Signals) -> Result<(), Error> {
        // After the attachment, which may change the queues and resets some NICs, and before the program steers anything.
        self.spread.set(&self.plan.steering, &self.plan.queues())?;
        if self.spread.has_changed_anything() {
            await_carrier(&self.interface, "--steer was set", signals)?;
        }
        self.plan.notes.extend_from_slice(self.spread.notes());
        for (place, devices) in self.plan.workers.iter().zip(&self.devices) {
            for (queue, device) in place.queues.iter().zip(devices) {
                self.program.set_socket(*queue as u32, device.fd())?;
            }
        }
        Ok(())
    }

    /// Starts the workers, each for the application that `application` makes for it. Then steers the plan's addresses and ports to them.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it. Nothing is left attached.
    pub fn start<A: Application + Send + 'static>(
        mut self,
        application: impl FnMut(ForWorker) -> A + Send,
    ) -> Result<Session, Error> {
        let control = Arc::new(Control::default());
        let counters: Vec<Arc<Counters>> = self.plan.workers.iter().map(|_| Arc::default()).collect();
        let devices = std::mem::take(&mut self.devices);
        let frames = frames(&devices);
        let stage = jobs::Stage {
            interface: &self.interface,
            plan: &self.plan,
            clock: self.clock,
            control: &control,
            counters: &counters,
            tell: self.tell,
        };
        let Made { jobs, viewers, memory_bytes } = jobs::make(&stage, application, devices)?;
        let crew = Crew::start(jobs, || control.set(Phase::Stopping))?;
        // Nothing is steered before the workers run.
        if let Err(error) = self.steer() {
            control.set(Phase::Stopping);
            // The first failure is the one to report.
            let _ = crew.join();
            return Err(error);
        }
        let cores = self.plan.workers.iter().map(|place| place.core).collect();
        Ok(Session {
            facts: self.facts(&frames, memory_bytes),
            taken: self,
            viewers,
            control,
            counters,
            crew,
            cores,
            link: Link::Up,
            busy_poll_stalls: 0,
            tx_stalls: 0,
        })
    }

    /// Gives the program the addresses and ports to steer.
    fn steer(&mut self) -> Result<(), Error> {
        for &owned in &self.plan.owned {
            self.program.add_owned(owned)?;
        }
        self.plan
            .listeners
            .iter()
            .try_for_each(|listener| self.program.add_listener(Address::from(listener.ip()), listener.port()))
    }

    fn facts(&self, frames: &str, memory_bytes: usize) -> Vec<String> {
        let Interface { name, driver, mtu, .. } = &self.interface;
        let driver = if driver.is_empty() { "unknown" } else { driver };
        let mut lines =
            vec![format!("interface: {name}, driver {driver}, {}, MTU {mtu}", hex(&self.plan.mac))];
        let refused = if self.refused.is_empty() { String::new() } else { format!(" ({})", self.refused) };
        lines.push(format!("mode: {}{refused}", self.mode));
        for (number, place) in self.plan.workers.iter().enumerate() {
            lines.push(format!("worker {number}: core {}, {}", place.core, queues(&place.queues)));
        }
        lines.push(format!("frames: {frames}"));
        lines.push(format!("memory for connections: {:.1} MB", memory_bytes as f64 / 1e6));
        for owned in &self.plan.owned {
            let len = if owned.is_host() { String::new() } else { format!("/{}", owned.len()) };
            lines
                .push(format!("owned: {}{len} is not the kernel's, we answer for it", owned.first().to_ip()));
        }
        lines
    }
}

impl Session {
    /// Sets the phase of all workers.
    pub fn set(&self, phase: Phase) {
        self.control.set(phase);
    }

    /// Returns the counters of all workers together.
    #[must_use]
    pub fn total(&self) -> Snapshot {
        total(&self.counters)
    }

    /// Returns the CPU time of the workers and of their cores.
    #[must_use]
    pub fn cpu(&self) -> Cpu {
        Cpu::read(&self.crew.thread_ids, &self.cores)
    }

    /// Returns whether a worker has ended before the stop. Only a panic does that; [`Session::stop`] names the worker.
    #[must_use]
    pub fn lost_one(&self) -> bool {
        self.crew.lost_one()
    }

    /// Reports changes of the link, and queues that send nothing.
    ///
    /// # Errors
    /// One line if the interface is gone.
    pub fn check_link(&mut self) -> Result<(), String> {
        let Interface { name, index, .. } = &self.taken.interface;
        // Without an answer nothing is known to have changed.
        let now = link(*index).unwrap_or(self.link);
        if now == Link::Gone {
            return Err(format!("{name} is gone: it was removed, or moved to another network namespace"));
        }
        if now != self.link {
            (self.taken.tell)(match now {
                Link::Up => "note: the link is up again",
                Link::NoCarrier => "note: the link has lost its carrier: waiting for it",
                Link::Down | Link::Gone => "note: the interface was switched off: waiting for it",
            });
        }
        // Without a carrier some NICs take frames and keep them. Such a stall may be counted just after the carrier came back.
        let was_up = [self.link, now] == [Link::Up; 2];
        self.link = now;
        self.tell_stalls(was_up);
        Ok(())
    }

    /// Reports queues that send nothing, unless the link is the reason.
    fn tell_stalls(&mut self, link_was_up: bool) {
        let Snapshot { busy_poll_stalls, tx_stalls, .. } = self.total();
        if busy_poll_stalls > self.busy_poll_stalls {
            (self.taken.tell)(&format!(
                "note: the driver sent nothing on {} while it was polled for preference (SO_PREFER_BUSY_POLL): that is off there \
                 now, and all goes on; run without --busy-poll",
                counted(busy_poll_stalls, "queue")
            ));
        }
        if tx_stalls > self.tx_stalls && link_was_up {
            (self.taken.tell)(&format!(
                "note: nothing was sent on {} for a second, although frames wait and the link is up: the driver or the NIC has \
                 stopped; see the kernel's log (dmesg), and try --mode copy",
                counted(tx_stalls - self.tx_stalls, "queue")
            ));
        }
        (self.busy_poll_stalls, self.tx_stalls) = (busy_poll_stalls, tx_stalls);
    }

    /// Stops the workers, which reset the remaining connections, and gives the interface back.
    #[must_use]
    pub fn stop(self) -> Left {
        self.control.set(Phase::Stopping);
        // The sockets close with the workers, before the program is detached: some drivers crash in the other order.
        let mut failures: Vec<String> = self.crew.join().err().into_iter().collect();
        let Taken { mut spread, mut program, .. } = self.taken;
        let steering = program.counts().unwrap_or_else(|error| {
            failures.push(format!("the program's counters are missing: {error}"));
            Vec::new()
        });
        // In the order of the drops in `Taken`.
        failures.extend(spread.restore());
        program.detach();
        Left { counts: total(&self.counters), steering, failures }
    }
}

fn total(counters: &[Arc<Counters>]) -> Snapshot {
    let mut total = Snapshot::default();
    for counters in counters {
        total.merge(&counters.snapshot());
    }
    total
}

/// Joins the multicast groups of owned IPv6 addresses until the sockets are dropped, so that the interface's filter lets solicitations in.
/// The kernel joins the groups of its own addresses only.
fn join_groups(interface: &Interface, plan: &Plan, tell: fn(&str)) -> Vec<UdpSocket> {
    let mut memberships = Vec::new();
    for owned in &plan.owned {
        let IpAddr::V6(first) = owned.first().to_ip() else { continue };
        if !is_asked_for(interface, owned) {
            continue;
        }
        let count = 1_u128.checked_shl(128 - u32::from(owned.len())).unwrap_or(u128::MAX);
        if count > MOST_GROUPS.into() {
            tell(&format!(
                "note: {owned} has more addresses than groups to join: if neighbours do not find them, \
                 ip link set {} allmulticast on",
                interface.name
            ));
            continue;
        }
        for number in 0..count {
            let group = nic::solicited_node((u128::from(first) + number).into());
            match nic::join(interface.index, group) {
                Ok(socket) => memberships.push(socket),
                // Many interfaces let every group in, so the run goes on.
                Err(error) => {
                    let [.., a, b, c] = group.octets();
                    tell(&format!(
                        "note: joining {group} for {first}: {error}: if nobody finds the address, \
                         ip maddress add 33:33:ff:{a:02x}:{b:02x}:{c:02x} dev {}",
                        interface.name
                    ));
                    break;
                }
            }
        }
    }
    memberships
}

/// Returns the number of frames, their memory, and the kind of their pages.
fn frames(devices: &[Vec<XdpDevice>]) -> String {
    let all = || devices.iter().flatten();
    let count: usize = all().map(|device| device.census().total).sum();
    let bytes: usize = all().map(XdpDevice::memory_bytes).sum();
    let pages = if all().all(XdpDevice::huge_pages) {
        "huge pages"
    } else {
        "ordinary pages (sysctl vm.nr_hugepages reserves huge ones)"
    };
    format!("{count}, {:.1} MB in {pages}", bytes as f64 / 1e6)
}
