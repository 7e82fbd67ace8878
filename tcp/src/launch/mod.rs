//! The control plane: preflight, attach, bind, workers, stop, report. Knows interfaces, queues, cores and threads; never TCP's
//! rules.

mod bench;
mod crew;
mod files;
mod jobs;
mod ladder;
mod search;
mod serve;
mod session;
mod signals;
mod trial;

use std::io::{self, Write as _};

pub use bench::bench;
pub use serve::serve;

use crate::cli::{Mode, ranges};
use crate::interface;
use crate::steer::SteerError;

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
