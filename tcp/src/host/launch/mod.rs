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
use std::time::Duration;

pub use bench::bench;
pub use serve::serve;

use crate::face::cli::Mode;
use crate::host::nic;
use crate::host::program::SteerError;
use crate::text::counted;

/// Why it did not run, or not to its end: one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl From<String> for Error {
    fn from(line: String) -> Self {
        Self(line)
    }
}

impl From<nic::Error> for Error {
    fn from(error: nic::Error) -> Self {
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

/// Why the end takes a while, for who waits for it: `open` connections may take so long to end. Nothing where there is none to wait for.
fn stopping(drain: Duration, open: u64) -> Option<String> {
    (open > 0 && !drain.is_zero()).then(|| {
        format!(
            "stopping: up to {} s for {} (--drain); a second signal ends at once, without a report",
            drain.as_secs_f64(),
            counted(open, "open connection")
        )
    })
}

/// A mode as the command line has it.
fn name(mode: Mode) -> String {
    format!("{mode:?}").to_lowercase()
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
