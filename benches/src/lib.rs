//! What the benchmarks share, and the parts of the peers that need no kernel.

pub mod callgrind;
pub mod engine;
pub mod numbered;
pub mod pingpong;
pub mod reflect;
pub mod request;
pub mod rings;
pub mod rows;
pub mod scratch;
pub mod timing;

use anyhow::{Context as _, Result, bail};

/// Fails unless this process may run on each of `cores`, and each is named once.
///
/// # Errors
/// Which one it is.
pub fn check_cores(cores: &[usize]) -> Result<()> {
    let allowed =
        core_affinity::get_core_ids().context("the kernel does not say on which cores we may run")?;
    for (place, core) in cores.iter().enumerate() {
        if !allowed.iter().any(|id| id.id == *core) {
            let allowed: Vec<String> = allowed.iter().map(|id| id.id.to_string()).collect();
            bail!("core {core} cannot be had: there are {}", allowed.join(","));
        }
        if cores[..place].contains(core) {
            bail!("core {core} is named twice");
        }
    }
    Ok(())
}
