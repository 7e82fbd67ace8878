//! The end of a command by a signal: what it waits for fails, so that everything it has set up is taken down.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::command::shown;
use crate::process::Process;
use crate::wait::wait;

/// A flag that Ctrl-C, SIGTERM and SIGHUP set.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes these signals over for the rest of the process.
    ///
    /// # Errors
    /// The kernel refuses the signal handler.
    pub fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("installing a signal handler")?;
        }
        Ok(Self(flag))
    }

    /// Fails if a signal has come.
    ///
    /// # Errors
    /// A signal has come.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Relaxed), "interrupted");
        Ok(())
    }

    /// Waits until `condition` yields a value, and returns it.
    ///
    /// # Errors
    /// The condition failed, yielded nothing for longer than `limit`, or a signal has come.
    pub fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait(what, limit, || {
            self.check()?;
            condition()
        })
    }

    /// Runs a command to its end, with the outputs that it is set up with.
    ///
    /// # Errors
    /// It does not start, it fails, or a signal has come; then it is killed with its children.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        let shown = shown(command);
        eprintln!("+ {shown}");
        // In a group of its own it does not receive a terminal's Ctrl-C.
        let mut process = Process::start(command.stdin(Stdio::null()).process_group(0))?;
        let status = self.wait(&format!("the end of `{shown}`"), Duration::MAX, || process.status())?;
        ensure!(status.success(), "`{shown}` failed: {status}");
        Ok(())
    }
}
