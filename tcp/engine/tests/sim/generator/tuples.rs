//! Names of connections on the wire: each at most once within its TIME-WAIT; and trials with too few names or too few slots.

use std::collections::{HashMap, HashSet};

use super::*;

/// Checks that no two uses of a name are closer than `apart`.
fn check_apart(syns: &[(Instant, FlowKey)], apart: Duration, label: &str) {
    let mut last = HashMap::new();
    for (time, key) in syns {
        if let Some(before) = last.insert(*key, *time) {
            assert!(*time - before >= apart, "{label}: {key:?} after {:?}", *time - before);
        }
    }
}

#[test]
fn no_name_comes_back_within_its_time_wait() {
    for (close, service) in [(CloseBy::Peer, "http:64"), (CloseBy::Fin, "http:64"), (CloseBy::Rst, "http:64")]
    {
        for workers in [1, 2, 3] {
            // Two addresses with a hundred ports, for 1000 connections/s of which each waits a second.
            let plan = Plan {
                workers,
                sources: vec!["198.19.0.0/30".parse().unwrap()],
                ports: 2000..=2099,
                time_wait: secs(1),
                faults: delay(us(100)),
                ..Plan::saying(http(1, close), service)
            };
            let label = format!("{close:?}, {workers} workers");
            let mut field = Field::new(&plan);
            field.watch();
            let outcome = field.run_for(Load::Rate(1000), secs(5));
            let syns = field.syns();
            // A name is free a TIME-WAIT after the connection's end, not after its start.
            check_apart(&syns, plan.time_wait + us(400), &label);
            let names: HashSet<_> = syns.iter().map(|(_, key)| key).collect();
            assert_eq!(names.len(), 200, "{label}: each is used");
            let Totals { started, not_started, tuples_short, closed, .. } = outcome.totals;
            assert_eq!((started + not_started, closed), (outcome.planned, started), "{label}");
            assert!((800..=1000).contains(&started), "{label}: {started} of {}", names.len());
            assert!(tuples_short > 0 && tuples_short <= started + workers as u64, "{label}: {tuples_short}");
            assert!(outcome.over - outcome.trial.end() <= ms(5), "{label}");
            if close != CloseBy::Peer {
                // With CloseBy::Peer the peer is in TIME-WAIT, which its own clock may end some milliseconds later.
                assert_eq!(field.counts()[1].time_wait_reopened, 0, "{label}");
            }
            check_both_ends(&mut field);
        }
    }
}

#[test]
fn enough_names_are_never_short() {
    let plan = Plan {
        sources: ["198.19.0.0/29", "fd00:19::/125"].map(|source| source.parse().unwrap()).to_vec(),
        ports: 1000..=1199,
        targets: vec![(TARGET, PORT), (TARGET_V6, PORT)],
        time_wait: ms(500),
        faults: delay(us(100)),
        ..Plan::default()
    };
    let names = Space::new(&plan.sources, plan.ports.clone(), &plan.targets).unwrap().len();
    assert_eq!(names, 2 * 6 * 200);
    // Twice as many connections per second as names, because each waits half a second; fewer by those that wait with their block.
    let mut field = Field::new(&plan);
    field.watch();
    let outcome = field.run_for(Load::Rate(2 * names - 100), secs(5));
    outcome.check_perfect();
    assert_eq!(outcome.totals.tuples_short, 0);
    let syns = field.syns();
    check_apart(&syns, plan.time_wait, "both families");
    let v4 = syns.iter().filter(|(_, key)| key.local.is_v4()).count();
    assert_eq!(v4, syns.len() / 2, "targets take turns");
    check_both_ends(&mut field);
}

/// Names do not return too early when the next trial follows at once.
#[test]
fn trials_share_one_walk() {
    let plan = Plan {
        sources: vec!["198.19.0.0/30".parse().unwrap()],
        ports: 1000..=1499,
        time_wait: secs(1),
        ..Plan::default()
    };
    let mut field = Field::new(&plan);
    field.watch();
    for _ in 0..5 {
        let outcome = field.run_for(Load::Rate(900), ms(500));
        outcome.check_perfect();
    }
    check_apart(&field.syns(), plan.time_wait, "trial after trial");
    field.settle();
}

#[test]
fn a_full_table_is_counted() {
    let mut field = Field::new(&Plan { slots: [100, 4096], faults: delay(ms(1)), ..Plan::holding(true) });
    let outcome = field.run_for(Load::Rate(1000), secs(1));
    let Totals { started, closed, not_started, table_full, tuples_short, .. } = outcome.totals;
    assert_eq!((started, closed, not_started, tuples_short), (100, 100, 900, 0));
    assert_eq!(table_full, 1, "the connection that was due waits for a slot");
    assert_eq!(field.lanes[0].desk.held.max.get(), 100);
    check_both_ends(&mut field);
}

/// The responder's table is full: it is silent, the new connections time out, and the established ones stay.
#[test]
fn a_full_responder_is_silence() {
    let plan = Plan {
        holds: true,
        slots: [4096, 50],
        timeout: ms(400),
        ..Plan::saying(Script::hold(CloseBy::Rst), "hold")
    };
    let mut field = Field::new(&plan);
    let outcome = field.run_for(Load::Rate(100), secs(2));
    let Totals { started, established, closed, connect_timed_out, .. } = outcome.totals;
    assert_eq!((started, established, closed, connect_timed_out), (200, 50, 50, 150));
    field.settle();
}
