//! An engine that accepts, with its client: connections that stay, and connections that come and go.

use std::time::Duration;

use synmill_engine::device::BURST;
use synmill_engine::device::memory::MemoryDevice;
use synmill_engine::endpoint::{Listener, Listeners, Viewer};
use synmill_engine::flow::Address;
use synmill_engine::service::BuiltIn;
use synmill_engine::stats::{Law, Snapshot};
use synmill_engine::time::Instant;
use synmill_engine::worker::Worker;

use super::{Batches, Client, Family, workers};

/// The connections of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The IP version.
    pub family: Family,
    /// Connections that stay.
    pub resident: usize,
    /// Further slots of the table, which TIME-WAIT fills.
    pub spare: usize,
}

impl Setup {
    /// Returns a setup whose TIME-WAIT is a small part of the table, and long enough to keep names apart.
    #[must_use]
    pub fn of(family: Family, resident: usize) -> Self {
        Self { family, resident, spare: (resident / 16).clamp(8192, 65_536) }
    }

    /// Returns the slots of the table.
    pub(super) const fn slots(self) -> usize {
        self.resident + self.spare
    }

    /// Returns a client that uses no name again before the engine has evicted its TIME-WAIT.
    #[must_use]
    pub fn client(self, network: u8) -> Client {
        Client::new(self.family, network, self.resident, self.slots() + self.spare.max(1))
    }

    /// Returns about the bytes of memory that the engine and its client will take.
    #[must_use]
    pub fn memory_bytes(self) -> u64 {
        // Tables grow in proportion.
        let small = Self { resident: 1 << 16, spare: 0, ..self };
        let responder = Responder::new(small);
        let each = (responder.engine.endpoint().memory_bytes() + responder.client.memory_bytes()) as f64
            / small.resident as f64;
        (each * (self.slots() + self.spare) as f64) as u64
    }
}

/// The pace of connections that come and go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Connections in one batch.
    pub batch: u64,
    /// Connections between a SYN and its request, and between a request and its FIN.
    pub window: u64,
    /// Time from one batch to the next.
    pub step: Duration,
}

/// 128 connections at 6.4 million/s.
const PACE: Pace = Pace { batch: BURST as u64, window: 1024, step: Duration::from_micros(20) };

/// The engine of `synmill serve`.
pub type Serving = Worker<MemoryDevice, Listeners<BuiltIn>>;

/// Frames to an engine and from it.
pub trait Rings {
    /// Puts a frame in: `write` writes it and returns its length. Returns false if no frame is free.
    fn deliver(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool;

    /// Returns the number of frames that the engine has not received yet.
    fn waiting(&self) -> usize;

    /// Takes out every frame that the engine has sent.
    fn collect(&mut self, read: impl FnMut(&[u8]));
}

impl Rings for MemoryDevice {
    fn deliver(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        self.deliver(write)
    }

    #[inline]
    fn waiting(&self) -> usize {
        self.waiting()
    }

    fn collect(&mut self, read: impl FnMut(&[u8])) {
        self.collect(read);
    }
}

/// The server of the client.
pub trait Engine {
    /// Its rings.
    type Rings: Rings;

    /// Returns its rings.
    fn rings(&mut self) -> &mut Self::Rings;

    /// Receives a burst at most, and answers it.
    fn turn(&mut self, now: Instant);
}

impl Engine for Serving {
    type Rings = MemoryDevice;

    fn rings(&mut self) -> &mut MemoryDevice {
        self.device_mut()
    }

    #[inline]
    fn turn(&mut self, now: Instant) {
        Self::turn(self, now);
    }
}

/// An engine with its client.
pub struct Responder<E = Serving> {
    engine: E,
    client: Client,
    setup: Setup,
    pace: Pace,
    /// The next connection.
    next: u64,
    now: Instant,
}

impl Responder<Serving> {
    /// Returns an engine without connections.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self::siblings(setup, vec![setup.client(0)]).remove(0)
    }

    /// Returns an engine for each client. Each sees the others' indexes, as the workers of one process do.
    ///
    /// # Panics
    /// Never: the service exists.
    #[must_use]
    pub fn siblings(setup: Setup, clients: Vec<Client>) -> Vec<Self> {
        let service: BuiltIn = "http:64".parse().expect("a built-in service");
        let any = [Address::v4([0; 4]), Address::v6([0; 16])];
        let application = |service: BuiltIn| {
            let listener = |address| Listener { address, port: 80, service: service.clone() };
            Listeners(any.map(listener).into())
        };
        let maker = |_| {
            let service = service.clone();
            move || application(service)
        };
        let applications = clients.iter().map(maker).collect();
        let responder = |(engine, client)| Self::of(engine, client, setup);
        workers(applications, setup.slots()).into_iter().zip(clients).map(responder).collect()
    }

    /// Returns the engine's counts.
    #[must_use]
    pub fn counts(&self) -> Snapshot {
        self.engine.endpoint().counters().snapshot()
    }

    /// Returns the number of connections in the table.
    #[must_use]
    pub fn held(&self) -> usize {
        self.engine.endpoint().len()
    }

    /// Returns a view of the engine's connections for other threads.
    #[must_use]
    pub fn viewer(&self) -> Viewer {
        self.engine.endpoint().viewer()
    }

    /// Asserts that the engine lost no connection and retransmitted no segment.
    ///
    /// # Panics
    /// It did.
    pub fn check(&self) {
        let counts = self.counts();
        assert!(counts.laws().iter().all(Law::holds), "{:?}", counts.laws());
        assert_eq!(counts.retrans_segs, 0, "the client loses nothing");
        assert_eq!(counts.passive_opens, self.next, "every SYN opens a connection");
        assert!(self.held() as u64 >= self.next.min(self.setup.resident as u64), "{} are left", self.held());
    }
}

impl<E: Engine> Responder<E> {
    /// Returns an engine of this setup without connections.
    #[must_use]
    pub const fn of(engine: E, client: Client, setup: Setup) -> Self {
        Self { engine, client, setup, pace: PACE, next: 0, now: Instant::ZERO }
    }

    /// Sets the pace of connections that come and go.
    #[must_use]
    pub const fn paced(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Does the engine's part of a batch: turns until no frame waits.
    #[inline(never)]
    fn turn_all(&mut self) {
        while self.turn_once() {}
    }

    /// Does one turn if a frame waits; returns whether one did.
    pub fn turn_once(&mut self) -> bool {
        let waits = self.engine.rings().waiting() > 0;
        if waits {
            self.engine.turn(self.now);
        }
        waits
    }

    fn put(&mut self, write: impl FnOnce(&Client, Instant, &mut [u8]) -> usize) {
        let (client, now) = (&self.client, self.now);
        assert!(self.engine.rings().deliver(|frame| write(client, now, frame)), "a frame for a batch");
    }

    /// Gives the engine's frames to the client.
    fn hear(&mut self) {
        let client = &mut self.client;
        self.engine.rings().collect(|packet| client.hear(packet));
    }

    /// Gives the engine's frames to the client, and asserts that it has answered this many packets, some of them with text.
    fn hear_answers(&mut self, packets: u64, texts: u64) {
        let before = self.client.heard();
        self.hear();
        let heard = self.client.heard();
        assert_eq!(heard.packets - before.packets, packets, "one answer for each packet");
        assert_eq!(heard.texts - before.texts, texts, "a response for each request");
    }

    /// Opens a batch of the connections that stay, with `turns` as the engine's part; returns false if all are open.
    pub fn fill_some(&mut self, mut turns: impl FnMut(&mut Self)) -> bool {
        let numbers = self.next..(self.next + self.pace.batch).min(self.setup.resident as u64);
        if numbers.is_empty() {
            return false;
        }
        self.next = numbers.end;
        self.now = self.now + self.pace.step;
        for write in [Client::syn, Client::ack] {
            for number in numbers.clone() {
                self.put(|client, now, frame| write(client, number, now, frame));
            }
            turns(self);
            self.hear();
        }
        true
    }

    /// Opens all connections that stay.
    pub fn fill(&mut self) {
        while self.fill_some(Self::turn_all) {}
    }

    /// Opens and closes connections until TIME-WAIT fills the table.
    pub fn warm(&mut self) {
        for _ in 0..2 * self.setup.spare as u64 / self.pace.batch {
            self.batch();
        }
    }
}

/// SYN, request and FIN of three connections in turn, each at another stage.
impl<E: Engine> Batches for Responder<E> {
    fn prepare(&mut self) {
        let Pace { batch, window, step } = self.pace;
        self.now = self.now + step;
        let first = self.setup.resident as u64;
        let stages: [(u64, Write); 3] =
            [(0, Client::syn), (window, Client::request), (2 * window, Client::fin)];
        for number in self.next..self.next + batch {
            for (behind, write) in stages {
                if let Some(number) = number.checked_sub(behind).filter(|number| *number >= first) {
                    self.put(|client, now, frame| write(client, number, now, frame));
                }
            }
        }
        self.next += batch;
    }

    fn turn(&mut self) {
        self.turn_all();
    }

    fn collect(&mut self) -> u64 {
        let Pace { batch, window, .. } = self.pace;
        let first = self.setup.resident as u64;
        let stages = [0, window, 2 * window].map(|behind| u64::from(self.next > first + behind) * batch);
        self.hear_answers(stages.iter().sum(), stages[1]);
        batch
    }
}

/// Writes a frame of a connection.
type Write = fn(&Client, u64, Instant, &mut [u8]) -> usize;

/// Requests and responses on the connections that stay: 1 + 1 packets each. All others have their turn before a connection has its next.
pub struct Requests<'a> {
    responder: &'a mut Responder,
    asked: u64,
    stride: u64,
}

impl<'a> Requests<'a> {
    /// Returns the requests to a filled responder without requests so far.
    #[must_use]
    pub fn new(responder: &'a mut Responder) -> Self {
        // A stride of about the golden section, coprime to the number of connections, so that neighbours are far apart.
        let resident = responder.setup.resident as u64;
        let mut stride = (resident as f64 * 0.618_034) as u64;
        while gcd(resident, stride) != 1 {
            stride += 1;
        }
        Self { responder, asked: 0, stride }
    }
}

const fn gcd(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { gcd(other, one % other) }
}

impl Batches for Requests<'_> {
    fn prepare(&mut self) {
        let (resident, Pace { batch, step, .. }) =
            (self.responder.setup.resident as u64, self.responder.pace);
        // So little time that no retransmission of a response is due before the connection's next request.
        self.responder.now = self.responder.now + step / 10;
        for asked in self.asked..self.asked + batch {
            let (number, nth) = (asked % resident * self.stride % resident, (asked / resident) as u32);
            self.responder.put(|client, now, frame| client.ask(number, nth, now, frame));
        }
        self.asked += batch;
    }

    fn turn(&mut self) {
        self.responder.turn_all();
    }

    fn collect(&mut self) -> u64 {
        let batch = self.responder.pace.batch;
        self.responder.hear_answers(batch, batch);
        batch
    }
}
