//! The end of a command by a signal: what it waits for fails, so that everything it has set up is taken down.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::command::shown;
use crate::process::Process;
use crate::wait::{INTERRUPTED, check_interrupt, wait};

/// The proof that Ctrl-C, SIGTERM and SIGHUP end this program's waits instead of the program itself.
#[derive(Clone, Debug)]
pub struct Interrupt(());

impl Interrupt {
    /// Takes these signals over for the rest of the process.
    ///
    /// # Errors
    /// The kernel refuses the signal handler.
    pub fn install() -> Result<Self> {
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let flag = Arc::clone(&INTERRUPTED);
            signal_hook::flag::register(signal, flag).context("installing a signal handler")?;
        }
        Ok(Self(()))
    }

    /// Fails if a signal has come.
    ///
    /// # Errors
    /// A signal has come.
    pub fn check(&self) -> Result<()> {
        check_interrupt()
    }

    /// Waits until `condition` yields a value, and returns it.
    ///
    /// # Errors
    /// As [`wait`].
    pub fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait(what, limit, condition)
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
        process.patience = Duration::MAX;
        let status = process.end()?;
        ensure!(status.success(), "`{shown}` failed: {status}");
        Ok(())
    }
}
