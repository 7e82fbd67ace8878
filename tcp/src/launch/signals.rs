//! SIGINT and SIGTERM as something to wait for. Knows signals; never what stopping means.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::SigId;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// The process's exit status when a second signal ends it at once.
const SECOND_SIGNAL: i32 = 1;

/// The two signals, caught for as long as this lives. A second one ends the process at once: the kernel then detaches the
/// program and closes the sockets.
#[derive(Debug)]
pub(super) struct Signals {
    woken: UnixStream,
    caught: Arc<AtomicBool>,
    ids: Vec<SigId>,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        let (woken, wake) = UnixStream::pair()?;
        let caught = Arc::new(AtomicBool::new(false));
        let mut signals = Self { woken, caught: Arc::clone(&caught), ids: Vec::new() };
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag clear and sets it, the second finds it set.
            signals.ids.push(flag::register_conditional_shutdown(
                signal,
                SECOND_SIGNAL,
                Arc::clone(&caught),
            )?);
            signals.ids.push(flag::register(signal, Arc::clone(&caught))?);
            signals.ids.push(low_level::pipe::register(signal, wake.try_clone()?)?);
        }
        Ok(signals)
    }

    /// Sleeps for `timeout` or until a signal comes; whether one has come so far.
    pub(super) fn wait(&mut self, timeout: Duration) -> bool {
        // A timeout of zero would mean for ever.
        let timeout = timeout.max(Duration::from_millis(1));
        if self.woken.set_read_timeout(Some(timeout)).is_ok() {
            // However it ends, the flag has the answer.
            let _ = self.woken.read(&mut [0; 16]);
        }
        self.caught.load(Ordering::SeqCst)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            low_level::unregister(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the process that the signals end.
    const CHILD: &str = "SYNMILL_TEST_SIGNALS";

    #[test]
    fn a_second_signal_ends_the_process_at_once() {
        if std::env::var_os(CHILD).is_some() {
            let mut signals = Signals::catch().unwrap();
            low_level::raise(SIGTERM).unwrap();
            assert!(signals.wait(Duration::from_secs(60)));
            println!("draining");
            // Whichever of the two comes second.
            low_level::raise(SIGINT).unwrap();
            println!("still there");
            return;
        }
        let name = "launch::signals::tests::a_second_signal_ends_the_process_at_once";
        let ended = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8(ended.stdout).unwrap();
        assert_eq!(ended.status.code(), Some(SECOND_SIGNAL), "{said}");
        assert!(said.contains("draining") && !said.contains("still there"), "{said}");
    }

    #[test]
    fn a_signal_wakes_the_waiter() {
        let mut signals = Signals::catch().unwrap();
        assert!(!signals.wait(Duration::from_millis(1)));
        low_level::raise(SIGTERM).unwrap();
        assert!(signals.wait(Duration::from_secs(60)));
        assert!(signals.wait(Duration::from_millis(1)), "it stays known");
    }
}
