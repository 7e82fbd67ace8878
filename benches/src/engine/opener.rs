//! The generator's engine with its server: it opens connections that stay, then connections that the server closes.

use std::sync::Arc;
use std::time::Duration;

use synmill_engine::device::BURST;
use synmill_engine::device::memory::MemoryDevice;
use synmill_engine::endpoint::Settings;
use synmill_engine::flow::Address;
use synmill_engine::generator::desk::{Desk, Trial};
use synmill_engine::generator::dialogue::Script;
use synmill_engine::generator::meters::{Collector, Recorder, meters};
use synmill_engine::generator::tuples::{Share, Space, Walk};
use synmill_engine::generator::{CloseBy, Generator, Load, Setup, Target};
use synmill_engine::time::Instant;
use synmill_engine::wire::Link;
use synmill_engine::worker::Worker;

use super::server::Server;
use super::{Batches, ENGINE, PEER, workers};

const TARGET: Address = Address::v4([198, 18, 0, 2]);
/// A server's response.
pub const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\nConnection: close\r\n\r\n\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// Connections under way, besides those that stay.
const UNDER_WAY: u64 = 1024;
/// Frames of the server in a batch: three for each connection.
const BATCH: usize = 3 * BURST;
/// Time from one batch to the next: 128 connections at 6.4 million a second.
const STEP: Duration = Duration::from_micros(20);
/// Longer than any run, by the engine's time.
const LONG: Duration = Duration::from_secs(3600);
/// Batches between two readings of the meters.
const BATCHES_PER_LOOK: u64 = 10_000;

/// The dialogue of each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialogue {
    /// None: the server closes.
    Connect,
    /// A request, and a response with the server's FIN.
    Http,
}

/// Returns the generator of a worker without siblings, for one target.
///
/// # Panics
/// Never: the prefix is one, and prefix, ports and target go together.
#[must_use]
pub fn generator(
    dialogue: Dialogue,
    desk: &Arc<Desk>,
    recorder: Recorder,
    slots: usize,
    time_wait: Duration,
    timeout: Duration,
) -> Generator {
    let space = Space::new(&["198.16.0.0/12".parse().expect("a prefix")], 1024..=65_535, &[(TARGET, 80)]);
    let space = Arc::new(space.expect("prefix, ports and target go together"));
    let script = match dialogue {
        Dialogue::Connect => Script::connect(CloseBy::Peer),
        Dialogue::Http => Script::http("synmill", "/", None, None, 1, CloseBy::Peer),
    };
    let link = Link { destination: PEER, source: ENGINE, tags: Default::default() };
    let setup = Setup {
        targets: vec![Target { script, link }],
        walk: Walk::new(space, Share::Split { workers: 1, number: 0 }, time_wait, 1),
        recorder,
        desk: Arc::clone(desk),
        workers: 1,
        number: 0,
        timeout,
        holds: false,
        slots,
    };
    Generator::new(setup, Instant::ZERO)
}

/// Returns the slots for connections that stay and those under way.
const fn slots(resident: u64) -> u64 {
    resident + 2 * UNDER_WAY
}

/// A generator's engine with its server.
pub struct Opener {
    worker: Worker<MemoryDevice, Generator>,
    server: Server,
    desk: Arc<Desk>,
    collector: Collector,
    resident: u64,
    now: Instant,
    batches: u64,
    closed: u64,
}

impl Opener {
    /// Returns a generator without connections, of which `resident` will stay open.
    #[must_use]
    pub fn new(dialogue: Dialogue, resident: u64) -> Self {
        let desk = Arc::<Desk>::default();
        let response = if dialogue == Dialogue::Http { RESPONSE } else { b"" };
        let (recorder, collector) = meters(8);
        let slots = slots(resident) as usize;
        let application = generator(dialogue, &desk, recorder, slots, Settings::default().time_wait, LONG);
        let trial = Trial {
            number: 1,
            load: Load::Concurrency(resident + UNDER_WAY),
            start: Instant::ZERO,
            // One batch has as many SYNs as the server has answers for. The ramp's connections are in no account.
            ramp: STEP * ((resident + UNDER_WAY) / BURST as u64) as u32,
            warmup: Duration::ZERO,
            duration: LONG,
            drain: LONG,
        };
        assert!(desk.hand_in(trial), "the first trial");
        Self {
            worker: workers(vec![|| application], slots).remove(0),
            server: Server::new(response, resident),
            desk,
            collector,
            resident,
            now: Instant::ZERO,
            batches: 0,
            closed: 0,
        }
    }

    /// Returns about the bytes of memory that the engine will take.
    #[must_use]
    pub fn memory_bytes(resident: u64) -> u64 {
        // Tables grow in proportion.
        let small = 1 << 16;
        let bytes = Self::new(Dialogue::Connect, small).worker.endpoint().memory_bytes();
        bytes as u64 * slots(resident) / slots(small)
    }

    /// Opens all connections that stay.
    pub fn fill(&mut self) {
        while !self.server.holds_all() {
            self.batch();
        }
    }

    /// Asserts that the engine lost no connection and retransmitted no segment. Connections that were under way when the last one that stays
    /// was opened must have ended.
    ///
    /// # Panics
    /// It did.
    pub fn check(&self) {
        let totals = self.desk.tally.totals();
        let open = self.worker.endpoint().application().open();
        assert_eq!(self.resident + totals.started - totals.closed, open, "{totals:#?}");
        let counts = self.worker.endpoint().counters().snapshot();
        assert_eq!(counts.retrans_segs, 0, "the server loses nothing");
        assert_eq!(totals.tuples_short + totals.table_full, 0, "there is room");
    }
}

impl Batches for Opener {
    fn prepare(&mut self) {
        self.now = self.now + STEP;
        self.batches += 1;
        if self.batches.is_multiple_of(BATCHES_PER_LOOK) {
            // A meter that was read is cleared and goes back.
            while self.collector.read(|_| ()).is_some() {}
        }
        let waiting = self.server.waiting();
        assert!(waiting <= 2 * UNDER_WAY as usize, "{waiting} answers wait: the server falls behind");
        for _ in 0..BATCH.min(waiting) {
            let (server, now) = (&mut self.server, self.now);
            assert!(
                self.worker.device_mut().deliver(|frame| server.write(now, frame)),
                "a frame for a batch"
            );
        }
    }

    #[inline(never)]
    fn turn(&mut self) {
        loop {
            self.worker.turn(self.now);
            if self.worker.device_mut().waiting() == 0 {
                break;
            }
        }
    }

    fn collect(&mut self) -> u64 {
        let server = &mut self.server;
        self.worker.device_mut().collect(|packet| server.hear(packet));
        let closed = self.desk.tally.closed.get();
        closed - std::mem::replace(&mut self.closed, closed)
    }
}
