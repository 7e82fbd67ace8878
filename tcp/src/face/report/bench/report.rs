//! The document `synmill-bench/1`, field by field.

use serde::Serialize;

use super::interval::Interval;
use super::latency::Latencies;
use super::lost_syns::LostSyns;
use super::setup::Setup;
use super::usage::CpuUse;
use crate::face::report::{Accounts, Named};
use synmill_engine::stats::Snapshot;

/// The report of a whole run.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// The document's schema, `synmill-bench/1`.
    pub schema: &'static str,
    /// The load and workload that the user asked for, and where it ran.
    #[serde(flatten)]
    pub setup: Setup,
    /// Measured length of the window.
    pub duration_s: f64,
    /// Connections per second in the window.
    pub rate_per_s: Rates,
    /// Connections open at a time; `None` unless the user asked for a number of them.
    pub concurrency: Option<Concurrency>,
    /// Connections that count, by their end.
    pub connections: Connections,
    /// Requests of the connections that count.
    pub requests: Requests,
    /// Segments of the trial.
    pub packets_per_connection: Packets,
    /// Latencies of the connections that count.
    #[serde(flatten)]
    pub latencies: Latencies,
    /// Retransmissions in the trial.
    pub retransmissions: Retransmissions,
    /// Segments received in the trial that brought nothing, or came too early.
    pub received: Received,
    /// Frames dropped in the trial, by reason.
    pub drops: Named,
    /// Losses at our own rings in the trial, by counter.
    pub rings: Named,
    /// Growth of the interface's own counters in the trial.
    pub nic: Named,
    /// Where SYNs were lost.
    pub lost_syns: LostSyns,
    /// All counters but the drops, of the whole run: a search has them of all its trials.
    pub counters: Named,
    /// CPU time in the window.
    pub cpu: CpuUse,
    /// The accounts.
    pub accounts: Accounts,
    /// Whether the run is what the user asked for.
    pub verdict: Outcome,
    /// The trials of a search.
    pub steps: Vec<Step>,
    /// An interval per second.
    pub intervals: Vec<Interval>,
}

/// Connections per second, averages over the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// The rate that the user asked for or that a search has confirmed; `None` otherwise.
    pub asked: Option<u64>,
    /// Connections established.
    pub achieved: f64,
    /// SYNs sent for the first time.
    pub started: f64,
    /// Connections closed: ended in any way, or entered TIME-WAIT.
    pub closed: f64,
}

/// Connections open at a time, in the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Concurrency {
    /// The number that the user asked for.
    pub asked: u64,
    /// The fewest.
    pub min: u64,
    /// The average.
    pub mean: f64,
    /// The most.
    pub max: u64,
}

/// Connections that count: started = established + failed before; established = closed + failed after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// Connections whose SYN was sent.
    pub started: u64,
    /// Connections whose handshake was completed.
    pub established: u64,
    /// Connections that did the whole workload.
    pub closed: u64,
    /// Connections that did not, by cause.
    pub failed: Named,
    /// Connections that were due in the window and never started.
    pub not_started: u64,
    /// Times that a connection was due and every tuple was in TIME-WAIT.
    pub tuples_short: u64,
    /// Times that a connection was due and the table was full.
    pub table_full: u64,
    /// What was wrong with the first bad response.
    pub first_bad_response: Option<String>,
}

/// Requests of the connections that count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Requests {
    /// Requests begun.
    pub started: u64,
    /// Requests whose response was complete.
    pub done: u64,
    /// Requests whose response had an HTTP status other than 2xx or 3xx.
    pub http_errors: u64,
    /// Complete responses per second of the window.
    pub per_s: f64,
}

/// TCP segments of the trial, retransmissions included; in all and per connection opened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Packets {
    /// Segments sent per connection.
    pub out: f64,
    /// Segments received per connection.
    #[serde(rename = "in")]
    pub inward: f64,
    /// Segments sent.
    pub out_total: u64,
    /// Segments received.
    pub in_total: u64,
}

impl From<&Snapshot> for Packets {
    fn from(counts: &Snapshot) -> Self {
        let [out_total, in_total] = [counts.out_segs + counts.retrans_segs, counts.in_segs];
        let each = |total: u64| match counts.active_opens {
            0 => 0.0,
            opens => (total as f64 / opens as f64 * 100.0).round() / 100.0,
        };
        Self { out: each(out_total), inward: each(in_total), out_total, in_total }
    }
}

/// Retransmissions in the trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Retransmissions {
    /// SYNs retransmitted.
    pub syn: u64,
    /// Retransmission timeouts.
    pub timeout: u64,
    /// Fast recoveries.
    pub fast: u64,
    /// Segments retransmitted, SYNs included.
    pub segs: u64,
}

/// Segments received in the trial that brought nothing, or came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Segments without new text.
    pub duplicates: u64,
    /// Segments out of order, held until the gap was filled.
    pub out_of_order: u64,
    /// Segments with a bad checksum or a malformed header.
    pub errors: u64,
}

/// Whether a run is what the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Whether there is no problem.
    pub ok: bool,
    /// The problems, one sentence each.
    pub problems: Vec<String>,
}

/// A trial of a search.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Connections per second of the trial's load.
    pub rate: u64,
    /// Connections started that count.
    pub started: u64,
    /// Connections that failed or never started, and segments retransmitted in the whole trial.
    pub lost: u64,
    /// Connections established per second.
    pub achieved: f64,
    /// Whether the trial reached its rate and lost no more than allowed.
    pub passed: bool,
    /// Whether the trial had the whole duration, to confirm a rate that shorter trials found.
    pub confirmation: bool,
}
