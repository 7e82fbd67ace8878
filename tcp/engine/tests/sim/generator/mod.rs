//! The generator in virtual time: workers that open connections over links in memory, each to a responder of its own. The tests compare
//! the accounts with the plan, with the counters of the other end, and with the packets on the wire.

mod closed_loop;
mod dialogues;
mod faults;
mod latencies;
mod open_loop;
mod trials;
mod tuples;

use std::sync::Arc;
use std::time::Duration;

use synmill_engine::device::pair::Faults;
use synmill_engine::endpoint::{Application as _, Listeners, memory_needed};
use synmill_engine::flow::FlowKey;
use synmill_engine::generator::desk::{Desk, Trial};
use synmill_engine::generator::dialogue::Script;
use synmill_engine::generator::meters::{Collector, Interval, Meter, meters};
use synmill_engine::generator::pace::Pace;
use synmill_engine::generator::tally::Totals;
use synmill_engine::generator::tuples::{Share, Space, Walk};
use synmill_engine::generator::{CloseBy, Generator, Load, Setup, Target};
use synmill_engine::service::BuiltIn;
use synmill_engine::stats::Snapshot;
use synmill_engine::time::Instant;

use crate::harness::{LINK, PORT, Pair, Plan, TARGET, TARGET_V6, delay, http, listeners, ms, secs, us};

/// The shortest time that a worker waits for its turn, and the longest that it sleeps.
const TURN: Duration = us(10);
const SLEEP: Duration = ms(1);
/// Turns without progress in virtual time that mean a bug.
const STUCK: u32 = 100_000;

impl Plan {
    fn saying(script: Script, service: &'static str) -> Self {
        Self { script, service, ..Self::default() }
    }

    /// Returns a plan whose connections stay open, or one of short requests.
    fn holding(holds: bool) -> Self {
        if holds {
            Self { holds, ..Self::saying(Script::hold(CloseBy::Fin), "hold") }
        } else {
            Self::default()
        }
    }
}

/// A generator's worker, and the responder at the other end of its link.
struct Lane {
    pair: Pair<Generator, Listeners<BuiltIn>>,
    desk: Arc<Desk>,
    collector: Collector,
}

impl Lane {
    fn new(plan: &Plan, space: &Arc<Space>, number: usize) -> Self {
        let (recorder, collector) = meters(2);
        let desk = Arc::<Desk>::default();
        let target = Target { script: plan.script.clone(), link: LINK };
        let share = Share::Split { workers: plan.workers as u64, number: number as u64 };
        let setup = Setup {
            targets: vec![target; plan.targets.len()],
            walk: Walk::new(Arc::clone(space), share, plan.time_wait, plan.seed),
            recorder,
            desk: Arc::clone(&desk),
            workers: plan.workers as u64,
            number: number as u64,
            timeout: plan.timeout,
            holds: plan.holds,
            slots: plan.slots[0],
        };
        let service: BuiltIn = plan.service.parse().unwrap();
        let pair = Pair::new(plan, number, Generator::new(setup, Instant::ZERO), listeners(&service));
        let needed = memory_needed(plan.slots[0], plan.frames / 4) + Generator::memory_needed(plan.slots[0]);
        assert_eq!(pair.near.endpoint().memory_bytes(), needed, "the memory is known before");
        Self { pair, desk, collector }
    }

    fn generator(&self) -> &Generator {
        self.pair.near.endpoint().application()
    }
}

/// The outcome of a trial, all workers together.
struct Outcome {
    trial: Trial,
    totals: Totals,
    /// The samples of connections that count, and of all others.
    measured: Interval,
    /// When the last worker ended the trial.
    over: Instant,
    /// Connections that were to start in the measured time; 0 for closed loops.
    planned: u64,
}

impl Outcome {
    fn count(&self, meter: Meter) -> u64 {
        self.measured.counted.get(meter).len()
    }

    /// Checks that every sample is `expected`, up to the resolution of the histogram.
    fn check_all(&self, meter: Meter, expected: Duration) {
        let samples = self.measured.counted.get(meter);
        let expected = expected.as_nanos() as u64;
        assert!(!samples.is_empty(), "{meter:?} has samples");
        for edge in [samples.min(), samples.max()] {
            assert!(samples.equivalent(edge, expected), "{meter:?}: {edge} ns, not {expected}");
        }
    }

    /// Checks that every planned connection started, and did all its work.
    fn check_perfect(&self) {
        let Totals { started, established, closed, not_started, .. } = self.totals;
        assert_eq!((established, closed, not_started), (started, started, 0), "{:#?}", self.totals);
        if self.planned > 0 {
            assert_eq!(started, self.planned);
        }
    }
}

/// Workers that share a load, in virtual time.
struct Field {
    lanes: Vec<Lane>,
    now: Instant,
    seed: u64,
    trials: u64,
    /// The present trial's events that no worker knows: start, end, the drain's end.
    events: Vec<Instant>,
    end: Instant,
    /// Whether the load follows a schedule, so that nothing happens before it is due.
    is_paced: bool,
    stalled: bool,
}

impl Field {
    fn new(plan: &Plan) -> Self {
        let space = Arc::new(Space::new(&plan.sources, plan.ports.clone(), &plan.targets).unwrap());
        Self {
            lanes: (0..plan.workers).map(|number| Lane::new(plan, &space, number)).collect(),
            now: Instant::ZERO,
            seed: plan.seed,
            trials: 0,
            events: Vec::new(),
            end: Instant::ZERO,
            is_paced: false,
            stalled: false,
        }
    }

    /// Returns a trial of this load that begins a little later than now.
    fn trial(&self, load: Load, duration: Duration) -> Trial {
        Trial {
            number: self.trials + 1,
            load,
            start: self.now + ms(3),
            ramp: Duration::ZERO,
            warmup: Duration::ZERO,
            duration,
            drain: secs(5),
        }
    }

    /// Hands a trial in at all desks.
    fn begin(&mut self, trial: Trial) -> Trial {
        assert!(self.lanes.iter().all(|lane| lane.desk.hand_in(trial)), "a desk takes a trial");
        self.trials = trial.number;
        self.events = vec![trial.start, trial.end(), trial.end() + trial.drain];
        self.end = trial.end();
        self.is_paced = matches!(trial.load, Load::Rate(_));
        trial
    }

    fn for_each_desk(&self, order: impl FnMut(&Desk)) {
        self.lanes.iter().map(|lane| &*lane.desk).for_each(order);
    }

    fn is_over(&self) -> bool {
        self.lanes.iter().all(|lane| lane.desk.over() == self.trials)
    }

    /// Returns the number of connections under way, as the generators count them.
    fn open(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.generator().open()).sum()
    }

    /// Returns the present accounts.
    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.for_each_desk(|desk| totals.merge(&desk.tally.totals()));
        totals
    }

    /// Turns all workers. If nothing moves, it jumps to the next event, but no further than a worker sleeps.
    fn step(&mut self) {
        let (now, stalled) = (self.now, self.stalled);
        let idles = self.is_over() || (self.is_paced && self.open() == 0 && now < self.end);
        let mut moved = false;
        for lane in &mut self.lanes {
            moved |= lane.pair.turn(now, stalled);
        }
        if moved {
            return;
        }
        // An order of a stalled generator is no event.
        let orders = self.lanes.iter().filter_map(|lane| lane.generator().next_poll()).filter(|_| !stalled);
        let known = self.lanes.iter().filter_map(|lane| lane.pair.next(now)).chain(orders);
        // An event that is due and did not happen waits for another turn.
        let known = known.map(|time| if time > now { time } else { now + TURN });
        let events = self.events.iter().copied().filter(|event| *event > now);
        let sleeps = if idles { secs(3600) } else { SLEEP };
        self.set_now(known.chain(events).min().unwrap_or(now + sleeps).min(now + sleeps));
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.lanes.iter().for_each(|lane| lane.pair.link.set_now(now));
    }

    fn run_to(&mut self, time: Instant) {
        self.run_until(time, |_| false);
    }

    /// Steps until `time`, or until `done`.
    fn run_until(&mut self, time: Instant, mut done: impl FnMut(&Self) -> bool) {
        if time > self.now {
            self.events.push(time);
        }
        let (mut idle, mut last) = (0, self.now);
        while self.now < time && !done(self) {
            self.step();
            idle = if self.now > last { 0 } else { idle + 1 };
            last = self.now;
            assert!(idle < STUCK, "time stands still, seed {}", self.seed);
        }
    }

    /// Runs the rest of the present trial.
    fn finish(&mut self, trial: Trial) -> Outcome {
        // A worker hands over a new interval only when the reader has returned the one before.
        let mut measured = Interval::default();
        let limit = trial.end() + trial.drain + secs(1);
        let mut next = trial.end();
        while self.now < limit && !self.is_over() {
            self.run_until(next, Self::is_over);
            self.collect(&mut measured);
            next = self.now + secs(1);
        }
        let totals = self.totals();
        assert!(self.is_over(), "the trial ends in time, seed {}: {totals:#?}", self.seed);
        for law in totals.laws() {
            assert!(law.holds(), "{law:?}, seed {}: {totals:#?}", self.seed);
        }
        self.collect(&mut measured);
        let planned = match trial.load {
            Load::Rate(rate) => Pace::new(trial.start, rate, trial.ramp, 1, 0)
                .give_up_before(trial.end(), trial.counts_from()),
            Load::Max | Load::Concurrency(_) => 0,
        };
        let outcome = Outcome { trial, totals, measured, over: self.now, planned };
        for (meter, count) in [
            (Meter::Connect, totals.established),
            (Meter::StartLag, totals.started),
            (Meter::Life, totals.closed),
        ] {
            assert_eq!(outcome.count(meter), count, "{meter:?}, seed {}", self.seed);
        }
        if planned > 0 {
            assert!(totals.started + totals.not_started <= planned, "seed {}", self.seed);
        }
        outcome
    }

    fn collect(&mut self, measured: &mut Interval) {
        for lane in &mut self.lanes {
            lane.collector.drain_into(measured);
        }
    }

    fn run(&mut self, trial: Trial) -> Outcome {
        self.begin(trial);
        self.finish(trial)
    }

    /// Runs a trial without ramp or warm-up.
    fn run_for(&mut self, load: Load, duration: Duration) -> Outcome {
        self.run(self.trial(load, duration))
    }

    /// Runs until no connection is left at either end, TIME-WAIT included, and checks the endpoints' accounts.
    fn settle(&mut self) {
        let limit = self.now + secs(4 * 3600);
        self.run_until(limit, |field| field.lanes.iter().all(|lane| lane.pair.is_empty()));
        self.lanes.iter().for_each(|lane| lane.pair.assert_closed(self.seed));
    }

    /// Returns the counters of both ends, all workers together.
    fn counts(&self) -> [Snapshot; 2] {
        let mut sum = [Snapshot::default(); 2];
        for lane in &self.lanes {
            sum.iter_mut().zip(lane.pair.counts()).for_each(|(sum, counts)| sum.merge(&counts));
        }
        sum
    }

    /// Returns the packets that the generators gave to the links, and those that the responders gave.
    fn packets(&self) -> [u64; 2] {
        let counts: Vec<_> = self.lanes.iter().map(|lane| lane.pair.link.counts()).collect();
        [0, 1].map(|side| counts.iter().map(|counts| counts[side].sent).sum())
    }

    fn set_faults(&self, faults: &Faults) {
        self.lanes.iter().for_each(|lane| lane.pair.link.set_faults(faults));
    }

    /// Records SYNs from now on.
    fn watch(&mut self) {
        self.lanes.iter().for_each(|lane| lane.pair.seen.borrow_mut().syns = Some(Vec::new()));
    }

    /// Returns the SYNs since [`Field::watch`], of all workers, by time, with the receiver's name of the connection.
    fn syns(&mut self) -> Vec<(Instant, FlowKey)> {
        let syns = self.lanes.iter().filter_map(|lane| lane.pair.seen.borrow_mut().syns.take());
        let mut syns: Vec<_> = syns.flatten().collect();
        syns.sort_by_key(|(time, _)| *time);
        syns
    }
}

/// Lets everything run out, and checks that both ends have seen equal connections and equal text. This holds when no packet is lost.
fn check_both_ends(field: &mut Field) {
    field.settle();
    let [near, far] = field.counts();
    assert_eq!(near.active_opens, far.passive_opens);
    assert_eq!((near.established, near.attempt_fails), (far.established, far.attempt_fails));
    assert_eq!((near.in_bytes, near.out_bytes), (far.out_bytes, far.in_bytes));
    assert_eq!((near.retrans_segs, far.retrans_segs), (0, 0));
    assert_eq!((near.in_segs, near.out_segs), (far.out_segs, far.in_segs));
}
