//! The guest's first process in `cargo xtask vm`: it mounts, loads modules, runs the tests, and switches the machine off. Knows the plan;
//! never the host.

fn main() {}
