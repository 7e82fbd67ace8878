//! The stage of every test: a lab of its own, with synmill and the kernel's server in it.

use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use synmill_lab::{
    Attached, Lab, LabOptions, Process, SERVER_V4, SOURCES_V4, Side, Synmill, Words, last_json,
};

/// The command under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_synmill");
/// Longest wait for a condition.
const LIMIT: Duration = Duration::from_secs(30);

/// Two cores are not enough for two tests at once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A lab of the test's own.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    name: &'static str,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// Waits for the test's turn and builds its lab. No other test has this name.
    pub(crate) fn new(name: &'static str) -> Self {
        Self::with(name, LabOptions::default())
    }

    /// Waits for the test's turn and builds its lab with options. No other test has this name.
    pub(crate) fn with(name: &'static str, options: LabOptions) -> Self {
        // A failed test leaves nothing behind that the next one could see.
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab::up(&format!("smt-{name}"), options).expect("the lab comes up");
        Self { lab, name, _turn: turn }
    }

    /// Returns a command at the client's end.
    pub(crate) fn client(&self, command: &(impl Words + ?Sized)) -> Command {
        self.lab.exec(Side::Client, command.words())
    }

    /// Returns the standard output of a command at the client's end, which must succeed.
    pub(crate) fn ask(&self, command: &(impl Words + ?Sized)) -> String {
        self.lab.output(Side::Client, command).unwrap()
    }

    /// Returns the standard output of a command at the server's end, which must succeed.
    pub(crate) fn at_server(&self, command: &(impl Words + ?Sized)) -> String {
        self.lab.output(Side::Server, command).unwrap()
    }

    /// Adds nft's rules at an end.
    pub(crate) fn rules(&self, side: Side, rules: &str) {
        self.lab.output(side, &["nft", rules]).unwrap();
    }

    /// Returns the path of a file of the test's own, which does not exist yet.
    pub(crate) fn file(&self, suffix: &str) -> PathBuf {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{suffix}", self.name));
        if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        path
    }

    /// Returns whether an XDP program is on an end's interface.
    pub(crate) fn is_attached(&self, side: Side) -> bool {
        self.lab.attached(side).unwrap() != Attached::Nothing
    }

    /// Returns a TCP counter of the kernel at an end, by its name in /proc/net/snmp.
    pub(crate) fn kernel_tcp(&self, side: Side, name: &str) -> u64 {
        self.lab.tcp_counter(side, name).unwrap()
    }

    /// Starts `synmill serve` with these options at the server's end, and waits until it is ready.
    pub(crate) fn serve(&self, options: &(impl Words + ?Sized)) -> Program {
        // The test run may ignore SIGHUP, as under nohup.
        let command = [&["env", "--default-signal=HUP", BINARY, "serve"], &options.words()[..]].concat();
        let report = self.file("serve.json");
        let mut serve = Synmill::start(&self.lab, Side::Server, &command, &report).unwrap();
        serve.process.until_line("ready").unwrap();
        Program(serve)
    }

    /// Starts `synmill bench` with these options at the client's end, towards port 80 of the server's IPv4 address, from the lab's
    /// IPv4 sources.
    pub(crate) fn generator(&self, options: &(impl Words + ?Sized)) -> Program {
        let target = format!("{SERVER_V4}:80");
        let towards = ["--target", &target, "--source", SOURCES_V4];
        self.generator_to(&[&towards[..], &options.words()].concat())
    }

    /// Starts `synmill bench` at the client's end, with targets and sources among the options.
    pub(crate) fn generator_to(&self, options: &(impl Words + ?Sized)) -> Program {
        let command = [&[BINARY, "bench"], &options.words()[..]].concat();
        let report = self.file("bench.json");
        Program(Synmill::start(&self.lab, Side::Client, &command, &report).unwrap())
    }

    /// Runs a generator to its end; see [`Stage::generator`].
    pub(crate) fn bench(&self, options: &(impl Words + ?Sized)) -> Run {
        self.generator(options).end()
    }

    /// Starts the benchmarks' server on the kernel's TCP, on port 80 of the server's IPv4 address, and waits until it listens.
    pub(crate) fn kernel_server(&self, service: &str) -> KernelServer {
        self.kernel_server_at(service, &[&format!("{SERVER_V4}:80")])
    }

    /// Starts the benchmarks' server on the kernel's TCP at these addresses and ports, and waits until it listens.
    pub(crate) fn kernel_server_at(&self, service: &str, addresses: &[&str]) -> KernelServer {
        let binary = Path::new(BINARY).with_file_name("synmill-kernel-server");
        assert!(binary.exists(), "{} is missing: cargo build --package synmill-benches", binary.display());
        let mut argv = vec![binary.to_str().unwrap(), "--service", service, "--cores", "0"];
        argv.extend(addresses.iter().flat_map(|address| ["--listen", address]));
        let mut process = Process::spawn(&mut self.lab.exec(Side::Server, argv)).unwrap();
        process.until_line("ready").unwrap();
        KernelServer(process)
    }
}

/// A running synmill, which is killed if it is dropped before its end.
pub(crate) struct Program(Synmill);

impl Program {
    pub(crate) fn pid(&self) -> u32 {
        self.0.process.pid()
    }

    /// Returns the lines of both outputs so far.
    pub(crate) fn said(&self) -> String {
        self.0.process.said()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.0.process.signal(signal).unwrap();
    }

    /// Waits until it has said this.
    pub(crate) fn until_said(&mut self, part: &str) {
        self.0.process.until_said(part).unwrap();
    }

    /// Sends SIGTERM, and waits for an end as [`Program::finish`] wants it.
    pub(crate) fn stop(self) -> Run {
        Run(self.0.stop().unwrap())
    }

    /// Waits for a good end, with accounts that close and no XDP program left behind.
    pub(crate) fn finish(self) -> Run {
        Run(self.0.finish().unwrap())
    }

    /// Waits for the end, good or not. No XDP program may be left behind, and the accounts of a report must close.
    pub(crate) fn end(self) -> Run {
        Run(self.0.end().unwrap())
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(self) {
        self.0.kill().unwrap();
    }
}

/// A run of synmill that has ended.
pub(crate) struct Run(synmill_lab::Run);

impl Deref for Run {
    type Target = synmill_lab::Run;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Run {
    /// Checks that the run was as asked: exit status 0.
    pub(crate) fn good(self) -> Self {
        assert!(self.status.success(), "{}:\n{}", self.status, self.said);
        self
    }

    /// Checks that the run was as asked, apart from its rate, which a busy machine may miss.
    pub(crate) fn fulfilled(self) -> Self {
        Self(self.0.fulfilled().unwrap())
    }

    /// Checks that the run ended with this exit status, and said this.
    pub(crate) fn fails_with(self, status: i32, part: &str) -> Self {
        assert_eq!(self.status.code(), Some(status), "{}", self.said);
        assert!(self.said.contains(part), "not said: {part}\n{}", self.said);
        self
    }

    /// Returns a value of the report by its path (`/connections/established`), or a counter or drop by its name.
    pub(crate) fn value(&self, path: &str) -> &Value {
        self.at(path).unwrap()
    }

    /// Returns a count of the report, found as by [`Run::value`].
    pub(crate) fn count(&self, path: &str) -> u64 {
        self.0.count(path).unwrap()
    }

    /// Returns a number of the report, found as by [`Run::value`].
    pub(crate) fn number(&self, path: &str) -> f64 {
        self.value(path).as_f64().unwrap_or_else(|| panic!("{path} is no number: {}", self.report))
    }

    /// Returns the connections that synmill opened within the measured time.
    pub(crate) fn started(&self) -> u64 {
        self.count("/connections/started")
    }

    /// Returns the connections that both ends have closed, those in TIME-WAIT included.
    pub(crate) fn closed(&self) -> u64 {
        self.count("ended_closed") + self.count("curr_time_wait")
    }

    /// Returns the connections that failed for this cause.
    pub(crate) fn failed(&self, cause: &str) -> u64 {
        self.count(&format!("/connections/failed/{cause}"))
    }

    /// Checks that every started connection of a generator is in one account.
    pub(crate) fn accounts_close(&self) {
        assert_eq!(self.value("/accounts/closed"), &Value::Bool(true), "{}", self.said);
        let failed = |causes: &[&str]| causes.iter().map(|cause| self.failed(cause)).sum::<u64>();
        let before = failed(&["refused", "connect_timed_out", "unreachable", "connect_cut"]);
        let after = failed(&["reset_by_peer", "bad_response", "timed_out", "cut"]);
        let established = self.count("/connections/established");
        assert_eq!(self.started(), established + before, "{}", self.report);
        assert_eq!(established, self.count("/connections/closed") + after, "{}", self.report);
    }
}

/// A running server on the kernel's TCP, which is killed if it is dropped before its end.
pub(crate) struct KernelServer(Process);

impl KernelServer {
    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(self) {
        self.0.kill().unwrap();
    }

    /// Sends SIGTERM, and returns the counts that the server prints.
    pub(crate) fn stop(self) -> Value {
        last_json(&self.0.stop().unwrap()).unwrap()
    }
}

/// Waits until a condition is true.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    synmill_lab::until(what, LIMIT, || Ok(condition())).unwrap();
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("the command starts")
}

/// Runs a command at an end, and checks that it refuses: it ends by itself with this exit status, and prints one line, an error that
/// contains each of `parts`.
pub(crate) fn refused(stage: &Stage, side: Side, argv: &[&str], code: i32, parts: &[&str]) {
    let mut process = Process::spawn(&mut stage.lab.exec(side, argv)).unwrap();
    let status = process.end().unwrap();
    let said = process.said();
    assert_eq!(status.code(), Some(code), "{argv:?}:\n{said}");
    assert!(process.printed().is_empty(), "{argv:?}: it has begun:\n{said}");
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "{argv:?} is worth one line:\n{said}");
    for part in parts {
        assert!(said.contains(part), "{argv:?}: no `{part}` in:\n{said}");
    }
}
