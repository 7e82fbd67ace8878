//! The client of a measurement: synmill's generator, a receiver of bare frames, or wrk.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use synmill_lab::{CLIENT_INTERFACE, Process, SERVER_V4, SOURCES_V4, Side, last_json, shown};

use super::counters::{CoreWatch, increase, packets};
use super::figures::{Column, Sample};
use super::report::Report;
use super::scenario::{Case, ClientKind};
use super::server::{RECEIVER, address};
use super::stage::{LIMIT, Stage, pinned, program};
use super::wrk::Wrk;

/// The exit status of a run with figures that are in doubt.
const IN_DOUBT: i32 = 3;

/// The figures that the client's side knows.
pub(super) struct Heard {
    pub(super) values: Sample,
    /// Why the figures are in doubt.
    pub(super) problems: Vec<String>,
    /// How busy the watched core was: the server's first.
    pub(super) server_percent: f64,
}

/// Measures for `seconds`, with further arguments of the client.
pub(super) fn measure(
    stage: &Stage,
    case: &Case,
    kind: ClientKind,
    seconds: u32,
    arguments: &[String],
    watched: usize,
) -> Result<Heard> {
    match kind {
        ClientKind::Generator => {
            Generator::new(stage, seconds, arguments)?.run(stage, watched, false)?.heard(case)
        }
        ClientKind::Receiver => receive(stage, seconds, arguments, watched),
        ClientKind::Wrk => request(stage, seconds, arguments, watched),
    }
}

/// A client that has ended.
struct Ended {
    status: ExitStatus,
    /// The lines of both outputs.
    said: String,
    server_percent: f64,
    client_percent: f64,
}

/// Runs a client that measures for `seconds`, on its core; `shows` lets its output go where this process's output goes.
fn run(stage: &Stage, command: Vec<OsString>, seconds: u32, watched: usize, shows: bool) -> Result<Ended> {
    let core = stage.client_core();
    let mut command = stage.lab.exec(Side::Client, pinned(&[core], command));
    let output = || if shows { Stdio::inherit() } else { Stdio::piped() };
    command.stdin(Stdio::null()).stdout(output()).stderr(output()).process_group(0);
    let mut watches = [CoreWatch::start(watched)?, CoreWatch::start(core)?];
    let mut process = Process::start(&mut command)?;
    // It warms up before the measurement, and lets its connections end afterwards.
    let limit = Duration::from_secs(seconds.into()) + 2 * LIMIT;
    stage.interrupt.wait("the end of the client", limit, || {
        watches.iter_mut().try_for_each(CoreWatch::look)?;
        process.status()
    })?;
    let status = process.end()?;
    let [server_percent, client_percent] = watches.map(CoreWatch::median_percent);
    Ok(Ended { status, said: process.said(), server_percent, client_percent })
}

/// `synmill bench`, about to run.
pub(super) struct Generator {
    command: Vec<OsString>,
    seconds: u32,
    report: PathBuf,
}

impl Generator {
    pub(super) fn new(stage: &Stage, seconds: u32, further: &[String]) -> Result<Self> {
        let (report, core) = (stage.report("generator.json")?, stage.client_core());
        let mut command = program(&format!(
            "synmill bench --interface {CLIENT_INTERFACE} --target {} --source {SOURCES_V4} --cores {core} \
             --duration {seconds}s --json",
            address()
        ))?;
        command.push(report.clone().into());
        command.extend(further.iter().map(OsString::from));
        Ok(Self { command, seconds, report })
    }

    /// Returns the command as one types it.
    pub(super) fn shown(&self) -> String {
        shown(Command::new(&self.command[0]).args(&self.command[1..]))
    }

    /// Runs it; `shows` prints its own lines, otherwise only an error has them.
    pub(super) fn run(mut self, stage: &Stage, watched: usize, shows: bool) -> Result<Outcome> {
        let shown = self.shown();
        if !shows {
            self.command.push("--quiet".into());
        }
        let ended = run(stage, self.command, self.seconds, watched, shows)?;
        let Some(in_doubt) = judge(ended.status) else {
            bail!("`{shown}` failed ({}). {}", ended.status, ended.said.trim());
        };
        let report = Report::read(&self.report)?;
        let problems = report.problems(in_doubt)?;
        Ok(Outcome { report, problems, server_percent: ended.server_percent })
    }
}

/// The result of a run of the generator.
pub(super) struct Outcome {
    pub(super) report: Report,
    pub(super) problems: Vec<String>,
    pub(super) server_percent: f64,
}

impl Outcome {
    pub(super) fn heard(self, case: &Case) -> Result<Heard> {
        let mut values = self.report.sample()?;
        if let Some(bytes) = case.source_bytes() {
            let streams_per_s = self.report.number("/requests/per_s")?;
            values.set(Column::GbitPerS, streams_per_s * 8e-9 * f64::from(bytes));
        }
        Ok(Heard { values, problems: self.problems, server_percent: self.server_percent })
    }
}

/// Returns whether the figures of a run are in doubt; none if it has no figures.
fn judge(status: ExitStatus) -> Option<bool> {
    match status.code() {
        Some(0) => Some(false),
        Some(IN_DOUBT) => Some(true),
        _ => None,
    }
}

/// Runs `synmill-bulk count`, which warms up for a second first.
fn receive(stage: &Stage, seconds: u32, arguments: &[String], watched: usize) -> Result<Heard> {
    let core = stage.client_core();
    let mut command = program(&format!(
        "synmill-bulk count --interface {CLIENT_INTERFACE} --at {RECEIVER} --core {core} --seconds {seconds}"
    ))?;
    command.extend(arguments.iter().map(OsString::from));
    let ended = run(stage, command, seconds, watched, false)?;
    ensure!(ended.status.success(), "`synmill-bulk count` failed ({}): {}", ended.status, ended.said.trim());
    let values = received(last_json(&ended.said)?)?;
    Ok(Heard { values, problems: Vec::new(), server_percent: ended.server_percent })
}

/// The counts of `synmill-bulk count` for its window.
#[derive(Debug, Deserialize)]
struct Counted {
    text_bytes: f64,
    seconds: f64,
    lost: f64,
}

fn received(counts: Value) -> Result<Sample> {
    let counted = Counted::deserialize(counts).context("the counts of the receiver")?;
    let gbit_per_s = counted.text_bytes * 8e-9 / counted.seconds;
    Ok([(Column::GbitPerS, gbit_per_s), (Column::FramesLost, counted.lost)].into_iter().collect())
}

/// Runs wrk.
fn request(stage: &Stage, seconds: u32, arguments: &[String], watched: usize) -> Result<Heard> {
    let counters = || -> Result<[u64; 3]> {
        let of = |name| packets(&stage.lab, Side::Client, name);
        Ok([stage.lab.tcp_counter(Side::Client, "RetransSegs")?, of("tx_packets")?, of("rx_packets")?])
    };
    let mut command = ["wrk", "--latency", "--duration"].map(OsString::from).to_vec();
    command.push(format!("{seconds}s").into());
    command.extend(arguments.iter().map(OsString::from));
    command.push(format!("http://{SERVER_V4}/").into());
    let before = counters()?;
    let ended = run(stage, command, seconds, watched, false)?;
    let after = counters()?;
    ensure!(ended.status.success(), "wrk failed ({}): {}", ended.status, ended.said.trim());
    let wrk = Wrk::parse(&ended.said).with_context(|| format!("the output of wrk:\n{}", ended.said))?;
    let [retransmitted, sent, received]: [f64; 3] = std::array::from_fn(|at| increase(before[at], after[at]));
    let values = [
        (Column::RequestsPerS, wrk.per_second),
        (Column::RequestP50Us, wrk.p50_us),
        (Column::RequestP99Us, wrk.p99_us),
        (Column::RequestPacketsOut, sent / wrk.requests),
        (Column::RequestPacketsIn, received / wrk.requests),
        (Column::Failed, wrk.errors),
        (Column::GeneratorRetransmissions, retransmitted),
        (Column::GeneratorCorePercent, ended.client_percent),
    ];
    Ok(Heard {
        values: values.into_iter().collect(),
        problems: Vec::new(),
        server_percent: ended.server_percent,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn only_a_run_without_figures_is_a_failure() {
        // A wait status holds the exit code in its second byte, and the signal in its first.
        let judged = [0, 3 << 8, 1 << 8, 2 << 8, 9].map(|raw| judge(ExitStatus::from_raw(raw)));
        assert_eq!(judged, [Some(false), Some(true), None, None, None]);
    }

    #[test]
    fn what_was_counted_is_a_sample() {
        let counts = serde_json::json!({"frames": 10, "text_bytes": 500_000_000, "seconds": 2.0, "lost": 3});
        let sample = received(counts).unwrap();
        assert!((sample.get(Column::GbitPerS) - 2.0).abs() < 1e-9);
        assert!((sample.get(Column::FramesLost) - 3.0).abs() < 1e-9);
        assert!(received(serde_json::json!({"seconds": 1.0})).is_err());
    }
}
