//! `cargo xtask`: the project's own commands, one file each.

use std::path::Path;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["ebpf"] => xtask::ebpf::run(false),
        ["ebpf", "--check"] => xtask::ebpf::run(true),
        ["ebpf", "--output", path] => xtask::ebpf::write(Path::new(path)),
        _ => bail!("usage: cargo xtask ebpf [--check | --output PATH]"),
    }
}
