//! The `synmill` command: arguments -> configuration -> launch -> report.

fn main() {}
