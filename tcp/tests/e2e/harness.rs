//! The stage of every test: a lab of its own, and the responder in it. Knows processes; never what is said over TCP.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use synmill_lab::{Lab, LabOptions, SERVER_INTERFACE, Side};

/// The command under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_synmill");
/// Longest wait for a process to start or end.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Two cores are not enough for two tests at once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A lab of the test's own.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    name: &'static str,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// Waits for the test's turn and builds its lab. `name` is no other test's.
    pub(crate) fn new(name: &'static str) -> Self {
        Self::with(name, LabOptions::default())
    }

    /// The same with options.
    pub(crate) fn with(name: &'static str, options: LabOptions) -> Self {
        assert!(geteuid().is_root(), "this test makes network namespaces and AF_XDP sockets: run it as root");
        // A test that failed has left nothing behind that the next one could see.
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab::up(&format!("smt-{name}"), options).expect("the lab comes up");
        Self { lab, name, _turn: turn }
    }

    /// A command at the client's end.
    pub(crate) fn client(&self, argv: &[&str]) -> Command {
        self.lab.exec(Side::Client, argv)
    }

    /// What a command at the client's end prints; it has to succeed.
    pub(crate) fn ask(&self, argv: &[&str]) -> String {
        self.lab.output(Side::Client, argv).unwrap()
    }

    /// A command at the server's end that has to succeed.
    pub(crate) fn at_server(&self, argv: &[&str]) -> String {
        self.lab.output(Side::Server, argv).unwrap()
    }

    /// A file of the test's own, which does not exist yet.
    pub(crate) fn file(&self, suffix: &str) -> PathBuf {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{suffix}", self.name));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                panic!("{}: {error}", path.display())
            }
            _ => path,
        }
    }

    /// Is an XDP program on the server's interface?
    pub(crate) fn is_attached(&self) -> bool {
        self.at_server(&["ip", "-details", "link", "show", SERVER_INTERFACE]).contains("xdp")
    }

    /// A counter of the client's kernel, by its name in /proc/net/snmp's TCP lines.
    pub(crate) fn kernel_tcp(&self, name: &str) -> u64 {
        self.kernel_tcp_at(Side::Client, name)
    }

    /// The same of the kernel at either end.
    pub(crate) fn kernel_tcp_at(&self, side: Side, name: &str) -> u64 {
        let text = self.lab.output(side, &["cat", "/proc/net/snmp"]).unwrap();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let found = names.split(' ').zip(values.split(' ')).find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("no counter {name} in {names}")).1.parse().unwrap()
    }
}

/// `synmill serve` at the server's end of the lab. Killed when dropped before its end.
pub(crate) struct Server {
    process: Process,
    report: PathBuf,
}

impl Server {
    /// Starts it with these options beside the interface and the report, and waits until it says ready.
    pub(crate) fn start(stage: &Stage, arguments: &[&str]) -> Self {
        let report = stage.file("report.json");
        // The tests themselves may run under nohup.
        let mut argv = vec!["env", "--default-signal=HUP", BINARY, "serve", "--interface", SERVER_INTERFACE];
        argv.extend(["--json", report.to_str().unwrap()]);
        argv.extend(arguments);
        let mut process = Process::spawn(&mut stage.lab.exec(Side::Server, argv));
        until("the responder is ready", LIMIT, || {
            assert!(process.status().is_none(), "the responder ended:\n{}", process.said());
            process.said().lines().any(|line| line.starts_with("ready"))
        });
        Self { process, report }
    }

    /// Asks it to end with SIGTERM, and waits for a good end.
    pub(crate) fn stop(self, stage: &Stage) -> Report {
        self.signal(Signal::SIGTERM);
        self.finish(stage)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Its process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Both of its outputs so far.
    pub(crate) fn said(&self) -> String {
        self.process.said()
    }

    /// Waits for an end that was asked for: it has to end well, with accounts that close, and leave nothing on its interface.
    pub(crate) fn finish(mut self, stage: &Stage) -> Report {
        let status = self.process.end();
        let said = self.process.said();
        assert!(status.success(), "{status}:\n{said}");
        assert!(!stage.is_attached(), "an XDP program is left on the interface");
        let text =
            fs::read_to_string(&self.report).unwrap_or_else(|error| panic!("no report: {error}\n{said}"));
        let report = Report(serde_json::from_str(&text).expect("the report is JSON"));
        assert_eq!(report.0["accounts"]["closed"], Value::Bool(true), "{text}\n{said}");
        report
    }

    /// Ends it as the kernel does when it has to.
    pub(crate) fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        assert!(!self.process.end().success());
    }

    /// Waits for its end, good or not.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let status = self.process.end();
        (status, self.process.said())
    }
}

/// What `--json` wrote.
pub(crate) struct Report(Value);

impl Report {
    /// A counter by its name.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let value = self.0["counters"].get(name).or_else(|| self.0["drops"].get(name));
        value.and_then(Value::as_u64).unwrap_or_else(|| panic!("no counter {name} in {}", self.0))
    }

    /// Connections whose both ends have closed: over, or in TIME-WAIT where ours was the first to close.
    pub(crate) fn closed(&self) -> u64 {
        self.count("ended_closed") + self.count("curr_time_wait")
    }
}

/// A child whose output is collected while it runs. Killed when dropped before its end.
pub(crate) struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

impl Process {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the process starts");
        let said = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            collect(child.stdout.take().unwrap(), Arc::clone(&said)),
            collect(child.stderr.take().unwrap(), Arc::clone(&said)),
        ];
        Self { child, said, readers, ended: None }
    }

    /// Both of its outputs so far, by lines.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap());
        kill(pid, signal).expect("the process is there");
    }

    /// How it ended, once it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().unwrap();
        }
        self.ended
    }

    /// Waits for its end, and for the last of its output.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.status() {
                break status;
            }
            assert!(Instant::now() < deadline, "still running after {LIMIT:?}:\n{}", self.said());
            thread::sleep(Duration::from_millis(5));
        };
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn collect(pipe: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut said = into.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    })
}

/// Waits for a condition, but not for ever.
pub(crate) fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not after {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command that ends of itself, to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the command starts")
}
