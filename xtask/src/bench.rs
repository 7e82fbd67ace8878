//! `cargo xtask bench`: the runner of benches, built and started.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};
use synmill_lab::{Interrupt, cargo, prerequisites};

/// Replaces this process by the runner.
pub(crate) fn perform(arguments: &[OsString]) -> Result<()> {
    prerequisites::ensure(&Interrupt::install()?, &[prerequisites::BUILD])?;
    let run = ["run", "--release", "--package", "synmill-benches", "--bin", "synmill-bench", "--"];
    // Paths among the arguments are relative to the caller's folder.
    Err(cargo(run).args(arguments).current_dir(".").exec()).context("cannot start cargo")
}
