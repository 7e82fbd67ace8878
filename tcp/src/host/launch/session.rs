//! An interface in our hands, from the attachment to the report: program, sockets, workers, counters. Knows what every command
//! that serves packets needs; never what it serves.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::crew::Crew;
use super::jobs::{self, Clock, Made, Place};
use super::ladder::{Ladder, Reached};
use super::signals::Signals;
use super::{Error, files, say};
use crate::face::cli::ControlSocket;
use crate::face::config::Rings;
use crate::face::conns::door::{self, Door};
use crate::face::conns::server::{Patience, Server};
use crate::face::report::Named;
use crate::host::machine::cpu::Cpu;
use crate::host::nic::spread::Spread;
use crate::host::nic::{self, Interface, Link, link};
use crate::host::preflight::{Plan, is_asked_for};
use crate::host::program::{Steer, SteerError};
use crate::host::rings::XdpDevice;
use crate::text::{counted, hex, queues};
use synmill_engine::device::Device as _;
use synmill_engine::endpoint::{Application, Settings};
use synmill_engine::flow::Address;
use synmill_engine::stats::{Counters, Snapshot};
use synmill_engine::worker::{Control, Phase};

/// IPv6 addresses of a prefix whose solicitations are asked for one by one, at most.
const MOST_GROUPS: u32 = 64;

/// Attached and bound, its workers not yet there.
pub(super) struct Taken {
    /// As it was found.
    pub(super) interface: Interface,
    /// As it stands after the attachment.
    pub(super) plan: Plan,
    /// The mode in force.
    pub(super) mode: String,
    refused: String,
    frames: String,
    /// What all workers' times are told by.
    pub(super) clock: Clock,
    memberships: Vec<UdpSocket>,
    door: Option<Door>,
    // Dropped in this order: sockets close before the program is detached. What is set on the NIC goes while the program is attached,
    // as it was set: the detachment may change the queues, and resets some NICs.
    devices: Vec<Vec<XdpDevice>>,
    pub(super) spread: Spread,
    steer: Steer,
}

/// The same with workers at work.
pub(super) struct Session {
    pub(super) interface: Interface,
    pub(super) plan: Plan,
    pub(super) mode: String,
    spread: Spread,
    steer: Steer,
    _memberships: Vec<UdpSocket>,
    /// Lists the connections for who asks.
    conns: Option<Server>,
    control: Arc<Control>,
    counters: Vec<Arc<Counters>>,
    crew: Crew,
    cores: Vec<usize>,
    link: Link,
    /// Queues where busy polling is known to be preferred no longer.
    busy_poll_stalls: u64,
    /// Stalls that are known, said or not.
    tx_stalls: u64,
}

/// What is left of a session: what its reports need.
pub(super) struct Left {
    pub(super) interface: Interface,
    pub(super) mode: String,
    /// All workers' counters together, when they had stopped.
    pub(super) counts: Snapshot,
    /// The XDP program's counters.
    pub(super) steering: Named,
    /// What went wrong on the way down, a line each.
    pub(super) failures: Vec<String>,
}

/// Makes sure that the captures can be written, so that nothing is attached if they cannot.
pub(super) fn check_captures(rings: &Rings, plan: &Plan) -> Result<(), Error> {
    let captures = rings.pcap().map_or_else(Vec::new, |path| files::captures(path, plan.workers.len()));
    captures.iter().try_for_each(|path| files::check(path))
}

impl Taken {
    /// Attaches the program and binds the sockets. `plan` is made anew after that. When it fails, nothing is
    /// left attached.
    pub(super) fn new(
        interface: Interface,
        rings: &Rings,
        plan: &dyn Fn(&Interface) -> Result<Plan, String>,
        signals: &mut Signals,
    ) -> Result<Self, Error> {
        let (door, no_door) = door(rings.control())?;
        if let Some(door) = &door {
            signals.remove_at_the_end(door.place());
        }
        let Plan { mac, buffers, .. } = plan(&interface)?;
        let mut steer = Steer::load(mac, buffers, None)?;
        let ladder = Ladder { interface: &interface, mode: rings.mode, busy_poll: rings.busy_poll, plan };
        let Reached { devices, plan, mode, refused } = ladder.climb(&mut steer, signals)?;
        let (frames, clock) = (frames(&devices), Clock::start()?);
        let memberships = join_groups(&interface, &plan);
        let spread = Spread::new(&interface.name, say);
        // From here on a failure drops all in its order.
        let mut taken =
            Self { interface, plan, mode, refused, frames, clock, memberships, door, devices, spread, steer };
        taken.plan.notes.extend(no_door);
        taken.bring(signals)?;
        Ok(taken)
    }

    /// Has the NIC bring the packets to the queues, and the program to the sockets.
    fn bring(&mut self, signals: &mut Signals) -> Result<(), Error> {
        // After the attachment, which may change the queues and resets some NICs; before anything is ours.
        self.spread.set(&self.plan.steering, &self.plan.queues())?;
        if self.spread.has_changed_anything() {
            Ladder::await_carrier(&self.interface, "--steer was set", signals)?;
        }
        self.plan.notes.extend_from_slice(self.spread.notes());
        for (place, devices) in self.plan.workers.iter().zip(&self.devices) {
            for (queue, device) in place.queues.iter().zip(devices) {
                self.steer.set_socket(*queue as u32, device.fd())?;
            }
        }
        Ok(())
    }

    /// Starts the workers, each for the application that `application` makes for it, and has the owned addresses and these
    /// listeners steered to them. Tells the user what is in force.
    pub(super) fn start<A: Application + Send + 'static>(
        mut self,
        rings: &Rings,
        settings: &Settings,
        application: impl FnMut(&Place) -> A + Send,
        listeners: &[SocketAddr],
    ) -> Result<Session, Error> {
        let control = Arc::new(Control::default());
        let counters: Vec<Arc<Counters>> = self.plan.workers.iter().map(|_| Arc::default()).collect();
        let stage = jobs::Stage {
            rings,
            interface: &self.interface,
            plan: &self.plan,
            clock: self.clock,
            control: &control,
            counters: &counters,
        };
        let Made { jobs, viewers, memory_bytes } =
            jobs::make(&stage, settings, application, std::mem::take(&mut self.devices))?;
        let crew = Crew::start(jobs, || control.set(Phase::Stopping))?;
        // Only now is anything ours: nothing arrives before there is someone to answer.
        if let Err(error) = self.steer_to(listeners) {
            control.set(Phase::Stopping);
            // The first failure is the one to tell.
            let _ = crew.join();
            return Err(error.into());
        }
        let clock = self.clock;
        let conns = self
            .door
            .take()
            .map(|door| Server::start(door, viewers, move || clock.now(), Patience::default()));
        if let Some(Err(error)) = &conns {
            self.plan.notes.push(unseen(&error.to_string()));
        }
        for line in self.facts(memory_bytes) {
            say(&line);
        }
        let cores = self.plan.workers.iter().map(|place| place.core).collect();
        Ok(Session {
            interface: self.interface,
            plan: self.plan,
            mode: self.mode,
            spread: self.spread,
            steer: self.steer,
            _memberships: self.memberships,
            conns: conns.and_then(Result::ok),
            control,
            counters,
            crew,
            cores,
            link: Link::Up,
            busy_poll_stalls: 0,
            tx_stalls: 0,
        })
    }

    /// Tells the program which addresses and ports are ours.
    fn steer_to(&mut self, listeners: &[SocketAddr]) -> Result<(), SteerError> {
        for &owned in &self.plan.owned {
            self.steer.add_owned(owned)?;
        }
        listeners
            .iter()
            .try_for_each(|listener| self.steer.add_listener(Address::from(listener.ip()), listener.port()))
    }

    /// What the user should know before the first connection, a line a fact.
    fn facts(&self, memory_bytes: usize) -> Vec<String> {
        let Interface { name, driver, mtu, .. } = &self.interface;
        let mac = hex(&self.plan.mac);
        let driver = if driver.is_empty() { "unknown" } else { driver };
        let mut lines = vec![format!("interface: {name}, driver {driver}, {mac}, MTU {mtu}")];
        let refused = if self.refused.is_empty() { String::new() } else { format!(" ({})", self.refused) };
        lines.push(format!("mode: {}{refused}", self.mode));
        for (number, place) in self.plan.workers.iter().enumerate() {
            lines.push(format!("worker {number}: core {}, {}", place.core, queues(&place.queues)));
        }
        lines.push(format!("frames: {}", self.frames));
        lines.push(format!("memory for connections: {:.1} MB", memory_bytes as f64 / 1e6));
        for owned in &self.plan.owned {
            let len = if owned.is_host() { String::new() } else { format!("/{}", owned.len()) };
            lines
                .push(format!("owned: {}{len} is not the kernel's, we answer for it", owned.first().to_ip()));
        }
        lines.extend(self.plan.notes.iter().map(|note| format!("note: {note}")));
        lines
    }
}

impl Session {
    /// Tells all workers.
    pub(super) fn set(&self, phase: Phase) {
        self.control.set(phase);
    }

    /// All workers' counters together.
    pub(super) fn total(&self) -> Snapshot {
        total(&self.counters)
    }

    /// CPU time of the workers and of their cores.
    pub(super) fn cpu(&self) -> Cpu {
        Cpu::read(&self.crew.thread_ids, &self.cores)
    }

    /// Has a worker ended that was not told to? Only a panic does that; stopping says which.
    pub(super) fn lost_one(&self) -> bool {
        self.crew.lost_one()
    }

    /// Says what has changed about the link, and where nothing is sent.
    ///
    /// # Errors
    /// One line when the interface is gone.
    pub(super) fn check_link(&mut self) -> Result<(), String> {
        let name = &self.interface.name;
        // Without an answer nothing is known to have changed.
        let now = link(self.interface.index).unwrap_or(self.link);
        if now == Link::Gone {
            return Err(format!("{name} is gone: it was removed, or moved to another network namespace"));
        }
        if now != self.link {
            say(match now {
                Link::Up => "note: the link is up again",
                Link::NoCarrier => "note: the link has lost its carrier: waiting for it",
                Link::Down | Link::Gone => "note: the interface was switched off: waiting for it",
            });
        }
        // Without a carrier some NICs take frames and keep them. What was found then may be counted just after it came back.
        let was_up = [self.link, now] == [Link::Up; 2];
        self.link = now;
        self.say_stalls(was_up);
        Ok(())
    }

    /// Says where nothing is sent, if the link is no reason for it.
    fn say_stalls(&mut self, link_was_up: bool) {
        let Snapshot { busy_poll_stalls, tx_stalls, .. } = self.total();
        if busy_poll_stalls > self.busy_poll_stalls {
            say(&format!(
                "note: the driver sent nothing on {} while it was polled for preference (SO_PREFER_BUSY_POLL): that is off there \
                 now, and all goes on; run without --busy-poll",
                counted(busy_poll_stalls, "queue")
            ));
        }
        if tx_stalls > self.tx_stalls && link_was_up {
            say(&format!(
                "note: nothing was sent on {} for a second, although frames wait and the link is up: the driver or the NIC has \
                 stopped; see the kernel's log (dmesg), and try --mode copy",
                counted(tx_stalls - self.tx_stalls, "queue")
            ));
        }
        (self.busy_poll_stalls, self.tx_stalls) = (busy_poll_stalls, tx_stalls);
    }

    /// Stops the workers, which reset what is left, and gives the interface back.
    pub(super) fn stop(mut self) -> Left {
        // Nobody looks at what is taken down.
        drop(self.conns.take());
        self.control.set(Phase::Stopping);
        // The sockets close with the workers; detaching comes after them: some drivers crash in the other order.
        let mut failures: Vec<String> = self.crew.join().err().into_iter().collect();
        let steering = self.steer.counts().map_or_else(
            |error| {
                failures.push(format!("the program's counters are missing: {error}"));
                Named::default()
            },
            Iterator::collect,
        );
        // In the order of `Taken`.
        failures.extend(self.spread.restore());
        self.steer.detach();
        let counts = total(&self.counters);
        Left { interface: self.interface, mode: self.mode, counts, steering, failures }
    }
}

/// Where connections are asked for, and a note if there is no such place. Before anything is attached.
///
/// # Errors
/// The place was asked for, and cannot be made.
fn door(control: Option<&ControlSocket>) -> Result<(Option<Door>, Option<String>), Error> {
    match control {
        Some(ControlSocket::None) => Ok((None, None)),
        Some(ControlSocket::At(path)) => match Door::at(path) {
            Ok(door) => Ok((Some(door), None)),
            Err(line) => Err(Error(format!("--control: {line}"))),
        },
        None => Ok(match Door::in_folder(Path::new(door::FOLDER)) {
            Ok(door) => (Some(door), None),
            Err(line) => (None, Some(unseen(&line))),
        }),
    }
}

/// That and why the connections cannot be listed: no reason not to serve them.
fn unseen(line: &str) -> String {
    format!(
        "`synmill conns` will not find this run: {line}; --control PATH gives another place, --control none none"
    )
}

/// The control thread's naps.
pub(super) const NAP: Duration = Duration::from_millis(200);

fn total(counters: &[Arc<Counters>]) -> Snapshot {
    let mut total = Snapshot::default();
    for counters in counters {
        total.merge(&counters.snapshot());
    }
    total
}

/// Lets solicitations for the IPv6 addresses that only we have through the interface's filter, until this is dropped. The
/// kernel joins the groups of its own addresses alone.
fn join_groups(interface: &Interface, plan: &Plan) -> Vec<UdpSocket> {
    let mut memberships = Vec::new();
    for owned in &plan.owned {
        let IpAddr::V6(first) = owned.first().to_ip() else { continue };
        if !is_asked_for(interface, owned) {
            continue;
        }
        let count = 1_u128.checked_shl(128 - u32::from(owned.len())).unwrap_or(u128::MAX);
        if count > MOST_GROUPS.into() {
            say(&format!(
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
                // Many interfaces let every group in: no reason not to go on.
                Err(error) => {
                    let [.., a, b, c] = group.octets();
                    say(&format!(
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

/// How many frames there are, their memory, and in what kind of pages.
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
