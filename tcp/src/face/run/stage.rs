//! The frame of `serve` and `bench` around their own work: files, signals, the socket for `synmill conns`, and the report.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::files::{self, Replacement};
use crate::face::cli::ControlSocket;
use crate::face::config::Output;
use crate::face::conns::door::{self, Door};
use crate::face::conns::server::{Patience, Server};
use crate::face::report;
use crate::host::Error;
use crate::host::launch::{ForWorker, Left, Session, Signals, Taken};
use crate::host::nic::Interface;
use crate::host::plan::Plan;
use crate::text::counted;
use synmill_engine::endpoint::Application;

/// The control thread's nap.
pub(super) const NAP: Duration = Duration::from_millis(200);

/// Prints a line for the user. A closed standard error is no reason to stop.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints text on standard output. A closed standard output is no reason to stop.
pub(super) fn show(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Returns why the end takes a while, if `open` connections may take `drain` to end.
pub(super) fn stopping(drain: Duration, open: u64) -> Option<String> {
    (open > 0 && !drain.is_zero()).then(|| {
        format!(
            "stopping: up to {} s for {} (--drain); a second signal ends at once, without a report",
            drain.as_secs_f64(),
            counted(open, "open connection")
        )
    })
}

/// The part of a run before the interface is changed.
pub(super) struct Stage {
    pub(super) signals: Signals,
    json: Option<Replacement>,
    door: Option<Door>,
}

/// A session whose connections `synmill conns` can list.
pub(super) struct Watched {
    pub(super) session: Session,
    conns: Option<Server>,
}

impl Stage {
    /// Checks that all files can be written, catches signals, and makes the socket for `synmill conns`. The plan gets a note if there is
    /// none.
    pub(super) fn prepare(output: &Output, plan: &mut Plan) -> Result<Self, Error> {
        plan.captures().iter().try_for_each(|path| files::check(path))?;
        let json = output.json.as_deref().map(Replacement::prepare).transpose()?;
        let signals = Signals::catch().map_err(|error| format!("catching signals: {error}"))?;
        let (door, no_door) = door(output.control.as_ref())?;
        if let Some(door) = &door {
            signals.remove_at_the_end(door.file());
        }
        plan.add_note(no_door);
        Ok(Self { signals, json, door })
    }

    /// Takes the interface.
    pub(super) fn take(&mut self, interface: Interface, plan: Plan) -> Result<Taken, Error> {
        Taken::new(interface, plan, &mut self.signals, say)
    }

    /// Starts the workers and the server for `synmill conns`, and prints the facts in force.
    pub(super) fn start<A: Application + Send + 'static>(
        &mut self,
        taken: Taken,
        application: impl FnMut(ForWorker) -> A + Send,
    ) -> Result<Watched, Error> {
        let mut session = taken.start(application)?;
        let (clock, viewers) = (session.taken.clock, std::mem::take(&mut session.viewers));
        let start = |door| Server::start(door, viewers, move || clock.now(), Patience::default());
        let conns = self.door.take().map(start);
        session.facts.iter().for_each(|line| say(line));
        let unseen =
            conns.as_ref().and_then(|conns| conns.as_ref().err()).map(|error| unseen(&error.to_string()));
        for note in session.taken.plan.notes.iter().chain(&unseen) {
            say(&format!("note: {note}"));
        }
        Ok(Watched { session, conns: conns.and_then(Result::ok) })
    }

    /// Shows the final table and writes the report.
    ///
    /// # Errors
    /// One line: the failures of the run, and of the writing.
    pub(super) fn finish(
        self,
        table: &str,
        report: &impl Serialize,
        failures: Vec<String>,
    ) -> Result<(), Error> {
        show(table);
        let mut failures = failures;
        if let Some(json) = self.json {
            let text = report::json(report).map_err(|error| format!("making the report: {error}"));
            failures.extend(text.and_then(|text| json.write(&text)).err());
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ").into()) }
    }
}

impl Watched {
    /// Stops the server, then the workers, and gives the interface back.
    pub(super) fn stop(self) -> Left {
        drop(self.conns);
        self.session.stop()
    }
}

/// Makes the socket for `synmill conns`, or returns a note if there is none.
///
/// # Errors
/// The user asked for a socket that cannot be made.
fn door(control: Option<&ControlSocket>) -> Result<(Option<Door>, Option<String>), Error> {
    match control {
        Some(ControlSocket::None) => Ok((None, None)),
        Some(ControlSocket::At(path)) => match Door::at(path) {
            Ok(door) => Ok((Some(door), None)),
            Err(line) => Err(format!("--control: {line}").into()),
        },
        None => Ok(match Door::in_folder(Path::new(door::FOLDER)) {
            Ok(door) => (Some(door), None),
            Err(line) => (None, Some(unseen(&line))),
        }),
    }
}

/// Returns that and why connections cannot be listed, which is no reason not to serve them.
fn unseen(line: &str) -> String {
    format!(
        "`synmill conns` will not find this run: {line}; choose a place with --control PATH, or switch it off with --control none"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_told_where_something_is_waited_for() {
        let told = |ms, open| stopping(Duration::from_millis(ms), open);
        assert_eq!(
            told(5000, 1).unwrap(),
            "stopping: up to 5 s for 1 open connection (--drain); a second signal ends at once, without a report"
        );
        assert!(told(1500, 6000).unwrap().starts_with("stopping: up to 1.5 s for 6,000 open connections ("));
        assert_eq!((told(5000, 0), told(0, 6000)), (None, None));
    }
}
