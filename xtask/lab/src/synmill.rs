//! `synmill serve` or `synmill bench` in a lab, from its start to its report.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::command::output;
use crate::lab::{Lab, Side};
use crate::process::Process;
use crate::report::Run;

/// A running synmill, which is killed if it is dropped before its end.
#[derive(Debug)]
pub struct Synmill {
    /// The process.
    pub process: Process,
    report: PathBuf,
    namespace: String,
}

impl Synmill {
    /// Starts synmill by this command at an end of the lab, on its interface, with a report at this path.
    ///
    /// # Errors
    /// It does not start, or an older report at the path stays.
    pub fn start(lab: &Lab, side: Side, command: &[&str], report: &Path) -> Result<Self> {
        if let Err(error) = fs::remove_file(report)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("removing {}", report.display()));
        }
        let path = report.to_str().context("the report's path is no text")?;
        let argv = [command, &["--interface", side.interface(), "--json", path]].concat();
        let process = Process::spawn(&mut lab.exec(side, argv))?;
        Ok(Self { process, report: report.to_owned(), namespace: lab.namespace(side) })
    }

    /// Sends SIGTERM and waits for a good end.
    ///
    /// # Errors
    /// As [`Synmill::finish`].
    pub fn stop(self) -> Result<Run> {
        self.process.signal(Signal::SIGTERM)?;
        self.finish()
    }

    /// Waits for a good end, apart from a rate that a busy machine may miss.
    ///
    /// # Errors
    /// As [`Synmill::end`] and [`Run::fulfilled`].
    pub fn finish(self) -> Result<Run> {
        self.end()?.fulfilled()
    }

    /// Waits for the end, good or not.
    ///
    /// # Errors
    /// It does not end, an XDP program is left in its namespace, or the accounts of its report do not close.
    pub fn end(mut self) -> Result<Run> {
        let status = self.process.end()?;
        let said = self.process.said();
        // All links: its own may be gone.
        let links = output(Command::new("ip").args(["-n", &self.namespace, "-details", "-oneline", "link"]))?;
        ensure!(!links.contains("xdp"), "an XDP program is left on an interface:\n{links}\n{said}");
        let report = match fs::read_to_string(&self.report) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("the report: {text}"))?,
            Err(_) => Value::Null,
        };
        let closed = report.is_null() || report["accounts"]["closed"] == true;
        ensure!(closed, "the accounts do not close: {report}\n{said}");
        Ok(Run { status, said, report })
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// It had ended before.
    pub fn kill(self) -> Result<()> {
        self.process.kill()
    }
}
