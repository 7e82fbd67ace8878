//! A scenario, measured: rounds, cases in turn, the table, the archive. Knows the order of things; never how a figure is made.

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{Interrupt, output, prerequisites};

use super::archive::{self, Extent, Row};
use super::generator::{Outcome, Run};
use super::peer::{Peer, listed};
use super::sample::{Column, Ratio, Sample, Table, range};
use super::scenario::{Case, LabShape, Named, PeerKind, Scenario};
use super::stage::{Stage, binary};
use super::{Bench, PREFIX, receiver};
use crate::build;

/// One measurement.
#[derive(Debug)]
struct Measurement {
    case: String,
    values: Sample,
    /// Why the figures are in doubt.
    problems: Vec<String>,
}

/// Measures, prints and archives; returns the figures for programs.
pub(super) fn perform(interrupt: &Interrupt, named: &Named, command: &Bench) -> Result<Vec<Row>> {
    let scenario = &named.scenario;
    let mut needs = vec![prerequisites::BUILD, prerequisites::LAB, prerequisites::PEERS];
    if scenario.cases.iter().any(|case| case.peer == PeerKind::Nginx) {
        needs.push(prerequisites::BENCH);
    }
    prerequisites::ensure(interrupt, &needs)?;
    build::with_peers(interrupt)?;
    let time = archive::now()?;
    let mut trial = Trial { interrupt, scenario, seconds: command.seconds(), stage: None };
    let rounds = command.rounds(scenario.rounds);
    let table = trial.introduce(rounds)?;
    let measurements = trial.measure(&table, rounds)?;
    drop(trial);

    for Case { name, .. } in &scenario.cases {
        println!("{}", table.line(&format!("median {name}"), &median_of(name, &measurements)));
    }
    let ratios = ratios(scenario, &measurements);
    for ratio in &ratios {
        println!("{}", ratio.line());
    }
    let in_doubt = measurements.iter().filter(|measured| !measured.problems.is_empty()).count();
    if in_doubt > 0 {
        println!("{in_doubt} of {} measurements are in doubt: see their lines.", measurements.len());
    }
    let rows = rows(named, &measurements, &ratios);
    if command.keeps() {
        let seconds = command.seconds().unwrap_or(scenario.seconds);
        let extent = Extent { rounds, seconds, in_doubt };
        println!("Kept: {}", archive::keep(&named.name, &time, Some(extent), &rows)?.display());
    }
    Ok(rows)
}

/// What all measurements of a scenario share.
struct Trial<'a> {
    interrupt: &'a Interrupt,
    scenario: &'a Scenario,
    /// In place of the scenario's.
    seconds: Option<u32>,
    /// What the last case was measured on, and its lab's shape.
    stage: Option<(LabShape, Stage)>,
}

impl Trial<'_> {
    /// Says what will be measured; the table that it will be told in.
    fn introduce(&mut self, rounds: u32) -> Result<Table> {
        let scenario = self.scenario;
        let Scenario { title, question, cases, generator, .. } = scenario;
        let stage = self.stage_of(&cases[0])?;
        let generator_core = stage.generator_core();
        let cores: Vec<_> = cases.iter().map(|case| stage.server_cores(case.cores)).collect::<Result<_>>()?;
        println!("\n== {title}\n{question}");
        println!("{rounds} round(s), the generator on core {generator_core}.");
        println!("The generator in every case: synmill bench ... {}", generator.join(" "));
        for (case, cores) in cases.iter().zip(&cores) {
            let (peer, cores) = (case.peer.name(), listed(cores));
            let mut words = vec![format!("  {}: {peer} {} on core {cores}", case.name, case.service)];
            words.push(scenario.lab_of(case).to_string());
            words.extend(case.arguments.iter().cloned());
            words.push(format!("for {} s", self.seconds_of(case)));
            words.extend(case.generator.iter().cloned());
            words.extend(case.rate_share.map(|share| format!("--rate {share} of `{}`", cases[0].name)));
            println!("{}", words.join(" "));
        }
        println!();
        let longest = cases.iter().map(|case| case.name.len()).max().unwrap_or(0);
        let table = Table::new(self.scenario.shown(), longest);
        println!("{}", table.heading());
        Ok(table)
    }

    /// A stage with the lab of this case: the last one, if that is of the same shape.
    fn stage_of(&mut self, case: &Case) -> Result<&Stage> {
        let shape = self.scenario.lab_of(case);
        if self.stage.as_ref().is_none_or(|(last, _)| *last != shape) {
            // Both would have the same names.
            self.stage = None;
            let stage = Stage::up(self.interrupt, PREFIX, shape.into())?;
            stage.check_cores()?;
            self.stage = Some((shape, stage));
        }
        self.stage.as_ref().map(|(_, stage)| stage).context("the stage is up")
    }

    fn seconds_of(&self, case: &Case) -> u32 {
        self.seconds.or(case.seconds).unwrap_or(self.scenario.seconds)
    }

    /// Every case in every round: in turn, so that what the machine does to one it does to all. Those whose rate is a share of the
    /// first one's come when that is known.
    fn measure(&mut self, table: &Table, rounds: u32) -> Result<Vec<Measurement>> {
        let scenario = self.scenario;
        let cases = &scenario.cases;
        let mut measurements = Vec::new();
        for shared in [false, true] {
            let part: Vec<&Case> = cases.iter().filter(|case| case.rate_share.is_some() == shared).collect();
            for round in 1..=rounds {
                for &case in &part {
                    let rate = case.rate_share.map(|share| rate_of(share, &cases[0], &measurements));
                    let measured = self
                        .one(case, rate.transpose()?)
                        .with_context(|| format!("{}, round {round}", case.name))?;
                    println!("{}", table.line(&format!("{round} {}", case.name), &measured.values));
                    for problem in &measured.problems {
                        println!("  in doubt: {problem}");
                    }
                    measurements.push(measured);
                }
            }
        }
        Ok(measurements)
    }

    /// One case, once: its peer from start to end under one run of the generator.
    fn one(&mut self, case: &Case, rate: Option<u64>) -> Result<Measurement> {
        let (scenario, seconds) = (self.scenario, self.seconds_of(case));
        let stage = self.stage_of(case)?;
        let cores = stage.server_cores(case.cores)?;
        let pair = [cores[0], stage.generator_core()];

        let before = cache_line(pair)?;
        let peer = Peer::start(stage, case, &cores)?;
        let heard = if case.peer == PeerKind::Sender {
            let (values, core_percent) = receiver::count(stage, seconds, &case.generator, cores[0])?;
            Heard { values, problems: Vec::new(), core_percent }
        } else {
            let mut arguments = scenario.generator.clone();
            arguments.extend(case.generator.iter().cloned());
            arguments.extend(rate.into_iter().flat_map(|rate| ["--rate".to_owned(), rate.to_string()]));
            Heard::of(Run::new(stage, seconds, &arguments).quietly(stage, cores[0])?, case)?
        };
        let retransmitted = peer.stop(stage)?;
        let cache_line_ns = f64::midpoint(before, cache_line(pair)?);
        let values = complete(heard.values, heard.core_percent, retransmitted, cache_line_ns);
        Ok(Measurement { case: case.name.clone(), values, problems: heard.problems })
    }
}

/// What the client's end tells of a measurement.
struct Heard {
    values: Sample,
    problems: Vec<String>,
    /// How busy the peer's first core was.
    core_percent: f64,
}

impl Heard {
    fn of(outcome: Outcome, case: &Case) -> Result<Self> {
        let Outcome { report, problems, core_percent } = outcome;
        let mut values = Sample::of(&report)?;
        if let Some(bytes) = case.source_bytes() {
            let streams_per_s = report.number("/requests/per_s")?;
            values.set(Column::GbitPerS, Some(streams_per_s * 8e-9 * f64::from(bytes)));
        }
        Ok(Self { values, problems, core_percent })
    }
}

/// The client's columns, and those that are measured around it.
fn complete(
    mut sample: Sample,
    peer_percent: f64,
    peer_retransmissions: Option<f64>,
    cache_line_ns: f64,
) -> Sample {
    // Percent of a second, over the connections of a second.
    let peer_ns = peer_percent * 1e7 / sample.get(Column::ConnectionsPerS);
    for (column, value) in [
        (Column::PeerRetransmissions, peer_retransmissions),
        (Column::PeerCorePercent, Some(peer_percent)),
        (Column::PeerNs, Some(peer_ns)),
        (Column::BothNs, Some(peer_ns + sample.get(Column::GeneratorNs))),
        (Column::CacheLineNs, Some(cache_line_ns)),
    ] {
        sample.set(column, value);
    }
    sample
}

/// A cache line's way between two cores and back, in ns.
fn cache_line(cores: [usize; 2]) -> Result<f64> {
    let mut command = std::process::Command::new(binary("synmill-pingpong")?);
    let said = output(command.args(cores.map(|core| core.to_string())))?;
    first_number(&said).with_context(|| format!("synmill-pingpong said: {said}"))
}

fn first_number(text: &str) -> Option<f64> {
    text.split_whitespace().find_map(|word| word.parse().ok())
}

fn samples_of(case: &str, measurements: &[Measurement]) -> Vec<Sample> {
    let of_case = measurements.iter().filter(|measured| measured.case == case);
    of_case.map(|measured| measured.values.clone()).collect()
}

fn median_of(case: &str, measurements: &[Measurement]) -> Sample {
    Sample::medians(&samples_of(case, measurements))
}

/// A share of the connections a second that a case established.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is far below 2^52, and not below 1"
)]
fn rate_of(share: f64, case: &Case, measurements: &[Measurement]) -> Result<u64> {
    let rate = share * median_of(&case.name, measurements).get(Column::ConnectionsPerS);
    ensure!(rate >= 1.0, "`{}` established no connections to take a share of", case.name);
    Ok(rate.round() as u64)
}

fn ratios(scenario: &Scenario, measurements: &[Measurement]) -> Vec<Ratio> {
    let ratio = |column: Column, pair: [&str; 2]| {
        let [over, under] = pair.map(|case| samples_of(case, measurements));
        Ratio::of(column, pair, [&over, &under])
    };
    let of_column = |column| scenario.ratios().into_iter().map(move |pair| ratio(column, pair));
    scenario.compared().flat_map(of_column).filter(|ratio| ratio.of_medians.is_finite()).collect()
}

/// Medians and ratios, with the least and the most of one round.
fn rows(named: &Named, measurements: &[Measurement], ratios: &[Ratio]) -> Vec<Row> {
    let ranged = |case: &str, value, unit: &str, range| Row {
        range: Some(range),
        ..Row::new(&named.name, case, value, unit)
    };
    let mut rows = Vec::new();
    for Case { name, .. } in &named.scenario.cases {
        let samples = samples_of(name, measurements);
        for (column, value) in Sample::medians(&samples).values() {
            let range = range(samples.iter().map(|sample| sample.get(column)));
            rows.push(ranged(name, value, column.unit(), range));
        }
    }
    // The scenario's own column comes first, and its ratios are called nothing else.
    let measure = ratios.first().map(|ratio| ratio.column);
    for Ratio { over, under, column, of_medians, of_rounds } in ratios {
        let unit = match column {
            column if Some(*column) == measure => "ratio".to_owned(),
            column => format!("ratio of {}", column.unit()),
        };
        rows.push(ranged(&format!("{over}/{under}"), *of_medians, &unit, *of_rounds));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{fake, report};
    use super::*;

    fn measured(case: &str, established: u64) -> Measurement {
        let report = report(&fake(established, 50.0)).unwrap();
        let outcome = Outcome { report, problems: Vec::new(), core_percent: 80.0 };
        let of = Case::plain(case, PeerKind::Serve, "source:125000000");
        let heard = Heard::of(outcome, &of).unwrap();
        let values = complete(heard.values, heard.core_percent, Some(2.0), 190.0);
        Measurement { case: of.name, values, problems: Vec::new() }
    }

    fn scenario() -> Scenario {
        let case = |name: &str| format!("[[cases]]\nname = '{name}'\npeer = '{name}'\nservice = 'close'\n");
        let text =
            format!("title = ''\nquestion = ''\ncompare = ['peer-ns']\n{}{}", case("kernel"), case("serve"));
        Scenario::parse(&text).unwrap()
    }

    #[test]
    fn what_is_around_the_report_is_in_the_sample() {
        let values = measured("serve", 1_000_000).values;
        for (column, want) in [
            (Column::ConnectionsPerS, 200_000.0),
            (Column::PeerCorePercent, 80.0),
            (Column::PeerNs, 4000.0),
            (Column::BothNs, 8800.0),
            (Column::GbitPerS, 2.0),
            (Column::PeerRetransmissions, 2.0),
            (Column::CacheLineNs, 190.0),
        ] {
            assert!((values.get(column) - want).abs() < 1e-6, "{column:?}: {}", values.get(column));
        }
    }

    #[test]
    fn medians_ratios_and_rows_follow_from_the_measurements() {
        let scenario = scenario();
        let counts = [("kernel", 500_000), ("serve", 1_000_000), ("kernel", 300_000), ("serve", 1_500_000)];
        let mut measurements: Vec<_> = counts.iter().map(|&(case, count)| measured(case, count)).collect();
        measurements.extend([measured("kernel", 400_000), measured("serve", 800_000)]);

        assert_eq!(rate_of(0.5, &scenario.cases[0], &measurements).unwrap(), 40_000);
        let ratios = ratios(&scenario, &measurements);
        assert_eq!(ratios.len(), 2);
        assert!((ratios[0].of_medians - 2.5).abs() < 1e-9, "{ratios:?}");
        let rows = rows(&Named { name: "lab".to_owned(), scenario }, &measurements, &ratios);
        let ratio = "ratio of ns/connection of the peer's core";
        for (case, value, unit, range) in [
            ("serve", 200_000.0, "connections/s", [160_000.0, 300_000.0]),
            ("serve", 190.0, "ns, cache line there and back", [190.0, 190.0]),
            ("serve/kernel", 2.5, "ratio", [2.0, 5.0]),
            ("serve/kernel", 0.4, ratio, [0.2, 0.5]),
        ] {
            let is_it = |row: &&Row| row.bench == "lab" && row.case == case && row.unit == unit;
            let row = rows.iter().find(is_it).unwrap();
            let found = [row.value, row.range.unwrap()[0], row.range.unwrap()[1]];
            let same = found.iter().zip([value, range[0], range[1]]).all(|(a, b)| (a - b).abs() < 1e-9);
            assert!(same, "{row:?}");
        }
    }

    #[test]
    fn no_share_of_nothing() {
        assert!(rate_of(0.5, &scenario().cases[0], &[measured("kernel", 0)]).is_err());
    }

    #[test]
    fn the_ping_pong_is_read() {
        assert_eq!(["53.5 ns\n", "cache line: 53", "none"].map(first_number), [Some(53.5), Some(53.0), None]);
    }
}
