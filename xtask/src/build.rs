//! The release build of synmill.

use std::path::PathBuf;

use anyhow::Result;
use synmill_lab::{Interrupt, cargo, target};

/// Builds the release binary and returns its path.
pub(crate) fn synmill(interrupt: &Interrupt) -> Result<PathBuf> {
    println!("\n== The build");
    interrupt.run(&mut cargo(["build", "--release", "--package", "synmill"]))?;
    Ok(target()?.join("release/synmill"))
}

/// Builds the release binary, and the peers that synmill is compared with.
pub(crate) fn with_peers(interrupt: &Interrupt) -> Result<()> {
    println!("\n== The build");
    let packages = ["--package", "synmill", "--package", "synmill-benches"];
    interrupt.run(cargo(["build", "--release", "--bins"]).args(packages))
}
