//! Pairs of workers joined by a link in memory, and a client and a server on a clock that jumps from event to event.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use synmill_engine::device::pair::{Faults, Link, PairDevice, pair};
use synmill_engine::device::{Burst, Census, Device, RingCounts};
use synmill_engine::endpoint::{
    Application, Config, Endpoint, Listener, Listeners, Open, OpenError, Settings,
};
use synmill_engine::flow::{Address, FlowKey, Prefix};
use synmill_engine::generator::CloseBy;
use synmill_engine::generator::dialogue::Script;
use synmill_engine::proto::Flags;
use synmill_engine::service::Service;
use synmill_engine::stats::{Counters, Law, Snapshot};
use synmill_engine::time::Instant;
use synmill_engine::wire::{self, Checks, Packet};
use synmill_engine::worker::Worker;

pub(crate) const MACS: [wire::Mac; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
pub(crate) const TARGET: Address = Address::v4([198, 18, 0, 2]);
pub(crate) const TARGET_V6: Address = Address::v6([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
pub(crate) const PORT: u16 = 80;
/// The link header from the first side to the second.
pub(crate) const LINK: wire::Link =
    wire::Link { source: MACS[0], destination: MACS[1], tags: [wire::Tag { tpid: 0, tci: 0 }; 2] };
/// Turns without progress in virtual time that mean a bug.
const STUCK: u32 = 10_000;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Returns a link that takes this long in each direction.
pub(crate) fn delay(delay: Duration) -> Faults {
    Faults { delay: delay..=delay, ..Faults::NONE }
}

/// The parts of a simulation.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) faults: Faults,
    pub(crate) start: Instant,
    /// Room in the table of each side's workers. The first side opens connections.
    pub(crate) slots: [usize; 2],
    pub(crate) time_wait: Duration,
    pub(crate) frames: usize,
    /// Whether each side sends acknowledgement, text and FIN in one segment.
    pub(crate) piggyback: [bool; 2],

    // The generator's part.
    pub(crate) workers: usize,
    pub(crate) script: Script,
    pub(crate) holds: bool,
    /// The responders' service, as on the command line.
    pub(crate) service: &'static str,
    pub(crate) sources: Vec<Prefix>,
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) targets: Vec<(Address, u16)>,
    pub(crate) timeout: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            seed: 1,
            faults: Faults::NONE,
            start: Instant::ZERO,
            slots: [4096; 2],
            time_wait: ms(100),
            frames: 4096,
            piggyback: [true; 2],
            workers: 1,
            script: http(1, CloseBy::Peer),
            holds: false,
            service: "http:64",
            sources: vec!["198.19.0.0/16".parse().unwrap()],
            ports: 1024..=65_535,
            targets: vec![(TARGET, PORT)],
            timeout: secs(3),
        }
    }
}

/// Returns a script of so many GET requests.
pub(crate) fn http(requests: u32, close: CloseBy) -> Script {
    Script::http("a", "/", None, None, requests, close)
}

impl Plan {
    /// Returns a plan for a client and a server, with this share of packets lost, duplicated and reordered each.
    pub(crate) fn of(seed: u64, percent: f64) -> Self {
        let probability = percent / 100.0;
        let faults = Faults {
            loss: probability,
            duplication: probability,
            reordering: probability,
            corruption: probability / 10.0,
            delay: us(20)..=us(60),
        };
        Self { seed, faults, slots: [8192, 4096], frames: 2048, time_wait: secs(1), ..Self::default() }
    }

    /// Returns the random bits of one side's worker.
    pub(crate) fn seed_of(&self, side: usize, number: usize) -> [u64; 4] {
        let seed = self.seed.wrapping_mul(64) + 2 * number as u64 + side as u64;
        [seed, seed ^ 0x5555, !seed, seed.rotate_left(17)]
    }

    fn worker<D: Device, A: Application>(
        &self,
        side: usize,
        number: usize,
        application: A,
        device: D,
    ) -> Worker<D, A> {
        let config = Config {
            application,
            // Closed ports refuse.
            owned: if side == 1 { [TARGET, TARGET_V6].map(Prefix::host).to_vec() } else { Vec::new() },
            mac: MACS[side],
            mtu: 1500,
            settings: Settings {
                max_connections: self.slots[side],
                time_wait: self.time_wait,
                piggyback: self.piggyback[side],
                ..Settings::default()
            },
            max_kept_frames: self.frames / 4,
            seed: self.seed_of(side, number),
        };
        Worker::alone(device, Endpoint::new(config, self.start, Arc::new(Counters::default())))
    }
}

/// Returns listeners on [`PORT`] of all addresses.
pub(crate) fn listeners<S: Clone>(service: &S) -> Listeners<S> {
    let any = [Address::v4([0; 4]), Address::v6([0; 16])];
    Listeners(any.map(|address| Listener { address, port: PORT, service: service.clone() }).into())
}

/// The SYNs that a [`Tap`] has seen, and when they were sent.
#[derive(Default)]
pub(crate) struct Seen {
    now: Instant,
    pub(crate) syns: Option<Vec<(Instant, FlowKey)>>,
}

/// A device that looks at the packets sent.
pub(crate) struct Tap {
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

    fn ring_counts(&mut self) -> RingCounts {
        self.device.ring_counts()
    }

    fn census(&self) -> Census {
        self.device.census()
    }
}

/// A worker that opens connections, and the worker at the other end of its link.
pub(crate) struct Pair<A, B> {
    pub(crate) near: Worker<Tap, A>,
    pub(crate) far: Worker<PairDevice, B>,
    pub(crate) link: Link,
    pub(crate) seen: Rc<RefCell<Seen>>,
}

impl<A: Application, B: Application> Pair<A, B> {
    /// Returns the `number`th pair of the plan.
    pub(crate) fn new(plan: &Plan, number: usize, near: A, far: B) -> Self {
        let seed = plan.seed.wrapping_mul(64) + number as u64;
        let (device, far_device, link) = pair(seed, &plan.faults, plan.frames, 2048);
        link.set_now(plan.start);
        let seen = Rc::<RefCell<Seen>>::default();
        let tap = Tap { device, seen: Rc::clone(&seen) };
        Self {
            near: plan.worker(0, number, near, tap),
            far: plan.worker(1, number, far, far_device),
            link,
            seen,
        }
    }

    /// Turns both workers, but the near one not while it is stalled, and checks the law of frames. Returns whether anything moved.
    pub(crate) fn turn(&mut self, now: Instant, is_stalled: bool) -> bool {
        self.seen.borrow_mut().now = now;
        let moved = (!is_stalled && self.near.turn(now)) | self.far.turn(now);
        for (census, held) in [self.near.census(), self.far.census()] {
            assert_eq!(census.free + census.rings + held, census.total, "the law of frames");
        }
        moved || (!is_stalled && self.near.endpoint().is_ready()) || self.far.endpoint().is_ready()
    }

    /// Returns when the next packet arrives or the next deadline comes.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let ticks = [self.near.endpoint().next_tick_ms(), self.far.endpoint().next_tick_ms()];
        let ticks = ticks.into_iter().flatten().map(|tick| now + ms(u64::from(tick.max(1))));
        ticks.chain(self.link.next_arrival()).min()
    }

    /// Returns whether there is no connection and no packet.
    pub(crate) fn is_empty(&self) -> bool {
        self.near.endpoint().is_empty()
            && self.far.endpoint().is_empty()
            && self.link.next_arrival().is_none()
    }

    /// Returns the counters of both ends.
    pub(crate) fn counts(&self) -> [Snapshot; 2] {
        [self.near.endpoint().counters().snapshot(), self.far.endpoint().counters().snapshot()]
    }

    /// Checks that the accounts of both ends close, and that no connection is left.
    pub(crate) fn assert_closed(&self, seed: u64) {
        for (side, counts) in ["near", "far"].into_iter().zip(self.counts()) {
            assert!(
                counts.laws().iter().all(Law::holds),
                "{side}, seed {seed}: {:?}\n{counts:#?}",
                counts.laws()
            );
            assert_eq!(counts.curr_connections, 0, "{side}, seed {seed}");
        }
    }
}

/// Returns the client's name of its `number`th connection. Every eighth is IPv6.
pub(crate) fn name(number: u64) -> FlowKey {
    let port = 1024 + (number % 60_000) as u16;
    let [high, low] = ((number / 60_000) as u16).to_be_bytes();
    let (local, remote) = if number % 8 == 7 {
        (Address::v6([0xfd, 0, 0, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, high, low]), TARGET_V6)
    } else {
        (Address::v4([198, 19, high, low.wrapping_add(1)]), TARGET)
    };
    FlowKey { local, remote, local_port: port, remote_port: PORT }
}

/// A client and a server, each with one service.
pub(crate) struct Simulation<C, S> {
    pub(crate) pair: Pair<Listeners<C>, Listeners<S>>,
    now: Instant,
    seed: u64,
}

impl<C: Service + Clone, S: Service + Clone> Simulation<C, S> {
    pub(crate) fn new(plan: &Plan, client: &C, server: &S) -> Self {
        let pair = Pair::new(plan, 0, listeners(client), listeners(server));
        Self { pair, now: plan.start, seed: plan.seed }
    }

    /// Opens the client's `number`th connection. Returns false when no frame or slot is free.
    pub(crate) fn open(&mut self, number: u64) -> bool {
        let (endpoint, out) = self.pair.near.endpoint_mut();
        if out.free.is_empty() {
            return false;
        }
        match endpoint.open(self.now, &Open { key: name(number), link: LINK, role: 0 }, out) {
            Ok(_) => true,
            Err(OpenError::TableFull) => false,
            Err(error) => panic!("connection {number}, seed {}: {error:?}", self.seed),
        }
    }

    /// Turns both ends. If nothing moves, it jumps to the next event. Returns whether there is one.
    pub(crate) fn step(&mut self) -> bool {
        if self.pair.turn(self.now, false) {
            return true;
        }
        let Some(next) = self.pair.next(self.now) else { return false };
        self.now = next.max(self.now + Duration::from_nanos(1));
        self.pair.link.set_now(self.now);
        true
    }

    /// Opens `count` connections, at most `at_once` under way, and runs until all are over. Then checks that the accounts close, and
    /// that no connection, record, frame or deadline is left. Returns the counters of both ends.
    pub(crate) fn run(&mut self, count: u64, at_once: u64) -> [Snapshot; 2] {
        let (mut opened, mut idle) = (0, 0);
        loop {
            let [near, _] = self.counts();
            let (ended, before) = (near.ended() + near.curr_time_wait, opened);
            while opened < count && opened.saturating_sub(ended) < at_once && self.open(opened) {
                opened += 1;
            }
            let moved = self.step();
            idle = if moved || opened > before { 0 } else { idle + 1 };
            assert!(idle < STUCK, "nothing moves, seed {}", self.seed);
            if opened == count && self.pair.is_empty() && !moved {
                break;
            }
        }
        self.assert_clean();
        self.counts()
    }

    /// Returns the counters of both ends.
    pub(crate) fn counts(&self) -> [Snapshot; 2] {
        self.pair.counts()
    }

    /// Checks that the accounts close, and that no connection, record, frame or deadline is left.
    pub(crate) fn assert_clean(&self) {
        self.pair.assert_closed(self.seed);
        let (near, far) = (self.pair.near.endpoint(), self.pair.far.endpoint());
        let left = [near.frames_kept(), near.records_in_use(), far.frames_kept(), far.records_in_use()];
        let ticks = [near.next_tick_ms(), far.next_tick_ms()];
        assert_eq!((left, ticks), ([0; 4], [None; 2]), "seed {}", self.seed);
    }
}
