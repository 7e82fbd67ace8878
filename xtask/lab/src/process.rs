//! A child process: its output, its signals and its end.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};

use crate::command::shown;
use crate::wait::{until, wait};

/// Default of [`Process::patience`].
const PATIENCE: Duration = Duration::from_secs(30);

/// A child process that is killed if it is dropped before its end.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// As one types it.
    shown: String,
    output: Output,
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
    /// Longest wait for a line or for the end; 30 s by default.
    pub patience: Duration,
}

/// The lines that a process has printed.
#[derive(Clone, Debug, Default)]
pub struct Output(Arc<Mutex<Vec<Line>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Out,
    Error,
}

#[derive(Debug)]
struct Line(Stream, String);

impl Output {
    /// Returns all lines so far, of standard output and standard error.
    #[must_use]
    pub fn said(&self) -> String {
        self.of(&[Stream::Out, Stream::Error])
    }

    fn of(&self, streams: &[Stream]) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().filter(|line| streams.contains(&line.0)).map(|line| line.1.as_str()).collect()
    }

    fn collect(&self, stream: Stream, pipe: impl Read + Send + 'static, show: bool) -> JoinHandle<()> {
        let output = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if show {
                    println!("  | {line}");
                }
                let mut lines = output.0.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push(Line(stream, line + "\n"));
            }
        })
    }
}

impl Process {
    /// Starts a command with nothing to read, and collects both of its outputs.
    ///
    /// # Errors
    /// It does not start.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        Self::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Starts a command as it is set up, and collects those of its outputs that are pipes.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(command: &mut Command) -> Result<Self> {
        Self::start_and(command, false)
    }

    /// Starts a command with nothing to read, and collects and prints both of its outputs.
    ///
    /// # Errors
    /// It does not start.
    pub fn spawn_printing(command: &mut Command) -> Result<Self> {
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start_and(piped, true)
    }

    fn start_and(command: &mut Command, show: bool) -> Result<Self> {
        let shown = shown(command);
        let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
        let output = Output::default();
        let out = child.stdout.take().map(|pipe| output.collect(Stream::Out, pipe, show));
        let error = child.stderr.take().map(|pipe| output.collect(Stream::Error, pipe, show));
        let readers = out.into_iter().chain(error).collect();
        Ok(Self { child, shown, output, readers, ended: None, patience: PATIENCE })
    }

    /// Returns its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns a handle to its output, which outlives it.
    #[must_use]
    pub fn output(&self) -> Output {
        self.output.clone()
    }

    /// Returns the lines of both outputs so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.output.said()
    }

    /// Returns the lines of its standard output so far.
    #[must_use]
    pub fn printed(&self) -> String {
        self.output.of(&[Stream::Out])
    }

    /// Sends a signal to it; to its children as well if it has a process group of its own.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a process id beyond its range")?);
        let send = if getpgid(Some(pid)) == Ok(pid) { killpg } else { kill };
        send(pid, signal).with_context(|| format!("sending {signal} to `{}`", self.shown))
    }

    /// Returns its exit status, once it has ended.
    ///
    /// # Errors
    /// The kernel does not know it.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().context("waiting for a child")?;
        }
        Ok(self.ended)
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// It has ended; the error holds its output.
    pub fn check(&mut self) -> Result<()> {
        let Some(status) = self.status()? else { return Ok(()) };
        let said = self.last_said();
        bail!("`{}` ended ({status}):\n{said}", self.shown)
    }

    /// Waits until its output as a whole fulfils `condition`.
    ///
    /// # Errors
    /// It ended before, or its patience did; then the error names `what`.
    pub fn until(&mut self, what: &str, condition: impl Fn(&str) -> bool) -> Result<()> {
        until(&format!("{what} from `{}`", self.shown), self.patience, || {
            let is_said = condition(&self.said());
            if !is_said && let Err(ended) = self.check() {
                // Its last lines may have come meanwhile.
                return if condition(&self.said()) { Ok(true) } else { Err(ended) };
            }
            Ok(is_said)
        })
    }

    /// Waits until it has said this.
    ///
    /// # Errors
    /// As [`Process::until`].
    pub fn until_said(&mut self, part: &str) -> Result<()> {
        self.until(&format!("`{part}`"), |said| said.contains(part))
    }

    /// Waits until one of its lines starts so.
    ///
    /// # Errors
    /// As [`Process::until`].
    pub fn until_line(&mut self, start: &str) -> Result<()> {
        self.until(&format!("a line `{start}`"), |said| said.lines().any(|line| line.starts_with(start)))
    }

    /// Waits for its end and for the last of its output.
    ///
    /// # Errors
    /// It is still running when its patience ends.
    pub fn end(&mut self) -> Result<ExitStatus> {
        let what = format!("the end of `{}`", self.shown);
        let status = wait(&what, self.patience, || self.status()).with_context(|| self.said())?;
        self.last_said();
        Ok(status)
    }

    /// Sends SIGTERM, waits for a good end, and returns the lines of its standard output.
    ///
    /// # Errors
    /// It fails, or is still running when its patience ends.
    pub fn stop(mut self) -> Result<String> {
        self.signal(Signal::SIGTERM)?;
        let status = self.end()?;
        ensure!(status.success(), "`{}` failed ({status}):\n{}", self.shown, self.said());
        Ok(self.printed())
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// It had ended before.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        let status = self.end()?;
        ensure!(!status.success(), "`{}` ended by itself", self.shown);
        Ok(())
    }

    /// Returns all of its output, after its end.
    fn last_said(&mut self) -> String {
        for reader in self.readers.drain(..) {
            // A reader does not panic.
            let _ = reader.join();
        }
        self.said()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.status(), Ok(None)) {
            let _ = self.signal(Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Process {
        Process::spawn(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn output_is_collected_until_the_end() {
        let mut process = sh("echo one; echo two >&2; read never; exit 3");
        assert_eq!(process.end().unwrap().code(), Some(3));
        assert_eq!(process.printed(), "one\n");
        let mut said: Vec<_> = process.said().lines().map(str::to_owned).collect();
        said.sort();
        assert_eq!(said, ["one", "two"]);
    }

    #[test]
    fn a_line_that_does_not_come_is_an_error_with_the_output() {
        let mut process = sh("echo one; exit 4");
        process.until_said("ne").unwrap();
        let error = format!("{:#}", process.until_line("ne").unwrap_err());
        assert!(error.contains("exit status: 4") && error.ends_with(":\none\n"), "{error}");
        let mut silent = sh("exec sleep 60");
        silent.patience = Duration::from_millis(20);
        assert!(silent.until_said("ready").is_err() && silent.end().is_err());
        silent.kill().unwrap();
    }

    #[test]
    fn a_process_stops_at_sigterm() {
        let mut process = sh("trap 'echo stopped; exit 0' TERM; echo ready; while :; do sleep 0.01; done");
        process.until_line("ready").unwrap();
        assert_eq!(process.stop().unwrap(), "ready\nstopped\n");
        let mut failing = sh("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done");
        failing.until_line("ready").unwrap();
        assert!(failing.stop().unwrap_err().to_string().contains("exit status: 5"));
    }

    #[test]
    fn a_dropped_process_is_killed() {
        let process = sh("exec sleep 60");
        let path = format!("/proc/{}", process.pid());
        assert!(std::path::Path::new(&path).exists());
        drop(process);
        assert!(!std::path::Path::new(&path).exists());
    }
}
