//! `synmill serve`: from checked options to a report.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::stage::{NAP, Stage, Watched, say, show, stopping};
use crate::face::config::{self, Serve, Valid};
use crate::face::report::Site;
use crate::face::report::serve::{Interval, Report, Sampler, held};
use crate::host::Error;
use crate::host::launch::{Left, Signals};
use crate::host::machine::Machine;
use crate::host::nic::Interface;
use crate::host::plan::Plan;
use synmill_engine::endpoint::{Listener, Listeners};
use synmill_engine::service::Service;
use synmill_engine::worker::Phase;

/// Most intervals of a report: the last day of a run.
const MOST_INTERVALS: usize = 24 * 3600;

/// The control thread's nap while connections drain.
const DRAIN_NAP: Duration = Duration::from_millis(10);

/// Serves until a signal arrives or the time is up, and reports. The last fact on standard error is a line that starts with `ready`.
/// Returns the report.
///
/// The first SIGINT, SIGTERM or, unless the process ignores it, SIGHUP ends the run in order. A second SIGINT or SIGTERM ends the process
/// at once.
///
/// A service of your own behind the same command line:
///
/// ```no_run
/// use synmill::engine::service::{Memo, Pending, Service, Taken, Then};
/// use synmill::face::{cli, config::Serve, run};
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
///     run::serve(&Serve::new(*options, |_| Ok::<_, String>(Goodbye))?)?;
///     Ok(())
/// }
/// ```
///
/// # Errors
/// One line: what is wrong and how to fix it. Nothing is left attached. A failure after the start does not lose the report: `serve`
/// shows and writes it first.
pub fn serve<S>(config: &Valid<Serve<S>>) -> Result<Report, Error>
where
    S: Service + Clone + Send + 'static,
{
    let interface = Interface::find(&config.rings.interface)?;
    let mut plan =
        Plan::new(config.rings.clone(), config.endpoint, &config.role(), &interface, &Machine::here())?;
    let mut stage = Stage::prepare(&config.output, &mut plan)?;
    let taken = stage.take(interface, plan)?;
    let listener = |listener: &config::Listener<S>| Listener {
        address: listener.address.ip().into(),
        port: listener.address.port(),
        service: listener.service.clone(),
    };
    let listeners = Listeners(config.listeners.iter().map(listener).collect());
    let watched = stage.start(taken, move |_| listeners.clone())?;
    let listeners: Vec<String> =
        config.listeners.iter().map(|listener| format!("{} {}", listener.address, listener.name)).collect();
    say(&format!("ready: {}", listeners.join(", ")));

    let started = Instant::now();
    let site = Site::of(&watched.session);
    let mut run = Run { config, watched, intervals: VecDeque::new() };
    let ended = run.watch(started, &mut stage.signals);
    let duration = started.elapsed();
    let Left { counts, steering, failures, .. } = run.watched.stop();
    let failures = ended.err().into_iter().chain(failures).collect();
    let report = Report::new(site, duration, &counts, steering.into_iter().collect(), run.intervals.into());
    stage.finish(&report.table(), &report, failures)?;
    Ok(report)
}

/// The run as the control thread sees it.
struct Run<'a, S> {
    config: &'a Serve<S>,
    watched: Watched,
    /// For the report in JSON; empty without one.
    intervals: VecDeque<Interval>,
}

impl<S> Run<'_, S> {
    /// Reports once a second, until the stop and then until the last connection has ended or its deadline has passed.
    ///
    /// # Errors
    /// The interface is gone.
    fn watch(&mut self, started: Instant, signals: &mut Signals) -> Result<(), String> {
        let second = Duration::from_secs(1);
        let mut sampler = Sampler::new(self.watched.session.cpu());
        let mut next = second;
        let mut deadline: Option<Duration> = None;
        let mut signalled = false;
        let mut empty = 0;
        loop {
            let now = started.elapsed();
            if now >= next {
                self.report(&mut sampler, now);
                self.watched.session.check_link()?;
                next = second * (now.as_secs() as u32 + 1);
            }
            let session = &self.watched.session;
            let time_is_up = self.config.duration.is_some_and(|duration| now >= duration);
            match deadline {
                None if signalled || time_is_up => {
                    if let Some(line) = stopping(self.config.drain, held(&session.total())) {
                        say(&line);
                    }
                    session.set(Phase::Draining);
                    deadline = Some(now + self.config.drain);
                }
                None if session.lost_one() => break,
                None => {}
                Some(deadline) => {
                    // The cells are not read at one moment: two readings must find no open connection.
                    empty = if held(&session.total()) == 0 { empty + 1 } else { 0 };
                    if empty == 2 || now >= deadline {
                        break;
                    }
                }
            }
            let nap = if deadline.is_some() { DRAIN_NAP } else { NAP };
            let until = [Some(next), self.config.duration.filter(|_| deadline.is_none())];
            let until = until.into_iter().flatten().min().unwrap_or(next);
            signalled |= signals.wait(nap.min(until.saturating_sub(started.elapsed())));
        }
        Ok(())
    }

    fn report(&mut self, sampler: &mut Sampler, now: Duration) {
        let session = &self.watched.session;
        let interval = sampler.sample(now, &session.total(), session.cpu());
        if !self.config.output.quiet {
            show(&(interval.line() + "\n"));
        }
        if self.config.output.json.is_some() {
            if self.intervals.len() == MOST_INTERVALS {
                self.intervals.pop_front();
            }
            self.intervals.push_back(interval);
        }
    }
}
