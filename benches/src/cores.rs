//! Cores: those that this process may run on, and threads pinned to them.

use anyhow::{Context as _, Result, bail, ensure};
use core_affinity::CoreId;

/// Returns the cores that this thread may run on: at least one. A pinned thread sees its own core alone.
///
/// # Errors
/// The kernel does not say.
pub fn allowed() -> Result<Vec<usize>> {
    let cores = core_affinity::get_core_ids().filter(|cores| !cores.is_empty());
    let cores = cores.context("the kernel does not say on which cores this process may run")?;
    Ok(cores.into_iter().map(|core| core.id).collect())
}

/// Fails unless this thread may run on each of `cores`, and each is named once.
///
/// # Errors
/// The core that is wrong.
pub fn check(cores: &[usize]) -> Result<()> {
    let allowed = allowed()?;
    for (place, core) in cores.iter().enumerate() {
        if !allowed.contains(core) {
            let allowed: Vec<String> = allowed.iter().map(usize::to_string).collect();
            bail!("core {core} cannot be had: there are {}", allowed.join(","));
        }
        ensure!(!cores[..place].contains(core), "core {core} is named twice");
    }
    Ok(())
}

/// Pins this thread to a core.
///
/// # Errors
/// It may not run there.
pub fn pin(core: usize) -> Result<()> {
    let pinned = core_affinity::set_for_current(CoreId { id: core });
    ensure!(pinned, "this thread cannot be pinned to core {core}");
    Ok(())
}

/// Pins this thread to the first core that it may run on.
///
/// # Errors
/// The kernel does not say which that is, or refuses.
pub fn pin_to_first() -> Result<()> {
    pin(allowed()?[0])
}
