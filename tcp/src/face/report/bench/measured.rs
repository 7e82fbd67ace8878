//! The measurements of a run, and the report that they make.

use std::time::Duration;

use super::causes::failed;
use super::interval::{Interval, Moment};
use super::latency::Latencies;
use super::lost_syns::LostSyns;
use super::report::{
    BenchReport, Concurrency, Connections, Outcome, Packets, Rates, Received, Requests, Retransmissions, Step,
};
use super::setup::Setup;
use super::usage::CpuUse;
use super::verdict::{self, Early};
use crate::face::report::interval::rings;
use crate::face::report::{Named, per_s, serve, tenth};
use synmill_engine::generator::meters::{Meter, Meters};
use synmill_engine::generator::tally::Totals;
use synmill_engine::stats::{Law, Snapshot};

/// The measurements of a run.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// The begin of the window.
    pub begin: Moment,
    /// The end of the window, before connections drain.
    pub end: Moment,
    /// Length of the window.
    pub window: Duration,
    /// Accounts of the connections that count, read after the workers stopped.
    pub totals: Totals,
    /// What was wrong with the first bad response.
    pub first_bad: Option<String>,
    /// Latencies of the connections that count.
    pub meters: Meters,
    /// The counters at the begin of the trial.
    pub before: Snapshot,
    /// The counters after the workers stopped.
    pub counts: Snapshot,
    /// Growth of the interface's own counters in the trial.
    pub nic: Named,
    /// Connections open at a time; `None` unless the user asked for a number of them.
    pub concurrency: Option<Concurrency>,
    /// The rate that a search has confirmed.
    pub confirmed: Option<u64>,
    /// The trials of a search.
    pub steps: Vec<Step>,
    /// An interval per second.
    pub intervals: Vec<Interval>,
    /// The reason for an early end.
    pub ended_early: Option<Early>,
}

impl BenchReport {
    /// Creates the report from the user's wishes and the measurements.
    #[must_use]
    pub fn new(setup: Setup, measured: Measured) -> Self {
        let Measured { begin, end, totals, meters, counts, nic, .. } = measured;
        let duration_s = measured.window.as_secs_f64();
        let closed = serve::closed(&end.counts).saturating_sub(serve::closed(&begin.counts));
        let rate = |count: u64| tenth(per_s(count, duration_s));
        let trial = counts.since(&measured.before);
        // Percentiles must be of all connections that were established.
        let latencies =
            Law { name: "latencies", left: totals.established, right: meters.get(Meter::Connect).len() };
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
            connections: Connections {
                started: totals.started,
                established: totals.established,
                closed: totals.closed,
                failed: failed(&totals).into_iter().collect(),
                not_started: totals.not_started,
                tuples_short: totals.tuples_short,
                table_full: totals.table_full,
                first_bad_response: measured.first_bad,
            },
            requests: Requests {
                started: totals.requests_started,
                done: totals.requests_done,
                http_errors: totals.http_errors,
                per_s: rate(totals.requests_in_time),
            },
            packets_per_connection: Packets::from(&trial),
            latencies: Latencies::from(&meters),
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
            rings: rings(&trial).collect(),
            lost_syns: LostSyns::attribute(&trial, &nic),
            nic,
            counters: counts.counts().collect(),
            cpu: CpuUse::between(&begin, &end, totals.established_in_time, closed),
            accounts: totals.laws().into_iter().chain([latencies]).chain(counts.laws()).collect(),
            verdict: Outcome::default(),
            steps: measured.steps,
            intervals: measured.intervals,
        };
        let problems = verdict::problems(&report, measured.ended_early);
        report.verdict = Outcome { ok: problems.is_empty(), problems };
        report
    }
}
