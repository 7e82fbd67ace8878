//! Results kept: as rows for programs, and as a whole in benches/results. Knows the host and the commit; never what a figure means.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

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
}

impl Row {
    pub(super) fn new(bench: &str, case: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { bench: bench.to_owned(), case: case.into(), value, unit: unit.to_owned() }
    }
}

/// Writes `value` to a file.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("writing JSON")?;
    fs::write(path, text + "\n").with_context(|| path.display().to_string())
}

/// The machine that measured.
#[derive(Debug, Serialize)]
pub(super) struct Host {
    cpu_model: String,
    cores: usize,
    kernel: String,
    memory_bytes: u64,
    /// Of a cache line's way from core to core and back, in ns: the least, the median and the most while it measured. Absent where
    /// one core did all.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_line_ns: Option<[f64; 3]>,
}

impl Host {
    pub(super) fn here(cache_line_ns: Option<[f64; 3]>) -> Result<Self> {
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
            cache_line_ns,
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
pub(super) struct Tree {
    /// Absent where there is no git.
    commit: Option<String>,
    /// There were changes that no commit has.
    changed: Option<bool>,
}

impl Tree {
    pub(super) fn here() -> Self {
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

/// A result that is rows alone.
#[derive(Debug, Serialize)]
struct OfRows<'a> {
    schema: &'static str,
    name: &'a str,
    time: &'a str,
    host: Host,
    tree: Tree,
    rows: &'a [Row],
}

/// Keeps rows with the host and the tree; returns where.
pub(super) fn keep_rows(name: &str, time: &str, rows: &[Row]) -> Result<PathBuf> {
    let (host, tree) = (Host::here(None)?, Tree::here());
    keep(name, time, &OfRows { schema: "synmill-rows/1", name, time, host, tree, rows })
}

/// What of a kept result is read again.
#[derive(Deserialize)]
struct Kept {
    rows: Vec<Row>,
}

/// The rows of the newest result that is kept of this name.
pub(super) fn newest(name: &str) -> Result<Vec<Row>> {
    let folder = workspace().join(FOLDER).join(name);
    let entries = fs::read_dir(&folder).with_context(|| format!("no result of `{name}` is kept"))?;
    let files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    // Their names are times.
    let file = files.iter().max().with_context(|| format!("no result of `{name}` is kept"))?;
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let kept: Kept = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
    Ok(kept.rows)
}

/// Keeps a result of a scenario under the time that it has; returns where.
pub(super) fn keep(scenario: &str, time: &str, result: &impl Serialize) -> Result<PathBuf> {
    let folder = workspace().join(FOLDER).join(scenario);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let file = folder.join(format!("{}.json", time.replace(':', "")));
    write(&file, result)?;
    Ok(file)
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
        let host = Host::here(Some([50.0, 60.0, 330.0])).unwrap();
        assert!(host.cores > 0 && !host.kernel.is_empty() && host.memory_bytes > 0, "{host:?}");
        let time = now().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    }
}
