//! `synmill bench` at the client's end of the lab. Knows its command line and its report; never how it measures.

mod faults;
mod loads;
mod output;
mod peers;
mod queues;
mod refusals;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use serde_json::Value;
use synmill_lab::{CLIENT_INTERFACE, SERVER_V4, SOURCES_V4, Side};

use crate::harness::{BINARY, LIMIT, Process, Stage, until};

/// A generator under way. Killed when dropped before its end.
pub(crate) struct Generator {
    process: Process,
    report: PathBuf,
}

/// What a generator did.
pub(crate) struct Run {
    pub(crate) status: ExitStatus,
    /// Both of its outputs.
    pub(crate) said: String,
    /// What `--json` wrote; null if it wrote nothing.
    pub(crate) report: Value,
}

impl Generator {
    /// Starts it against port 80 of the server's IPv4 address, from the lab's IPv4 sources, with these options beside.
    pub(crate) fn start(stage: &Stage, arguments: &[&str]) -> Self {
        let target = format!("{SERVER_V4}:80");
        let common = ["--target", &target, "--source", SOURCES_V4];
        Self::start_with(stage, &[&common[..], arguments].concat())
    }

    /// The same with targets and sources among the options.
    pub(crate) fn start_with(stage: &Stage, arguments: &[&str]) -> Self {
        let report = stage.file("bench.json");
        let mut argv =
            vec![BINARY, "bench", "--interface", CLIENT_INTERFACE, "--json", report.to_str().unwrap()];
        argv.extend(arguments);
        Self { process: Process::spawn(&mut stage.lab.exec(Side::Client, argv)), report }
    }

    /// Its process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it has said this.
    pub(crate) fn until_said(&mut self, part: &str) {
        until(part, LIMIT, || {
            assert!(self.process.status().is_none(), "it ended:\n{}", self.process.said());
            self.process.said().contains(part)
        });
    }

    /// Waits for its end, good or not. Nothing of it may be left on its interface.
    pub(crate) fn end(mut self, stage: &Stage) -> Run {
        let status = self.process.end();
        // All links: its own may be gone.
        let links = stage.ask(&["ip", "-details", "link", "show"]);
        assert!(!links.contains("xdp"), "an XDP program is left on an interface:\n{links}");
        let report = fs::read_to_string(&self.report)
            .map_or(Value::Null, |text| serde_json::from_str(&text).expect("the report is JSON"));
        Run { status, said: self.process.said(), report }
    }
}

/// Runs it to its end; see [`Generator::start`].
pub(crate) fn bench(stage: &Stage, arguments: &[&str]) -> Run {
    Generator::start(stage, arguments).end(stage)
}

impl Run {
    /// It has to be as asked: exit status 0.
    pub(crate) fn good(self) -> Self {
        assert!(self.status.success(), "{}:\n{}", self.status, self.said);
        self
    }

    /// It has to be as asked but for its rate, which a busy machine may miss.
    pub(crate) fn fulfilled(self) -> Self {
        let problems = self.value("/verdict/problems").as_array().expect("a list");
        let is_rate =
            |problem: &Value| problem.as_str().unwrap().contains(" connections/s were established ");
        assert!(problems.iter().all(is_rate), "{}", self.said);
        assert_eq!(self.status.code(), Some(if problems.is_empty() { 0 } else { 3 }), "{}", self.said);
        self
    }

    /// It has to end with this exit status, and to say this.
    pub(crate) fn fails_with(self, status: i32, part: &str) -> Self {
        assert_eq!(self.status.code(), Some(status), "{}", self.said);
        assert!(self.said.contains(part), "not said: {part}\n{}", self.said);
        self
    }

    /// A value of the report by its path, such as `/connections/established`.
    pub(crate) fn value(&self, path: &str) -> &Value {
        let value = self.report.pointer(path);
        value.unwrap_or_else(|| panic!("no {path} in {}\n{}", self.report, self.said))
    }

    /// A count of the report by its path.
    pub(crate) fn count(&self, path: &str) -> u64 {
        self.value(path).as_u64().unwrap_or_else(|| panic!("{path} is no count: {}", self.report))
    }

    /// A number of the report by its path.
    pub(crate) fn number(&self, path: &str) -> f64 {
        self.value(path).as_f64().unwrap_or_else(|| panic!("{path} is no number: {}", self.report))
    }

    /// Connections that count.
    pub(crate) fn started(&self) -> u64 {
        self.count("/connections/started")
    }

    /// The accounts close, whatever else happened.
    pub(crate) fn accounts_close(&self) {
        assert_eq!(self.value("/accounts/closed"), &Value::Bool(true), "{}", self.said);
        let sum = |paths: &[&str]| paths.iter().map(|path| self.count(path)).sum::<u64>();
        let failed = |names: &[&str]| {
            let paths: Vec<String> = names.iter().map(|name| format!("/connections/failed/{name}")).collect();
            sum(&paths.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let before = failed(&["refused", "connect_timed_out", "unreachable", "connect_cut"]);
        let after = failed(&["reset_by_peer", "bad_response", "timed_out", "cut"]);
        let established = self.count("/connections/established");
        assert_eq!(self.count("/connections/started"), established + before, "{}", self.report);
        assert_eq!(established, self.count("/connections/closed") + after, "{}", self.report);
    }
}

/// A server on the kernel's TCP at the server's end, as the benchmarks use it (`--listen ADDR:PORT --service ...`). Killed when
/// dropped before its end.
pub(crate) struct KernelServer(Process);

impl KernelServer {
    /// Starts it on port 80 of the server's IPv4 address and waits until it listens.
    pub(crate) fn start(stage: &Stage, service: &str) -> Self {
        Self::start_at(stage, service, &[&format!("{SERVER_V4}:80")])
    }

    /// The same at other addresses and ports.
    pub(crate) fn start_at(stage: &Stage, service: &str, addresses: &[&str]) -> Self {
        let binary = Path::new(BINARY).with_file_name("synmill-kernel-server");
        assert!(binary.exists(), "{} is missing: cargo build --package synmill-benches", binary.display());
        let mut argv = vec![binary.to_str().unwrap(), "--service", service, "--cores", "0"];
        argv.extend(addresses.iter().flat_map(|address| ["--listen", address]));
        let mut process = Process::spawn(&mut stage.lab.exec(Side::Server, argv));
        until("the kernel's server is ready", LIMIT, || {
            assert!(process.status().is_none(), "it ended:\n{}", process.said());
            process.said().lines().any(|line| line.starts_with("ready"))
        });
        Self(process)
    }

    /// Ends it as the kernel does when it has to.
    pub(crate) fn kill(mut self) {
        self.0.signal(Signal::SIGKILL);
        assert!(!self.0.end().success());
    }

    /// Asks it to end, and returns the counts that it printed.
    pub(crate) fn stop(mut self) -> Value {
        self.0.signal(Signal::SIGTERM);
        let status = self.0.end();
        let said = self.0.said();
        assert!(status.success(), "{status}:\n{said}");
        let line = said.lines().find(|line| line.starts_with('{'));
        serde_json::from_str(line.unwrap_or_else(|| panic!("no counts:\n{said}"))).expect("counts in JSON")
    }
}
