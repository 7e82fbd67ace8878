//! `cargo xtask bench`: measures the engine in memory, and synmill beside other servers in a lab.

mod archive;
mod client;
mod counters;
mod demonstration;
mod figures;
mod in_memory;
mod plot;
mod report;
mod scenario;
mod server;
mod stage;
mod trial;
mod wrk;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use synmill_benches::rows::{Row, write_file};
use synmill_lab::{Interrupt, cargo, prerequisites};

use self::archive::Extent;
use self::figures::Column;
use self::in_memory::InMemory;
use self::scenario::Scenario;

/// The last part of `cargo xtask run`, which is no bench.
const DEMONSTRATION: &str = "demonstration";

/// Measures the engine in memory, or synmill beside other servers in a lab, which takes root. Without a name: lists the benches.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench")]
struct Arguments {
    /// A bench in memory, or a scenario of benches/scenarios
    name: Option<String>,
    /// Measurements of each case, whose medians are printed [default: the scenario's, mostly 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Length of each measurement [default: the scenario's, mostly 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
    /// Write the medians and ratios to this file, as JSON: an array of {bench, case, value, unit}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer and smaller cases, or one round of a second, to see that it works; keeps no result
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,
    /// Keep no result in benches/results, and draw no plot
    #[arg(long)]
    no_archive: bool,
    /// Measure nothing: draw the plot in docs/plots from the kept result
    #[arg(long, conflicts_with_all = ["rounds", "seconds", "quick", "no_archive"])]
    redraw: bool,
}

/// A bench.
#[derive(Clone, Copy)]
enum Known<'a> {
    InMemory(&'a InMemory),
    Scenario(&'a Scenario),
}

fn main() -> ExitCode {
    match perform(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(arguments: &Arguments) -> Result<()> {
    let scenarios = scenario::all()?;
    let Some(name) = &arguments.name else {
        print!("{}", list(&scenarios));
        return Ok(());
    };
    if name == DEMONSTRATION {
        return demonstration::perform(&Interrupt::install()?);
    }
    let Some(known) = find(name, &scenarios) else {
        bail!("there is no bench `{name}`. There are:\n{}", list(&scenarios).trim_end());
    };
    let keeps = !(arguments.no_archive || arguments.quick || arguments.redraw);
    let rows = if arguments.redraw {
        archive::kept(name)?
    } else {
        let time = archive::now()?;
        let (extent, rows) = measure(known, arguments)?;
        if keeps {
            println!("Kept: {}", archive::keep(name, &time, extent, &rows)?.display());
        }
        rows
    };
    if let Some(file) = &arguments.json {
        write_file(file, &rows).context("writing the rows")?;
    }
    if keeps || arguments.redraw {
        let units = match known {
            Known::InMemory(InMemory { plots: [], .. }) => plot::units(&rows),
            Known::InMemory(bench) => bench.plots.to_vec(),
            Known::Scenario(scenario) => scenario.plotted().map(Column::unit).collect(),
        };
        if let Some(file) = plot::draw(name, &units, &rows)? {
            println!("Drawn: {}", file.display());
        }
    }
    Ok(())
}

fn find<'a>(name: &str, scenarios: &'a [Scenario]) -> Option<Known<'a>> {
    let in_memory = in_memory::ALL.iter().find(|bench| bench.name == name).map(Known::InMemory);
    in_memory.or_else(|| scenarios.iter().find(|scenario| scenario.name == name).map(Known::Scenario))
}

fn measure(known: Known<'_>, arguments: &Arguments) -> Result<(Option<Extent>, Vec<Row>)> {
    let &Arguments { rounds, seconds, quick, .. } = arguments;
    match known {
        Known::InMemory(bench) => {
            let name = bench.name;
            ensure!(rounds.or(seconds).is_none(), "`{name}` is in memory: it has no --rounds and --seconds");
            Ok((None, in_memory::measure(&Interrupt::install()?, bench, quick)?))
        }
        Known::Scenario(scenario) => {
            prerequisites::root(&format!("bench {}", scenario.name))?;
            let interrupt = Interrupt::install()?;
            let rivals = if scenario.has_rivals() { prerequisites::BENCH } else { &[] };
            prerequisites::ensure(&interrupt, &[prerequisites::LAB, prerequisites::PEERS, rivals])?;
            println!("\n== The build");
            let packages = ["--package", "synmill", "--package", "synmill-benches"];
            interrupt.run(cargo(["build", "--release", "--bins"]).args(packages))?;
            let quick = quick.then_some(1);
            let rounds = quick.or(rounds).unwrap_or(scenario.rounds);
            let (extent, rows) = trial::perform(&interrupt, scenario, rounds, quick.or(seconds))?;
            Ok((Some(extent), rows))
        }
    }
}

/// Returns every bench with its question.
fn list(scenarios: &[Scenario]) -> String {
    let in_lab = scenarios.iter().map(|scenario| (scenario.name.as_str(), scenario.question.as_str()));
    let in_lab: Vec<_> = in_lab.collect();
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
        for Scenario { name, .. } in &scenarios {
            assert!(
                name != DEMONSTRATION && !in_memory::ALL.iter().any(|bench| bench.name == name),
                "{name}"
            );
        }
        let listed = list(&scenarios);
        for name in ["conn_rate", "lab", "nginx"] {
            assert!(find(name, &scenarios).is_some() && listed.contains(&format!("  {name} ")), "{listed}");
        }
        assert!(find("workers", &scenarios).is_none());
    }
}
