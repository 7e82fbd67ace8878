//! Child processes of the commands: shown, waited for, and ended when the command is interrupted. Never knows what they do.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::lab::shown;
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How often a child and the interrupt are looked at.
const POLL: Duration = Duration::from_millis(20);

/// Set once Ctrl-C, SIGTERM or SIGHUP has come.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes these signals over for the rest of the process: from here on, they end what is waited for with an error, and
    /// whatever has been set up is taken down on the way out.
    pub fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("installing a signal handler")?;
        }
        Ok(Self(flag))
    }

    /// Fails once the signal has come.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits until `condition` gives a value; fails at the deadline or the interrupt.
    pub fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            self.check()?;
            if let Some(value) = condition()? {
                return Ok(value);
            }
            if start.elapsed() > limit {
                bail!("{what}: not after {limit:?}");
            }
            thread::sleep(POLL);
        }
    }

    /// Runs a command to its end, its output going where ours goes.
    pub fn run(&self, command: &mut Command) -> Result<()> {
        eprintln!("+ {}", shown(command));
        let mut group = Group::spawn(command)?;
        loop {
            self.check()?;
            if let Some(status) = group.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("`{}` failed: {status}", shown(command));
            }
            thread::sleep(POLL);
        }
    }
}

/// A child in a process group of its own, so that a Ctrl-C at the terminal reaches us alone. Killed, with its children,
/// when dropped before its end.
#[derive(Debug)]
pub struct Group {
    /// The child itself.
    pub child: Child,
    ended: bool,
}

impl Group {
    /// Starts the command with nothing to read.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        Self::spawn_reading(command, Stdio::null())
    }

    /// Starts the command with this to read.
    pub fn spawn_reading(command: &mut Command, input: impl Into<Stdio>) -> Result<Self> {
        let child = command.stdin(input).process_group(0).spawn();
        let child = child.with_context(|| format!("cannot start `{}`", shown(command)))?;
        Ok(Self { child, ended: false })
    }

    /// How it ended, once it has.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait().context("waiting for a child")?;
        self.ended = status.is_some();
        Ok(status)
    }

    /// Sends a signal to the child and its children.
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

/// The cargo that runs us, for the workspace.
pub fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo says to us about this package is not meant for its next run.
    command.env_remove("CARGO_MANIFEST_DIR").current_dir(workspace()).args(arguments);
    command
}

/// Returns the workspace's root folder: the nearest one above the running package that has a lock file.
#[must_use]
pub fn workspace() -> PathBuf {
    let package = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let package = PathBuf::from(package);
    let root = package.ancestors().find(|folder| folder.join("Cargo.lock").exists());
    root.unwrap_or(&package).to_owned()
}

/// The build folder: ours is `TARGET/PROFILE/xtask`.
pub fn target() -> Result<PathBuf> {
    let own = env::current_exe().context("asking for our own path")?;
    Ok(own.ancestors().nth(2).context("our own path is too short")?.to_owned())
}
