//! The generator in virtual time: workers that open connections over links in memory, each to a responder of its own.
//! What they report is compared with what was planned, with what the other end counted, and with what was on the wire.

mod closed_loop;
mod dialogues;
mod faults;
mod latencies;
mod open_loop;
mod trials;
mod tuples;

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use synmill_engine::device::pair::{Faults, Link, PairDevice, pair};
use synmill_engine::device::{Burst, Census, Device, RingCounts};
use synmill_engine::endpoint::{Application, Config, Endpoint, Listener, Listeners, Settings, memory_needed};
use synmill_engine::flow::{Address, FlowKey, Prefix};
use synmill_engine::generator::desk::{Desk, Trial};
use synmill_engine::generator::dialogue::Script;
use synmill_engine::generator::meters::{Collector, Interval, Meter, meters};
use synmill_engine::generator::pace::Pace;
use synmill_engine::generator::tally::Totals;
use synmill_engine::generator::tuples::{Share, Space, Walk};
use synmill_engine::generator::{CloseBy, Generator, Load, Setup, Target};
use synmill_engine::proto::Flags;
use synmill_engine::service::BuiltIn;
use synmill_engine::stats::{Counters, Law, Snapshot};
use synmill_engine::time::Instant;
use synmill_engine::wire::{self, Checks, Packet};
use synmill_engine::worker::{Worker, join};

const GENERATOR_MAC: wire::Mac = [2, 0, 0, 0, 0, 1];
const RESPONDER_MAC: wire::Mac = [2, 0, 0, 0, 0, 2];
const TARGET: Address = Address::v4([198, 18, 0, 2]);
const TARGET_V6: Address = Address::v6([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
const PORT: u16 = 80;
/// What a worker that waits for its turn takes at least, and how long one sleeps at most.
const TURN: Duration = Duration::from_micros(10);
const SLEEP: Duration = Duration::from_millis(1);
/// Turns without progress in virtual time that mean a bug.
const STUCK: u32 = 100_000;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A link that takes this long each way.
fn delay(delay: Duration) -> Faults {
    Faults { delay: delay..=delay, ..Faults::NONE }
}

/// GET, so often.
fn http(requests: u32, close: CloseBy) -> Script {
    Script::http("a", "/", None, None, requests, close)
}

/// What a field is made of.
#[derive(Clone)]
struct Plan {
    seed: u64,
    faults: Faults,
    workers: usize,
    script: Script,
    holds: bool,
    /// Of the responders, as on the command line.
    service: &'static str,
    /// Whether the generators, and the responders, let segments ride together.
    piggyback: [bool; 2],
    sources: Vec<Prefix>,
    ports: RangeInclusive<u16>,
    targets: Vec<(Address, u16)>,
    /// Room in each worker's table, and in each responder's.
    slots: [usize; 2],
    time_wait: Duration,
    timeout: Duration,
    frames: usize,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 1,
            faults: Faults::NONE,
            workers: 1,
            script: http(1, CloseBy::Peer),
            holds: false,
            service: "http:64",
            piggyback: [true; 2],
            sources: vec!["198.19.0.0/16".parse().unwrap()],
            ports: 1024..=65_535,
            targets: vec![(TARGET, PORT)],
            slots: [4096; 2],
            time_wait: ms(100),
            timeout: secs(3),
            frames: 4096,
        }
    }
}

impl Plan {
    fn saying(script: Script, service: &'static str) -> Self {
        Self { script, service, ..Self::default() }
    }

    /// Of one end's endpoint; 0 is the generator's.
    fn config<A: Application>(&self, side: usize, worker: usize, application: A) -> Config<A> {
        let seed = self.seed.wrapping_mul(64) + 2 * worker as u64 + side as u64;
        Config {
            application,
            // Closed ports refuse.
            owned: if side == 1 { [TARGET, TARGET_V6].map(Prefix::host).to_vec() } else { Vec::new() },
            mac: [GENERATOR_MAC, RESPONDER_MAC][side],
            mtu: 1500,
            settings: Settings {
                max_connections: self.slots[side],
                time_wait: self.time_wait,
                piggyback: self.piggyback[side],
                ..Settings::default()
            },
            max_kept_frames: self.frames / 4,
            seed: [seed, seed ^ 0x5555, !seed, seed.rotate_left(17)],
        }
    }
}

fn seated<D: Device, A: Application>(config: Config<A>, device: D) -> Worker<D, A> {
    let mut endpoints = vec![Endpoint::new(config, Instant::ZERO, Arc::new(Counters::default()))];
    let seat = join(&mut endpoints).remove(0);
    Worker::new(device, endpoints.remove(0), seat)
}

/// What a [`Tap`] has seen: SYNs by name, and when they were sent.
#[derive(Default)]
struct Seen {
    now: Instant,
    syns: Option<Vec<(Instant, FlowKey)>>,
}

/// A device that looks at what is sent.
struct Tap {
    device: PairDevice,
    seen: Rc<RefCell<Seen>>,
}

impl Device for Tap {
    fn receive(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.device.receive(into, limit)
    }

    fn recycle(&mut self, frames: &mut Burst) {
        self.device.recycle(frames);
    }

    fn alloc(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.device.alloc(into, limit)
    }

    fn transmit(&mut self, frames: &mut Burst) -> usize {
        let Seen { now, syns } = &mut *self.seen.borrow_mut();
        if let Some(syns) = syns {
            let names = frames.iter().filter_map(|frame| match wire::parse(frame, Checks::default()) {
                Ok(Packet::Tcp(packet)) if packet.segment.flags.has(Flags::SYN) => Some((*now, packet.key)),
                _ => None,
            });
            syns.extend(names);
        }
        self.device.transmit(frames)
    }

    fn wait(&mut self, _timeout: Duration) {}

    fn wait_any(_devices: &mut [Self], _timeout: Duration) {}

    fn ring_counts(&mut self) -> RingCounts {
        self.device.ring_counts()
    }

    fn census(&self) -> Census {
        self.device.census()
    }
}

/// A generator's worker and the responder at the other end of its link.
struct Lane {
    generator: Worker<Tap, Generator>,
    responder: Worker<PairDevice, Listeners<BuiltIn>>,
    link: Link,
    desk: Arc<Desk>,
    collector: Collector,
    seen: Rc<RefCell<Seen>>,
}

impl Lane {
    fn new(plan: &Plan, space: &Arc<Space>, number: usize) -> Self {
        let (near, far, link) =
            pair(plan.seed.wrapping_mul(64) + number as u64, &plan.faults, plan.frames, 2048);
        let (recorder, collector) = meters(2);
        let desk = Arc::<Desk>::default();
        let way = wire::Link { source: GENERATOR_MAC, destination: RESPONDER_MAC, tags: Default::default() };
        let target = Target { script: plan.script.clone(), link: way };
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
        let any = [Address::v4([0; 4]), Address::v6([0; 16])];
        let listeners = any.map(|address| Listener { address, port: PORT, service: service.clone() });
        let seen = Rc::<RefCell<Seen>>::default();
        let tap = Tap { device: near, seen: Rc::clone(&seen) };
        let config = plan.config(0, number, Generator::new(setup, Instant::ZERO));
        let needed = memory_needed(config.settings.max_connections, config.max_kept_frames);
        let needed = needed + Generator::memory_needed(plan.slots[0]);
        let generator = seated(config, tap);
        assert_eq!(generator.endpoint().memory_bytes(), needed, "what is needed is known before");
        Self {
            generator,
            responder: seated(plan.config(1, number, Listeners(listeners.into())), far),
            link,
            desk,
            collector,
            seen,
        }
    }

    /// A turn of each end that is awake; whether anything moved.
    fn turn(&mut self, now: Instant, stalled: bool) -> bool {
        self.seen.borrow_mut().now = now;
        let moved = (!stalled && self.generator.turn(now)) | self.responder.turn(now);
        for (census, held) in [self.generator.census(), self.responder.census()] {
            assert_eq!(census.free + census.rings + held, census.total, "the law of frames");
        }
        moved || (!stalled && self.generator.endpoint().is_ready()) || self.responder.endpoint().is_ready()
    }

    /// When something is next to be done, as far as it is known.
    fn next(&self, now: Instant) -> Option<Instant> {
        let ticks = [self.generator.endpoint().next_tick_ms(), self.responder.endpoint().next_tick_ms()];
        let ticks = ticks.into_iter().flatten().map(|tick| now + ms(u64::from(tick.max(1))));
        ticks.chain(self.link.next_arrival()).min()
    }

    fn order(&self) -> Option<Instant> {
        self.generator.endpoint().application().next_poll()
    }

    /// The counters of both ends.
    fn counts(&self) -> [Snapshot; 2] {
        [self.generator.endpoint().counters().snapshot(), self.responder.endpoint().counters().snapshot()]
    }
}

/// What came of a trial, all workers together.
struct Outcome {
    trial: Trial,
    totals: Totals,
    /// What was measured of connections that count, and of all others.
    measured: Interval,
    /// When the last worker said that it was over.
    over: Instant,
    /// Connections that were planned to start in the time that counts; 0 for closed loops.
    planned: u64,
}

impl Outcome {
    fn count(&self, meter: Meter) -> u64 {
        self.measured.counted.get(meter).len()
    }

    /// Every sample is `expected`, as far as a histogram tells values apart.
    fn check_all(&self, meter: Meter, expected: Duration) {
        let samples = self.measured.counted.get(meter);
        let expected = expected.as_nanos() as u64;
        assert!(!samples.is_empty(), "{meter:?} has samples");
        for edge in [samples.min(), samples.max()] {
            assert!(samples.equivalent(edge, expected), "{meter:?}: {edge} ns, not {expected}");
        }
    }

    /// Everything that was to start did, and did all it was meant to.
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
    /// The present trial's events that nobody else tells of: start, end, the drain's end.
    events: Vec<Instant>,
    end: Instant,
    /// Does the load follow a schedule, so that nothing happens before it is due?
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

    /// A trial of this load that begins a little later than now.
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
    fn begin(&mut self, trial: Trial) {
        assert!(self.lanes.iter().all(|lane| lane.desk.hand_in(trial)), "a desk takes a trial");
        self.trials = trial.number;
        self.events = vec![trial.start, trial.end(), trial.end() + trial.drain];
        self.end = trial.end();
        self.is_paced = matches!(trial.load, Load::Rate(_));
    }

    fn is_over(&self) -> bool {
        self.lanes.iter().all(|lane| lane.desk.over() == self.trials)
    }

    /// Connections under way, as the generators see it.
    fn open(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.generator.endpoint().application().open()).sum()
    }

    /// The accounts as they are now.
    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.lanes.iter().for_each(|lane| totals.merge(&lane.desk.tally.totals()));
        totals
    }

    /// One turn of all, and if nothing moved, a jump to the next event, but no further than a worker sleeps.
    fn step(&mut self) {
        let (now, stalled) = (self.now, self.stalled);
        let idles = self.is_over() || (self.is_paced && self.open() == 0 && now < self.end);
        let mut moved = false;
        for lane in &mut self.lanes {
            moved |= lane.turn(now, stalled);
        }
        if moved {
            return;
        }
        // What a stalled generator has to do is no event.
        let orders = self.lanes.iter().filter_map(Lane::order).filter(|_| !stalled);
        let known = self.lanes.iter().filter_map(|lane| lane.next(now)).chain(orders);
        // What could be done now and was not waits for another turn.
        let known = known.map(|time| if time > now { time } else { now + TURN });
        let events = self.events.iter().copied().filter(|event| *event > now);
        let sleeps = if idles { secs(3600) } else { SLEEP };
        let next = known.chain(events).min().unwrap_or(now + sleeps).min(now + sleeps);
        self.set_now(next);
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.lanes.iter().for_each(|lane| lane.link.set_now(now));
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

    /// The rest of the present trial, to its end.
    fn finish(&mut self, trial: Trial) -> Outcome {
        // The worker hands over what it measured as long as what it handed over before was read.
        let mut measured = Interval::default();
        let limit = trial.end() + trial.drain + secs(1);
        let mut next = trial.end();
        while self.now < limit && !self.is_over() {
            self.run_until(next, Self::is_over);
            self.collect(&mut measured);
            next = self.now + secs(1);
        }
        assert!(self.is_over(), "the trial ends in time, seed {}: {:#?}", self.seed, self.totals());
        let over = self.now;
        let totals = self.totals();
        for law in totals.laws() {
            assert!(law.holds(), "{law:?}, seed {}: {totals:#?}", self.seed);
        }
        self.collect(&mut measured);
        let planned = match trial.load {
            Load::Rate(rate) => Pace::new(trial.start, rate, trial.ramp, 1, 0)
                .give_up_before(trial.end(), trial.counts_from()),
            Load::Max | Load::Concurrency(_) => 0,
        };
        let outcome = Outcome { trial, totals, measured, over, planned };
        assert_eq!(outcome.count(Meter::Connect), totals.established, "seed {}", self.seed);
        assert_eq!(outcome.count(Meter::StartLag), totals.started, "seed {}", self.seed);
        assert_eq!(outcome.count(Meter::Life), totals.closed, "seed {}", self.seed);
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

    /// A trial without ramp or warm-up.
    fn run_for(&mut self, load: Load, duration: Duration) -> Outcome {
        self.run(self.trial(load, duration))
    }

    /// Lets everything that is left at either end run out, TIME-WAIT included, and checks the endpoints' accounts.
    fn settle(&mut self) {
        let limit = self.now + secs(4 * 3600);
        self.run_until(limit, |field| {
            field.lanes.iter().all(|lane| {
                lane.generator.endpoint().is_empty()
                    && lane.responder.endpoint().is_empty()
                    && lane.link.next_arrival().is_none()
            })
        });
        for counts in self.lanes.iter().flat_map(Lane::counts) {
            assert!(counts.laws().iter().all(Law::holds), "seed {}: {:?}", self.seed, counts.laws());
            assert_eq!(counts.curr_connections, 0, "seed {}", self.seed);
        }
    }

    /// The counters of both ends, all workers together.
    fn counts(&self) -> [Snapshot; 2] {
        let mut sum = [Snapshot::default(); 2];
        for lane in &self.lanes {
            sum.iter_mut().zip(lane.counts()).for_each(|(sum, counts)| sum.merge(&counts));
        }
        sum
    }

    /// Packets given to the links: by the generators, and by the responders.
    fn packets(&self) -> [u64; 2] {
        let counts: Vec<_> = self.lanes.iter().map(|lane| lane.link.counts()).collect();
        [0, 1].map(|side| counts.iter().map(|counts| counts[side].sent).sum())
    }

    fn set_faults(&self, faults: &Faults) {
        self.lanes.iter().for_each(|lane| lane.link.set_faults(faults));
    }

    /// From now on SYNs are written down.
    fn watch(&mut self) {
        self.lanes.iter().for_each(|lane| lane.seen.borrow_mut().syns = Some(Vec::new()));
    }

    /// The SYNs since [`Field::watch`], of all workers, by time, named as their receiver sees it.
    fn syns(&mut self) -> Vec<(Instant, FlowKey)> {
        let mut syns: Vec<_> =
            self.lanes.iter().filter_map(|lane| lane.seen.borrow_mut().syns.take()).flatten().collect();
        syns.sort_by_key(|(time, _)| *time);
        syns
    }
}

/// Both ends have seen the same connections and the same text: what must hold when nothing is lost. Lets everything run out.
fn check_both_ends(field: &mut Field) {
    field.settle();
    let [near, far] = field.counts();
    assert_eq!(near.active_opens, far.passive_opens);
    assert_eq!((near.established, near.attempt_fails), (far.established, far.attempt_fails));
    assert_eq!((near.in_bytes, near.out_bytes), (far.out_bytes, far.in_bytes));
    assert_eq!((near.retrans_segs, far.retrans_segs), (0, 0));
    assert_eq!((near.in_segs, near.out_segs), (far.out_segs, far.in_segs));
}
