//! Runs the commands of the pages in the lab, as a reader with two terminals does.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use synmill_lab::{Interrupt, Lab, Process, Side, target, workspace};

use super::commands::{self, NIC, Way, way};
use super::page::Page;

/// The command that a page may take for granted.
const LAB_UP: &str = "cargo xtask lab up";
/// Longest time for a command: the first one may build everything.
const LIMIT: Duration = Duration::from_secs(20 * 60);
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
                Way::Serve => serving.take().map_or(Ok(()), stop).and_then(|()| {
                    serving = Some(serve(text)?);
                    Ok(())
                }),
            };
            result.with_context(|| format!("{}:{}", page.path.display(), command.line))?;
        }
        serving.map_or(Ok(()), stop)?;
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
    interrupt.check()?;
    let mut command = Process::start(shell(text).process_group(0))?;
    command.patience = LIMIT;
    let status = command.end()?;
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

/// Starts a responder in the background, and waits until it is ready.
fn serve(text: &str) -> Result<Process> {
    // In the shell's place the responder gets the signal that ends it.
    let mut responder = Process::spawn_printing(shell(&format!("exec {text}")).process_group(0))?;
    responder.until_line("ready")?;
    Ok(responder)
}

/// Ends a responder as a service manager does: its accounts must close.
fn stop(mut responder: Process) -> Result<()> {
    if responder.status()?.is_none() {
        responder.signal(Signal::SIGTERM)?;
    }
    check(responder.end()?, false)
}
