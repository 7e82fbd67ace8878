//! Links that lose, duplicate, reorder and corrupt packets; peers that are silent, refuse, or fail within the run. Each connection ends
//! in one account, and the trial ends in time.

use synmill_engine::generator::dialogue::Payload;

use super::*;

/// Heavy faults of each kind. Every failure names its seed.
#[test]
fn every_connection_is_accounted_for_whatever_the_link_does() {
    use CloseBy::{Fin, Peer, Rst};
    let scripts = [
        (Script::connect(Fin), "discard"),
        (Script::connect(Peer), "close"),
        (http(1, Peer), "http:64"),
        (http(3, Fin), "http:20000"),
        (http(2, Rst), "http:1000"),
        (Script::request(Payload::Pattern(4000), 4000, 2, Fin), "echo"),
    ];
    let kinds = [
        (0.05, 0.0, 0.0, 0.0),
        (0.0, 0.1, 0.0, 0.0),
        (0.0, 0.0, 0.1, 0.0),
        (0.0, 0.0, 0.0, 0.05),
        (0.05, 0.05, 0.05, 0.05),
    ]
    .map(|(loss, duplication, reordering, corruption)| Faults {
        loss,
        duplication,
        reordering,
        corruption,
        delay: us(100)..=ms(2),
    });
    for (seed, ((script, service), faults)) in
        scripts.iter().flat_map(|script| kinds.iter().map(move |kind| (script, kind))).enumerate()
    {
        // Each side may have to retransmit several times, and TIME-WAIT must answer the last retransmitted FIN.
        let plan = Plan {
            seed: seed as u64,
            faults: faults.clone(),
            workers: 1 + seed % 2,
            timeout: secs(60),
            time_wait: secs(60),
            ..Plan::saying(script.clone(), service)
        };
        let mut field = Field::new(&plan);
        let trial = field.trial(Load::Rate(300), secs(2));
        let outcome = field.run(Trial { ramp: ms(200), warmup: ms(200), drain: secs(200), ..trial });
        field.set_faults(&Faults::NONE);
        let Totals { started, established, closed, not_started, http_errors, bad_response, .. } =
            outcome.totals;
        let label = format!("seed {seed}, {service}, {faults:?}: {:#?}", outcome.totals);
        assert_eq!((started, not_started, http_errors), (outcome.planned, 0, 0), "{label}");
        // Both ends retransmit lost segments and drop corrupted ones, so no connection fails.
        assert_eq!((established, closed, bad_response), (started, started, 0), "{label}");
        let [near, far] = field.counts();
        assert!(far.passive_opens >= near.established, "{label}");
        assert!(far.established >= near.ended_closed, "{label}");
        if faults.loss + faults.corruption == 0.0 {
            assert_eq!(near.established, far.established, "{label}");
        }
        field.settle();
    }
}

/// A closed loop keeps its concurrency on a lossy link, too.
#[test]
fn a_closed_loop_holds_through_loss() {
    for seed in 0..4 {
        let faults = Faults { loss: 0.05, delay: ms(1)..=ms(1), ..Faults::NONE };
        let plan = Plan {
            seed,
            faults,
            workers: 2,
            timeout: secs(60),
            time_wait: secs(60),
            slots: [8192; 2],
            ..Plan::default()
        };
        let mut field = Field::new(&plan);
        let trial = Trial { drain: secs(200), ..field.trial(Load::Concurrency(50), secs(10)) };
        let outcome = field.run(trial);
        for lane in &field.lanes {
            assert_eq!((lane.desk.held.min.get(), lane.desk.held.max.get()), (25, 25), "seed {seed}");
        }
        assert_eq!(outcome.totals.failed(), 0, "seed {seed}: {:#?}", outcome.totals);
        field.settle();
    }
}

#[test]
fn a_silent_peer_is_given_up_in_time() {
    let silent = Faults { loss: 1.0, ..Faults::NONE };
    for timeout in [ms(1), ms(17), ms(250), secs(1), secs(3), secs(60)] {
        // At different offsets within a millisecond.
        for offset in [0, 1, 400_000, 999_999] {
            let mut field = Field::new(&Plan { timeout, faults: silent.clone(), ..Plan::default() });
            field.set_now(Instant::from_nanos(offset));
            let trial = field.begin(Trial { drain: secs(100), ..field.trial(Load::Rate(1), ms(500)) });
            field.run_to(trial.start + (timeout - ms(1)));
            assert_eq!(field.totals().connect_timed_out, 0, "not before {timeout:?} are over");
            let outcome = field.finish(trial);
            assert_eq!((outcome.totals.started, outcome.totals.connect_timed_out), (1, 1));
            let given_up = (outcome.over - trial.start).saturating_sub(timeout);
            let least = (trial.end() - trial.start).saturating_sub(timeout);
            assert!(given_up <= least + ms(10), "{timeout:?}: {given_up:?} too late");
        }
    }
}

#[test]
fn a_peer_that_falls_silent_is_given_up_in_time() {
    let plan = Plan { timeout: ms(500), faults: delay(ms(1)), ..Plan::default() };
    let mut field = Field::new(&plan);
    let trial = field.begin(field.trial(Load::Rate(1), ms(100)));
    // SYN,ACK has arrived, and the link loses all later packets.
    let established = trial.start + ms(2);
    field.run_to(established);
    field.set_faults(&Faults { loss: 1.0, ..plan.faults.clone() });
    let outcome = field.finish(trial);
    assert_eq!((outcome.totals.established, outcome.totals.timed_out), (1, 1));
    let waited = outcome.over - established;
    assert!((ms(499)..=ms(510)).contains(&waited), "{waited:?}");
}

#[test]
fn a_peer_that_refuses_is_named() {
    let plan = Plan { targets: vec![(TARGET, 81)], faults: delay(ms(1)), ..Plan::default() };
    let mut field = Field::new(&plan);
    let outcome = field.run_for(Load::Rate(1000), secs(1));
    assert_eq!((outcome.totals.started, outcome.totals.refused), (1000, 1000));
    assert!(outcome.over - outcome.trial.end() <= ms(5));
    assert_eq!(field.packets(), [1000, 1000], "a SYN and an RST each");
    // The concurrency holds, although each connection fails at once.
    let outcome = field.run_for(Load::Concurrency(10), ms(100));
    assert_eq!(outcome.totals.refused, outcome.totals.started);
    assert!((490..=510).contains(&outcome.totals.started), "{}", outcome.totals.started);
    field.settle();
}

/// The server is gone for two seconds of six: connections that begin meanwhile fail, and no others.
#[test]
fn a_server_that_goes_and_comes_back() {
    for seed in 0..5 {
        let plan = Plan { seed, timeout: ms(900), time_wait: secs(20), slots: [8192; 2], ..Plan::default() };
        let mut field = Field::new(&plan);
        let trial = field.begin(field.trial(Load::Rate(200), secs(6)));
        field.run_to(trial.start + secs(2));
        field.set_faults(&Faults { loss: 1.0, ..Faults::NONE });
        field.run_to(trial.start + secs(4));
        field.set_faults(&Faults::NONE);
        let outcome = field.finish(trial);
        let Totals { started, closed, connect_timed_out, .. } = outcome.totals;
        assert_eq!(
            (started, closed, connect_timed_out),
            (1200, 800, 400),
            "seed {seed}: {:#?}",
            outcome.totals
        );
        assert_eq!(outcome.totals.failed(), 400, "seed {seed}");
        field.settle();
    }
}

/// The server does not come back: at the deadline of the drain the generator cuts the connections that are left.
#[test]
fn the_drain_ends_at_its_deadline() {
    for (load, holds) in [
        (Load::Rate(500), false),
        (Load::Concurrency(100), false),
        (Load::Max, false),
        (Load::Rate(300), true),
    ] {
        for (seed, workers) in [(1, 1), (2, 2)] {
            let faults = delay(ms(3));
            let plan = Plan { seed, workers, faults, timeout: secs(30), ..Plan::holding(holds) };
            let mut field = Field::new(&plan);
            let trial = field.begin(Trial { drain: ms(700), ..field.trial(load, secs(2)) });
            field.run_to(trial.start + secs(1));
            field.set_faults(&Faults { loss: 1.0, ..plan.faults.clone() });
            let outcome = field.finish(trial);
            let late = outcome.over - (trial.end() + trial.drain);
            assert!(outcome.over >= trial.end() + trial.drain && late <= ms(10), "{load:?}: {late:?}");
            let Totals { connect_cut, cut, closed, .. } = outcome.totals;
            assert_eq!(outcome.totals.failed(), connect_cut + cut, "{load:?}: {:#?}", outcome.totals);
            assert!(connect_cut + cut > 0 && (holds || closed > 0), "{load:?}: {:#?}", outcome.totals);
            assert_eq!(field.open(), 0);
        }
    }
}
