//! Guests that break: what the host does then. They run only by their names, and never pass.

use std::fs;
use std::thread;

use anyhow::{Context as _, Result};

use crate::harness::{Stage, Test};

/// This file's.
pub(crate) const TESTS: &[Test] = &[("break_by_oops", oops), ("break_by_hanging", hang)];

/// The kernel breaks.
fn oops(stage: &mut Stage<'_>) -> Result<()> {
    fs::write("/proc/sysrq-trigger", "c").context("/proc/sysrq-trigger")?;
    hang(stage)
}

/// Nothing is ever reported again.
fn hang(_: &mut Stage<'_>) -> Result<()> {
    loop {
        thread::park();
    }
}
