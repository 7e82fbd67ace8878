//! What tests use: processes at both ends of the lab, their reports, and conditions to wait for. Knows the command line and the JSON;
//! never what is tested.

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use synmill_lab::{Lab, SERVER_V4, SERVER_V6, SOURCES_V4, SOURCES_V6, Side};
use synmill_vm::guest::{Message, Plan, Row, Version, WAIT};

use crate::report::Reporter;

/// A test: its name, and what it does.
pub(crate) type Test = (&'static str, fn(&mut Stage<'_>) -> Result<()>);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Lines of each process's output that a failed test shows.
const TAIL: usize = 20;
/// Where the reports of processes go.
const FOLDER: &str = "/tmp";
/// Where what is fetched goes.
const FETCHED: &str = "/tmp/fetched";

/// What a process has said so far, both of its outputs by lines.
type Said = Arc<Mutex<String>>;

/// The stage of every test: the lab over the two NICs, and what was planned.
pub(crate) struct Stage<'a> {
    pub(crate) lab: Lab,
    pub(crate) plan: Plan,
    pub(crate) kernel: Version,
    reporter: &'a Reporter,
    /// Words for the line of the test that is under way.
    notes: Vec<String>,
    /// Processes of this test, and what they said.
    journal: RefCell<Vec<(String, Said)>>,
}

impl<'a> Stage<'a> {
    /// The stage of all tests.
    pub(crate) fn new(plan: Plan, lab: Lab, reporter: &'a Reporter) -> Result<Self> {
        let path = "/proc/sys/kernel/osrelease";
        let kernel = Version::of(&fs::read_to_string(path).context(path)?)?;
        Ok(Self { lab, plan, kernel, reporter, notes: Vec::new(), journal: RefCell::default() })
    }

    /// Forgets the test before.
    pub(crate) fn begin(&mut self) {
        self.notes.clear();
        self.journal.borrow_mut().clear();
    }

    /// Adds a few words to the test's line.
    pub(crate) fn note(&mut self, words: impl Into<String>) {
        self.notes.push(words.into());
    }

    /// What was noted.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The last lines of each process of this test.
    pub(crate) fn tails(&self) -> String {
        let mut text = String::new();
        for (name, said) in &*self.journal.borrow() {
            text.push_str(&format!("--- {name}\n"));
            let said = said.lock().unwrap_or_else(PoisonError::into_inner);
            let lines: Vec<&str> = said.lines().collect();
            for line in &lines[lines.len().saturating_sub(TAIL)..] {
                text.push_str(&format!("{line}\n"));
            }
        }
        text
    }

    /// A command for QEMU's monitor. What it does shows here some time later.
    pub(crate) fn monitor(&self, command: &str) -> Result<()> {
        self.reporter.tell(&Message::Monitor(command.to_owned()))
    }

    /// A row of the table of modes.
    pub(crate) fn row(&self, row: Row) -> Result<()> {
        self.reporter.tell(&Message::Row(row))
    }

    /// Should the driver grant this mode?
    pub(crate) fn grants(&self, mode: &str) -> bool {
        match mode {
            "zerocopy" => self.plan.driver.has_zero_copy(self.kernel),
            "copy" => self.plan.driver.has_native_xdp(),
            _ => true,
        }
    }

    /// The best mode that the driver should have.
    pub(crate) fn best(&self) -> &'static str {
        ["zerocopy", "copy"].into_iter().find(|mode| self.grants(mode)).unwrap_or("skb")
    }

    /// What a command at an end of the lab prints; it has to succeed.
    pub(crate) fn ask(&self, side: Side, argv: &[&str]) -> Result<String> {
        self.lab.output(side, argv)
    }

    /// What busybox's wget gets with the kernel's own TCP at the client's end.
    pub(crate) fn fetch(&self, url: &str) -> Result<Vec<u8>> {
        let _ = fs::remove_file(FETCHED);
        let limit = WAIT.as_secs().to_string();
        self.ask(Side::Client, &["timeout", &limit, "busybox", "wget", "-q", "-O", FETCHED, url])?;
        fs::read(FETCHED).context(FETCHED)
    }

    /// How an XDP program is attached to an end's interface; to one that is gone there is none.
    pub(crate) fn attached(&self, side: Side) -> Result<Attached> {
        let links = self.ask(side, &["ip", "-details", "-oneline", "link"])?;
        let name = format!(" {}: ", side.interface());
        let link = links.lines().find(|line| line.contains(&name)).unwrap_or_default();
        Ok(match (link.contains("xdpgeneric"), link.contains("xdp")) {
            (true, _) => Attached::Generic,
            (_, true) => Attached::Native,
            _ => Attached::Nothing,
        })
    }

    /// Starts a process at an end of the lab. A failed test shows what it said.
    pub(crate) fn spawn(&self, side: Side, argv: &[&str]) -> Result<Process> {
        let process = Process::spawn(&mut self.lab.exec(side, argv)).with_context(|| argv.join(" "))?;
        self.journal.borrow_mut().push((argv.join(" "), Arc::clone(&process.said)));
        Ok(process)
    }

    /// Starts `synmill COMMAND` at an end of the lab, on its interface, with a report and these options, and cores that the other
    /// end uses last.
    pub(crate) fn synmill(&self, side: Side, command: &str, options: &[&str]) -> Result<Synmill> {
        // Some drivers take the link down when a program is detached: the one before may have done that.
        self.lab.wait_running(side)?;
        let report = Path::new(FOLDER).join(format!("{command}.json"));
        let _ = fs::remove_file(&report);
        let (path, cores) = (report.display().to_string(), cores(side)?);
        let workers = self.workers()?.to_string();
        let mut argv = vec!["synmill", command, "--interface", side.interface(), "--json", &path];
        argv.extend(["--cores", &cores]);
        // By itself it takes a worker for each queue, however few cores there are.
        if workers != self.plan.queues.to_string() && !options.contains(&"--queues") {
            argv.extend(["--workers", &workers]);
        }
        argv.extend(options);
        Ok(Synmill { side, report, process: self.spawn(side, &argv)? })
    }

    /// The workers of either end: one for each queue, as far as there are cores.
    pub(crate) fn workers(&self) -> Result<u64> {
        Ok(u64::from(self.plan.queues).min(own_cores()?.len() as u64))
    }

    /// What `synmill serve` says that refuses these options: one line, exit status 1, and nothing is left on its interface.
    pub(crate) fn refusal(&self, options: &[&str]) -> Result<String> {
        let mut serve = self.start(options)?;
        let status = serve.process.end()?;
        let said = serve.process.said();
        serve.end(self)?;
        ensure!(status.code() == Some(1), "refused with {status}: {said}");
        ensure!(said.lines().count() == 1, "refused with more than a line: {said}");
        Ok(said)
    }

    fn start(&self, options: &[&str]) -> Result<Synmill> {
        // A table for a million would take emulated cores a while.
        self.synmill(Side::Server, "serve", &[&["--max-connections", "10K"][..], options].concat())
    }

    /// `synmill serve` at the server's end with these options, ready.
    pub(crate) fn serve(&self, options: &[&str]) -> Result<Synmill> {
        let mut serve = self.start(options)?;
        serve.process.until_said("ready")?;
        Ok(serve)
    }

    /// `synmill bench` at the client's end with these options, under way.
    pub(crate) fn bench(&self, options: &[&str]) -> Result<Synmill> {
        self.synmill(Side::Client, "bench", options)
    }
}

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    /// There is none.
    Nothing,
    /// In the driver.
    Native,
    /// Behind it.
    Generic,
}

/// The cores that this process may run on.
fn own_cores() -> Result<Vec<usize>> {
    Ok(core_affinity::get_core_ids().context("no cores")?.into_iter().map(|core| core.id).collect())
}

/// These in an order that is the other end's backwards, as `--cores` has them: with one queue each end has its own.
fn cores(side: Side) -> Result<String> {
    let mut cores = own_cores()?;
    if side == Side::Client {
        cores.reverse();
    }
    Ok(cores.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
}

/// The options of a generator that opens connections to port 80 of the server's address of one family.
pub(crate) fn towards(version: u8) -> [String; 4] {
    let (target, source) = match version {
        4 => (format!("{SERVER_V4}:80"), SOURCES_V4),
        _ => (format!("[{SERVER_V6}]:80"), SOURCES_V6),
    };
    ["--target".into(), target, "--source".into(), source.into()]
}

/// `serve` or `bench` under way. Killed when dropped before its end.
pub(crate) struct Synmill {
    pub(crate) process: Process,
    side: Side,
    report: PathBuf,
}

impl Synmill {
    /// Asks for its end with SIGTERM, and waits for a good one.
    pub(crate) fn stop(self, stage: &Stage<'_>) -> Result<Report> {
        self.process.signal(Signal::SIGTERM)?;
        self.finish(stage)
    }

    /// Waits for a good end: accounts that close, nothing left on the interface, and all as asked but for the pace, which emulated
    /// cores may miss.
    pub(crate) fn finish(self, stage: &Stage<'_>) -> Result<Report> {
        let (status, report) = self.end(stage)?;
        let Some(report) = report else { bail!("{status}, without a report") };
        let problems = report.problems();
        ensure!(problems.is_empty(), "{status}: {}", problems.join("; "));
        ensure!(matches!(status.code(), Some(0 | 3)), "{status}, with a report");
        Ok(report)
    }

    /// Waits for its end, good or not. Nothing may be left on its interface; the report, if there is one, has accounts that close.
    pub(crate) fn end(mut self, stage: &Stage<'_>) -> Result<(ExitStatus, Option<Report>)> {
        let status = self.process.end()?;
        ensure!(
            stage.attached(self.side)? == Attached::Nothing,
            "an XDP program is left on {}",
            self.side.interface()
        );
        let Ok(text) = fs::read_to_string(&self.report) else { return Ok((status, None)) };
        let report = Report(serde_json::from_str(&text).context("its report")?);
        ensure!(report.at("/accounts/closed")? == &Value::Bool(true), "its accounts do not close: {text}");
        Ok((status, Some(report)))
    }

    /// Ends it as the kernel does when it has to.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.end().map(drop)
    }
}

/// What `--json` wrote.
#[derive(Debug)]
pub(crate) struct Report(Value);

impl Report {
    /// A value by its path, such as `/connections/established`.
    pub(crate) fn at(&self, path: &str) -> Result<&Value> {
        self.0.pointer(path).with_context(|| format!("the report has no {path}"))
    }

    /// A count by its path.
    pub(crate) fn count(&self, path: &str) -> Result<u64> {
        self.at(path)?.as_u64().with_context(|| format!("{path} of the report is no count"))
    }

    /// A text by its path.
    pub(crate) fn text(&self, path: &str) -> Result<&str> {
        self.at(path)?.as_str().with_context(|| format!("{path} of the report is no text"))
    }

    /// A counter of the endpoint by its name.
    pub(crate) fn counter(&self, name: &str) -> Result<u64> {
        self.count(&format!("/counters/{name}"))
    }

    /// What a generator's verdict holds against the run, its pace left out.
    fn problems(&self) -> Vec<&str> {
        let problems = self.0.pointer("/verdict/problems").and_then(Value::as_array);
        let problems = problems.into_iter().flatten().filter_map(Value::as_str);
        problems.filter(|problem| !problem.contains(" connections/s were established ")).collect()
    }

    /// What was dropped here, and what the rings lost.
    fn losses(&self) -> Result<Vec<String>> {
        let rings = ["rx_ring_full", "fill_ring_empty", "rx_dropped", "tx_invalid", "in_errs"];
        let mut losses = Vec::new();
        for name in rings {
            losses.push((name, self.counter(name)?));
        }
        for (name, count) in self.at("/drops")?.as_object().context("drops")? {
            losses.push((name, count.as_u64().context("a drop that is no count")?));
        }
        Ok(losses
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect())
    }
}

/// Connections that both ends account for alike: opened and established, each segment sent by one received by the other, nothing
/// lost and none failed. Emulated cores are late: what was sent again for that is no loss as long as both copies arrived.
pub(crate) fn alike(serve: &[&Report], bench: &[&Report]) -> Result<u64> {
    let sum = |reports: &[&Report], names: &[&str]| -> Result<u64> {
        reports.iter().flat_map(|report| names.iter().map(|name| report.counter(name))).sum()
    };
    let again = sum(serve, &["retrans_segs"])? + sum(bench, &["retrans_segs"])?;
    for (end, reports) in [("serve", serve), ("bench", bench)] {
        for report in reports {
            let mut losses = report.losses()?;
            // A copy may come when its connection is over.
            losses.retain(|loss| again == 0 || !loss.starts_with("drop_no_connection "));
            ensure!(losses.is_empty(), "{end} lost something: {}", losses.join(", "));
        }
    }
    let (sent, received) = (["out_segs", "retrans_segs"], ["in_segs"]);
    let opened = sum(bench, &["active_opens"])?;
    ensure!(opened > 0, "no connection was opened");
    for (what, left, right) in [
        ("connections opened", opened, sum(serve, &["passive_opens"])?),
        ("connections established", sum(bench, &["established"])?, sum(serve, &["established"])?),
        ("segments to the server", sum(bench, &sent)?, sum(serve, &received)?),
        ("segments to the client", sum(bench, &received)?, sum(serve, &sent)?),
        ("bytes to the server", sum(bench, &["out_bytes"])?, sum(serve, &["in_bytes"])?),
        ("bytes to the client", sum(bench, &["in_bytes"])?, sum(serve, &["out_bytes"])?),
    ] {
        ensure!(left == right, "{what}: {left} at bench, {right} at serve");
    }
    for report in bench {
        let failed = report.at("/connections/failed")?.as_object().context("failed")?;
        ensure!(failed.values().all(|count| count.as_u64() == Some(0)), "connections failed: {failed:?}");
    }
    for report in serve {
        ensure!(report.count("/connections/held")? == 0, "connections are held by serve after its end");
    }
    Ok(opened)
}

/// A child whose output is collected while it runs. Killed when dropped before its end.
pub(crate) struct Process {
    child: Child,
    said: Said,
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

impl Process {
    fn spawn(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let said = Said::default();
        let readers = [
            child.stdout.take().map(|pipe| collect(pipe, Arc::clone(&said))),
            child.stderr.take().map(|pipe| collect(pipe, Arc::clone(&said))),
        ];
        Ok(Self { child, said, readers: readers.into_iter().flatten().collect(), ended: None })
    }

    /// Both of its outputs so far, by lines.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("its process id")?);
        kill(pid, signal).with_context(|| format!("sending {signal}"))
    }

    /// How it ended, once it has.
    pub(crate) fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().context("waiting for a child")?;
        }
        Ok(self.ended)
    }

    /// Waits until a line of it starts with this.
    pub(crate) fn until_said(&mut self, start: &str) -> Result<()> {
        until(&format!("`{start}` is said"), WAIT, || {
            if self.said().lines().any(|line| line.starts_with(start)) {
                return Ok(true);
            }
            match self.status()? {
                Some(status) => bail!("{status} before it said `{start}`"),
                None => Ok(false),
            }
        })
    }

    /// Waits for its end, and for the last of its output.
    pub(crate) fn end(&mut self) -> Result<ExitStatus> {
        until("the process ends", WAIT, || Ok(self.status()?.is_some()))?;
        for reader in self.readers.drain(..) {
            // It panics never.
            let _ = reader.join();
        }
        self.ended.context("it has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn collect(pipe: impl Read + Send + 'static, into: Said) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut said = into.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_str(&line);
            said.push('\n');
        }
    })
}

/// Waits for a condition, but not for ever.
pub(crate) fn until(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition()? {
        ensure!(Instant::now() < deadline, "not after {limit:?}: {what}");
        thread::sleep(POLL);
    }
    Ok(())
}
