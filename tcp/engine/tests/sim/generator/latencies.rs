//! Latencies on a link with a known delay, and with a generator that is late.

use super::*;

#[test]
fn latencies_are_the_links_own() {
    for way in [us(7), us(123), ms(1), ms(40), secs(2)] {
        for (load, workers) in [(Load::Rate(50), 1), (Load::Rate(50), 2), (Load::Concurrency(8), 1)] {
            let plan = Plan {
                workers,
                faults: delay(way),
                timeout: secs(10),
                ..Plan::saying(http(1, CloseBy::Fin), "http:64")
            };
            let mut field = Field::new(&plan);
            // With the longest delay the generator retransmits its SYN: time runs from the first.
            let duration = if load == Load::Rate(50) { secs(1) } else { secs(1).min(100 * way) };
            let outcome = field.run(Trial { drain: secs(30), ..field.trial(load, duration) });
            outcome.check_perfect();
            for (meter, ways) in [
                (Meter::Connect, 2),
                (Meter::ConnectFromSyn, 2),
                (Meter::FirstByte, 4),
                (Meter::FirstByteFromSyn, 4),
                (Meter::Request, 2),
                (Meter::Close, 2),
                (Meter::Life, 6),
                (Meter::LifeFromSyn, 6),
            ] {
                outcome.check_all(meter, ways * way);
            }
            outcome.check_all(Meter::StartLag, us(1));
        }
    }
}

#[test]
fn of_several_requests_each_is_measured() {
    let plan = Plan { faults: delay(ms(5)), ..Plan::saying(http(10, CloseBy::Peer), "http:64") };
    let outcome = Field::new(&plan).run_for(Load::Rate(100), secs(1));
    outcome.check_perfect();
    assert_eq!((outcome.count(Meter::Request), outcome.count(Meter::FirstByte)), (1000, 100));
    outcome.check_all(Meter::Request, ms(10));
    outcome.check_all(Meter::FirstByte, ms(20));
    outcome.check_all(Meter::Life, ms(10 + 10 * 10 + 10));
}

/// Returns how many samples of a meter are longer than this.
fn longer(outcome: &Outcome, meter: Meter, than: Duration) -> u64 {
    let samples = outcome.measured.counted.get(meter);
    samples.len() - samples.count_between(0, than.as_nanos() as u64)
}

/// A generator that stands still for a second. A connection that it opens late waits from its intended start on. Only connections that
/// were under way waited longer since their SYN.
#[test]
fn a_stalled_generator_shows_in_latencies_from_the_intended_start() {
    for workers in [1, 2] {
        let plan = Plan { workers, faults: delay(ms(1)), ..Plan::default() };
        let mut field = Field::new(&plan);
        let trial = field.begin(field.trial(Load::Rate(1000), secs(4)));
        field.run_to(trial.start + secs(1));
        field.stalled = true;
        field.run_to(trial.start + secs(2));
        field.stalled = false;
        let outcome = field.finish(trial);
        outcome.check_perfect();
        let late = longer(&outcome, Meter::Connect, ms(3));
        assert!((995..=1005).contains(&late), "{workers} workers: {late} late");
        // Two connections between SYN and SYN,ACK, a millisecond apart.
        assert!(longer(&outcome, Meter::ConnectFromSyn, ms(3)) <= 3);
        let lags = longer(&outcome, Meter::StartLag, ms(1));
        assert!((995..=1000).contains(&lags), "{workers} workers: {lags} began late");
        for (meter, from_syn) in [
            (Meter::Connect, Meter::ConnectFromSyn),
            (Meter::FirstByte, Meter::FirstByteFromSyn),
            (Meter::Life, Meter::LifeFromSyn),
        ] {
            let [intended, served] =
                [meter, from_syn].map(|meter| outcome.measured.counted.get(meter).value_at_quantile(0.9));
            // A quarter of all connections waited, evenly up to a second.
            assert!((500_000_000..700_000_000).contains(&intended), "{meter:?}: {intended}");
            assert!(served <= 7_000_000, "{from_syn:?}: {served}");
        }
        // The generator keeps to the schedule afterwards, and does not go faster.
        assert!(outcome.over - trial.end() <= ms(10));
        field.settle();
    }
}
