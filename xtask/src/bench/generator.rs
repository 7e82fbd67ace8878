//! `synmill bench` at the client's end of the lab: its command line, its end, its report. Knows what its exit status means; never
//! who answers it.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use synmill_lab::{CLIENT_INTERFACE, Group, SOURCES_V4, Side};

use super::counters::CoreWatch;
use super::peer::address;
use super::report::Report;
use super::stage::{Stage, binary};
use super::{LIMIT, peer};

/// The exit status of a run that is measured to its end, and whose figures are in doubt.
const IN_DOUBT: i32 = 3;

/// One run of it.
#[derive(Debug)]
pub(crate) struct Run {
    arguments: Vec<OsString>,
    seconds: u32,
    report: PathBuf,
}

/// What it found.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) report: Report,
    /// Why its figures are in doubt.
    pub(crate) problems: Vec<String>,
    /// How busy the watched core was: the peer's first.
    pub(crate) core_percent: f64,
}

impl Run {
    /// So many seconds against the peer, with these arguments besides.
    pub(crate) fn new(stage: &Stage, seconds: u32, extra: &[String]) -> Self {
        let report = stage.folder.file("generator.json");
        let (target, core) = (address(), peer::listed(&[stage.generator_core()]));
        let duration = format!("{seconds}s");
        let options = ["bench", "--interface", CLIENT_INTERFACE, "--target", &target, "--source", SOURCES_V4];
        let mut arguments: Vec<OsString> = options.map(OsString::from).to_vec();
        arguments.extend(["--cores", &core, "--duration", &duration, "--json"].map(OsString::from));
        arguments.push(report.clone().into());
        arguments.extend(extra.iter().map(OsString::from));
        Self { arguments, seconds, report }
    }

    /// The command as one would type it.
    pub(crate) fn shown(&self) -> String {
        let words = self.arguments.iter().map(|word| word.to_string_lossy());
        words.fold("synmill".to_owned(), |line, word| line + " " + &word)
    }

    /// Runs it without its lines; what it says is shown when it fails.
    pub(crate) fn quietly(mut self, stage: &Stage, watched: usize) -> Result<Outcome> {
        self.arguments.push("--quiet".into());
        let log = stage.folder.file("generator.log");
        let output = fs::File::create(&log).context("making the generator's log")?;
        let errors = output.try_clone().context("making the generator's log")?;
        self.perform(stage, watched, [output.into(), errors.into()], || {
            String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).trim().to_owned()
        })
    }

    /// Runs it with its lines going where ours go.
    pub(crate) fn shown_to_all(&self, stage: &Stage, watched: usize) -> Result<Outcome> {
        self.perform(stage, watched, [Stdio::inherit(), Stdio::inherit()], String::new)
    }

    /// `said` tells what it wrote, when it failed.
    fn perform(
        &self,
        stage: &Stage,
        watched: usize,
        [output, errors]: [Stdio; 2],
        said: impl FnOnce() -> String,
    ) -> Result<Outcome> {
        // One of an earlier run would pass for this one's.
        if self.report.exists() {
            fs::remove_file(&self.report).context("removing the last run's report")?;
        }
        let argv = [binary("synmill")?.into()].into_iter().chain(self.arguments.iter().cloned());
        let (status, core_percent) = at_client(stage, argv, [output, errors], self.seconds, watched)?;
        let Some(in_doubt) = judge(status) else {
            bail!("`{}` failed ({status}). {}", self.shown(), said());
        };
        let report = Report::read(&self.report)?;
        let problems = problems(&report, in_doubt)?;
        Ok(Outcome { report, problems, core_percent })
    }
}

/// Runs a program that measures for so many seconds, at the client's end and on the generator's core: how it ended, and how busy the
/// watched core was meanwhile, in percent.
pub(super) fn at_client(
    stage: &Stage,
    argv: impl Iterator<Item = OsString>,
    [output, errors]: [Stdio; 2],
    seconds: u32,
    watched: usize,
) -> Result<(ExitStatus, f64)> {
    let core = peer::listed(&[stage.generator_core()]);
    let pinned = ["taskset", "--cpu-list", &core].map(OsString::from);
    let mut command = stage.lab.exec(Side::Client, pinned.into_iter().chain(argv));
    command.stdout(output).stderr(errors);
    let mut watch = CoreWatch::start(watched)?;
    let mut group = Group::spawn(&mut command)?;
    // It warms up before, and lets its connections end afterwards.
    let limit = Duration::from_secs(seconds.into()) + 2 * LIMIT;
    let status = stage.interrupt.wait("the generator's end", limit, || {
        watch.look()?;
        group.try_wait()
    })?;
    Ok((status, watch.median_percent()))
}

/// Are the figures in doubt? Nothing when there are none.
fn judge(status: ExitStatus) -> Option<bool> {
    match status.code() {
        Some(0) => Some(false),
        Some(IN_DOUBT) => Some(true),
        _ => None,
    }
}

/// What is wrong, by the report; by the exit status alone when the report is silent.
fn problems(report: &Report, in_doubt: bool) -> Result<Vec<String>> {
    let verdict = report.at("/verdict")?;
    let mut problems: Vec<String> =
        Deserialize::deserialize(&verdict["problems"]).context("the verdict's problems")?;
    if problems.is_empty() && (in_doubt || verdict["ok"] != true) {
        problems.push("the generator's verdict is not good, and names no reason".to_owned());
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::super::report::tests::{fake, report};
    use super::*;

    #[test]
    fn only_a_run_without_figures_is_a_failure() {
        // A wait status holds the exit code in its second byte, and the signal in its first.
        let judged = [0, 3 << 8, 1 << 8, 2 << 8, 9].map(|raw| judge(ExitStatus::from_raw(raw)));
        assert_eq!(judged, [Some(false), Some(true), None, None, None]);
    }

    #[test]
    fn a_doubtful_run_says_why() {
        let mut value = fake(1, 1.0);
        assert!(problems(&report(&value).unwrap(), false).unwrap().is_empty());
        assert_eq!(problems(&report(&value).unwrap(), true).unwrap().len(), 1);
        value["verdict"] = serde_json::json!({"ok": false, "problems": ["the generator was the limit"]});
        assert_eq!(problems(&report(&value).unwrap(), true).unwrap(), ["the generator was the limit"]);
    }
}
