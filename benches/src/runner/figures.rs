//! Figures of a measurement: columns, samples, medians, ratios, and their table.

use std::collections::BTreeMap;

use serde::Deserialize;
use synmill_benches::rows::median;

/// A figure of a measurement.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Column {
    /// Handshakes completed.
    #[default]
    ConnectionsPerS,
    RequestsPerS,
    ConnectP50Us,
    ConnectP99Us,
    RequestP50Us,
    RequestP99Us,
    /// From the intended start of a connection to its end.
    LifeP99Us,
    /// From the intended start of a connection to its start.
    StartLagP99Us,
    /// Sent by the client, for a connection.
    PacketsOut,
    PacketsIn,
    /// Sent by the client, for a request.
    RequestPacketsOut,
    RequestPacketsIn,
    /// Connections that failed, without those that the end of the measurement cut off; errors of requests, by wrk.
    Failed,
    /// Segments that the client's side retransmitted.
    GeneratorRetransmissions,
    PeerRetransmissions,
    /// How busy the server's first core was, the kernel's part included.
    PeerCorePercent,
    GeneratorCorePercent,
    /// Time of the server's first core for a connection, the kernel's part included.
    PeerNs,
    GeneratorNs,
    /// Time of both cores for a connection.
    BothNs,
    /// Text received, in 10^9 bits/s.
    GbitPerS,
    /// Frames that did not reach the receiver, or for which its rings had no room.
    FramesLost,
    /// The round trip of a cache line between the two cores: the mean of before and after.
    CacheLineNs,
}

/// How a column is shown.
struct Look {
    /// The two lines of its heading.
    heading: [&'static str; 2],
    unit: &'static str,
    /// Decimal places.
    places: usize,
    width: usize,
}

impl Column {
    /// Columns of every scenario whose client is synmill's generator.
    pub(super) const BY_GENERATOR: [Self; 14] = [
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
    /// Columns of every scenario whose client is wrk.
    pub(super) const BY_WRK: [Self; 11] = [
        Self::RequestsPerS,
        Self::RequestP50Us,
        Self::RequestP99Us,
        Self::RequestPacketsOut,
        Self::RequestPacketsIn,
        Self::Failed,
        Self::GeneratorRetransmissions,
        Self::PeerRetransmissions,
        Self::PeerCorePercent,
        Self::GeneratorCorePercent,
        Self::CacheLineNs,
    ];

    const fn look(self) -> Look {
        let (first, second, unit, places, width) = match self {
            Self::ConnectionsPerS => ("connections", "per s", "connections/s", 0, 11),
            Self::RequestsPerS => ("requests", "per s", "requests/s", 0, 9),
            Self::ConnectP50Us => ("connect", "p50 us", "us, connect p50", 1, 8),
            Self::ConnectP99Us => ("connect", "p99 us", "us, connect p99", 1, 9),
            Self::RequestP50Us => ("request", "p50 us", "us, request p50", 1, 8),
            Self::RequestP99Us => ("request", "p99 us", "us, request p99", 1, 9),
            Self::LifeP99Us => ("life", "p99 us", "us, life p99", 0, 9),
            Self::StartLagP99Us => ("lag", "p99 us", "us, start lag p99", 1, 8),
            Self::PacketsOut => ("packets", "out", "packets out per connection", 2, 8),
            Self::PacketsIn => ("packets", "in", "packets in per connection", 2, 8),
            Self::RequestPacketsOut => ("packets", "out", "packets out per request", 2, 8),
            Self::RequestPacketsIn => ("packets", "in", "packets in per request", 2, 8),
            Self::Failed => ("", "failed", "connections failed", 0, 8),
            Self::GeneratorRetransmissions => {
                ("retrans", "gen", "segments retransmitted by the generator", 0, 8)
            }
            Self::PeerRetransmissions => ("retrans", "peer", "segments retransmitted by the peer", 0, 8),
            Self::PeerCorePercent => ("core %", "peer", "% of the peer's core", 0, 8),
            Self::GeneratorCorePercent => ("core %", "gen", "% of the generator's core", 0, 8),
            // Room for one connection/s.
            Self::PeerNs => ("ns/conn", "peer", "ns/connection of the peer's core", 0, 10),
            Self::GeneratorNs => ("ns/conn", "gen", "ns/connection of the generator", 0, 10),
            Self::BothNs => ("ns/conn", "both", "ns/connection of both cores", 0, 10),
            Self::GbitPerS => ("Gbit", "per s", "Gbit/s", 2, 8),
            Self::FramesLost => ("frames", "lost", "frames lost before the receiver", 0, 8),
            Self::CacheLineNs => ("cache", "line ns", "ns, cache line there and back", 0, 8),
        };
        Look { heading: [first, second], unit, places, width }
    }

    pub(super) const fn unit(self) -> &'static str {
        self.look().unit
    }
}

/// A value for each column; a column that does not apply has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample(BTreeMap<Column, f64>);

impl Sample {
    pub(super) fn set(&mut self, column: Column, value: f64) {
        if value.is_finite() {
            self.0.insert(column, value);
        }
    }

    /// Returns not a number where there is no value.
    pub(super) fn get(&self, column: Column) -> f64 {
        self.0.get(&column).copied().unwrap_or(f64::NAN)
    }

    /// Returns the median of each column.
    pub(super) fn medians(samples: &[Self]) -> Self {
        let columns = samples.iter().flat_map(|sample| sample.0.keys());
        let median_of = |&column| (column, median(samples.iter().map(|sample| sample.get(column))));
        Self(columns.map(median_of).collect())
    }

    pub(super) fn values(&self) -> impl Iterator<Item = (Column, f64)> {
        self.0.iter().map(|(&column, &value)| (column, value))
    }
}

impl FromIterator<(Column, f64)> for Sample {
    fn from_iter<I: IntoIterator<Item = (Column, f64)>>(values: I) -> Self {
        let mut sample = Self::default();
        values.into_iter().for_each(|(column, value)| sample.set(column, value));
        sample
    }
}

/// The least and the most of the values that are numbers.
pub(super) fn range(values: impl Iterator<Item = f64>) -> [f64; 2] {
    // Of a number and NaN, `min` and `max` return the number.
    values.fold([f64::NAN; 2], |[least, most], value| [least.min(value), most.max(value)])
}

/// One case over another.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ratio {
    pub(super) over: String,
    pub(super) under: String,
    pub(super) column: Column,
    pub(super) of_medians: f64,
    /// The least and the most of one round.
    pub(super) of_rounds: [f64; 2],
}

impl Ratio {
    /// Returns the ratio of two cases' samples, which are in the order of the rounds.
    pub(super) fn of(column: Column, names: [&str; 2], samples: [&[Sample]; 2]) -> Self {
        let medians = samples.map(|samples| Sample::medians(samples).get(column));
        let rounds = samples[0].iter().zip(samples[1]);
        Self {
            over: names[0].to_owned(),
            under: names[1].to_owned(),
            column,
            of_medians: medians[0] / medians[1],
            of_rounds: range(rounds.map(|(over, under)| over.get(column) / under.get(column))),
        }
    }

    pub(super) fn line(&self) -> String {
        let Self { over, under, column, of_medians, of_rounds: [least, most] } = self;
        let unit = column.unit();
        format!("ratio {over} / {under}: {of_medians:.2} of {unit} (in one round {least:.2} to {most:.2})")
    }
}

/// A table of samples, line by line.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    name_width: usize,
}

impl Table {
    pub(super) fn new(columns: Vec<Column>, longest_name: usize) -> Self {
        // "median " or the number of a round stands before a name.
        Self { columns, name_width: longest_name + 7 }
    }

    fn row(&self, name: &str, cell: impl Fn(Column) -> String) -> String {
        let cells = self
            .columns
            .iter()
            .map(|&column| format!(" {:>width$}", cell(column), width = column.look().width));
        format!("{name:width$}{}", cells.collect::<String>(), width = self.name_width)
    }

    pub(super) fn heading(&self) -> String {
        [0, 1].map(|part| self.row("", |column| column.look().heading[part].to_owned())).join("\n")
    }

    pub(super) fn line(&self, name: &str, sample: &Sample) -> String {
        self.row(name, |column| match sample.get(column) {
            value if value.is_nan() => "-".to_owned(),
            value => format!("{value:.*}", column.look().places),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rate: f64) -> Sample {
        [(Column::ConnectionsPerS, rate)].into_iter().collect()
    }

    #[test]
    fn medians_go_column_by_column() {
        let mut samples = [3.0, 1.0, 2.0].map(sample);
        samples[1].set(Column::Failed, 9.0);
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
