//! The responder's engine with its client: filled with connections that stay, then used by connections that come and go. Knows
//! which frames are whose; never how long anything takes.

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

/// What to hold.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The packets' family.
    pub family: Family,
    /// Connections that stay.
    pub resident: usize,
    /// Room in the table besides; TIME-WAIT has it.
    pub spare: usize,
}

impl Setup {
    /// With as much room besides as makes TIME-WAIT ones a small part of the table, and keeps names apart.
    #[must_use]
    pub fn of(family: Family, resident: usize) -> Self {
        Self { family, resident, spare: (resident / 16).clamp(8192, 65_536) }
    }

    /// All of it.
    pub(super) const fn slots(self) -> usize {
        self.resident + self.spare
    }

    /// A client for it. Of those that do not stay, no name comes again before its TIME-WAIT was evicted.
    #[must_use]
    pub fn client(self, network: u8) -> Client {
        Client::new(self.family, network, self.resident, self.slots() + self.spare.max(1))
    }

    /// Bytes of memory that the engine and its client will take, about.
    #[must_use]
    pub fn memory_bytes(self) -> u64 {
        // Tables grow in proportion: a small engine tells.
        let small = Self { resident: 1 << 16, spare: 0, ..self };
        let responder = Responder::new(small);
        let each = (responder.engine.endpoint().memory_bytes() + responder.client.memory_bytes()) as f64
            / small.resident as f64;
        (each * (self.slots() + self.spare) as f64) as u64
    }
}

/// Connections between a SYN and the request, and between the request and FIN.
const WINDOW: u64 = 1024;
/// Connections in one batch.
const BATCH: u64 = BURST as u64;
/// Time from one batch to the next: 128 connections at 6.4 million a second.
const STEP: Duration = Duration::from_micros(20);

/// The engine of `synmill serve`.
pub type Serving = Worker<MemoryDevice, Listeners<BuiltIn>>;

/// What answers the client.
pub trait Engine {
    /// Where its frames come from and go to.
    fn device(&mut self) -> &mut MemoryDevice;

    /// Takes what waits, a burst at most, and answers it.
    fn turn(&mut self, now: Instant);
}

impl Engine for Serving {
    fn device(&mut self) -> &mut MemoryDevice {
        self.device_mut()
    }

    #[inline]
    fn turn(&mut self, now: Instant) {
        Self::turn(self, now);
    }
}

/// See the module.
pub struct Responder<E = Serving> {
    engine: E,
    client: Client,
    setup: Setup,
    /// The next connection to be opened.
    next: u64,
    now: Instant,
}

impl Responder<Serving> {
    /// Nothing is open yet.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self::siblings(setup, vec![setup.client(0)]).remove(0)
    }

    /// One for each client, of which each sees the others' indexes as the workers of one process do.
    ///
    /// # Panics
    /// Never: the service is spelled right.
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

    /// The engine's counts.
    #[must_use]
    pub fn counts(&self) -> Snapshot {
        self.engine.endpoint().counters().snapshot()
    }

    /// Connections in the table.
    #[must_use]
    pub fn held(&self) -> usize {
        self.engine.endpoint().len()
    }

    /// The engine's connections, for other threads.
    #[must_use]
    pub fn viewer(&self) -> Viewer {
        self.engine.endpoint().viewer()
    }

    /// Asserts that no connection was lost, and no segment repeated.
    ///
    /// # Panics
    /// If one was.
    pub fn check(&self) {
        let counts = self.counts();
        assert!(counts.laws().iter().all(Law::holds), "{:?}", counts.laws());
        assert_eq!(counts.retrans_segs, 0, "the client loses nothing");
        assert_eq!(counts.passive_opens, self.next, "every SYN opens a connection");
        assert!(self.held() as u64 >= self.next.min(self.setup.resident as u64), "{} are left", self.held());
    }
}

impl<E: Engine> Responder<E> {
    /// Another engine, of the same room.
    #[must_use]
    pub const fn of(engine: E, client: Client, setup: Setup) -> Self {
        Self { engine, client, setup, next: 0, now: Instant::ZERO }
    }

    /// The engine's part of a batch: turns until all that was put in is answered.
    #[inline(never)]
    fn turn_all(&mut self) {
        while self.turn_once() {}
    }

    /// One turn, if anything waits.
    pub fn turn_once(&mut self) -> bool {
        let waits = self.engine.device().waiting() > 0;
        if waits {
            self.engine.turn(self.now);
        }
        waits
    }

    fn put(&mut self, write: impl FnOnce(&Client, Instant, &mut [u8]) -> usize) {
        let (client, now) = (&self.client, self.now);
        assert!(self.engine.device().deliver(|frame| write(client, now, frame)), "a frame for a batch");
    }

    /// The client hears what the engine sent.
    fn hear(&mut self) {
        let client = &mut self.client;
        self.engine.device().collect(|packet| client.hear(packet));
    }

    /// Opens the connections that stay, as many as fit into a batch, with `turns` for the engine's part; false when all are open.
    pub fn fill_some(&mut self, mut turns: impl FnMut(&mut Self)) -> bool {
        let to = (self.next + BATCH).min(self.setup.resident as u64);
        if self.next >= to {
            return false;
        }
        self.now = self.now + STEP;
        for number in self.next..to {
            self.put(|client, now, frame| client.syn(number, now, frame));
        }
        turns(self);
        self.hear();
        for number in self.next..to {
            self.put(|client, now, frame| client.ack(number, now, frame));
        }
        turns(self);
        self.hear();
        self.next = to;
        true
    }

    /// Opens all connections that stay.
    pub fn fill(&mut self) {
        while self.fill_some(Self::turn_all) {}
    }

    /// Connections come and go until TIME-WAIT has all the room that is left.
    pub fn warm(&mut self) {
        for _ in 0..2 * self.setup.spare as u64 / BATCH {
            self.batch();
        }
    }
}

/// SYN, request and FIN of three connections in turn, of which each is at another stage.
impl<E: Engine> Batches for Responder<E> {
    fn prepare(&mut self) {
        self.now = self.now + STEP;
        let first = self.setup.resident as u64;
        for number in self.next..self.next + BATCH {
            self.put(|client, now, frame| client.syn(number, now, frame));
            if let Some(number) = number.checked_sub(WINDOW).filter(|number| *number >= first) {
                self.put(|client, now, frame| client.request(number, now, frame));
            }
            if let Some(number) = number.checked_sub(2 * WINDOW).filter(|number| *number >= first) {
                self.put(|client, now, frame| client.fin(number, now, frame));
            }
        }
        self.next += BATCH;
    }

    fn turn(&mut self) {
        self.turn_all();
    }

    fn collect(&mut self) -> u64 {
        let before = self.client.heard();
        self.hear();
        let heard = self.client.heard();
        let first = self.setup.resident as u64;
        let stages = [0, WINDOW, 2 * WINDOW].map(|behind| u64::from(self.next > first + behind));
        let packets = stages.iter().sum::<u64>() * BATCH;
        assert_eq!(heard.packets - before.packets, packets, "one answer for each packet");
        assert_eq!(heard.texts - before.texts, stages[1] * BATCH, "a response for each request");
        BATCH
    }
}

/// Requests and responses on the connections that stay: 1 + 1 packets each, and no connection again before all others had their turn.
pub struct Requests<'a> {
    responder: &'a mut Responder,
    asked: u64,
    stride: u64,
}

impl<'a> Requests<'a> {
    /// On the connections of a responder that is filled and asked for the first time.
    #[must_use]
    pub fn new(responder: &'a mut Responder) -> Self {
        // Far from one to the next: the golden section of them all, made a number that leads through all.
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
        let resident = self.responder.setup.resident as u64;
        // So little time that no response's retransmission comes due before the connection is asked again.
        self.responder.now = self.responder.now + STEP / 10;
        for asked in self.asked..self.asked + BATCH {
            let (number, nth) = (asked % resident * self.stride % resident, (asked / resident) as u32);
            self.responder.put(|client, now, frame| client.ask(number, nth, now, frame));
        }
        self.asked += BATCH;
    }

    fn turn(&mut self) {
        self.responder.turn_all();
    }

    fn collect(&mut self) -> u64 {
        let before = self.responder.client.heard();
        self.responder.hear();
        let heard = self.responder.client.heard();
        assert_eq!(heard.packets - before.packets, BATCH, "one answer for each packet");
        assert_eq!(heard.texts - before.texts, BATCH, "a response for each request");
        BATCH
    }
}
