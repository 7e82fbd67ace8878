//! `cargo xtask`: the project's own commands, one file each.

fn main() {}
