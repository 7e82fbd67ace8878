//! The generator's report: a line a second, a table of one screen, the document `synmill-bench/1`.
//!
//! Two kinds of counts stand side by side. *Connections that count* are those whose intended start lies in the measured
//! window, followed to their end: the accounts, latencies and requests are theirs. *Rates* are of what happened while
//! the window lasted, to whatever connection. Packets, retransmissions and losses are of the whole *trial*: with ramp,
//! warm-up and drain. A search has several trials and reports the last; any other run is one trial.

mod failed;
mod interval;
mod latency;
mod losses;
mod setup;
mod table;
mod usage;
mod verdict;

use std::time::Duration;

use serde::Serialize;

pub use failed::Failed;
pub use interval::{Interval, Phase, Sampler};
pub use latency::{FromSyn, Latencies, Latency};
pub use losses::LostSyns;
pub use setup::{Load, Setup, Workload};
pub use usage::{CoreUse, CpuUse, Moment, ProcessUse};

use super::{Accounts, Named, RINGS, Verdict, per_s, serve, tenth};
use synmill_engine::generator::meters::{Meter, Meters};
use synmill_engine::generator::tally::Totals;
use synmill_engine::stats::{Law, Snapshot};

/// What was measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The begin of the time that counts.
    pub begin: Moment,
    /// Its end, before connections drain.
    pub end: Moment,
    /// How long connections counted.
    pub window: Duration,
    /// The accounts of connections that count, when the workers had stopped.
    pub totals: Totals,
    /// What was wrong with the first bad response.
    pub first_bad: Option<String>,
    /// The latencies of connections that count.
    pub meters: Meters,
    /// The counters when the trial began.
    pub before: Snapshot,
    /// The counters when the workers had stopped.
    pub counts: Snapshot,
    /// What the interface's own counters grew by in the trial.
    pub nic: Named,
    /// Connections open at a time; `None` unless so many were asked for.
    pub concurrency: Option<Concurrency>,
    /// The rate that a search has confirmed.
    pub confirmed: Option<u64>,
    /// The trials of a search.
    pub steps: Vec<Step>,
    /// A second each.
    pub intervals: Vec<Interval>,
    /// What ended it before its time, if anything did.
    pub ended_early: Option<Early>,
}

/// What ended a run before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Early {
    /// A signal: no more was opened, and what was open could drain.
    Signal,
    /// Trouble that is told elsewhere: what was open was cut.
    Trouble,
}

/// A trial of a search.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Connections a second that were asked for.
    pub rate: u64,
    /// Connections started that count.
    pub started: u64,
    /// Connections that failed or never started, and segments sent again in the whole trial.
    pub lost: u64,
    /// Connections established in a second.
    pub achieved: f64,
    /// Whether so few were lost, and the rate was reached.
    pub passed: bool,
    /// A trial of the whole duration, which confirms what shorter ones have found.
    pub confirmation: bool,
}

/// Connections a second; an average over the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// As asked for, or as a search has confirmed it; nothing otherwise.
    pub asked: Option<u64>,
    /// Established.
    pub achieved: f64,
    /// SYNs sent for the first time.
    pub started: f64,
    /// Closed: ended in whatever way, or gone into TIME-WAIT.
    pub closed: f64,
}

/// Connections open at a time, in the window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Concurrency {
    /// As asked for.
    pub asked: u64,
    /// The fewest.
    pub min: u64,
    /// On average.
    pub mean: f64,
    /// The most.
    pub max: u64,
}

/// What became of the connections that count: started = established + failed before; established = closed + failed
/// after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// Their SYN was sent.
    pub started: u64,
    /// Their handshake was completed.
    pub established: u64,
    /// They did all they were meant to.
    pub closed: u64,
    /// They did not.
    pub failed: Failed,
    /// Due in the window, and never started.
    pub not_started: u64,
    /// Times that one was due and no tuple was out of its TIME-WAIT.
    pub tuples_short: u64,
    /// Times that one was due and the table was full.
    pub table_full: u64,
    /// What was wrong with the first bad response.
    pub first_bad_response: Option<String>,
}

impl From<&Totals> for Connections {
    fn from(totals: &Totals) -> Self {
        Self {
            started: totals.started,
            established: totals.established,
            closed: totals.closed,
            failed: Failed::from(totals),
            not_started: totals.not_started,
            tuples_short: totals.tuples_short,
            table_full: totals.table_full,
            first_bad_response: None,
        }
    }
}

/// Requests of the connections that count.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Requests {
    /// Begun.
    pub started: u64,
    /// Answered whole.
    pub done: u64,
    /// Answered with an HTTP status other than 2xx or 3xx.
    pub http_errors: u64,
    /// Answered, over the window's length.
    pub per_s: f64,
}

/// TCP segments of the trial, those sent again included, and how many that is for a connection opened.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Packets {
    /// Sent, a connection.
    pub out: f64,
    /// Received, a connection.
    #[serde(rename = "in")]
    pub inward: f64,
    /// Sent.
    pub out_total: u64,
    /// Received.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Retransmissions {
    /// SYNs sent again.
    pub syn: u64,
    /// Retransmission timers that ran out.
    pub timeout: u64,
    /// Fast recoveries begun.
    pub fast: u64,
    /// Segments sent again, SYNs included.
    pub segs: u64,
}

/// What was received in the trial and brought nothing, or came too early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Received {
    /// Segments that carried nothing new.
    pub duplicates: u64,
    /// Segments out of order, kept until their turn.
    pub out_of_order: u64,
    /// Segments with a bad checksum or a malformed header.
    pub errors: u64,
}

/// Whether the run is as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The run has no problem.
    pub ok: bool,
    /// The problems, a sentence each.
    pub problems: Vec<String>,
}

/// The whole run.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    /// The shape of this document, `synmill-bench/1`.
    pub schema: &'static str,
    /// What was asked for, and where it ran.
    #[serde(flatten)]
    pub setup: Setup,
    /// The window's length, as it was.
    pub duration_s: f64,
    /// Connections a second in the window.
    pub rate_per_s: Rates,
    /// Connections open at a time; nothing unless so many were asked for.
    pub concurrency: Option<Concurrency>,
    /// What became of the connections that count.
    pub connections: Connections,
    /// What became of their requests.
    pub requests: Requests,
    /// Segments of the trial.
    pub packets_per_connection: Packets,
    /// Latencies of the connections that count.
    pub latency_us: Latencies,
    /// The same, from the SYN on.
    pub latency_from_syn_us: FromSyn,
    /// Intended start to SYN sent.
    pub start_lag_us: Latency,
    /// Retransmissions in the trial.
    pub retransmissions: Retransmissions,
    /// What was received in the trial and brought nothing, or came too early.
    pub received: Received,
    /// Every reason to drop, in the trial.
    pub drops: Named,
    /// Losses at our own rings, in the trial.
    pub rings: Named,
    /// What the interface's own counters grew by in the trial.
    pub nic: Named,
    /// Where SYNs were lost.
    pub lost_syns: LostSyns,
    /// Every counter, in the whole run: of all trials of a search.
    pub counters: Named,
    /// CPU time in the window.
    pub cpu: CpuUse,
    /// The laws.
    pub accounts: Accounts,
    /// Whether all is as it was asked for.
    pub verdict: Outcome,
    /// The trials of a search.
    pub steps: Vec<Step>,
    /// A second each.
    pub intervals: Vec<Interval>,
}

impl BenchReport {
    /// The report of what was asked for and what was measured.
    #[must_use]
    pub fn new(setup: Setup, measured: Measured) -> Self {
        let Measured { begin, end, totals, meters, counts, nic, .. } = measured;
        let duration_s = measured.window.as_secs_f64();
        let closed = serve::closed(&end.counts).saturating_sub(serve::closed(&begin.counts));
        let rate = |count: u64| tenth(per_s(count, duration_s));
        let trial = counts.since(&measured.before);
        // What is told of percentiles is told of all that were established.
        let latencies =
            Law { name: "latencies", left: totals.established, right: meters.get(Meter::Connect).len() };
        let laws = totals
            .laws()
            .into_iter()
            .chain([latencies])
            .chain(counts.laws())
            .map(Verdict::from)
            .collect::<Vec<_>>();
        let asked = setup.load.asked.filter(|_| setup.load.kind == "rate").or(measured.confirmed);
        let mut report = Self {
            schema: "synmill-bench/1",
            setup,
            duration_s,
            rate_per_s: Rates {
                asked,
                achieved: rate(totals.established_in_time),
                started: rate(totals.started_in_time),
                closed: rate(totals.ended_in_time),
            },
            concurrency: measured.concurrency,
            connections: Connections { first_bad_response: measured.first_bad, ..Connections::from(&totals) },
            requests: Requests {
                started: totals.requests_started,
                done: totals.requests_done,
                http_errors: totals.http_errors,
                per_s: rate(totals.requests_in_time),
            },
            packets_per_connection: Packets::from(&trial),
            latency_us: Latencies::from(&meters),
            latency_from_syn_us: FromSyn::from(&meters),
            start_lag_us: Latency::from(meters.get(Meter::StartLag)),
            retransmissions: Retransmissions {
                syn: trial.retrans_syn,
                timeout: trial.retrans_timeout,
                fast: trial.retrans_fast,
                segs: trial.retrans_segs,
            },
            received: Received {
                duplicates: trial.in_duplicates,
                out_of_order: trial.in_out_of_order,
                errors: trial.in_errs,
            },
            drops: trial.drops().collect(),
            rings: trial.counts().filter(|(name, _)| RINGS.contains(name)).collect(),
            lost_syns: LostSyns::attribute(&trial, &nic),
            nic,
            counters: counts.counts().collect(),
            cpu: CpuUse::between(&begin, &end, totals.established_in_time, closed),
            accounts: Accounts { closed: laws.iter().all(|law| law.holds), laws },
            verdict: Outcome::default(),
            steps: measured.steps,
            intervals: measured.intervals,
        };
        report.judge(measured.ended_early);
        report
    }
}

#[cfg(test)]
pub(super) mod tests;
