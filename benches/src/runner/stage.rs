//! The stage of a measurement: a lab, a temporary folder, the programs, and the cores.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use synmill_benches::scratch::Folder;
use synmill_lab::{Interrupt, Lab, LabOptions, Side, target};

/// Longest wait for a program to start or end.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// A lab and its surroundings. Dropping it removes the lab with its processes first, then the folder.
pub(super) struct Stage {
    pub(super) lab: Lab,
    pub(super) folder: Folder,
    pub(super) interrupt: Interrupt,
    /// The cores that this process may run on; at least one.
    cores: Vec<usize>,
}

impl Stage {
    /// Builds a lab of this prefix, whose listeners may have long queues.
    pub(super) fn up(interrupt: &Interrupt, prefix: &str, options: LabOptions) -> Result<Self> {
        let cores: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        ensure!(!cores.is_empty(), "the kernel does not say on which cores this process may run");
        let (folder, interrupt) = (Folder::new("bench")?, interrupt.clone());
        let stage = Self { folder, lab: Lab::up(prefix, options)?, interrupt, cores };
        for side in [Side::Client, Side::Server] {
            // They limit a listener's queues of established and of half-open connections.
            for limit in ["core/somaxconn", "ipv4/tcp_max_syn_backlog"] {
                let path = format!("/proc/sys/net/{limit}");
                stage.lab.inside(side, || fs::write(&path, "65535"))?.with_context(|| path.clone())?;
            }
        }
        Ok(stage)
    }

    /// Fails unless server and client can have a core each.
    pub(super) fn check_cores(&self) -> Result<()> {
        ensure!(self.cores.len() >= 2, "a measurement needs two cores, and this process may run on one");
        Ok(())
    }

    /// Returns the client's core: the second one, or the only one.
    pub(super) fn client_core(&self) -> usize {
        client_core(&self.cores)
    }

    /// Returns `count` cores for the server; the client's core comes last.
    pub(super) fn server_cores(&self, count: usize) -> Result<Vec<usize>> {
        let all = self.cores.len();
        ensure!(count <= all, "the server needs {count} cores, and this process may run on {all}");
        Ok(server_cores(&self.cores, count))
    }

    /// Returns the path of a report, and removes an older report there.
    pub(super) fn report(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.file(name);
        if path.exists() {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        Ok(path)
    }
}

fn client_core(cores: &[usize]) -> usize {
    cores.get(1).copied().unwrap_or(cores[0])
}

fn server_cores(cores: &[usize], count: usize) -> Vec<usize> {
    let client = client_core(cores);
    let (own, shared): (Vec<_>, Vec<_>) = cores.iter().partition(|&&core| core != client || cores.len() == 1);
    own.into_iter().chain(shared).take(count).collect()
}

/// Returns a list such as `0,1`.
pub(super) fn listed(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Returns the words of `command` behind those that pin it to the cores.
pub(super) fn pinned(cores: &[usize], command: Vec<OsString>) -> impl Iterator<Item = OsString> {
    ["taskset", "--cpu-list", &listed(cores)].map(OsString::from).into_iter().chain(command)
}

/// Returns the path of a program of this workspace in its release build.
pub(super) fn binary(name: &str) -> Result<PathBuf> {
    Ok(target()?.join("release").join(name))
}

/// Returns the words of a command whose first one is a program of this workspace.
pub(super) fn program(line: &str) -> Result<Vec<OsString>> {
    let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
    Ok([binary(name)?.into()].into_iter().chain(rest.split_whitespace().map(OsString::from)).collect())
}

/// Reads a JSON document.
pub(super) fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_generator_share_a_core_only_when_they_must() {
        for (cores, count, server, client) in [
            (&[0, 1][..], 1, &[0][..], 1),
            (&[0, 1], 2, &[0, 1], 1),
            (&[4, 5, 6, 7], 2, &[4, 6], 5),
            (&[3], 1, &[3], 3),
        ] {
            assert_eq!(server_cores(cores, count), server);
            assert_eq!(client_core(cores), client);
        }
    }

    #[test]
    fn cores_are_listed() {
        assert_eq!(listed(&[0, 2]), "0,2");
    }
}
