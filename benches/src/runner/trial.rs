//! The measurement of a scenario: its rounds, and its cases in turn.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use synmill_benches::rows::Row;
use synmill_lab::{Interrupt, output};

use super::archive::Extent;
use super::client;
use super::figures::{Column, Ratio, Sample, Table, range};
use super::scenario::{Case, ClientKind, LabShape, Scenario};
use super::server::Server;
use super::stage::{Stage, binary, listed};

/// The prefix of the lab.
const PREFIX: &str = "synmill-bench";

/// One measurement.
#[derive(Debug)]
struct Measurement {
    case: String,
    values: Sample,
    /// Why the figures are in doubt.
    problems: Vec<String>,
}

/// Measures a scenario in so many rounds, and prints the table; `seconds` replaces the length of every measurement.
pub(super) fn perform(
    interrupt: &Interrupt,
    scenario: &Scenario,
    rounds: u32,
    seconds: Option<u32>,
) -> Result<(Extent, Vec<Row>)> {
    let mut trial = Trial { interrupt, scenario, seconds, stage: None };
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
    let extent = Extent { rounds, seconds: seconds.unwrap_or(scenario.seconds), in_doubt };
    Ok((extent, rows(scenario, &measurements, &ratios)))
}

struct Trial<'a> {
    interrupt: &'a Interrupt,
    scenario: &'a Scenario,
    /// Replaces the scenario's.
    seconds: Option<u32>,
    /// The stage of the last case, and its lab's shape.
    stage: Option<(LabShape, Stage)>,
}

impl Trial<'_> {
    /// Prints the question, the cases and the table's heading.
    fn introduce(&mut self, rounds: u32) -> Result<Table> {
        let scenario = self.scenario;
        let Scenario { title, question, cases, .. } = scenario;
        let stage = self.stage_of(&cases[0])?;
        let client_core = stage.client_core();
        let cores: Vec<_> = cases.iter().map(|case| stage.server_cores(case.cores)).collect::<Result<_>>()?;
        println!("\n== {title}\n{question}");
        println!("{rounds} round(s), the client on core {client_core}.");
        println!("The client in every case: {}", scenario.client_shown());
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
        let table = Table::new(scenario.shown(), longest);
        println!("{}", table.heading());
        Ok(table)
    }

    /// Returns a stage with the lab of this case.
    fn stage_of(&mut self, case: &Case) -> Result<&Stage> {
        let shape = self.scenario.lab_of(case);
        if self.stage.as_ref().is_none_or(|(last, _)| *last != shape) {
            // Two labs would have the same names.
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

    /// Measures every case in every round. Cases take turns, so that a change of the machine meets all of them. Cases with a share of
    /// the first one's rate come after all others, when that rate is known.
    fn measure(&mut self, table: &Table, rounds: u32) -> Result<Vec<Measurement>> {
        let cases = &self.scenario.cases;
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

    /// Measures one case once, with a server of its own.
    fn one(&mut self, case: &Case, rate: Option<u64>) -> Result<Measurement> {
        let (scenario, seconds) = (self.scenario, self.seconds_of(case));
        let stage = self.stage_of(case)?;
        let cores = stage.server_cores(case.cores)?;
        let pair = [cores[0], stage.client_core()];
        let kind = scenario.client_of(case);
        // The receiver shares no options with the others.
        let common = if kind == ClientKind::Receiver { &[][..] } else { &scenario.generator };
        let mut arguments = [common, &case.generator].concat();
        arguments.extend(rate.into_iter().flat_map(|rate| ["--rate".to_owned(), rate.to_string()]));

        let before = cache_line(pair)?;
        let server = Server::start(stage, case, &cores)?;
        let mut heard = client::measure(stage, case, kind, seconds, &arguments, cores[0])?;
        let retransmitted = server.stop(stage)?;
        let cache_line_ns = f64::midpoint(before, cache_line(pair)?);
        complete(&mut heard.values, heard.server_percent, retransmitted, cache_line_ns);
        Ok(Measurement { case: case.name.clone(), values: heard.values, problems: heard.problems })
    }
}

/// Adds the columns that the client does not know.
fn complete(sample: &mut Sample, peer_percent: f64, peer_retransmissions: Option<f64>, cache_line_ns: f64) {
    // Percent of a second, over the connections of a second.
    let peer_ns = peer_percent * 1e7 / sample.get(Column::ConnectionsPerS);
    sample.set(Column::BothNs, peer_ns + sample.get(Column::GeneratorNs));
    sample.set(Column::PeerNs, peer_ns);
    sample.set(Column::PeerCorePercent, peer_percent);
    sample.set(Column::PeerRetransmissions, peer_retransmissions.unwrap_or(f64::NAN));
    sample.set(Column::CacheLineNs, cache_line_ns);
}

/// Returns the round trip of a cache line between two cores, in ns.
fn cache_line(cores: [usize; 2]) -> Result<f64> {
    let mut command = Command::new(binary("synmill-pingpong")?);
    let said = output(command.args(cores.map(|core| core.to_string())))?;
    first_number(&said).with_context(|| format!("the output of synmill-pingpong: {said}"))
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

/// Returns a share of the connections/s that a case established.
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

/// Returns medians and ratios, with the least and the most of one round.
fn rows(scenario: &Scenario, measurements: &[Measurement], ratios: &[Ratio]) -> Vec<Row> {
    let ranged = |case: &str, value, unit: &str, range| Row {
        range: Some(range),
        ..Row::new(&scenario.name, case, value, unit)
    };
    let mut rows = Vec::new();
    for Case { name, .. } in &scenario.cases {
        let samples = samples_of(name, measurements);
        for (column, value) in Sample::medians(&samples).values() {
            let range = range(samples.iter().map(|sample| sample.get(column)));
            rows.push(ranged(name, value, column.unit(), range));
        }
    }
    // The first column is the scenario's own; the unit of its ratios does not name it.
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
    use super::super::client::Outcome;
    use super::super::report::tests::{fake, report};
    use super::super::scenario::PeerKind;
    use super::*;

    fn measured(case: &str, established: u64) -> Measurement {
        let report = report(&fake(established, 50.0));
        let outcome = Outcome { report, problems: Vec::new(), server_percent: 80.0 };
        let of = Case::plain(case, PeerKind::Serve, "source:125000000");
        let mut values = outcome.heard(&of).unwrap().values;
        complete(&mut values, 80.0, Some(2.0), 190.0);
        Measurement { case: of.name, values, problems: Vec::new() }
    }

    fn scenario() -> Scenario {
        let case = |name: &str| format!("[[cases]]\nname = '{name}'\npeer = '{name}'\nservice = 'close'\n");
        let text =
            format!("title = ''\nquestion = ''\ncompare = ['peer-ns']\n{}{}", case("kernel"), case("serve"));
        Scenario::parse("lab", &text).unwrap()
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
        let rows = rows(&scenario, &measurements, &ratios);
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
