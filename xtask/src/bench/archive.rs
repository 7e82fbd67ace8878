//! Results kept: as rows for programs, and as a whole in benches/results. Knows the host and the commit; never what a figure means.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use synmill_lab::{output, workspace};

/// The folder of the results, in the workspace.
const FOLDER: &str = "benches/results";

/// A figure for programs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    pub(super) bench: String,
    pub(super) case: String,
    pub(super) value: f64,
    pub(super) unit: String,
    /// The least and the most of one round, in a lab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) range: Option<[f64; 2]>,
}

impl Row {
    pub(super) fn new(bench: &str, case: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { bench: bench.to_owned(), case: case.into(), value, unit: unit.to_owned(), range: None }
    }
}

/// Writes `value` to a file.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("writing JSON")?;
    fs::write(path, text + "\n").with_context(|| path.display().to_string())
}

/// The machine that measured.
#[derive(Debug, Serialize)]
struct Host {
    cpu_model: String,
    cores: usize,
    kernel: String,
    memory_bytes: u64,
}

impl Host {
    fn here() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).with_context(|| path.to_owned());
        let cpus = read("/proc/cpuinfo")?;
        let of_name = |name: &str| -> Vec<&str> {
            let pairs = cpus.lines().filter_map(|line| line.split_once(':'));
            pairs.filter(|(known, _)| known.trim() == name).map(|(_, value)| value.trim()).collect()
        };
        Ok(Self {
            cpu_model: of_name("model name").first().copied().unwrap_or("unknown").to_owned(),
            cores: of_name("processor").len(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            memory_bytes: memory_bytes(&read("/proc/meminfo")?).context("/proc/meminfo has no MemTotal")?,
        })
    }
}

/// Of /proc/meminfo, whose kB are 1024 bytes.
fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The tree that was measured.
#[derive(Debug, Serialize)]
struct Tree {
    /// Absent where there is no git.
    commit: Option<String>,
    /// There were changes that no commit has.
    changed: Option<bool>,
}

impl Tree {
    fn here() -> Self {
        let git =
            |arguments: &[&str]| output(Command::new("git").args(arguments).current_dir(workspace())).ok();
        Self {
            commit: git(&["rev-parse", "HEAD"]).map(|commit| commit.trim().to_owned()),
            // Results of other scenarios change nothing that is measured.
            changed: git(&["status", "--porcelain", "--", ".", &format!(":!{FOLDER}")])
                .map(|said| !said.is_empty()),
        }
    }
}

/// This moment in UTC, such as 2026-01-31T23:59:59Z.
pub(super) fn now() -> Result<String> {
    Ok(output(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"]))?.trim().to_owned())
}

/// How a scenario was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Extent {
    /// Measurements of each case.
    pub(super) rounds: u32,
    /// Length of a measurement, of each case that has none of its own.
    pub(super) seconds: u32,
    /// Measurements whose figures are in doubt.
    pub(super) in_doubt: usize,
}

/// The first line of a kept result; a line for each row follows.
#[derive(Debug, Serialize)]
struct Head<'a> {
    schema: &'static str,
    name: &'a str,
    time: &'a str,
    host: Host,
    tree: Tree,
    #[serde(flatten)]
    extent: Option<Extent>,
}

fn file(name: &str) -> PathBuf {
    workspace().join(FOLDER).join(format!("{name}.jsonl"))
}

/// Keeps a result in place of the last one of this name; returns where.
pub(super) fn keep(name: &str, time: &str, extent: Option<Extent>, rows: &[Row]) -> Result<PathBuf> {
    let head =
        Head { schema: "synmill-result/1", name, time, host: Host::here()?, tree: Tree::here(), extent };
    let mut text = serde_json::to_string(&head)? + "\n";
    for row in rows {
        text += &(serde_json::to_string(row)? + "\n");
    }
    let file = file(name);
    fs::write(&file, text).with_context(|| file.display().to_string())?;
    Ok(file)
}

/// The rows of the result that is kept of this name.
pub(super) fn kept(name: &str) -> Result<Vec<Row>> {
    let file = file(name);
    let text = fs::read_to_string(&file).with_context(|| format!("no result of `{name}` is kept"))?;
    let rows = text.lines().skip(1).map(serde_json::from_str);
    rows.collect::<Result<_, _>>().with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_keys_that_programs_read() {
        let row = serde_json::to_value([Row::new("lab", "serve", 2.5, "connections/s")]).unwrap();
        let want =
            serde_json::json!([{"bench": "lab", "case": "serve", "value": 2.5, "unit": "connections/s"}]);
        assert_eq!(row, want);
    }

    #[test]
    fn the_host_is_described() {
        assert_eq!(memory_bytes("MemFree: 1 kB\nMemTotal:       16 kB\n"), Some(16_384));
        let host = Host::here().unwrap();
        assert!(host.cores > 0 && !host.kernel.is_empty() && host.memory_bytes > 0, "{host:?}");
        let time = now().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    }
}
