//! SIGINT, SIGTERM and SIGHUP as something to wait for. Knows signals, and the file that must not outlive the process; never what
//! stopping means.

use std::ffi::c_int;
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::face::conns::door::Place;

/// The process's exit status when a second signal ends it at once.
const SECOND_SIGNAL: i32 = 1;

/// The three signals, caught for as long as this lives; SIGHUP not if it is ignored, as nohup(1) has it. A second SIGINT or SIGTERM
/// ends the process at once: the kernel then detaches the program and closes the sockets, and the handler removes the door's file. A
/// second SIGHUP does not: shell and kernel send one each when a terminal is closed.
#[derive(Debug)]
pub(super) struct Signals {
    woken: UnixStream,
    caught: Arc<AtomicBool>,
    door: Arc<OnceLock<Arc<Place>>>,
    ids: Vec<SigId>,
}

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        let (woken, wake) = UnixStream::pair()?;
        let caught = Arc::new(AtomicBool::new(false));
        let mut signals = Self { woken, caught: Arc::clone(&caught), door: Arc::default(), ids: Vec::new() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if signal == SIGHUP && is_ignored(signal) {
                continue;
            }
            if signal != SIGHUP {
                // In this order: the first signal finds the flag clear and sets it, the second finds it set.
                signals.ids.push(end_at_once(signal, Arc::clone(&caught), Arc::clone(&signals.door))?);
            }
            signals.ids.push(flag::register(signal, Arc::clone(&caught))?);
            signals.ids.push(low_level::pipe::register(signal, wake.try_clone()?)?);
        }
        Ok(signals)
    }

    /// Has a second signal remove this before the process ends; to be said once.
    pub(super) fn remove_at_the_end(&self, door: Arc<Place>) {
        let is_first = self.door.set(door).is_ok();
        debug_assert!(is_first, "a process has one door");
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

/// Has the signal end the process if one was `caught` before it, whatever its threads are doing.
#[allow(
    unsafe_code,
    reason = "whoever registers an action of one's own promises that a signal handler may do it"
)]
fn end_at_once(signal: c_int, caught: Arc<AtomicBool>, door: Arc<OnceLock<Arc<Place>>>) -> io::Result<SigId> {
    let action = move || {
        if caught.load(Ordering::SeqCst) {
            if let Some(door) = door.get() {
                door.clear();
            }
            low_level::exit(SECOND_SIGNAL);
        }
    };
    // SAFETY: the action reads two atomics, makes the system calls of `Place::clear`, and ends the process with _exit(2). It takes no
    // lock, allocates nothing and cannot panic.
    unsafe { low_level::register(signal, action) }
}

/// Does this process ignore it (`SigIgn` of proc_pid_status(5))?
fn is_ignored(signal: c_int) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    ignored & 1 << (signal - 1) != 0
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
    use std::path::Path;
    use std::process::{Command, Output};

    use super::*;
    use crate::face::conns::door::Door;

    /// Set in the processes that get the signals.
    const CHILD: &str = "SYNMILL_TEST_SIGNALS";

    fn is_child() -> bool {
        std::env::var_os(CHILD).is_some()
    }

    /// This test, alone in a process that is started by this command.
    fn child(test: &str, by: &[&str]) -> (Output, String) {
        let program = std::env::current_exe().unwrap();
        let (_, module) = module_path!().split_once("::").unwrap();
        let test = format!("{module}::{test}");
        let mut command = Command::new(by[0]);
        command.args(&by[1..]).arg(program).args(["--exact", &test, "--nocapture"]).env(CHILD, "1");
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout.clone()).unwrap();
        (output, said)
    }

    #[test]
    fn a_second_signal_ends_the_process_at_once() {
        if is_child() {
            let mut signals = Signals::catch().unwrap();
            let folder = std::env::temp_dir().join(format!("synmill-signals-{}", std::process::id()));
            let door = Door::in_folder(&folder).unwrap();
            signals.remove_at_the_end(door.place());
            println!("door {}", door.path().display());
            low_level::raise(SIGTERM).unwrap();
            assert!(signals.wait(Duration::from_secs(60)));
            assert!(door.path().exists(), "the first signal removes nothing");
            println!("draining");
            // Whichever of them comes second.
            low_level::raise(SIGINT).unwrap();
            println!("still there");
            return;
        }
        let (ended, said) = child("a_second_signal_ends_the_process_at_once", &["env"]);
        assert_eq!(ended.status.code(), Some(SECOND_SIGNAL), "{said}");
        assert!(said.contains("draining") && !said.contains("still there"), "{said}");
        let door =
            said.lines().find_map(|line| line.split_once("door ")).expect("it says where its door is").1;
        let folder = Path::new(door).parent().unwrap();
        assert!(!folder.exists(), "{} is left behind", folder.display());
    }

    #[test]
    fn a_closed_terminal_is_a_signal_except_under_nohup() {
        if is_child() {
            let mut signals = Signals::catch().unwrap();
            low_level::raise(SIGHUP).unwrap();
            low_level::raise(SIGHUP).unwrap();
            println!("{}", if signals.wait(Duration::from_millis(1)) { "caught" } else { "ignored" });
            return;
        }
        for (by, what) in [(&["env", "--default-signal=HUP"][..], "caught"), (&["nohup"], "ignored")] {
            let (ended, said) = child("a_closed_terminal_is_a_signal_except_under_nohup", by);
            assert!(ended.status.success() && said.contains(what), "{by:?}: {}: {said}", ended.status);
        }
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
