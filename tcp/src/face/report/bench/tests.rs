//! Fixtures: a run without trouble and one with much of it. Tests of the documents that they make.

use std::time::Duration;

use super::*;
use crate::face::report::interval::{Busy, Losses};
use crate::face::report::{json, serve};
use crate::host::machine::cpu::{CoreTicks, Cpu, ProcessTicks};
use synmill_engine::generator::meters::{Meter, Meters};
use synmill_engine::generator::tally::Totals;
use synmill_engine::generator::{self, CloseBy};
use synmill_engine::stats::Snapshot;

/// Returns a load of 200,000 connections/s for 10 s, after 4 s of ramp and warm-up.
pub(in super::super) fn setup() -> Setup {
    let [ramp, warmup, duration] = [2, 2, 10].map(Duration::from_secs);
    Setup {
        site: serve::tests::site(),
        load: Load::steady(generator::Load::Rate(200_000), ramp, warmup, duration),
        workload: Workload::new("connect".into(), 0, CloseBy::Fin),
        targets: vec!["198.18.0.2:80".into()],
        sources: vec!["198.19.0.0/16".into()],
        tuples: 4_227_858_432,
    }
}

fn moment(seconds: u64, opens: u64) -> Moment {
    let [user, system, interrupts, softirq, idle] = [40, 30, 20, 19, 10].map(|ticks| ticks * seconds);
    let core = |core: usize| CoreTicks { core, user, system, interrupts, softirq, idle, steal: 0 };
    let process = ProcessTicks { user: 80 * seconds, system: 55 * seconds };
    let counts =
        Snapshot { active_opens: opens, established: opens, ended_closed: opens, ..Snapshot::default() };
    let cpu = Cpu { workers: vec![65 * seconds; 2], cores: vec![core(0), core(1)], process };
    Moment { at: Duration::from_secs(seconds), counts, cpu }
}

/// Returns the latencies of `times` 100,000 connections. Each 100,000 are alike.
pub(in super::super) fn meters(times: u64) -> Meters {
    let mut meters = Meters::default();
    for sample in 0..100_000_u64 {
        // A body of 40 to 140 us, and a tail that grows a thousandfold.
        let tail = 1_000_000 / (sample + 100);
        for (meter, us) in [
            (Meter::Connect, 41 + sample / 1000 + tail),
            (Meter::ConnectFromSyn, 40 + sample / 1000),
            (Meter::Close, 35 + sample / 2000),
            (Meter::Life, 80 + sample / 600 + tail),
            (Meter::LifeFromSyn, 79 + sample / 600),
            (Meter::StartLag, 1 + tail / 100),
        ] {
            meters.record(meter, Duration::from_micros(us));
        }
    }
    let mut all = Meters::default();
    (0..times).for_each(|_| all.merge(&meters));
    all
}

/// Returns the measurements of a run in which every connection was established and closed.
pub(in super::super) fn measured() -> Measured {
    let opens = 2_600_000;
    let counts = Snapshot {
        active_opens: opens,
        established: opens,
        ended_closed: opens - 9_000,
        curr_connections: 9_000,
        curr_time_wait: 9_000,
        out_segs: 4 * opens,
        in_segs: 3 * opens,
        in_frames: 3 * opens,
        frames_answered: 2 * opens,
        frames_absorbed: opens,
        ..Snapshot::default()
    };
    let [begin, end] = [moment(4, 600_000), moment(14, opens)];
    let all = 2_000_000;
    let totals = Totals {
        started: all,
        established: all,
        closed: all,
        started_in_time: all,
        established_in_time: all,
        ended_in_time: all,
        ..Totals::default()
    };
    Measured {
        first_bad: Some("the body has another length than expected".into()),
        begin,
        end,
        window: Duration::from_secs(10),
        totals,
        meters: meters(20),
        counts,
        nic: [("rx_packets", 3 * opens), ("rx_missed_errors", 0)].into_iter().collect(),
        intervals: vec![Interval::default()],
        ..Measured::default()
    }
}

/// Returns the report of [`setup`] and [`measured`] after a change.
pub(in super::super) fn changed(change: impl FnOnce(&mut Setup, &mut Measured)) -> BenchReport {
    let (mut setup, mut measured) = (setup(), measured());
    change(&mut setup, &mut measured);
    BenchReport::new(setup, measured)
}

/// Returns a report that has every part that a report can have.
pub(in super::super) fn troubled() -> BenchReport {
    let mut measured = measured();
    measured.meters = meters(17);
    let Measured { totals, meters, counts, end, .. } = &mut measured;
    for (meter, us) in [(Meter::FirstByte, 180), (Meter::FirstByteFromSyn, 150), (Meter::Request, 95)] {
        (0..1_000).for_each(|_| meters.record(meter, Duration::from_micros(us)));
    }
    *totals = Totals {
        established: 1_700_000,
        established_in_time: 1_700_000,
        refused: 300_000,
        closed: 1_699_000,
        reset_by_peer: 300,
        cut: 700,
        requests_started: 1_700_000,
        requests_done: 1_699_500,
        requests_in_time: 1_699_500,
        http_errors: 5,
        not_started: 70_000,
        table_full: 12,
        tuples_short: 3,
        ..*totals
    };
    end.counts.established -= 300_000;
    *counts = Snapshot {
        retrans_syn: 57,
        retrans_timeout: 12,
        retrans_fast: 3,
        retrans_segs: 72,
        tx_ring_full: 2,
        rx_ring_full: 3,
        drop_land: 7,
        in_duplicates: 21,
        in_out_of_order: 22,
        in_errs: 23,
        ..*counts
    };
    measured.nic = [("rx_packets", 100), ("rx_missed_errors", 4)].into_iter().collect();
    measured.concurrency = Some(Concurrency { asked: 1_000, min: 995, mean: 998.0, max: 1_000 });
    let step = |rate: u64, lost: u64| Step {
        rate,
        started: rate * 10,
        lost,
        achieved: rate as f64 - lost as f64 / 10.0,
        passed: lost == 0,
        confirmation: rate == 200_000,
    };
    measured.steps = vec![step(100_000, 0), step(400_000, 51_234), step(200_000, 0)];
    measured.ended_early = Some(Early::Signal);
    let second = Interval {
        phase: Phase::Measure,
        failed: [("refused", 3)].into_iter().collect(),
        connect_p99_us: Some(120.5),
        request_p99_us: Some(95.0),
        busy: Busy { worker_cpu_percent: vec![65.0], softirq_percent: vec![19.0] },
        losses: Losses {
            drops: [("drop_land", 7)].into_iter().collect(),
            ring_losses: [("tx_ring_full", 2)].into_iter().collect(),
            ..Losses::default()
        },
        ..Interval::default()
    };
    measured.intervals.push(second);
    BenchReport::new(setup(), measured)
}

#[test]
fn rates_are_of_the_window_and_counts_of_what_started_in_it() {
    let report = changed(|_, _| ());
    assert_eq!(report.duration_s, 10.0);
    let rates = Rates { asked: Some(200_000), achieved: 200_000.0, started: 200_000.0, closed: 200_000.0 };
    assert_eq!(report.rate_per_s, rates);
    assert_eq!((report.connections.started, report.connections.failed.occurred().count()), (2_000_000, 0));
    let packets = Packets { out: 4.0, inward: 3.0, out_total: 10_400_000, in_total: 7_800_000 };
    assert_eq!(report.packets_per_connection, packets);
    assert!(report.accounts.closed && report.accounts.laws.len() == 6);
}

#[test]
fn cpu_time_is_the_windows_and_includes_the_kernels_side() {
    let cpu = changed(|_, _| ()).cpu;
    assert_eq!(cpu.window_s, 10.0);
    let CoreUse { core, user_percent, system_percent, softirq_percent, idle_percent } = cpu.cores[1];
    assert_eq!((core, user_percent, system_percent), (1, 40.0, 30.0));
    assert_eq!((softirq_percent, idle_percent), (20.0, 10.0));
    assert_eq!(cpu.process, ProcessUse { user_s: 8.0, system_s: 5.5 });
    // Two cores, 9 s of 10 each, for 2,000,000 connections.
    assert_eq!(cpu.ns_per_connection, Some(9_000.0));
}

#[test]
fn the_ticks_share_what_idleness_and_the_hypervisor_leave() {
    // A thread that wakes with each tick is in all samples, though it sleeps most of the time. One that wakes just after is in few.
    for (user, system) in [(750, 250), (3, 1)] {
        let cpu = changed(|_, Measured { begin, end, .. }| {
            for (core, before) in end.cpu.cores.iter_mut().zip(&begin.cpu.cores) {
                let (user, system) = (before.user + user, before.system + system);
                let (idle, steal) = (before.idle + 550, before.steal + 50);
                *core = CoreTicks { user, system, idle, steal, ..*before };
            }
        })
        .cpu;
        let core = &cpu.cores[0];
        assert_eq!((core.user_percent, core.system_percent, core.idle_percent), (30.0, 10.0, 55.0));
        assert_eq!(cpu.ns_per_connection, Some(4_000.0));
    }
}

#[test]
fn cpu_time_is_no_connections_where_none_was_established_or_no_tick_was_counted() {
    let without = |change: fn(&mut Measured)| {
        let report = changed(|_, measured| change(measured));
        assert_eq!(report.cpu.ns_per_connection, None);
        assert!(!report.table().contains("ns per connection"));
    };
    without(|measured| measured.totals.established_in_time = 0);
    without(|measured| measured.end.cpu = measured.begin.cpu.clone());
    without(|measured| measured.end.counts = measured.begin.counts);
}

#[test]
fn latencies_are_microseconds_in_order() {
    let latencies = changed(|_, _| ()).latencies;
    let connect @ &Latency { p50, p90, p99, p999, p9999, max, count } =
        latencies.latency_us.get("connect").unwrap();
    assert_eq!(count, 2_000_000);
    assert!(p50 < p90 && p90 < p99 && p99 < p999 && p999 < p9999 && p9999 <= max, "{connect:?}");
    assert!((100.0..130.0).contains(&p50) && (10_000.0..10_100.0).contains(&max), "{connect:?}");
    assert_eq!(Latency::from(Meters::default().get(Meter::Life)), Latency::default());
}

#[test]
fn a_run_that_ended_before_its_window_has_no_rates() {
    let report =
        BenchReport::new(setup(), Measured { ended_early: Some(Early::Signal), ..Measured::default() });
    assert_eq!((report.rate_per_s.achieved, report.cpu.ns_per_connection), (0.0, None));
    assert!(json(&report).is_ok() && !report.table().contains("NaN"));
    assert_eq!(report.verdict.problems.len(), 2, "{:?}", report.verdict);
}

#[test]
fn what_earlier_trials_did_is_in_the_counters_alone() {
    let report = |before: Snapshot| {
        changed(|_, measured| {
            let counts = measured.counts;
            let counts =
                Snapshot { retrans_segs: 12, retrans_syn: 10, drop_land: 9, rx_ring_full: 8, ..counts };
            (measured.before, measured.counts) = (before, counts);
        })
    };
    let before = Snapshot {
        active_opens: 1_600_000,
        out_segs: 7_000_000,
        retrans_segs: 9,
        retrans_syn: 8,
        drop_land: 5,
        rx_ring_full: 7,
        ..Snapshot::default()
    };
    let (all, last) = (report(Snapshot::default()), report(before));
    assert_eq!((all.retransmissions.segs, last.retransmissions.segs), (12, 3));
    assert_eq!(last.packets_per_connection.out_total, all.packets_per_connection.out_total - 7_000_009);
    assert_eq!(last.packets_per_connection.out, 3.4);
    let at_rings = LostSyns { total: 2, our_rx: 1, peer_or_way: 1, ..LostSyns::default() };
    assert_eq!(last.lost_syns, at_rings);
    let land = |report: &BenchReport| *report.drops.get("drop_land").unwrap();
    assert_eq!((land(&all), land(&last)), (9, 4));
    // The accounts are of the whole run.
    assert_eq!((&all.counters, all.accounts.closed), (&last.counters, last.accounts.closed));
}

#[test]
fn loads_are_told_by_name() {
    let second = Duration::from_secs(1);
    let steady = |load: generator::Load| Load::steady(load, second, second, second);
    for (load, kind, asked) in [
        (steady(generator::Load::Rate(5)), "rate", Some(5)),
        (steady(generator::Load::Max), "max", None),
        (steady(generator::Load::Concurrency(6)), "concurrency", Some(6)),
        (Load::search(second, second, second), "search", None),
    ] {
        assert_eq!((load.kind, load.asked), (kind, asked));
    }
}
