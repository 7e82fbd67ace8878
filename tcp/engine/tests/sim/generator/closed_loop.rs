//! Closed loop: a number of connections at a time, or as many as possible; and connections that only stay open.

use super::*;

/// Returns the least and the most connections that each worker had under way in the measured time.
fn held(field: &Field) -> Vec<(u64, u64)> {
    field.lanes.iter().map(|lane| (lane.desk.held.min.get(), lane.desk.held.max.get())).collect()
}

fn shares(at_once: u64, workers: usize) -> Vec<(u64, u64)> {
    let workers = workers as u64;
    let share = |number| at_once / workers + u64::from(number < at_once % workers);
    (0..workers).map(|number| (share(number), share(number))).collect()
}

#[test]
fn concurrency_is_held_by_any_number_of_workers() {
    for (at_once, workers) in [(1, 1), (1, 2), (2, 3), (100, 1), (100, 2), (100, 3), (1000, 1), (1001, 3)] {
        let plan = Plan { workers, faults: delay(ms(1)), ..Plan::default() };
        let mut field = Field::new(&plan);
        let trial = Trial { warmup: ms(20), ..field.trial(Load::Concurrency(at_once), secs(1)) };
        let outcome = field.run(trial);
        outcome.check_perfect();
        let mut expected = shares(at_once, workers);
        // A worker without a share has nothing to do.
        expected.iter_mut().filter(|(share, _)| *share == 0).for_each(|held| *held = (0, 0));
        assert_eq!(held(&field), expected, "{at_once} by {workers}");
        // A connection takes six delays of a millisecond, and the next follows at once.
        let rounds = outcome.totals.started / at_once;
        assert!((166..=167).contains(&rounds), "{at_once} by {workers}: {rounds} rounds");
        // The last connections begin just before the end.
        assert!(outcome.over - trial.end() <= ms(7));
        check_both_ends(&mut field);
    }
}

#[test]
fn as_many_as_will_go_is_bounded() {
    for workers in [1, 2, 3] {
        let plan = Plan { workers, faults: delay(ms(1)), ..Plan::default() };
        let mut field = Field::new(&plan);
        let trial = Trial { warmup: ms(20), ..field.trial(Load::Max, ms(500)) };
        let outcome = field.run(trial);
        outcome.check_perfect();
        assert_eq!(held(&field), shares(512, workers));
        let rounds = outcome.totals.started / 512;
        assert!((83..=84).contains(&rounds), "{workers}: {rounds} rounds");
        field.settle();
    }
}

#[test]
fn concurrency_grows_with_the_ramp() {
    let plan = Plan { workers: 2, faults: delay(ms(1)), ..Plan::default() };
    let mut field = Field::new(&plan);
    let trial = field.begin(Trial { ramp: secs(2), ..field.trial(Load::Concurrency(200), secs(1)) });
    let mut before = 0;
    for tenth in 1..=10_u64 {
        field.run_to(trial.start + ms(200 * tenth));
        let open = field.open();
        assert!((20 * tenth - 2..=20 * tenth).contains(&open), "{open} after {tenth} tenths");
        assert!(open > before);
        before = open;
    }
    let outcome = field.finish(trial);
    outcome.check_perfect();
    assert_eq!(held(&field), [(100, 100); 2]);
    field.settle();
}

#[test]
fn connections_are_held_and_then_closed() {
    for (close, load, workers) in [
        (CloseBy::Fin, Load::Concurrency(1000), 1),
        (CloseBy::Rst, Load::Concurrency(1000), 2),
        (CloseBy::Peer, Load::Concurrency(999), 2),
        (CloseBy::Fin, Load::Rate(100), 1),
        (CloseBy::Rst, Load::Rate(100), 3),
    ] {
        let plan =
            Plan { holds: true, workers, faults: delay(ms(1)), ..Plan::saying(Script::hold(close), "hold") };
        let mut field = Field::new(&plan);
        let trial = field.begin(field.trial(load, secs(20)));
        let at_once = match load {
            Load::Concurrency(at_once) => {
                field.run_to(trial.start + secs(1));
                let packets = field.packets();
                // The timeout is shorter than this.
                field.run_to(trial.end());
                assert_eq!(field.packets(), packets, "{close:?}: a held connection sends nothing");
                assert_eq!(held(&field), shares(at_once, workers));
                at_once
            }
            Load::Rate(_) | Load::Max => {
                field.run_to(trial.end());
                100 * 20
            }
        };
        assert_eq!(field.open(), at_once);
        let outcome = field.finish(trial);
        outcome.check_perfect();
        assert_eq!(outcome.totals.started, at_once);
        assert!(outcome.over - trial.end() <= ms(20), "{close:?}: closed in a row");
        check_both_ends(&mut field);
        let [near, far] = field.counts();
        let resets = if close == CloseBy::Rst { at_once } else { 0 };
        assert_eq!((near.ended_reset_by_us, far.ended_reset_by_peer), (resets, resets), "{close:?}");
    }
}
