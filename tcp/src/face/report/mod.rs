//! Reports of a run: a line a second, a final table, a JSON document.
//!
//! This file has the parts that the reports of both commands share. [`serve`] has the responder's report, [`bench`](mod@bench)
//! the generator's, and [`hdr`] the generator's log of latencies. docs/json.md lists every path of the documents.

pub mod bench;
pub mod hdr;
pub mod interval;
pub mod serve;

use std::fs;

use serde::{Serialize, Serializer};

use crate::host::launch::{Session, Taken};
use crate::text::{counted, grouped};
use synmill_engine::stats::Law;

/// Values by name, in the order in which they were inserted. In JSON they are an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named<T = u64>(pub Vec<(String, T)>);

impl<T> Named<T> {
    /// Returns the value with this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value)
    }
}

impl Named {
    /// Returns the pairs whose count is not 0.
    fn occurred(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count)).filter(|(_, count)| *count > 0)
    }

    /// Returns `NAME COUNT` for each pair.
    fn words(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, count)| format!("{name} {}", grouped(*count)))
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<N: Into<String>, T> FromIterator<(N, T)> for Named<T> {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }
}

/// Returns `NAME COUNT` for each count that is not 0, with spaces for the name's underscores.
fn words<'a>(pairs: impl IntoIterator<Item = (&'a str, u64)>) -> Vec<String> {
    let pairs = pairs.into_iter().filter(|&(_, count)| count > 0);
    pairs.map(|(name, count)| format!("{} {}", name.replace('_', " "), grouped(count))).collect()
}

/// Rounds to one decimal.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Returns a count per second; 0 if the time is 0.
fn per_s(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// Serializes a report as its JSON document, with a line feed at the end.
///
/// # Errors
/// A number has no JSON form.
pub fn json(report: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report).map(|text| text + "\n")
}

/// The machine of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Host {
    /// The kernel's release.
    pub kernel: String,
    /// Number of online cores.
    pub cpus: usize,
    /// Model name of the first core; empty where /proc/cpuinfo has none.
    pub cpu_model: String,
}

impl Host {
    /// Reads the facts of this machine from /proc.
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

/// The command of a run, its machine and its interface.
#[derive(Clone, Debug, Serialize)]
pub struct Site {
    /// The command's arguments, as the user gave them.
    pub command: Vec<String>,
    /// The machine.
    pub host: Host,
    /// The interface's name.
    pub interface: String,
    /// The interface's driver.
    pub driver: String,
    /// The AF_XDP mode in use.
    pub mode: String,
    /// The receive queues in use.
    pub queues: Vec<usize>,
    /// Number of workers that share the queues.
    pub workers: usize,
}

impl Site {
    /// Returns the site of a session.
    #[must_use]
    pub fn of(session: &Session) -> Self {
        let Taken { interface, plan, mode, .. } = &session.taken;
        Self {
            command: std::env::args().collect(),
            host: Host::here(),
            interface: interface.name.clone(),
            driver: interface.driver.clone(),
            mode: mode.clone(),
            queues: plan.workers.iter().flat_map(|place| place.queues.iter().copied()).collect(),
            workers: plan.workers.len(),
        }
    }

    /// Returns mode, queues and workers as a phrase.
    fn rings(&self) -> String {
        let queues = counted(self.queues.len() as u64, "queue");
        let workers = counted(self.workers as u64, "worker");
        format!("mode {}, {queues}, {workers}", self.mode)
    }
}

/// One account: two sums that must be equal.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    /// The account's name.
    pub name: &'static str,
    /// The sum of what came in.
    pub left: u64,
    /// The sum of where it went.
    pub right: u64,
    /// Whether the sums are equal.
    pub holds: bool,
}

/// All accounts of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Accounts {
    /// Whether every account holds.
    pub closed: bool,
    /// The accounts.
    pub laws: Vec<Account>,
}

impl FromIterator<Law> for Accounts {
    fn from_iter<I: IntoIterator<Item = Law>>(laws: I) -> Self {
        let account =
            |law: Law| Account { name: law.name, left: law.left, right: law.right, holds: law.holds() };
        let laws: Vec<Account> = laws.into_iter().map(account).collect();
        Self { closed: laws.iter().all(|law| law.holds), laws }
    }
}

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that a text has each of these parts.
    pub(super) fn has(text: &str, parts: &[&str]) {
        parts.iter().for_each(|part| assert!(text.contains(part), "{part}: {text}"));
    }

    /// Asserts that a text has none of these parts.
    pub(super) fn lacks(text: &str, parts: &[&str]) {
        parts.iter().for_each(|part| assert!(!text.contains(part), "{part}: {text}"));
    }

    #[test]
    fn this_machine_says_what_it_is() {
        let here = Host::here();
        assert!(here.cpus >= 1 && !here.kernel.is_empty());
    }
}
