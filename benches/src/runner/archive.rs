//! The newest result of each bench, in benches/results: the host, the commit, and the rows.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Serialize;
use synmill_benches::rows::Row;
use synmill_benches::timing::proc_bytes;
use synmill_lab::{output, workspace};

/// The folder of the results, in the workspace.
const FOLDER: &str = "benches/results";

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
        let values = |name: &'static str| {
            let pairs = cpus.lines().filter_map(|line| line.split_once(':'));
            pairs.filter(move |(known, _)| known.trim() == name).map(|(_, value)| value.trim())
        };
        Ok(Self {
            cpu_model: values("model name").next().unwrap_or("unknown").to_owned(),
            cores: values("processor").count(),
            kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            memory_bytes: proc_bytes("/proc/meminfo", "MemTotal")?,
        })
    }
}

/// The tree that was measured.
#[derive(Debug, Serialize)]
struct Tree {
    /// None without git.
    commit: Option<String>,
    /// Whether files differ from the commit. Results of other benches do not count.
    changed: Option<bool>,
}

impl Tree {
    fn here() -> Self {
        let git =
            |line: &str| output(Command::new("git").args(line.split(' ')).current_dir(workspace())).ok();
        Self {
            commit: git("rev-parse HEAD").map(|commit| commit.trim().to_owned()),
            changed: git(&format!("status --porcelain -- . :!{FOLDER}")).map(|said| !said.is_empty()),
        }
    }
}

/// How a scenario was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Extent {
    /// Measurements of each case.
    pub(super) rounds: u32,
    /// Length of a measurement, for cases without a length of their own.
    pub(super) seconds: u32,
    /// Measurements whose figures are in doubt.
    pub(super) in_doubt: usize,
}

/// The first line of a result.
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

/// Returns the time in UTC, such as 2026-01-31T23:59:59Z.
pub(super) fn now() -> Result<String> {
    Ok(output(Command::new("date").args(["--utc", "+%Y-%m-%dT%H:%M:%SZ"]))?.trim().to_owned())
}

fn file(name: &str) -> PathBuf {
    workspace().join(FOLDER).join(format!("{name}.jsonl"))
}

/// Writes a result over the older one of this bench and returns its path.
pub(super) fn keep(name: &str, time: &str, extent: Option<Extent>, rows: &[Row]) -> Result<PathBuf> {
    let schema = "synmill-result/1";
    let head = Head { schema, name, time, host: Host::here()?, tree: Tree::here(), extent };
    let mut lines = vec![serde_json::to_string(&head)?];
    for row in rows {
        lines.push(serde_json::to_string(row)?);
    }
    let file = file(name);
    fs::write(&file, lines.join("\n") + "\n").with_context(|| file.display().to_string())?;
    Ok(file)
}

/// Returns the rows of a bench's result.
pub(super) fn kept(name: &str) -> Result<Vec<Row>> {
    let file = file(name);
    let text =
        fs::read_to_string(&file).with_context(|| format!("benches/results has no result of `{name}`"))?;
    let rows = text.lines().skip(1).map(serde_json::from_str);
    rows.collect::<Result<_, _>>().with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_described() {
        let host = Host::here().unwrap();
        assert!(host.cores > 0 && !host.kernel.is_empty() && host.memory_bytes > 0, "{host:?}");
        let time = now().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    }
}
