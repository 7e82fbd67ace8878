//! `cargo xtask test`: every test.

use anyhow::Result;
use synmill_lab::{Interrupt, cargo, prerequisites};

use crate::ebpf;

/// Installs the tests' packages, and runs every test.
pub(crate) fn run() -> Result<()> {
    prerequisites::root("test")?;
    let interrupt = Interrupt::install()?;
    prerequisites::ensure(&interrupt, &[prerequisites::BUILD, prerequisites::LAB, prerequisites::TESTS])?;
    tests(&interrupt)
}

/// Runs every test on a machine that has the tests' packages.
pub(crate) fn tests(interrupt: &Interrupt) -> Result<()> {
    ebpf::run(true)?;
    // What two threads touch, with atomics that a model checker watches.
    let model = ["test", "--package", "synmill-engine", "--features", "model", "--test", "model"];
    interrupt.run(&mut cargo(model))?;
    interrupt.run(&mut cargo(["test", "--workspace", "--no-fail-fast"]))
}
