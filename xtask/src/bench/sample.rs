//! Measurements as rows of a table: columns, medians, ratios. Knows what the figures are; never how they came about.

use std::collections::BTreeMap;

use anyhow::{Error, Result};
use serde::Deserialize;

use super::counters::median;
use super::report::Report;

/// What is told of a measurement.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Column {
    /// Handshakes completed in a second.
    #[default]
    ConnectionsPerS,
    RequestsPerS,
    ConnectP50Us,
    ConnectP99Us,
    RequestP50Us,
    RequestP99Us,
    /// From the intended start to the end of the connection.
    LifeP99Us,
    /// How late connections were started.
    StartLagP99Us,
    /// Of the generator, for a connection.
    PacketsOut,
    PacketsIn,
    /// Connections that did not do all they were meant to, but for those under way at the end.
    Failed,
    /// Segments that the generator sent again.
    GeneratorRetransmissions,
    PeerRetransmissions,
    /// How busy the peer's first core was, the kernel's part included.
    PeerCorePercent,
    GeneratorCorePercent,
    /// Time of the peer's core for a connection, the kernel's part included.
    PeerNs,
    GeneratorNs,
    /// Time of both cores for a connection.
    BothNs,
    /// Bytes of text that came, in 10^9 bits a second.
    GbitPerS,
    /// Frames that were there for the receiver, and that its rings had no room for, or that never came.
    FramesLost,
    /// A cache line's way from core to core and back, before and after.
    CacheLineNs,
}

impl Column {
    /// Of every scenario.
    pub(super) const ALWAYS: [Self; 14] = [
        Self::ConnectionsPerS,
        Self::ConnectP50Us,
        Self::ConnectP99Us,
        Self::LifeP99Us,
        Self::PacketsOut,
        Self::PacketsIn,
        Self::Failed,
        Self::GeneratorRetransmissions,
        Self::PeerRetransmissions,
        Self::PeerCorePercent,
        Self::GeneratorCorePercent,
        Self::PeerNs,
        Self::GeneratorNs,
        Self::CacheLineNs,
    ];

    /// The two lines of its heading.
    const fn heading(self) -> [&'static str; 2] {
        match self {
            Self::ConnectionsPerS => ["connections", "per s"],
            Self::RequestsPerS => ["requests", "per s"],
            Self::ConnectP50Us => ["connect", "p50 us"],
            Self::ConnectP99Us => ["connect", "p99 us"],
            Self::RequestP50Us => ["request", "p50 us"],
            Self::RequestP99Us => ["request", "p99 us"],
            Self::LifeP99Us => ["life", "p99 us"],
            Self::StartLagP99Us => ["lag", "p99 us"],
            Self::PacketsOut => ["packets", "out"],
            Self::PacketsIn => ["packets", "in"],
            Self::Failed => ["", "failed"],
            Self::GeneratorRetransmissions => ["retrans", "gen"],
            Self::PeerRetransmissions => ["retrans", "peer"],
            Self::PeerCorePercent => ["core %", "peer"],
            Self::GeneratorCorePercent => ["core %", "gen"],
            Self::PeerNs => ["ns/conn", "peer"],
            Self::GeneratorNs => ["ns/conn", "gen"],
            Self::BothNs => ["ns/conn", "both"],
            Self::GbitPerS => ["Gbit", "per s"],
            Self::FramesLost => ["frames", "lost"],
            Self::CacheLineNs => ["cache", "line ns"],
        }
    }

    /// What its value is a number of.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::ConnectionsPerS => "connections/s",
            Self::RequestsPerS => "requests/s",
            Self::ConnectP50Us => "us, connect p50",
            Self::ConnectP99Us => "us, connect p99",
            Self::RequestP50Us => "us, request p50",
            Self::RequestP99Us => "us, request p99",
            Self::LifeP99Us => "us, life p99",
            Self::StartLagP99Us => "us, start lag p99",
            Self::PacketsOut => "packets out per connection",
            Self::PacketsIn => "packets in per connection",
            Self::Failed => "connections failed",
            Self::GeneratorRetransmissions => "segments retransmitted by the generator",
            Self::PeerRetransmissions => "segments retransmitted by the peer",
            Self::PeerCorePercent => "% of the peer's core",
            Self::GeneratorCorePercent => "% of the generator's core",
            Self::PeerNs => "ns/connection of the peer's core",
            Self::GeneratorNs => "ns/connection of the generator",
            Self::BothNs => "ns/connection of both cores",
            Self::GbitPerS => "Gbit/s",
            Self::FramesLost => "frames lost before the receiver",
            Self::CacheLineNs => "ns, cache line there and back",
        }
    }

    /// Decimal places.
    const fn places(self) -> usize {
        match self {
            Self::ConnectP50Us
            | Self::ConnectP99Us
            | Self::RequestP50Us
            | Self::RequestP99Us
            | Self::StartLagP99Us => 1,
            Self::PacketsOut | Self::PacketsIn | Self::GbitPerS => 2,
            _ => 0,
        }
    }

    const fn width(self) -> usize {
        match self {
            Self::ConnectionsPerS => 11,
            Self::RequestsPerS | Self::ConnectP99Us | Self::RequestP99Us | Self::LifeP99Us => 9,
            // At a connection a second.
            Self::PeerNs | Self::GeneratorNs | Self::BothNs => 10,
            _ => 8,
        }
    }
}

/// A value a column. A column that does not apply is absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample(BTreeMap<Column, f64>);

impl Sample {
    pub(super) fn set(&mut self, column: Column, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.0.insert(column, value);
        }
    }

    /// Not a number where the column is absent.
    pub(super) fn get(&self, column: Column) -> f64 {
        self.0.get(&column).copied().unwrap_or(f64::NAN)
    }

    /// What the generator's report tells.
    pub(super) fn of(report: &Report) -> Result<Self> {
        let number = |pointer: &str| report.number(pointer).map(Some);
        // Without a sample, all percentiles are 0.
        let percentile = |of: &str, name: &str| {
            let is_known = report.number(&format!("{of}/count"))? > 0.0;
            Ok::<_, Error>(Some(report.number(&format!("{of}/{name}"))?).filter(|_| is_known))
        };
        let requests = number("/requests/per_s")?
            .filter(|_| report.number("/requests/done").is_ok_and(|done| done > 0.0));
        // Those that the end of the measurement cut off have not failed.
        let reasons =
            ["refused", "connect_timed_out", "unreachable", "reset_by_peer", "bad_response", "timed_out"];
        let mut sample = Self::default();
        for (column, value) in [
            (Column::ConnectionsPerS, number("/rate_per_s/achieved")?),
            (Column::RequestsPerS, requests),
            (Column::ConnectP50Us, percentile("/latency_us/connect", "p50")?),
            (Column::ConnectP99Us, percentile("/latency_us/connect", "p99")?),
            (Column::RequestP50Us, percentile("/latency_us/request", "p50")?),
            (Column::RequestP99Us, percentile("/latency_us/request", "p99")?),
            (Column::LifeP99Us, percentile("/latency_us/life", "p99")?),
            (Column::StartLagP99Us, percentile("/start_lag_us", "p99")?),
            (Column::PacketsOut, number("/packets_per_connection/out")?),
            (Column::PacketsIn, number("/packets_per_connection/in")?),
            (Column::Failed, Some(report.sum("/connections/failed", &reasons)?)),
            (
                Column::GeneratorCorePercent,
                Some(report.sum("/cpu/cores/0", &["user_percent", "system_percent", "softirq_percent"])?),
            ),
            (Column::GeneratorRetransmissions, number("/retransmissions/segs")?),
            (Column::GeneratorNs, report.at("/cpu/ns_per_connection")?.as_f64()),
            (
                Column::FramesLost,
                Some(report.sum("/rings", &["rx_ring_full", "fill_ring_empty", "rx_dropped"])?),
            ),
        ] {
            sample.set(column, value);
        }
        Ok(sample)
    }

    /// The median of each column over the samples that have it.
    pub(super) fn medians(samples: &[Self]) -> Self {
        let columns = samples.iter().flat_map(|sample| sample.0.keys().copied());
        let mut medians = Self::default();
        for column in columns {
            medians.set(column, Some(median(samples.iter().map(|sample| sample.get(column)))));
        }
        medians
    }

    /// Its columns and their values.
    pub(super) fn values(&self) -> impl Iterator<Item = (Column, f64)> {
        self.0.iter().map(|(&column, &value)| (column, value))
    }
}

/// One case over another.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(super) over: String,
    pub(super) under: String,
    pub(super) column: Column,
    /// Of the medians.
    pub(super) of_medians: f64,
    /// The smallest and the largest of one round.
    pub(super) of_rounds: [f64; 2],
}

impl Ratio {
    /// Of the samples of two cases, in the order of the rounds.
    pub(super) fn of(column: Column, names: [&str; 2], samples: [&[Sample]; 2]) -> Self {
        let [over, under] = samples;
        let medians = samples.map(|samples| Sample::medians(samples).get(column));
        let rounds = over.iter().zip(under).map(|(over, under)| over.get(column) / under.get(column));
        Self {
            over: names[0].to_owned(),
            under: names[1].to_owned(),
            column,
            of_medians: medians[0] / medians[1],
            of_rounds: range(rounds),
        }
    }

    pub(super) fn line(&self) -> String {
        let Self { over, under, column, of_medians, of_rounds: [least, most] } = self;
        let unit = column.unit();
        format!("ratio {over} / {under}: {of_medians:.2} of {unit} (in one round {least:.2} to {most:.2})")
    }
}

/// The least and the most of the values that are numbers.
pub(super) fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    // A comparison with what is no number leaves the other.
    values.fold([f64::NAN; 2], |[least, most], value| [least.min(value), most.max(value)])
}

/// A table with these columns, line by line.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    name_width: usize,
}

impl Table {
    pub(super) fn new(columns: Vec<Column>, longest_name: usize) -> Self {
        // "median " stands before a name, or the number of a round.
        Self { columns, name_width: longest_name + 7 }
    }

    pub(super) fn heading(&self) -> String {
        let line = |part: usize| {
            let cells = self
                .columns
                .iter()
                .map(|column| format!(" {:>width$}", column.heading()[part], width = column.width()));
            format!("{:width$}{}", "", cells.collect::<String>(), width = self.name_width)
        };
        format!("{}\n{}", line(0), line(1))
    }

    pub(super) fn line(&self, name: &str, sample: &Sample) -> String {
        let cells = self.columns.iter().map(|&column| {
            let value = sample.get(column);
            let text = if value.is_nan() { "-".to_owned() } else { format!("{value:.*}", column.places()) };
            format!(" {text:>width$}", width = column.width())
        });
        format!("{name:width$}{}", cells.collect::<String>(), width = self.name_width)
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::{fake, report};
    use super::*;

    fn sample(rate: f64) -> Sample {
        let mut sample = Sample::default();
        sample.set(Column::ConnectionsPerS, Some(rate));
        sample
    }

    #[test]
    fn a_report_fills_the_columns() {
        let sample = Sample::of(&report(&fake(1000, 55.0)).unwrap()).unwrap();
        for (column, want) in [
            (Column::ConnectionsPerS, 200.0),
            (Column::RequestsPerS, 2.0),
            (Column::ConnectP50Us, 20.0),
            (Column::ConnectP99Us, 55.0),
            (Column::LifeP99Us, 55.0),
            (Column::StartLagP99Us, 55.0),
            (Column::PacketsOut, 3.0),
            (Column::PacketsIn, 3.01),
            (Column::Failed, 6.0),
            (Column::GeneratorRetransmissions, 7.0),
            (Column::GeneratorCorePercent, 99.0),
            (Column::GeneratorNs, 4800.0),
            (Column::FramesLost, 7.0),
        ] {
            assert!((sample.get(column) - want).abs() < 1e-9, "{column:?}: {}", sample.get(column));
        }
        assert!(sample.get(Column::RequestP99Us).is_nan());
    }

    #[test]
    fn a_missing_key_is_named_with_its_place() {
        for pointer in [
            "/connections/failed",
            "/connections/failed/timed_out",
            "/latency_us/connect",
            "/latency_us/connect/p99",
            "/packets_per_connection/in",
            "/cpu/ns_per_connection",
            "/retransmissions/segs",
            "/cpu/cores/0/softirq_percent",
        ] {
            let mut value = fake(1, 1.0);
            let (place, key) = pointer.rsplit_once('/').unwrap();
            value.pointer_mut(place).unwrap().as_object_mut().unwrap().remove(key).unwrap();
            let said = Sample::of(&report(&value).unwrap()).unwrap_err().to_string();
            assert!(said.contains(&format!("has no {pointer}")), "{said}");
        }
        let mut value = fake(1, 1.0);
        value["schema"] = "synmill-bench/2".into();
        assert!(report(&value).unwrap_err().to_string().contains("synmill-bench/2"));
    }

    #[test]
    fn medians_go_column_by_column() {
        let mut samples = [3.0, 1.0, 2.0].map(sample);
        samples[1].set(Column::Failed, Some(9.0));
        let medians: Vec<_> = Sample::medians(&samples).values().collect();
        assert_eq!(medians, [(Column::ConnectionsPerS, 2.0), (Column::Failed, 9.0)]);
    }

    #[test]
    fn a_ratio_is_of_medians_with_the_range_of_the_rounds() {
        let (over, under) = ([10.0, 30.0, 20.0].map(sample), [10.0, 10.0, 5.0].map(sample));
        let ratio = Ratio::of(Column::ConnectionsPerS, ["serve", "kernel"], [&over, &under]);
        assert_eq!((ratio.of_medians, ratio.of_rounds), (2.0, [1.0, 4.0]));
        assert_eq!(ratio.line(), "ratio serve / kernel: 2.00 of connections/s (in one round 1.00 to 4.00)");
    }

    #[test]
    fn a_table_is_aligned_and_shows_what_is_absent() {
        let table = Table::new(vec![Column::ConnectionsPerS, Column::ConnectP50Us], 6);
        let lines = table.heading() + "\n" + &table.line("median kernel", &sample(75_000.4));
        let want = "              connections  connect
                    per s   p50 us
median kernel       75000        -";
        assert_eq!(lines, want);
    }
}
