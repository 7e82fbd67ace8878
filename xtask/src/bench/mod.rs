//! `cargo xtask bench`: the engine in memory, and synmill beside other servers in a lab. Knows benches and scenarios by name; never
//! what makes one of them fast.

mod archive;
mod counters;
pub(crate) mod generator;
mod in_memory;
mod nginx;
pub(crate) mod peer;
mod plot;
mod receiver;
mod report;
mod sample;
pub(crate) mod scenario;
pub(crate) mod stage;
mod trial;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use synmill_lab::{Interrupt, prerequisites};

use self::archive::Row;
use self::in_memory::InMemory;
use self::sample::Column;

const PREFIX: &str = "synmill-bench";
/// Longest wait for a server to start or end.
const LIMIT: Duration = Duration::from_secs(30);
/// The benchmark that is no scenario.
const NGINX: &str = "nginx";
const NGINX_QUESTION: &str = "How do synmill and nginx with one worker compare under wrk, with keep-alive and with a connection a request?";

/// What to measure.
#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// A bench in memory, a scenario of benches/scenarios, or `nginx`; without it, the list of them.
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
    /// See that it works, rather than measure: fewer and smaller cases, or one round of a second. Nothing is kept.
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Keep no result in benches/results, and draw nothing.
    #[arg(long)]
    no_archive: bool,
    /// Measure nothing: draw the picture in docs/plots again, from the result that is kept.
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "quick", "no_archive"])]
    redraw: bool,
}

impl Bench {
    /// Is the result kept, and drawn?
    const fn keeps(&self) -> bool {
        !(self.no_archive || self.quick)
    }

    /// Measurements of a case, where this many are usual.
    fn rounds(&self, usual: u32) -> u32 {
        if self.quick { 1 } else { self.rounds.unwrap_or(usual) }
    }

    /// The length of each in place of the usual one, if it is to be another.
    fn seconds(&self) -> Option<u32> {
        if self.quick { Some(1) } else { self.seconds }
    }
}

/// What a name stands for.
#[derive(Clone, Copy)]
enum Known<'a> {
    InMemory(&'a InMemory),
    Scenario(&'a scenario::Named),
    Nginx,
}

/// Does it, and takes everything down again.
pub(crate) fn perform(command: &Bench) -> Result<()> {
    let scenarios = scenario::all()?;
    let Some(name) = &command.name else {
        print!("{}", list(&scenarios));
        return Ok(());
    };
    let Some(known) = find(name, &scenarios) else {
        bail!("there is no bench `{name}`. There are:\n{}", list(&scenarios).trim_end());
    };
    let rows = if command.redraw { archive::kept(name)? } else { measure(known, command)? };
    if let Some(file) = &command.json {
        archive::write(file, &rows).context("writing the rows")?;
    }
    if command.keeps() {
        let units = match known {
            Known::InMemory(InMemory { plots: [], .. }) | Known::Nginx => plot::units(&rows),
            Known::InMemory(bench) => bench.plots.to_vec(),
            Known::Scenario(named) => named.scenario.plotted().map(Column::unit).collect(),
        };
        if let Some(file) = plot::draw(name, &units, &rows)? {
            println!("Drawn: {}", file.display());
        }
    }
    Ok(())
}

fn find<'a>(name: &str, scenarios: &'a [scenario::Named]) -> Option<Known<'a>> {
    let in_memory = in_memory::ALL.iter().find(|bench| bench.name == name).map(Known::InMemory);
    let scenario = || scenarios.iter().find(|named| named.name == name).map(Known::Scenario);
    in_memory.or_else(scenario).or_else(|| (name == NGINX).then_some(Known::Nginx))
}

/// Measures, and keeps the result if that is wanted.
fn measure(known: Known<'_>, command: &Bench) -> Result<Vec<Row>> {
    let (name, rows, time) = match known {
        Known::InMemory(bench) => {
            ensure!(
                command.rounds.is_none() && command.seconds.is_none(),
                "`{}` has no rounds of seconds: it measures as long as it must",
                bench.name
            );
            let (interrupt, time) = (Interrupt::install()?, archive::now()?);
            (bench.name, in_memory::measure(&interrupt, bench, command.quick)?, time)
        }
        Known::Scenario(named) => {
            prerequisites::root(&format!("bench {}", named.name))?;
            return trial::perform(&Interrupt::install()?, named, command);
        }
        Known::Nginx => {
            prerequisites::root("bench nginx")?;
            let (interrupt, time) = (Interrupt::install()?, archive::now()?);
            let seconds = command.seconds().unwrap_or(5);
            (NGINX, nginx::perform(&interrupt, command.rounds(5), seconds)?, time)
        }
    };
    if command.keeps() {
        println!("Kept: {}", archive::keep(name, &time, None, &rows)?.display());
    }
    Ok(rows)
}

/// Every bench with its question.
fn list(scenarios: &[scenario::Named]) -> String {
    let in_lab = scenarios.iter().map(|named| (named.name.as_str(), named.scenario.question.as_str()));
    let mut in_lab: Vec<_> = in_lab.chain([(NGINX, NGINX_QUESTION)]).collect();
    in_lab.sort_unstable();
    let in_memory = in_memory::ALL.map(|bench| (bench.name, bench.question));
    let width = in_lab.iter().chain(&in_memory).map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines = |entries: &[(&str, &str)]| -> String {
        entries.iter().map(|(name, question)| format!("  {name:width$}  {question}\n")).collect()
    };
    format!("In memory, without root:\n{}In a lab, as root:\n{}", lines(&in_memory), lines(&in_lab))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bench_has_a_name_of_its_own() {
        let scenarios = scenario::all().unwrap();
        let names = scenarios.iter().map(|named| named.name.as_str()).chain([NGINX]);
        for name in names {
            assert!(!in_memory::ALL.iter().any(|bench| bench.name == name), "{name}");
        }
        let listed = list(&scenarios);
        for name in ["conn_rate", "lab", NGINX] {
            assert!(find(name, &scenarios).is_some() && listed.contains(&format!("  {name} ")), "{listed}");
        }
        assert!(find("workers", &scenarios).is_none());
    }
}
