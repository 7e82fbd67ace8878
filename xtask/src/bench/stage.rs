//! What every measurement stands on: a lab, a temporary folder, the binaries, the cores. Knows how they come and go; never what
//! is measured.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{Interrupt, Lab, LabOptions, Side, target};

/// Gone with all that is in it when dropped, the lab and its processes first.
pub(crate) struct Stage {
    pub(crate) lab: Lab,
    pub(crate) folder: Folder,
    pub(crate) interrupt: Interrupt,
    /// Cores that this process may run on; at least one.
    cores: Vec<usize>,
}

impl Stage {
    /// Brings up a lab of this prefix whose listeners may have long queues.
    pub(crate) fn up(interrupt: &Interrupt, prefix: &str, options: LabOptions) -> Result<Self> {
        let cores: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        ensure!(!cores.is_empty(), "the cores that this process may run on are not known");
        let stage = Self {
            folder: Folder::new()?,
            lab: Lab::up(prefix, options)?,
            interrupt: interrupt.clone(),
            cores,
        };
        for side in [Side::Client, Side::Server] {
            // A listener's queues of established and of half-open connections are cut to these.
            for limit in ["core/somaxconn", "ipv4/tcp_max_syn_backlog"] {
                let path = format!("/proc/sys/net/{limit}");
                stage.lab.inside(side, || fs::write(&path, "65535"))?.with_context(|| path.clone())?;
            }
        }
        Ok(stage)
    }

    /// Fails unless server and generator can have a core each.
    pub(crate) fn check_cores(&self) -> Result<()> {
        ensure!(self.cores.len() >= 2, "this process may run on one core: a measurement takes two");
        Ok(())
    }

    /// The generator's core: the second, and where there is only one, that.
    pub(crate) fn generator_core(&self) -> usize {
        generator_core(&self.cores)
    }

    /// So many cores for the server: the first, then those nobody else has, and the generator's when there is no other.
    pub(crate) fn server_cores(&self, count: usize) -> Result<Vec<usize>> {
        ensure!(count <= self.cores.len(), "a server on {count} cores, and there are {}", self.cores.len());
        Ok(server_cores(&self.cores, count))
    }
}

fn generator_core(cores: &[usize]) -> usize {
    cores.get(1).copied().unwrap_or(cores[0])
}

fn server_cores(cores: &[usize], count: usize) -> Vec<usize> {
    let generator = generator_core(cores);
    let (own, shared): (Vec<_>, Vec<_>) =
        cores.iter().copied().partition(|&core| core != generator || cores.len() == 1);
    own.into_iter().chain(shared).take(count).collect()
}

/// A program of ours, as `cargo build --release` left it.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    Ok(target()?.join("release").join(name))
}

/// A temporary folder.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("synmill-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_and_generator_share_a_core_only_when_they_must() {
        for (cores, count, server, generator) in [
            (&[0, 1][..], 1, &[0][..], 1),
            (&[0, 1], 2, &[0, 1], 1),
            (&[4, 5, 6, 7], 2, &[4, 6], 5),
            (&[3], 1, &[3], 3),
        ] {
            assert_eq!(server_cores(cores, count), server);
            assert_eq!(generator_core(cores), generator);
        }
    }
}
