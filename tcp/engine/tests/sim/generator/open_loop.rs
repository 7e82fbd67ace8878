//! Open loop: each connection starts at its time, whatever becomes of the others.

use super::*;

/// Runs a trial of a rate. Checks that its SYNs are sent at the planned nanoseconds, none before the start or from the end on.
fn check(plan: &Plan, rate: u64, ramp: Duration, warmup: Duration, duration: Duration) {
    let mut field = Field::new(plan);
    field.watch();
    let trial = Trial { ramp, warmup, ..field.trial(Load::Rate(rate), duration) };
    let outcome = field.run(trial);
    let label = format!("{rate}/s, {} workers, ramp {ramp:?}", plan.workers);

    outcome.check_perfect();
    let mut pace = Pace::new(trial.start, rate, ramp, 1, 0);
    let syns = field.syns();
    for (number, (time, _)) in syns.iter().enumerate() {
        assert_eq!(*time, pace.due(), "{label}: SYN {number}");
        pace.advance();
    }
    assert!(pace.due() >= trial.end(), "{label}: none is missing");
    // The accounts have the SYNs of the measured time, and no others.
    let counted = syns.iter().filter(|(time, _)| *time >= trial.counts_from()).count() as u64;
    assert_eq!(outcome.totals.started, counted, "{label}");
    assert_eq!(outcome.measured.uncounted.get(Meter::Connect).len(), syns.len() as u64 - counted, "{label}");
    outcome.check_all(Meter::StartLag, us(1));
    check_both_ends(&mut field);
    assert_eq!(field.counts()[0].active_opens, syns.len() as u64, "{label}");
}

#[test]
fn the_rate_is_what_was_asked() {
    let plan = |workers, delay_us| Plan { workers, faults: delay(us(delay_us)), ..Plan::default() };
    check(&plan(1, 50), 1, Duration::ZERO, Duration::ZERO, secs(60));
    check(&plan(1, 100), 3, Duration::ZERO, secs(1), secs(20));
    check(&plan(1, 100), 1000, secs(2), secs(1), secs(3));
    check(&plan(2, 100), 999, ms(1500), ms(10), secs(2));
    check(&plan(3, 1000), 4001, secs(1), Duration::ZERO, secs(2));
    let fast = |workers| Plan { time_wait: ms(10), ..plan(workers, 30) };
    check(&fast(1), 100_000, Duration::ZERO, Duration::ZERO, secs(2));
    check(&fast(2), 100_000, ms(500), ms(100), secs(1));
    check(&fast(1), 123_457, ms(100), Duration::ZERO, secs(1));
}

#[test]
fn a_connection_a_second_for_hours() {
    check(&Plan::default(), 1, Duration::ZERO, Duration::ZERO, secs(6 * 3600));
    let plan = Plan { faults: delay(ms(1)), time_wait: secs(60), workers: 2, ..Plan::default() };
    check(&plan, 1, secs(600), secs(60), secs(3600));
}

#[test]
fn connections_of_the_window_are_followed_to_their_end() {
    let plan = Plan { faults: delay(ms(300)), ..Plan::default() };
    let mut field = Field::new(&plan);
    let trial = Trial { warmup: secs(2), ..field.trial(Load::Rate(200), secs(3)) };
    let outcome = field.run(trial);
    outcome.check_perfect();
    // A connection takes six delays, and the last one began within 5 ms of the end.
    let life = outcome.over - trial.end();
    assert!((ms(6 * 300 - 5)..=ms(6 * 300 + 5)).contains(&life), "{life:?}");
    assert_eq!(outcome.measured.uncounted.get(Meter::Life).len(), 400);
    field.settle();
}

#[test]
fn a_window_may_be_a_moment() {
    for (rate, duration) in [(1000, ms(1)), (1000, ms(2)), (7, ms(1)), (100_000, us(10))] {
        let mut field = Field::new(&Plan::default());
        let outcome = field.run_for(Load::Rate(rate), duration);
        outcome.check_perfect();
        assert!(outcome.over - outcome.trial.end() <= ms(3));
    }
}

/// Started and not started connections add up to the planned ones, even if the generator is late at the end.
#[test]
fn what_comes_too_late_is_counted() {
    let mut field = Field::new(&Plan::default());
    let trial = field.begin(field.trial(Load::Rate(1000), secs(2)));
    field.run_to(trial.start + ms(1500));
    field.stalled = true;
    field.run_to(trial.start + ms(2100));
    field.stalled = false;
    let outcome = field.finish(trial);
    assert_eq!((outcome.totals.started, outcome.totals.not_started), (1500, 500));
    assert_eq!(outcome.totals.closed, 1500);
    field.settle();
}
