//! Runs the commands of the pages in the lab, as a reader with two terminals does.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use xtask::lab::{Lab, Side};

use super::commands::{self, NIC, Way, way};
use super::page::Page;
use crate::process::{Group, Interrupt, target, workspace};

/// The command that a page may take for granted.
const LAB_UP: &str = "cargo xtask lab up";
/// Longest time for a command: the first one may build everything.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Longest wait for a responder to be ready, and to end.
const SERVE_LIMIT: Duration = Duration::from_secs(30);
/// Exit statuses of synmill.
const FAILED: i32 = 1;
const NOT_AS_ASKED: i32 = 3;

/// Runs each command that no other step of CI runs, page by page.
pub(super) fn all(interrupt: &Interrupt, pages: &[Page]) -> Result<()> {
    let _down = Down;
    for page in pages {
        let mut commands = commands::of(page);
        commands.retain(|command| way(&command.text) != Way::Elsewhere);
        if commands.is_empty() {
            continue;
        }
        println!("\n== The commands of {}", page.path.display());
        // A page may end the lab, or begin with it.
        if Lab::attach(Lab::DEFAULT_PREFIX).is_err() && commands[0].text != LAB_UP {
            once(interrupt, LAB_UP)?;
        }
        let mut serving = None;
        for command in commands {
            let text = &command.text;
            println!("$ {text}");
            let result = match way(text) {
                Way::Elsewhere => Ok(()),
                Way::Refused => refused(text),
                Way::Once => once(interrupt, text),
                Way::Serve => {
                    serving.take().map_or(Ok(()), |before: Serving| before.stop(interrupt)).and_then(|()| {
                        serving = Some(Serving::start(interrupt, text)?);
                        Ok(())
                    })
                }
            };
            result.with_context(|| format!("{}:{}", page.path.display(), command.line))?;
        }
        serving.map_or(Ok(()), |last| last.stop(interrupt))?;
    }
    Ok(())
}

/// Removes the lab when dropped.
struct Down;

impl Drop for Down {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(Lab::DEFAULT_PREFIX) {
            eprintln!("{error:#}");
        }
    }
}

/// Returns the shell that runs a command in the workspace.
fn shell(text: &str) -> Command {
    let mut shell = Command::new("sh");
    // What cargo tells this program about its package is not meant for the cargo of the command.
    shell.args(["-c", text]).env_remove("CARGO_MANIFEST_DIR").current_dir(workspace());
    shell
}

/// Runs a command to its end.
fn once(interrupt: &Interrupt, text: &str) -> Result<()> {
    let mut group = Group::spawn(&mut shell(text))?;
    let status = interrupt.wait("its end", LIMIT, || group.try_wait())?;
    // A rate may be missed where other programs use the cores.
    let is_doubtful = text.contains("synmill bench ") && status.code() == Some(NOT_AS_ASKED);
    check(status, is_doubtful)
}

fn check(status: ExitStatus, passes: bool) -> Result<()> {
    if !status.success() && !passes {
        bail!("the command failed: {status}");
    }
    Ok(())
}

/// Runs a command for a NIC where there is none of its name: in the server's namespace.
fn refused(text: &str) -> Result<()> {
    let binaries = target()?.join("release");
    let path = format!("PATH={}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Lab::attach(Lab::DEFAULT_PREFIX)?
        .exec(Side::Server, ["env", "-u", "CARGO_MANIFEST_DIR", &path, "sh", "-c", text]);
    let output = command.current_dir(workspace()).stdin(Stdio::null()).output().context("starting it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let misses = said.lines().last().is_some_and(|line| line.starts_with("error: ") && line.contains(NIC));
    if output.status.code() != Some(FAILED) || !misses {
        bail!("it was to miss the interface {NIC}, and ended with {}: {said}", output.status);
    }
    Ok(())
}

/// A responder in the background.
struct Serving {
    group: Group,
    log: PathBuf,
}

impl Serving {
    /// Starts it, and waits until it is ready.
    fn start(interrupt: &Interrupt, text: &str) -> Result<Self> {
        let log = target()?.join("book-serve.log");
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        // In the shell's place it gets the signal that ends it.
        let mut shell = shell(&format!("exec {text}"));
        let mut group =
            Group::spawn(shell.stdout(file.try_clone().context("sharing the log")?).stderr(file))?;
        let ready = || {
            if let Some(status) = group.try_wait()? {
                bail!("it ended first: {status}");
            }
            Ok(fs::read_to_string(&log)?.lines().any(|line| line.starts_with("ready")).then_some(()))
        };
        let result = interrupt.wait("its `ready`", SERVE_LIMIT, ready);
        let serving = Self { group, log };
        if result.is_err() {
            serving.show();
        }
        result.map(|()| serving)
    }

    /// Ends it as a service manager does, and waits until its accounts close.
    fn stop(mut self, interrupt: &Interrupt) -> Result<()> {
        if self.group.try_wait()?.is_none() {
            self.group.signal(Signal::SIGTERM)?;
        }
        let status = interrupt.wait("the responder's end", SERVE_LIMIT, || self.group.try_wait())?;
        self.show();
        check(status, false)
    }

    /// Prints its output so far.
    fn show(&self) {
        print!("{}", fs::read_to_string(&self.log).unwrap_or_default());
    }
}
