//! Guests that break, to try the host's reaction. The tests run only by their full names, and never pass.

use std::fs;
use std::thread;

use anyhow::{Context as _, Result};

use crate::harness::{Stage, Test};

pub(crate) const TESTS: &[Test] = &[("break_by_oops", oops), ("break_by_hanging", hang)];

/// Breaks the kernel.
fn oops(stage: &mut Stage<'_>) -> Result<()> {
    fs::write("/proc/sysrq-trigger", "c").context("/proc/sysrq-trigger")?;
    hang(stage)
}

/// Never reports anything again.
fn hang(_: &mut Stage<'_>) -> Result<()> {
    loop {
        thread::park();
    }
}
