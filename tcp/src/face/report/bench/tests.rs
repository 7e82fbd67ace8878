//! A run as it is when nothing goes wrong, one in which much does, and what the document makes of them.

use super::*;
use crate::face::report::{Host, Site};
use crate::host::machine::cpu::{CoreTicks, Cpu, ProcessTicks};
use synmill_engine::generator::{self, CloseBy};

/// 200,000 connections a second for 10 s, after 4 s of ramp and warm-up.
pub(in super::super) fn setup() -> Setup {
    let [ramp, warmup, duration] = [2, 2, 10].map(Duration::from_secs);
    Setup {
        site: Site {
            command: vec!["synmill".into(), "bench".into()],
            host: Host { kernel: "6.18".into(), cpus: 4, cpu_model: "Model".into() },
            interface: "smc0".into(),
            driver: "veth".into(),
            mode: "copy".into(),
            queues: vec![0, 1],
            workers: 2,
        },
        load: Load::steady(generator::Load::Rate(200_000), ramp, warmup, duration),
        workload: Workload::new("connect".into(), 0, CloseBy::Fin),
        targets: vec!["198.18.0.2:80".into()],
        sources: vec!["198.19.0.0/16".into()],
        tuples: 4_227_858_432,
    }
}

fn moment(seconds: u64, opens: u64) -> Moment {
    let core = |core: usize| CoreTicks {
        core,
        user: 40 * seconds,
        system: 30 * seconds,
        interrupts: 20 * seconds,
        softirq: 19 * seconds,
        idle: 10 * seconds,
        steal: 0,
    };
    let process = ProcessTicks { user: 80 * seconds, system: 55 * seconds };
    let counts =
        Snapshot { active_opens: opens, established: opens, ended_closed: opens, ..Snapshot::default() };
    let cpu = Cpu { workers: vec![65 * seconds; 2], cores: vec![core(0), core(1)], process };
    Moment { at: Duration::from_secs(seconds), counts, cpu }
}

/// So many times 100,000 connections, all alike.
pub(in super::super) fn meters(times: u64) -> Meters {
    let mut meters = Meters::default();
    for sample in 0..100_000_u64 {
        // A body of 40 to 140 us, and a tail that grows a thousandfold.
        let tail = 1_000_000 / (sample + 100);
        let record =
            |meters: &mut Meters, meter: Meter, us: u64| meters.record(meter, Duration::from_micros(us));
        record(&mut meters, Meter::Connect, 41 + sample / 1000 + tail);
        record(&mut meters, Meter::ConnectFromSyn, 40 + sample / 1000);
        record(&mut meters, Meter::Close, 35 + sample / 2000);
        record(&mut meters, Meter::Life, 80 + sample / 600 + tail);
        record(&mut meters, Meter::LifeFromSyn, 79 + sample / 600);
        record(&mut meters, Meter::StartLag, 1 + tail / 100);
    }
    let mut all = Meters::default();
    (0..times).for_each(|_| all.merge(&meters));
    all
}

/// All of them established and closed.
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
        before: Snapshot::default(),
        counts,
        nic: [("rx_packets", 3 * opens), ("rx_missed_errors", 0)].into_iter().collect(),
        concurrency: None,
        confirmed: None,
        steps: Vec::new(),
        intervals: vec![Interval::default()],
        ended_early: None,
    }
}

/// Everything that can be in a report is in this one.
pub(in super::super) fn troubled() -> BenchReport {
    let mut measured = measured();
    measured.meters = meters(17);
    let Measured { totals, meters, counts, end, .. } = &mut measured;
    for _ in 0..1_000 {
        meters.record(Meter::FirstByte, Duration::from_micros(180));
        meters.record(Meter::FirstByteFromSyn, Duration::from_micros(150));
        meters.record(Meter::Request, Duration::from_micros(95));
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
    counts.retrans_syn = 57;
    counts.retrans_timeout = 12;
    counts.retrans_fast = 3;
    counts.retrans_segs = 72;
    counts.tx_ring_full = 2;
    counts.rx_ring_full = 3;
    counts.drop_land = 7;
    counts.in_duplicates = 21;
    counts.in_out_of_order = 22;
    counts.in_errs = 23;
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
        worker_cpu_percent: vec![65.0],
        softirq_percent: vec![19.0],
        drops: [("drop_land", 7)].into_iter().collect(),
        ring_losses: [("tx_ring_full", 2)].into_iter().collect(),
        ..Interval::default()
    };
    measured.intervals.push(second);
    BenchReport::new(setup(), measured)
}

#[test]
fn rates_are_of_the_window_and_counts_of_what_started_in_it() {
    let report = BenchReport::new(setup(), measured());
    assert_eq!(report.duration_s, 10.0);
    let rates = Rates { asked: Some(200_000), achieved: 200_000.0, started: 200_000.0, closed: 200_000.0 };
    assert_eq!(report.rate_per_s, rates);
    assert_eq!((report.connections.started, report.connections.failed), (2_000_000, Failed::default()));
    let packets = Packets { out: 4.0, inward: 3.0, out_total: 10_400_000, in_total: 7_800_000 };
    assert_eq!(report.packets_per_connection, packets);
    assert!(report.accounts.closed && report.accounts.laws.len() == 6);
}

#[test]
fn cpu_time_is_the_windows_and_includes_the_kernels_side() {
    let cpu = BenchReport::new(setup(), measured()).cpu;
    assert_eq!(cpu.window_s, 10.0);
    let core = CoreUse {
        core: 1,
        user_percent: 40.0,
        system_percent: 30.0,
        softirq_percent: 20.0,
        idle_percent: 10.0,
    };
    assert_eq!(cpu.cores[1], core);
    assert_eq!(cpu.process, ProcessUse { user_s: 8.0, system_s: 5.5 });
    // Two cores, 9 s of 10 each, for 2,000,000 connections.
    assert_eq!(cpu.ns_per_connection, Some(9_000.0));
}

#[test]
fn the_ticks_share_what_idleness_and_the_hypervisor_leave() {
    // Who wakes with each tick is in all of them, though asleep for most of the time between two; who wakes just after is in few.
    for (user, system) in [(750, 250), (3, 1)] {
        let mut measured = measured();
        for (core, before) in measured.end.cpu.cores.iter_mut().zip(&measured.begin.cpu.cores) {
            (core.user, core.system, core.interrupts) =
                (before.user + user, before.system + system, before.interrupts);
            (core.idle, core.steal) = (before.idle + 550, before.steal + 50);
        }
        let cpu = BenchReport::new(setup(), measured).cpu;
        let core = &cpu.cores[0];
        assert_eq!((core.user_percent, core.system_percent, core.idle_percent), (30.0, 10.0, 55.0));
        assert_eq!(cpu.ns_per_connection, Some(4_000.0));
    }
}

#[test]
fn cpu_time_is_no_connections_where_none_was_established_or_no_tick_was_counted() {
    let without = |change: fn(&mut Measured)| {
        let mut measured = measured();
        change(&mut measured);
        let report = BenchReport::new(setup(), measured);
        assert_eq!(report.cpu.ns_per_connection, None);
        assert!(!report.table().contains("ns a connection"));
    };
    without(|measured| measured.totals.established_in_time = 0);
    without(|measured| measured.end.cpu = measured.begin.cpu.clone());
    without(|measured| measured.end.counts = measured.begin.counts);
}

#[test]
fn latencies_are_microseconds_in_order() {
    let connect = BenchReport::new(setup(), measured()).latency_us.connect;
    let Latency { p50, p90, p99, p999, p9999, max, count } = connect;
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
    assert!(crate::face::report::json(&report).is_ok() && !report.table().contains("NaN"));
    assert_eq!(report.verdict.problems.len(), 2, "{:?}", report.verdict);
}

#[test]
fn what_earlier_trials_did_is_in_the_counters_alone() {
    let report = |before: Snapshot| {
        let mut measured = Measured { before, ..measured() };
        measured.counts.retrans_segs = 12;
        measured.counts.retrans_syn = 10;
        measured.counts.drop_land = 9;
        measured.counts.rx_ring_full = 8;
        BenchReport::new(setup(), measured)
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
    let land = |report: &BenchReport| report.drops.0.iter().find(|(name, _)| name == "drop_land").unwrap().1;
    assert_eq!((land(&all), land(&last)), (9, 4));
    // The laws are of all that ever was.
    assert_eq!((&all.counters, all.accounts.closed), (&last.counters, last.accounts.closed));
}

#[test]
fn loads_are_told_by_name() {
    let second = Duration::from_secs(1);
    let check = |load: generator::Load, kind: &str, asked: Option<u64>| {
        let load = Load::steady(load, second, second, second);
        assert_eq!((load.kind, load.asked), (kind, asked));
    };
    check(generator::Load::Rate(5), "rate", Some(5));
    check(generator::Load::Max, "max", None);
    check(generator::Load::Concurrency(6), "concurrency", Some(6));
    assert_eq!(
        (Load::search(second, second, second).kind, Load::search(second, second, second).asked),
        ("search", None)
    );
}
