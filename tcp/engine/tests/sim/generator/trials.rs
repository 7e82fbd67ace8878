//! Several trials one after the other with the same workers, as in a search for the highest rate; and trials that are stopped or cut.

use super::*;

#[test]
fn each_trial_has_accounts_of_its_own() {
    for workers in [1, 3] {
        let plan = Plan { workers, faults: delay(us(50)), ..Plan::default() };
        let mut field = Field::new(&plan);
        let mut loads = [1000, 64_000, 0, 1, 0, 32_000, 48_000].map(Load::Rate);
        (loads[2], loads[4]) = (Load::Concurrency(7), Load::Max);
        let mut sum = 0;
        for (number, load) in loads.into_iter().enumerate() {
            let trial = Trial { ramp: ms(20), warmup: ms(10), ..field.trial(load, ms(250)) };
            assert_eq!(trial.number, number as u64 + 1);
            let outcome = field.run(trial);
            outcome.check_perfect();
            // The samples are those of this trial only.
            let all = outcome.measured.uncounted.get(Meter::Connect).len() + outcome.totals.established;
            sum += all;
            assert_eq!(field.counts()[0].established, sum, "{load:?} by {workers}");
        }
        check_both_ends(&mut field);
    }
}

/// A lossy link fails a trial, and leaves no trace in the next one on a good link.
#[test]
fn a_trial_that_fails_leaves_no_trace_in_the_next() {
    let plan = Plan { timeout: ms(100), faults: delay(ms(1)), ..Plan::default() };
    let mut field = Field::new(&plan);
    for round in 0..3 {
        field.set_faults(&Faults { loss: 0.5, ..plan.faults.clone() });
        let lossy = field.run_for(Load::Rate(1000), ms(300));
        assert!(lossy.totals.connect_timed_out > 0 && lossy.totals.started == 300, "round {round}");
        field.set_faults(&plan.faults);
        let clean = field.run_for(Load::Rate(500), ms(300));
        clean.check_perfect();
        clean.check_all(Meter::Connect, ms(2));
    }
}

/// The control plane may hand in the next trial before this one is over.
#[test]
fn a_trial_may_wait_for_the_one_before() {
    let mut field = Field::new(&Plan { faults: delay(ms(1)), ..Plan::default() });
    let first = field.trial(Load::Rate(1000), ms(500));
    let second = Trial { number: 2, start: first.end() + secs(1), ..first };
    let desk = Arc::clone(&field.lanes[0].desk);
    field.begin(first);
    assert!(desk.hand_in(second));
    let outcome = field.finish(first);
    outcome.check_perfect();
    field.trials = 2;
    field.events = vec![second.start, second.end()];
    field.end = second.end();
    assert!(field.now < second.start);
    field.finish(second).check_perfect();
    check_both_ends(&mut field);
}

#[test]
fn a_trial_can_be_stopped() {
    for (load, holds) in [
        (Load::Rate(1000), false),
        (Load::Concurrency(20), false),
        (Load::Max, false),
        (Load::Concurrency(20), true),
        (Load::Rate(100), true),
    ] {
        let mut field = Field::new(&Plan { workers: 2, faults: delay(ms(1)), ..Plan::holding(holds) });
        let trial = field.begin(field.trial(load, secs(10)));
        let stopped = trial.start + us(1_500_500);
        field.run_to(stopped);
        field.for_each_desk(Desk::stop);
        let outcome = field.finish(trial);
        let Totals { started, established, closed, not_started, .. } = outcome.totals;
        assert_eq!(
            (established, closed, not_started),
            (started, started, 0),
            "{load:?}: {:#?}",
            outcome.totals
        );
        if let Load::Rate(rate) = load {
            assert_eq!(started, rate * 3 / 2 + 1, "those that were due by then");
        }
        assert!(outcome.over - stopped <= ms(10), "{load:?}");
        check_both_ends(&mut field);
        // A stopped generator starts nothing afterwards.
        let after = field.run_for(Load::Rate(1000), secs(1));
        assert_eq!(after.totals, Totals { not_started: after.totals.not_started, ..Totals::default() });
        assert!(after.over <= after.trial.end());
    }
}

/// Cut at once, or in its drain: the accounts have every open connection.
#[test]
fn a_trial_can_be_cut() {
    for (holds, stops_first) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut field = Field::new(&Plan { workers: 2, faults: delay(ms(50)), ..Plan::holding(holds) });
        let trial = field.begin(field.trial(Load::Rate(1000), secs(10)));
        field.run_to(trial.start + ms(1500));
        if stops_first {
            field.for_each_desk(Desk::stop);
            field.run_to(trial.start + ms(1510));
        }
        let cut = field.now;
        field.for_each_desk(Desk::cut);
        let outcome = field.finish(trial);
        let Totals { started, established, closed, connect_cut, cut: cut_later, .. } = outcome.totals;
        assert_eq!(started, established + connect_cut);
        assert_eq!(established, closed + cut_later);
        assert!(cut_later > 0 && (stops_first || connect_cut > 0), "{:#?}", outcome.totals);
        assert!(outcome.over - cut <= ms(10), "{:?}", outcome.over - cut);
    }
}

/// Stopped before the measured time, or before the start.
#[test]
fn a_trial_may_be_stopped_early() {
    for at_ms in [1, 100, 299] {
        let mut field = Field::new(&Plan { faults: delay(ms(1)), ..Plan::default() });
        let trial = field.begin(Trial { warmup: ms(300), ..field.trial(Load::Rate(1000), secs(1)) });
        field.run_to(Instant::ZERO + ms(at_ms));
        field.lanes[0].desk.stop();
        let outcome = field.finish(trial);
        assert_eq!((outcome.totals.started, outcome.totals.not_started), (0, 0));
        check_both_ends(&mut field);
    }
}
