//! The control plane: preflight, attach, bind, workers, stop, report. Knows interfaces, queues, cores and threads; never TCP's
//! rules.

mod crew;
mod files;
mod jobs;
mod ladder;
mod signals;

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crew::Crew;
use files::Replacement;
use ladder::{Ladder, Reached};
use signals::Signals;

use crate::cli::{Mode, ranges};
use crate::config::Config;
use crate::device::Device;
use crate::device::xdp::XdpDevice;
use crate::flow::Address;
use crate::interface::{self, Interface, Link, link};
use crate::preflight::{Machine, Plan};
use crate::report::{self, Accounts, Connections, Cpu, Host, Interval, Named, Report, Sampler};
use crate::service::Service;
use crate::stats::{Counters, Snapshot};
use crate::steer::{Steer, SteerError};
use crate::worker::{Control, Phase};

/// Why it did not run, or not to its end: one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl From<String> for Error {
    fn from(line: String) -> Self {
        Self(line)
    }
}

impl From<interface::Error> for Error {
    fn from(error: interface::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<SteerError> for Error {
    fn from(error: SteerError) -> Self {
        Self(error.to_string())
    }
}

/// Serves until a signal comes or the time is up, and reports. Facts go to standard error, the last of them a line that starts
/// with `ready`; a line a second and the final table go to standard output. Returns the whole run.
///
/// SIGINT and SIGTERM are caught meanwhile: the first ends the run in order, a second ends the process at once.
///
/// A service of one's own behind the same command line:
///
/// ```no_run
/// use synmill::service::{Memo, Pending, Service, Taken, Then};
/// use synmill::{cli, config::Config, launch};
///
/// #[derive(Clone)]
/// struct Goodbye;
///
/// impl Service for Goodbye {
///     fn on_data(&self, _memo: &mut Memo, text: &[u8]) -> Taken {
///         Taken::Bytes(text.len())
///     }
///     fn pending(&self, _memo: &Memo) -> Pending {
///         Pending { bytes: 0, then: Then::Close }
///     }
///     fn write(&self, _memo: &Memo, _at: u64, _into: &mut [u8]) {}
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let cli = cli::parse(std::env::args_os())?;
///     let cli::Command::Serve(options) = cli.command else { return Err("use `serve`".into()) };
///     launch::serve(&Config::new(*options, |_| Ok::<_, String>(Goodbye))?)?;
///     Ok(())
/// }
/// ```
///
/// # Errors
/// One line: what is wrong and how to fix it. Nothing is left attached then. What fails once connections are served does not
/// lose the report: it is shown and written first.
pub fn serve<S>(config: &Config<S>) -> Result<Report, Error>
where
    S: Service + Clone + Send + 'static,
{
    let interface = Interface::find(config.rings.interface())?;
    let machine = Machine::here();
    let plan = |interface: &Interface| Plan::serve(config, interface, &machine);
    let Plan { mac, workers, .. } = plan(&interface)?;
    // Looked at here, so that nothing is attached if they cannot be written.
    if let Some(path) = config.rings.pcap() {
        files::captures(path, workers.len()).iter().try_for_each(|path| files::check(path))?;
    }
    let json = config.rings.json().map(|path| Replacement::prepare(path)).transpose()?;

    let mut signals = Signals::catch().map_err(|error| Error(format!("catching signals: {error}")))?;
    let mut steer = Steer::load(mac, None)?;
    let ladder = Ladder {
        interface: &interface,
        mode: config.rings.mode,
        busy_poll: config.rings.busy_poll,
        plan: &plan,
    };
    let Reached { devices, plan, mode, refused } = ladder.climb(&mut steer, &mut signals)?;
    let frames = frames(&devices);
    for (place, devices) in plan.workers.iter().zip(&devices) {
        for (queue, device) in place.queues.iter().zip(devices) {
            steer.set_socket(*queue as u32, device.fd())?;
        }
    }

    let _memberships = join_groups(&interface, &plan);
    let control = Arc::new(Control::default());
    let counters: Vec<Arc<Counters>> = plan.workers.iter().map(|_| Arc::default()).collect();
    let (jobs, memory_bytes) = jobs::make(config, &interface, &plan, devices, &control, &counters)?;
    let crew = Crew::start(jobs, || control.set(Phase::Stopping))?;
    // Only now is anything ours: nothing arrives before there is someone to answer.
    if let Err(error) = listen(&mut steer, config, &plan) {
        control.set(Phase::Stopping);
        // The first failure is the one to tell.
        let _ = crew.join();
        return Err(error.into());
    }

    for line in facts(&interface, &plan, &mode, &refused, &frames, memory_bytes) {
        say(&line);
    }
    let listeners: Vec<String> =
        config.listeners().iter().map(|listener| format!("{} {}", listener.address, listener.name)).collect();
    say(&format!("ready: {}", listeners.join(", ")));

    let started = Instant::now();
    let mut run = Run {
        config,
        interface: &interface,
        control: &control,
        counters: &counters,
        crew: &crew,
        cores: plan.workers.iter().map(|place| place.core).collect(),
        intervals: VecDeque::new(),
    };
    let mut failures: Vec<String> = Vec::new();
    failures.extend(run.watch(started, &mut signals).err());
    let intervals = std::mem::take(&mut run.intervals);
    control.set(Phase::Stopping);
    let duration = started.elapsed();
    // The sockets close with the workers; detaching comes after them: some drivers crash in the other order.
    failures.extend(crew.join().err());
    let steering = steer.counts().map_or_else(
        |error| {
            failures.push(format!("the program's counters are missing: {error}"));
            Named::default()
        },
        Iterator::collect,
    );
    steer.detach();

    let report = Report {
        schema: "synmill-serve/1",
        command: std::env::args().collect(),
        host: Host::here(),
        interface: interface.name,
        driver: interface.driver,
        mode,
        queues: plan.workers.iter().flat_map(|place| place.queues.iter().copied()).collect(),
        workers: plan.workers.len(),
        duration_s: duration.as_secs_f64(),
        connections: Connections::default(),
        counters: Named::default(),
        drops: Named::default(),
        steering,
        accounts: Accounts { closed: false, laws: Vec::new() },
        intervals: intervals.into(),
    }
    .with_counts(&total(&counters));
    show(&report.table());
    if let Some(json) = json {
        let text = report.json().map_err(|error| Error(format!("making the report: {error}")));
        failures.extend(text.and_then(|text| json.write(&text)).err().map(|error| error.to_string()));
    }
    if failures.is_empty() { Ok(report) } else { Err(Error(failures.join("; "))) }
}

/// Tells the program which addresses and ports are ours.
fn listen<S>(steer: &mut Steer, config: &Config<S>, plan: &Plan) -> Result<(), SteerError> {
    for &(owned, prefix_len) in &plan.owned {
        steer.add_owned(owned, prefix_len.into())?;
    }
    config.listeners().iter().try_for_each(|listener| {
        steer.add_listener(Address::from(listener.address.ip()), listener.address.port())
    })
}

/// Lets solicitations for the IPv6 addresses that only we have through the interface's filter, until this is dropped. The
/// kernel joins the groups of its own addresses alone.
fn join_groups(interface: &Interface, plan: &Plan) -> Vec<UdpSocket> {
    let mut memberships = Vec::new();
    for (owned, _) in &plan.owned {
        let IpAddr::V6(address) = owned.to_ip() else { continue };
        let group = interface::solicited_node(address);
        match interface::join(interface.index, group) {
            Ok(socket) => memberships.push(socket),
            // Many interfaces let every group in: no reason not to serve.
            Err(error) => {
                let [.., a, b, c] = group.octets();
                say(&format!(
                    "note: joining {group} for {address}: {error}: if nobody finds the address, \
                     ip maddress add 33:33:ff:{a:02x}:{b:02x}:{c:02x} dev {}",
                    interface.name
                ));
            }
        }
    }
    memberships
}

/// A line for the user. Nobody need be listening: a closed standard error is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Text for standard output, on the same terms.
fn show(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A mode as the command line has it.
fn name(mode: Mode) -> String {
    format!("{mode:?}").to_lowercase()
}

/// Queues by number: `queue 0`, `queues 0-3`.
fn queues(numbers: &[usize]) -> String {
    format!("queue{} {}", if numbers.len() == 1 { "" } else { "s" }, ranges(numbers))
}

/// All workers' counters together.
fn total(counters: &[Arc<Counters>]) -> Snapshot {
    let mut total = Snapshot::default();
    for counters in counters {
        total.merge(&counters.snapshot());
    }
    total
}

/// How many frames there are, and in what kind of pages.
fn frames(devices: &[Vec<XdpDevice>]) -> String {
    let total: usize = devices.iter().flatten().map(|device| device.census().total).sum();
    let huge = devices.iter().flatten().all(XdpDevice::huge_pages);
    let pages =
        if huge { "huge pages" } else { "ordinary pages (sysctl vm.nr_hugepages reserves huge ones)" };
    format!("{total} in {pages}")
}

/// What the user should know before the first connection, a line a fact.
fn facts(
    interface: &Interface,
    plan: &Plan,
    mode: &str,
    refused: &str,
    frames: &str,
    memory_bytes: usize,
) -> Vec<String> {
    let Interface { name: interface_name, driver, mtu, .. } = interface;
    let mac = plan.mac.map(|byte| format!("{byte:02x}")).join(":");
    let driver = if driver.is_empty() { "unknown" } else { driver };
    let mut lines = vec![format!("interface: {interface_name}, driver {driver}, {mac}, MTU {mtu}")];
    let refused = if refused.is_empty() { String::new() } else { format!(" ({refused})") };
    lines.push(format!("mode: {mode}{refused}"));
    for (number, place) in plan.workers.iter().enumerate() {
        lines.push(format!("worker {number}: core {}, {}", place.core, queues(&place.queues)));
    }
    lines.push(format!("frames: {frames}"));
    lines.push(format!("memory for connections: {:.1} MB", memory_bytes as f64 / 1e6));
    for (owned, _) in &plan.owned {
        lines.push(format!("owned: {} is not the kernel's, we answer for it", owned.to_ip()));
    }
    lines.extend(plan.notes.iter().map(|note| format!("note: {note}")));
    lines
}

/// The run as the control thread sees it.
struct Run<'a, S> {
    config: &'a Config<S>,
    interface: &'a Interface,
    control: &'a Control,
    counters: &'a [Arc<Counters>],
    crew: &'a Crew,
    cores: Vec<usize>,
    /// For the report in JSON; empty without one.
    intervals: VecDeque<Interval>,
}

/// The most intervals of a report: the last day of a run.
const MOST_INTERVALS: usize = 24 * 3600;

/// The longest the control thread sleeps: as late does it notice that a worker is lost.
const NAP: Duration = Duration::from_millis(200);
/// The same while connections drain.
const DRAIN_NAP: Duration = Duration::from_millis(10);

impl<S> Run<'_, S> {
    /// Reports once a second, until the stop and then until the last connection has ended or its deadline has passed.
    ///
    /// # Errors
    /// If the interface went away.
    fn watch(&mut self, started: Instant, signals: &mut Signals) -> Result<(), String> {
        let second = Duration::from_secs(1);
        let mut sampler = Sampler::new(self.cpu());
        let mut next = second;
        let mut last = Link::Up;
        let mut deadline: Option<Duration> = None;
        let mut signalled = false;
        let mut empty = 0;
        loop {
            let now = started.elapsed();
            if now >= next {
                self.report(&mut sampler, now);
                self.check_link(&mut last)?;
                next = second * (now.as_secs() as u32 + 1);
            }
            let time_is_up = self.config.duration().is_some_and(|duration| now >= duration);
            match deadline {
                None if signalled || time_is_up => {
                    self.control.set(Phase::Draining);
                    deadline = Some(now + self.config.drain());
                }
                // Only a panic ends a worker that was not told to stop; joining says which.
                None if self.crew.lost_one() => break,
                None => {}
                Some(deadline) => {
                    // The cells are not read at one moment: nothing is open only if it is so twice.
                    empty = if report::held(&total(self.counters)) == 0 { empty + 1 } else { 0 };
                    if empty == 2 || now >= deadline {
                        break;
                    }
                }
            }
            let nap = if deadline.is_some() { DRAIN_NAP } else { NAP };
            let until = [Some(next), self.config.duration().filter(|_| deadline.is_none())];
            let until = until.into_iter().flatten().min().unwrap_or(next);
            signalled |= signals.wait(nap.min(until.saturating_sub(started.elapsed())));
        }
        Ok(())
    }

    fn cpu(&self) -> Cpu {
        Cpu::read(&self.crew.thread_ids, &self.cores)
    }

    fn report(&mut self, sampler: &mut Sampler, now: Duration) {
        let interval = sampler.sample(now, &total(self.counters), self.cpu());
        if !self.config.rings.quiet {
            show(&(interval.line() + "\n"));
        }
        if self.config.rings.json().is_some() {
            if self.intervals.len() == MOST_INTERVALS {
                self.intervals.pop_front();
            }
            self.intervals.push_back(interval);
        }
    }

    /// Says what changed about the link.
    fn check_link(&self, last: &mut Link) -> Result<(), String> {
        let name = &self.interface.name;
        // Without an answer nothing is known to have changed.
        let now = link(self.interface.index).unwrap_or(*last);
        if now == Link::Gone {
            return Err(format!("{name} is gone: it was removed, or moved to another network namespace"));
        }
        if now != *last {
            say(match now {
                Link::Up => "note: the link is up again",
                Link::NoCarrier => "note: the link has lost its carrier: waiting for it",
                Link::Down | Link::Gone => "note: the interface was switched off: waiting for it",
            });
        }
        *last = now;
        Ok(())
    }
}
