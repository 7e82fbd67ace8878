//! `cargo xtask bench`: synmill beside other servers, in a lab. Knows the scenarios by name; never what makes a server fast.

mod archive;
mod counters;
pub(crate) mod generator;
mod nginx;
pub(crate) mod peer;
mod report;
mod sample;
pub(crate) mod scenario;
pub(crate) mod stage;
mod trial;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::prerequisites;
use crate::process::Interrupt;

const PREFIX: &str = "synmill-bench";
/// Longest wait for a server to start or end.
const LIMIT: Duration = Duration::from_secs(30);
/// The benchmark that is no scenario.
const NGINX: &str = "nginx";
const NGINX_QUESTION: &str = "How do synmill and nginx with one worker compare under wrk, with keep-alive and with a connection a request?";

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// A scenario of benches/scenarios, or `nginx`; without it, the list of them.
    name: Option<String>,
    /// Measurements of each case; the medians are told [default: the scenario's, mostly 5].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Length of each measurement [default: the scenario's, mostly 5].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    /// Write the medians and ratios to this file, as JSON: an array of {bench, case, value, unit}.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep no result in benches/results.
    #[arg(long)]
    no_archive: bool,
}

/// Does it, and takes everything down again.
pub(crate) fn perform(command: &Bench) -> Result<()> {
    let scenarios = scenario::all()?;
    let Some(name) = &command.name else {
        print!("{}", list(&scenarios));
        return Ok(());
    };
    let named = scenarios.iter().find(|named| named.name == *name);
    if named.is_none() && name != NGINX {
        bail!("there is no scenario `{name}`. There are:\n{}", list(&scenarios).trim_end());
    }
    prerequisites::root(&format!("bench {name}"))?;
    let interrupt = Interrupt::install()?;
    let rows = match named {
        Some(named) => trial::perform(&interrupt, named, command)?,
        None => nginx::perform(&interrupt, command.rounds.unwrap_or(5), command.seconds.unwrap_or(5))?,
    };
    if let Some(file) = &command.json {
        archive::write(file, &rows).context("writing the rows")?;
    }
    Ok(())
}

/// Every scenario with its question.
fn list(scenarios: &[scenario::Named]) -> String {
    let known = scenarios.iter().map(|named| (named.name.as_str(), named.scenario.question.as_str()));
    let mut entries: Vec<_> = known.chain([(NGINX, NGINX_QUESTION)]).collect();
    entries.sort_unstable();
    let width = entries.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    entries.iter().map(|(name, question)| format!("{name:width$}  {question}\n")).collect()
}
