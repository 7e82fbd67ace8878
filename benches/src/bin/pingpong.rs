//! Prints the round-trip time of a cache line between two cores, in nanoseconds.

use anyhow::{Context as _, Result};
use clap::Parser;
use synmill_benches::pingpong::cache_line_round_trip;

/// Prints how long a cache line takes from one core to another and back, in nanoseconds: the state the host is in
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
    let median = cache_line_round_trip(core_a, core_b).with_context(|| {
        format!("{core_a} and {core_b} have to be two cores that this process may run on")
    })?;
    println!("{}", median.as_nanos());
    Ok(())
}
