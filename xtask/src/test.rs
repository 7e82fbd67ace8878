//! `cargo xtask test`: every test there is.

use anyhow::Result;
use synmill_lab::{Interrupt, cargo, prerequisites};

use crate::ebpf;

/// Runs every test; the runners' own lines are the report.
pub(crate) fn run() -> Result<()> {
    prerequisites::root("test")?;
    let interrupt = Interrupt::install()?;
    prerequisites::ensure(&interrupt, &[prerequisites::BUILD, prerequisites::LAB, prerequisites::TESTS])?;
    tests(&interrupt)
}

/// The tests themselves, on a machine that has what they need.
pub(crate) fn tests(interrupt: &Interrupt) -> Result<()> {
    ebpf::run(true)?;
    // What two threads touch, with atomics that a model checker watches.
    let model = ["test", "--package", "synmill-engine", "--features", "model", "--test", "model"];
    interrupt.run(&mut cargo(model))?;
    interrupt.run(&mut cargo(["test", "--workspace", "--no-fail-fast"]))
}
