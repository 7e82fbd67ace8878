//! Commands as one types them, what they print, and the cargo that runs this program.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// The words of a command: a line of them, or a list if a word may hold a space.
pub trait Words {
    /// Returns the words in their order.
    fn words(&self) -> Vec<&str>;
}

impl Words for str {
    fn words(&self) -> Vec<&str> {
        self.split_whitespace().collect()
    }
}

impl<W: Words + ?Sized> Words for &W {
    fn words(&self) -> Vec<&str> {
        (**self).words()
    }
}

impl Words for String {
    fn words(&self) -> Vec<&str> {
        self.as_str().words()
    }
}

impl Words for [&str] {
    fn words(&self) -> Vec<&str> {
        self.to_vec()
    }
}

impl<const N: usize> Words for [&str; N] {
    fn words(&self) -> Vec<&str> {
        self.to_vec()
    }
}

impl Words for Vec<&str> {
    fn words(&self) -> Vec<&str> {
        self.clone()
    }
}

/// Runs a command to its end and returns its standard output.
///
/// # Errors
/// It does not start, or it fails; then the error holds its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    // In a group of its own it does not receive a terminal's Ctrl-C: an interrupted command still takes its lab down.
    let output = command.stdin(Stdio::null()).process_group(0).output();
    let output = output.with_context(|| format!("cannot start `{shown}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{shown}` failed ({}): {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns a command as one types it, without its program's folder.
#[must_use]
pub fn shown(command: &Command) -> String {
    let program = command.get_program();
    let name = Path::new(program).file_name().unwrap_or(program);
    let words = [name].into_iter().chain(command.get_args()).map(OsStr::to_string_lossy);
    words.collect::<Vec<_>>().join(" ")
}

/// Returns a command of the cargo that runs this program, for the workspace.
pub fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Cargo set it for this program's package.
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

/// Returns the build folder: the running program is `TARGET/PROFILE/PROGRAM`.
///
/// # Errors
/// The program's own path is unknown.
pub fn target() -> Result<PathBuf> {
    let own = env::current_exe().context("asking for the program's own path")?;
    Ok(own.ancestors().nth(2).context("the program's own path is too short")?.to_owned())
}
