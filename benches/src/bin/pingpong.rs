//! Prints the round trip of a cache line between two cores, in ns.

use anyhow::{Context as _, Result};
use clap::Parser;
use synmill_benches::pingpong::cache_line_round_trip;

/// Prints the round trip of a cache line between two cores, in nanoseconds: the state of the host
#[derive(Parser)]
#[command(name = "synmill-pingpong", version)]
struct Arguments {
    /// One core
    #[arg(default_value_t = 0)]
    core_a: usize,
    /// Another
    #[arg(default_value_t = 1)]
    core_b: usize,
}

fn main() -> Result<()> {
    let Arguments { core_a, core_b } = Arguments::parse();
    let median = cache_line_round_trip(core_a, core_b)
        .with_context(|| format!("{core_a} and {core_b} are not two cores that this process may run on"))?;
    println!("{}", median.as_nanos());
    Ok(())
}
