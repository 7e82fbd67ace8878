//! The tests' stage: processes at both ends of the lab, their reports, and the host.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{
    Lab, Output, Process, Run, SERVER_V4, SERVER_V6, SOURCES_V4, SOURCES_V6, Side, Synmill, Words, until,
};
use synmill_vm::guest::{Message, Plan, Row, Version, WAIT};

use crate::report::Reporter;

/// A test: its name and its function.
pub(crate) type Test = (&'static str, fn(&mut Stage<'_>) -> Result<()>);

/// Lines of each process's output that a failed test prints.
const TAIL: usize = 20;
/// The folder of the reports of processes.
const FOLDER: &str = "/tmp";
/// The file that `Stage::fetch` writes.
const FETCHED: &str = "/tmp/fetched";
/// The option for a listener at port 80 of the server's IPv4 address.
pub(crate) const LISTEN_V4: &str = "--listen 198.18.0.2:80";
/// The options for listeners at port 80 of both of the server's addresses.
pub(crate) const LISTEN: &str = "--listen 198.18.0.2:80 --listen [fd00:18::2]:80";

/// The stage of all tests: the lab over the two NICs, and the host's plan.
pub(crate) struct Stage<'a> {
    pub(crate) lab: Lab,
    pub(crate) plan: Plan,
    pub(crate) kernel: Version,
    reporter: &'a Reporter,
    /// Words for the line of the running test.
    notes: Vec<String>,
    /// The processes of the running test, and their output.
    journal: RefCell<Vec<(String, Output)>>,
}

impl<'a> Stage<'a> {
    pub(crate) fn new(plan: Plan, lab: Lab, reporter: &'a Reporter) -> Result<Self> {
        let path = "/proc/sys/kernel/osrelease";
        let kernel = Version::of(&fs::read_to_string(path).context(path)?)?;
        Ok(Self { lab, plan, kernel, reporter, notes: Vec::new(), journal: RefCell::default() })
    }

    /// Clears the notes and the journal for the next test.
    pub(crate) fn begin(&mut self) {
        self.notes.clear();
        self.journal.borrow_mut().clear();
    }

    /// Adds a few words to the test's line.
    pub(crate) fn note(&mut self, words: impl Into<String>) {
        self.notes.push(words.into());
    }

    /// Returns the words for the test's line.
    pub(crate) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the last lines of each process of this test.
    pub(crate) fn tails(&self) -> String {
        let mut text = String::new();
        for (command, output) in &*self.journal.borrow() {
            let said = output.said();
            let lines: Vec<&str> = said.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
            text.push_str(&format!("--- {command}\n{tail}\n"));
        }
        text
    }

    /// Sends a command to QEMU's monitor, which executes it some time later.
    pub(crate) fn monitor(&self, command: &str) -> Result<()> {
        self.reporter.tell(&Message::Monitor(command.to_owned()))
    }

    /// Reports a row of the table of modes.
    pub(crate) fn row(&self, row: Row) -> Result<()> {
        self.reporter.tell(&Message::Row(row))
    }

    /// Returns whether the driver should have this mode.
    pub(crate) fn grants(&self, mode: &str) -> bool {
        match mode {
            "zerocopy" => self.plan.driver.has_zero_copy(self.kernel),
            "copy" => self.plan.driver.has_native_xdp(),
            _ => true,
        }
    }

    /// Returns the best mode that the driver should have.
    pub(crate) fn best(&self) -> &'static str {
        ["zerocopy", "copy"].into_iter().find(|mode| self.grants(mode)).unwrap_or("skb")
    }

    /// Returns the standard output of a command at an end of the lab, which must succeed.
    pub(crate) fn ask(&self, side: Side, command: &(impl Words + ?Sized)) -> Result<String> {
        self.lab.output(side, command)
    }

    /// Fetches a URL with busybox's wget, over the kernel's TCP at the client's end.
    pub(crate) fn fetch(&self, url: &str) -> Result<Vec<u8>> {
        let _ = fs::remove_file(FETCHED);
        let limit = WAIT.as_secs();
        self.ask(Side::Client, &format!("timeout {limit} busybox wget -q -O {FETCHED} {url}"))?;
        fs::read(FETCHED).context(FETCHED)
    }

    /// Starts a process at an end of the lab. A failed test prints its last lines.
    pub(crate) fn spawn(&self, side: Side, command: &str) -> Result<Process> {
        let mut process = Process::spawn(&mut self.lab.exec(side, command.words()))?;
        process.patience = WAIT;
        self.journal.borrow_mut().push((command.to_owned(), process.output()));
        Ok(process)
    }

    /// Starts `synmill COMMAND` with these options at an end of the lab, on cores that the other end uses last.
    fn synmill(&self, side: Side, command: &str, options: &str) -> Result<Synmill> {
        // Some drivers take the link down when a program is detached: the last synmill may have done that.
        self.lab.wait_running(side)?;
        let (cores, workers) = (cores(side)?, self.workers()?);
        let mut line = format!("synmill {command} --cores {cores}");
        // By default synmill starts a worker for each queue, however few the cores.
        if workers != u64::from(self.plan.queues) && !options.contains("--queues") {
            line += &format!(" --workers {workers}");
        }
        line += &format!(" {options}");
        let report = Path::new(FOLDER).join(format!("{command}.json"));
        let mut synmill = Synmill::start(&self.lab, side, &line.words(), &report)?;
        synmill.process.patience = WAIT;
        self.journal.borrow_mut().push((line, synmill.process.output()));
        Ok(synmill)
    }

    /// Returns the number of workers of either end: one for each queue, up to the number of cores.
    pub(crate) fn workers(&self) -> Result<u64> {
        Ok(u64::from(self.plan.queues).min(own_cores()?.len() as u64))
    }

    /// Runs `synmill serve` with options that it must refuse, and returns its error: one line, with exit status 1.
    pub(crate) fn refusal(&self, options: &str) -> Result<String> {
        let run = self.start(options)?.end()?;
        ensure!(run.status.code() == Some(1), "refused with {}: {}", run.status, run.said);
        ensure!(run.said.lines().count() == 1, "refused with more than a line: {}", run.said);
        Ok(run.said)
    }

    fn start(&self, options: &str) -> Result<Synmill> {
        // Emulated cores need some time for a table of a million connections.
        self.synmill(Side::Server, "serve", &format!("--max-connections 10K {options}"))
    }

    /// Starts `synmill serve` with these options at the server's end, and waits until it is ready.
    pub(crate) fn serve(&self, options: &str) -> Result<Synmill> {
        let mut serve = self.start(options)?;
        serve.process.until_line("ready")?;
        Ok(serve)
    }

    /// Starts `synmill bench` with these options at the client's end, towards port 80 of the server's address of an IP version.
    pub(crate) fn bench(&self, version: u8, options: &str) -> Result<Synmill> {
        let towards = match version {
            4 => format!("--target {SERVER_V4}:80 --source {SOURCES_V4}"),
            _ => format!("--target [{SERVER_V6}]:80 --source {SOURCES_V6}"),
        };
        self.synmill(Side::Client, "bench", &format!("{towards} {options}"))
    }
}

/// Returns the cores that this process may run on.
fn own_cores() -> Result<Vec<usize>> {
    Ok(core_affinity::get_core_ids().context("no cores")?.into_iter().map(|core| core.id).collect())
}

/// Returns the cores for `--cores`. The two ends have them in opposite orders, so with one queue each end has its own core.
fn cores(side: Side) -> Result<String> {
    let mut cores = own_cores()?;
    if side == Side::Client {
        cores.reverse();
    }
    Ok(cores.iter().map(usize::to_string).collect::<Vec<_>>().join(","))
}

/// Waits for a condition, as long as emulated cores may need.
pub(crate) fn until_true(what: &str, condition: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, WAIT, condition)
}

/// Returns the drops of a run, and the losses of its rings.
fn losses(run: &Run) -> Result<Vec<String>> {
    let drops = run.at("/drops")?.as_object().context("drops")?;
    let rings = ["rx_ring_full", "fill_ring_empty", "rx_dropped", "tx_invalid", "in_errs"];
    let mut losses = Vec::new();
    for name in rings.into_iter().chain(drops.keys().map(String::as_str)) {
        let count = run.count(name)?;
        if count > 0 {
            losses.push(format!("{name} {count}"));
        }
    }
    Ok(losses)
}

/// Checks that both ends account for the same connections, and returns their number. All were opened and established, each end has
/// received every segment that the other sent, no connection failed, and nothing was lost. Emulated cores are late: a retransmission
/// is no loss as long as both copies arrived.
pub(crate) fn alike(serve: &[&Run], bench: &[&Run]) -> Result<u64> {
    let sum = |runs: &[&Run], names: &[&str]| -> Result<u64> {
        runs.iter().flat_map(|run| names.iter().map(|name| run.count(name))).sum()
    };
    let retransmitted = sum(serve, &["retrans_segs"])? + sum(bench, &["retrans_segs"])?;
    for (end, runs) in [("serve", serve), ("bench", bench)] {
        for run in runs {
            let mut losses = losses(run)?;
            // The second copy may come after the end of its connection.
            losses.retain(|loss| retransmitted == 0 || !loss.starts_with("drop_no_connection "));
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
    for run in bench {
        let failed = run.at("/connections/failed")?.as_object().context("failed")?;
        ensure!(failed.values().all(|count| count.as_u64() == Some(0)), "connections failed: {failed:?}");
    }
    for run in serve {
        ensure!(run.count("/connections/held")? == 0, "connections are held by serve after its end");
    }
    Ok(opened)
}
