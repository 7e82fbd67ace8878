//! The bench runner's processes; it goes when the runner uses `Process`.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::command::shown;

/// A child in a process group of its own, killed with its children when dropped before its end.
#[derive(Debug)]
pub struct Group {
    /// The child itself.
    pub child: Child,
    ended: bool,
}

impl Group {
    /// Starts the command with nothing to read.
    ///
    /// # Errors
    /// It does not start.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        let child = child.with_context(|| format!("cannot start `{}`", shown(command)))?;
        Ok(Self { child, ended: false })
    }

    /// How it ended, once it has.
    ///
    /// # Errors
    /// The kernel does not know it.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait().context("waiting for a child")?;
        self.ended = status.is_some();
        Ok(status)
    }

    /// Sends a signal to the child and its children.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).context("a process id beyond its range")?;
        killpg(Pid::from_raw(id), signal).context("signalling a child")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}
