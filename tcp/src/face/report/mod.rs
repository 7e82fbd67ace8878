//! What a run looks like: a line a second, a final table, a JSON file. Knows counters and CPU times; never where they
//! come from.
//!
//! Here is what both commands' reports are made of; [`serve`] has the responder's, [`bench`](mod@bench) the generator's,
//! [`hdr`] its log of latencies. docs/json.md has every path of the documents.

pub mod bench;
pub mod hdr;
pub mod serve;

use std::fs;

use serde::{Serialize, Serializer};

use crate::host::machine::cpu::{Cpu, TICKS_PER_S};
use crate::text::counted;
use synmill_engine::stats::Law;

pub use serve::{Connections, Interval, Report, Sampler, held};

/// Names and values in an order of their own, a map in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named(pub Vec<(String, u64)>);

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<N: Into<String>> FromIterator<(N, u64)> for Named {
    fn from_iter<I: IntoIterator<Item = (N, u64)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

/// The counters that tell of losses at the rings.
const RINGS: [&str; 9] = [
    "rx_ring_full",
    "fill_ring_empty",
    "rx_dropped",
    "tx_invalid",
    "tx_ring_full",
    "busy_poll_stalls",
    "tx_stalls",
    "no_free_frame",
    "no_transfer_record",
];

/// Counters that tell the present state: no rate can be made of them.
fn is_gauge(name: &str) -> bool {
    name.starts_with("curr_")
}

/// To one decimal.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Returns the percent of a time in `seconds` that these clock ticks are.
fn percent(after: u64, before: u64, seconds: f64) -> f64 {
    tenth(after.saturating_sub(before) as f64 / seconds * 100.0 / TICKS_PER_S as f64)
}

/// Returns how busy each worker's thread was in the `seconds` between two readings, in percent.
fn worker_percents(before: &Cpu, after: &Cpu, seconds: f64) -> Vec<f64> {
    let pairs = after.workers.iter().zip(&before.workers);
    pairs.map(|(&after, &before)| percent(after, before, seconds)).collect()
}

/// Returns how much of the `seconds` between two readings each worker's core spent in soft interrupts, in percent.
fn softirq_percents(before: &Cpu, after: &Cpu, seconds: f64) -> Vec<f64> {
    let pairs = after.cores.iter().zip(&before.cores);
    pairs.map(|(after, before)| percent(after.softirq, before.softirq, seconds)).collect()
}

/// Returns how many that is in a second; none in no time.
fn per_s(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// Returns a document in JSON, with a line's end.
///
/// # Errors
/// A number has no JSON form.
pub fn json(report: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report).map(|text| text + "\n")
}

/// What has grown, and by how much.
fn grown(
    after: impl Iterator<Item = (&'static str, u64)>,
    before: impl Iterator<Item = (&'static str, u64)>,
) -> impl Iterator<Item = (&'static str, u64)> {
    after
        .zip(before)
        .map(|((name, after), (_, before))| (name, after.saturating_sub(before)))
        .filter(|&(_, count)| count > 0)
}

/// Where it ran.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// The kernel's release.
    pub kernel: String,
    /// Cores that are online.
    pub cpus: usize,
    /// What the first of them calls itself; empty where it does not say.
    pub cpu_model: String,
}

impl Host {
    /// This machine.
    #[must_use]
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model =
            info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
        let numbered = |line: &&str| {
            line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().into(),
            cpus: read("/proc/stat").lines().filter(numbered).count(),
            cpu_model: model.map_or_else(String::new, |(_, model)| model.into()),
        }
    }
}

/// What was run, and where.
#[derive(Clone, Debug, Serialize)]
pub struct Site {
    /// The arguments, as given.
    pub command: Vec<String>,
    /// Where it ran.
    pub host: Host,
    /// The interface's name.
    pub interface: String,
    /// Its driver.
    pub driver: String,
    /// The mode in force.
    pub mode: String,
    /// The queues in use.
    pub queues: Vec<usize>,
    /// How many workers shared them.
    pub workers: usize,
}

impl Site {
    /// Mode, queues and workers, in words.
    fn rings(&self) -> String {
        let queues = counted(self.queues.len() as u64, "queue");
        let workers = counted(self.workers as u64, "worker");
        format!("mode {}, {queues}, {workers}", self.mode)
    }
}

/// One law in the report.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// What it is about.
    pub name: &'static str,
    /// What came in.
    pub left: u64,
    /// Where it went.
    pub right: u64,
    /// Whether the two agree.
    pub holds: bool,
}

impl From<Law> for Verdict {
    fn from(law: Law) -> Self {
        Self { name: law.name, left: law.left, right: law.right, holds: law.holds() }
    }
}

/// The laws, and whether all hold.
#[derive(Clone, Debug, Serialize)]
pub struct Accounts {
    /// All of them hold.
    pub closed: bool,
    /// Each of them.
    pub laws: Vec<Verdict>,
}

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_says_what_it_is() {
        let here = Host::here();
        assert!(here.cpus >= 1 && !here.kernel.is_empty());
    }
}
