//! SIGINT, SIGTERM and SIGHUP as an event to wait for.

use std::ffi::c_int;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use super::own_file::OwnFile;
use crate::host::machine::status_bits;

/// The process's exit status when a second signal ends it at once.
const SECOND_SIGNAL: i32 = 1;

/// Catches the three signals until the drop; SIGHUP only if the process does not ignore it, as under nohup(1).
///
/// A second SIGINT or SIGTERM ends the process at once: the kernel then detaches the program and closes the sockets, and the handler
/// removes the process's file. A second SIGHUP does not: shell and kernel send one each when a terminal is closed.
#[derive(Debug)]
pub struct Signals {
    woken: UnixStream,
    caught: Arc<AtomicBool>,
    file: Arc<OnceLock<Arc<OwnFile>>>,
    ids: Vec<SigId>,
}

impl Signals {
    /// Catches the signals.
    ///
    /// # Errors
    /// There is no file descriptor left, or the kernel refuses.
    pub fn catch() -> io::Result<Self> {
        let (woken, wake) = UnixStream::pair()?;
        let caught = Arc::new(AtomicBool::new(false));
        let mut signals = Self { woken, caught: Arc::clone(&caught), file: Arc::default(), ids: Vec::new() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if signal == SIGHUP && is_ignored(signal) {
                continue;
            }
            if signal != SIGHUP {
                // The order matters: the first signal finds the flag clear and sets it, the second finds it set.
                signals.ids.push(end_at_once(signal, Arc::clone(&caught), Arc::clone(&signals.file))?);
            }
            signals.ids.push(flag::register(signal, Arc::clone(&caught))?);
            signals.ids.push(low_level::pipe::register(signal, wake.try_clone()?)?);
        }
        Ok(signals)
    }

    /// Makes a second signal remove this file before the process ends. A process has one such file.
    pub fn remove_at_the_end(&self, file: Arc<OwnFile>) {
        let is_first = self.file.set(file).is_ok();
        debug_assert!(is_first, "a process has one file to remove");
    }

    /// Sleeps for `timeout` or until a signal arrives. Returns whether one has arrived so far.
    pub fn wait(&mut self, timeout: Duration) -> bool {
        // A timeout of zero would never end.
        let timeout = timeout.max(Duration::from_millis(1));
        if self.woken.set_read_timeout(Some(timeout)).is_ok() {
            // The flag has the answer, whatever this returns.
            let _ = self.woken.read(&mut [0; 16]);
        }
        self.caught.load(Ordering::SeqCst)
    }
}

/// Makes the signal end the process if one was `caught` before, whatever the threads are doing.
#[allow(unsafe_code, reason = "the caller of `register` promises that a signal handler may do the action")]
fn end_at_once(
    signal: c_int,
    caught: Arc<AtomicBool>,
    file: Arc<OnceLock<Arc<OwnFile>>>,
) -> io::Result<SigId> {
    let action = move || {
        if caught.load(Ordering::SeqCst) {
            if let Some(file) = file.get() {
                file.remove();
            }
            low_level::exit(SECOND_SIGNAL);
        }
    };
    // SAFETY: the action reads two atomics, makes the system calls of `OwnFile::remove`, and ends the process with _exit(2). It takes no
    // lock, allocates nothing and cannot panic.
    unsafe { low_level::register(signal, action) }
}

/// Returns whether this process ignores a signal (`SigIgn` of proc_pid_status(5)).
fn is_ignored(signal: c_int) -> bool {
    status_bits("SigIgn").unwrap_or(0) & 1 << (signal - 1) != 0
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
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Output};

    use super::*;

    /// The variable that marks the processes that get the signals.
    const CHILD: &str = "SYNMILL_TEST_SIGNALS";

    fn is_child() -> bool {
        std::env::var_os(CHILD).is_some()
    }

    /// Runs a test alone in a process that this command starts. Returns the process's output.
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
            let path = folder.join("file");
            fs::create_dir(&folder).unwrap();
            fs::write(&path, "").unwrap();
            signals.remove_at_the_end(Arc::new(OwnFile::new(&path, Some(&folder)).unwrap()));
            println!("file {}", path.display());
            low_level::raise(SIGTERM).unwrap();
            assert!(signals.wait(Duration::from_secs(60)));
            assert!(path.exists(), "the first signal removes nothing");
            println!("draining");
            // Either of them may be the second.
            low_level::raise(SIGINT).unwrap();
            println!("still there");
            return;
        }
        let (ended, said) = child("a_second_signal_ends_the_process_at_once", &["env"]);
        assert_eq!(ended.status.code(), Some(SECOND_SIGNAL), "{said}");
        assert!(said.contains("draining") && !said.contains("still there"), "{said}");
        let file = said.lines().find_map(|line| line.split_once("file ")).expect("it names its file").1;
        let folder = Path::new(file).parent().unwrap();
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
