//! Two workers, a link, and a clock that jumps from event to event.

use std::sync::Arc;
use std::time::Duration;

use synmill_engine::device::pair::{Faults, Link, PairDevice, pair};
use synmill_engine::endpoint::{Config, Endpoint, Listener, Listeners, Open, OpenError, Settings};
use synmill_engine::flow::{Address, FlowKey};
use synmill_engine::service::Service;
use synmill_engine::stats::{Counters, Snapshot};
use synmill_engine::time::Instant;
use synmill_engine::wire;
use synmill_engine::worker::{Worker, join};

const CLIENT_MAC: wire::Mac = [2, 0, 0, 0, 0, 1];
const SERVER_MAC: wire::Mac = [2, 0, 0, 0, 0, 2];
/// Turns without progress in virtual time that mean a bug.
const STUCK: u32 = 10_000;

/// What a simulation is made of.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) faults: Faults,
    pub(crate) frames: usize,
    /// Room in the server's table; the client's has twice as much.
    pub(crate) connections: usize,
    pub(crate) time_wait: Duration,
    pub(crate) start: Instant,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            faults: Faults::NONE,
            frames: 2048,
            connections: 4096,
            time_wait: Duration::from_secs(1),
            start: Instant::ZERO,
        }
    }
}

impl Setup {
    /// The random bits of one side; 0 is the client.
    pub(crate) fn seed_of(&self, side: u64) -> [u64; 4] {
        let seed = self.seed.wrapping_mul(2) + side;
        [seed, seed ^ 0x5555, !seed, seed.rotate_left(17)]
    }
}

/// A client and a server.
pub(crate) struct Simulation<C, S> {
    pub(crate) client: Worker<PairDevice, Listeners<C>>,
    pub(crate) server: Worker<PairDevice, Listeners<S>>,
    pub(crate) link: Link,
    pub(crate) now: Instant,
    seed: u64,
}

fn worker<X: Service + Clone>(
    setup: &Setup,
    side: u64,
    mac: wire::Mac,
    service: &X,
    device: PairDevice,
) -> Worker<PairDevice, Listeners<X>> {
    let listener = |address| Listener { address, port: 80, service: service.clone() };
    let config = Config {
        application: Listeners(vec![listener(Address::v4([0; 4])), listener(Address::v6([0; 16]))]),
        owned: Vec::new(),
        mac,
        mtu: 1500,
        settings: Settings {
            max_connections: if side == 0 { 2 * setup.connections } else { setup.connections },
            time_wait: setup.time_wait,
            ..Settings::default()
        },
        max_kept_frames: setup.frames / 4,
        seed: setup.seed_of(side),
    };
    let mut endpoints = vec![Endpoint::new(config, setup.start, Arc::new(Counters::default()))];
    let seat = join(&mut endpoints).remove(0);
    Worker::new(device, endpoints.remove(0), seat)
}

/// The name of the client's `number`th connection, as the client sees it. Every eighth is IPv6.
pub(crate) fn name(number: u64) -> FlowKey {
    let port = 1024 + (number % 60_000) as u16;
    let host = (number / 60_000) as u16;
    let [high, low] = host.to_be_bytes();
    let (local, remote) = if number % 8 == 7 {
        let mut local = [0xfd, 0, 0, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low];
        local[13] = 1;
        (Address::v6(local), Address::v6([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]))
    } else {
        (Address::v4([198, 19, high, low.wrapping_add(1)]), Address::v4([198, 18, 0, 2]))
    };
    FlowKey { local, remote, local_port: port, remote_port: 80 }
}

impl<C: Service + Clone, S: Service + Clone> Simulation<C, S> {
    pub(crate) fn new(setup: &Setup, client: &C, server: &S) -> Self {
        let (near, far, link) = pair(setup.seed, &setup.faults, setup.frames, 2048);
        link.set_now(setup.start);
        Self {
            client: worker(setup, 0, CLIENT_MAC, client, near),
            server: worker(setup, 1, SERVER_MAC, server, far),
            link,
            now: setup.start,
            seed: setup.seed,
        }
    }

    /// Opens the client's `number`th connection; false when a resource is short for now.
    pub(crate) fn open(&mut self, number: u64) -> bool {
        let link = wire::Link { source: CLIENT_MAC, destination: SERVER_MAC, tags: Default::default() };
        let (endpoint, out) = self.client.endpoint_mut();
        if out.free.is_empty() {
            return false;
        }
        match endpoint.open(self.now, &Open { key: name(number), link, role: 0 }, out) {
            Ok(_) => true,
            Err(OpenError::TableFull) => false,
            Err(error) => panic!("connection {number}, seed {}: {error:?}", self.seed),
        }
    }

    /// One turn of both, the law of frames, and if nothing moved, a jump to the next event. Whether there is one.
    pub(crate) fn step(&mut self) -> bool {
        let moved = self.client.turn(self.now) | self.server.turn(self.now);
        for (census, held) in [self.client.census(), self.server.census()] {
            assert_eq!(
                census.free + census.rings + held,
                census.total,
                "the law of frames, seed {}",
                self.seed
            );
        }
        if moved || self.client.endpoint().is_ready() || self.server.endpoint().is_ready() {
            return true;
        }
        let tick = [self.client.endpoint().next_tick_ms(), self.server.endpoint().next_tick_ms()];
        let tick =
            tick.into_iter().flatten().min().map(|ms| self.now + Duration::from_millis(u64::from(ms.max(1))));
        let Some(next) = tick.into_iter().chain(self.link.next_arrival()).min() else { return false };
        self.now = next.max(self.now + Duration::from_nanos(1));
        self.link.set_now(self.now);
        true
    }

    /// Opens `count` connections, at most `at_once` under way, and runs until all are over and nothing is left anywhere.
    pub(crate) fn run(&mut self, first: u64, count: u64, at_once: u64) {
        let mut opened = 0;
        let mut idle = 0;
        loop {
            let ended = self.counts().0.ended() + self.counts().0.curr_time_wait;
            let before = opened;
            while opened < count && opened.saturating_sub(ended) < at_once && self.open(first + opened) {
                opened += 1;
            }
            let moved = self.step();
            idle = if moved || opened > before { 0 } else { idle + 1 };
            assert!(idle < STUCK, "nothing moves, seed {}", self.seed);
            let left = self.client.endpoint().len() + self.server.endpoint().len();
            if opened == count && left == 0 && !moved {
                return;
            }
        }
    }

    /// The counters of both sides.
    pub(crate) fn counts(&self) -> (Snapshot, Snapshot) {
        (self.client.endpoint().counters().snapshot(), self.server.endpoint().counters().snapshot())
    }

    /// The accounts close, and nothing is left: no connection, record, frame or deadline.
    pub(crate) fn assert_clean(&self) {
        for (side, worker) in [("client", self.counts().0), ("server", self.counts().1)] {
            for law in worker.laws() {
                assert!(law.holds(), "{side}, seed {}: {law:?}\n{worker:#?}", self.seed);
            }
            assert_eq!(worker.curr_connections, 0, "{side}");
        }
        for (side, kept, records, tick) in [
            (
                "client",
                self.client.endpoint().frames_kept(),
                self.client.endpoint().records_in_use(),
                self.client.endpoint().next_tick_ms(),
            ),
            (
                "server",
                self.server.endpoint().frames_kept(),
                self.server.endpoint().records_in_use(),
                self.server.endpoint().next_tick_ms(),
            ),
        ] {
            assert_eq!((kept, records, tick), (0, 0, None), "{side}, seed {}", self.seed);
        }
    }
}
