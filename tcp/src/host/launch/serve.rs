//! `synmill serve`: from a configuration to a report. Knows when it is over; never what is said over a connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::files::Replacement;
use super::session::{Left, NAP, Session, Taken, check_captures};
use super::signals::Signals;
use super::{Error, say, show, stopping};
use crate::face::config::Config;
use crate::face::report::serve::{Interval, Report, Sampler, held};
use crate::face::report::{self, Host, Site};
use crate::host::nic::Interface;
use crate::host::preflight::{Machine, Plan};
use synmill_engine::endpoint::{Listener, Listeners, Settings};
use synmill_engine::service::Service;
use synmill_engine::worker::Phase;

/// The most intervals of a report: the last day of a run.
const MOST_INTERVALS: usize = 24 * 3600;

/// How long the control thread sleeps while connections drain.
const DRAIN_NAP: Duration = Duration::from_millis(10);

/// Serves until a signal comes or the time is up, and reports. Facts go to standard error, the last of them a line that starts
/// with `ready`; a line a second and the final table go to standard output. Returns the whole run.
///
/// SIGINT, SIGTERM and, unless it is ignored, SIGHUP are caught meanwhile: the first ends the run in order, a second SIGINT or SIGTERM
/// ends the process at once.
///
/// A service of one's own behind the same command line:
///
/// ```no_run
/// use synmill::engine::service::{Memo, Pending, Service, Taken, Then};
/// use synmill::{face::cli, face::config::Config, host::launch};
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
    let rings = &config.rings;
    let interface = Interface::find(rings.interface())?;
    let machine = Machine::here();
    let plan = |interface: &Interface| Plan::serve(config, interface, &machine);
    // Looked at here, so that nothing is attached if they cannot be written.
    check_captures(rings, &plan(&interface)?)?;
    let json = rings.json().map(|path| Replacement::prepare(path)).transpose()?;
    let mut signals = Signals::catch().map_err(|error| Error(format!("catching signals: {error}")))?;

    let taken = Taken::new(interface, rings, &plan, &mut signals)?;
    let settings = Settings {
        max_connections: config.max_connections(),
        time_wait: config.time_wait(),
        accept_partial_checksums: rings.accept_partial_checksums,
        ..Settings::default()
    };
    let listener = |listener: &crate::face::config::Listener<S>| Listener {
        address: listener.address.ip().into(),
        port: listener.address.port(),
        service: listener.service.clone(),
    };
    let addresses: Vec<_> = config.listeners().iter().map(|listener| listener.address).collect();
    let answered = Listeners(config.listeners().iter().map(listener).collect());
    let application = move |_: &_| answered.clone();
    let session = taken.start(rings, &settings, application, &addresses)?;
    let listeners: Vec<String> =
        config.listeners().iter().map(|listener| format!("{} {}", listener.address, listener.name)).collect();
    say(&format!("ready: {}", listeners.join(", ")));

    let started = Instant::now();
    let queues = session.plan.workers.iter().flat_map(|place| place.queues.iter().copied()).collect();
    let workers = session.plan.workers.len();
    let mut run = Run { config, session, intervals: VecDeque::new() };
    let watched = run.watch(started, &mut signals);
    let duration = started.elapsed();
    let Left { interface, mode, counts, steering, failures } = run.session.stop();
    let mut failures: Vec<String> = watched.err().into_iter().chain(failures).collect();

    let site = Site {
        command: std::env::args().collect(),
        host: Host::here(),
        interface: interface.name,
        driver: interface.driver,
        mode,
        queues,
        workers,
    };
    let report = Report::new(site, duration, &counts, steering, run.intervals.into());
    show(&report.table());
    if let Some(json) = json {
        let text = report::json(&report).map_err(|error| Error(format!("making the report: {error}")));
        failures.extend(text.and_then(|text| json.write(&text)).err().map(|error| error.to_string()));
    }
    if failures.is_empty() { Ok(report) } else { Err(Error(failures.join("; "))) }
}

/// The run as the control thread sees it.
struct Run<'a, S> {
    config: &'a Config<S>,
    session: Session,
    /// For the report in JSON; empty without one.
    intervals: VecDeque<Interval>,
}

impl<S> Run<'_, S> {
    /// Reports once a second, until the stop and then until the last connection has ended or its deadline has passed.
    ///
    /// # Errors
    /// If the interface went away.
    fn watch(&mut self, started: Instant, signals: &mut Signals) -> Result<(), String> {
        let second = Duration::from_secs(1);
        let mut sampler = Sampler::new(self.session.cpu());
        let mut next = second;
        let mut deadline: Option<Duration> = None;
        let mut signalled = false;
        let mut empty = 0;
        loop {
            let now = started.elapsed();
            if now >= next {
                self.report(&mut sampler, now);
                self.session.check_link()?;
                next = second * (now.as_secs() as u32 + 1);
            }
            let time_is_up = self.config.duration().is_some_and(|duration| now >= duration);
            match deadline {
                None if signalled || time_is_up => {
                    let drain = self.config.drain();
                    if let Some(line) = stopping(drain, held(&self.session.total())) {
                        say(&line);
                    }
                    self.session.set(Phase::Draining);
                    deadline = Some(now + drain);
                }
                None if self.session.lost_one() => break,
                None => {}
                Some(deadline) => {
                    // The cells are not read at one moment: nothing is open only if it is so twice.
                    empty = if held(&self.session.total()) == 0 { empty + 1 } else { 0 };
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

    fn report(&mut self, sampler: &mut Sampler, now: Duration) {
        let interval = sampler.sample(now, &self.session.total(), self.session.cpu());
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
}
