//! The responder's engine with its client: filled with connections that stay, then used by connections that come and go. Knows
//! which frames are whose; never how long anything takes.

use std::sync::Arc;
use std::time::Duration;

use synmill::device::BURST;
use synmill::device::memory::MemoryDevice;
use synmill::endpoint::{Config, Endpoint, Listener, Listeners};
use synmill::flow::Address;
use synmill::service::BuiltIn;
use synmill::stats::{Counters, Snapshot};
use synmill::time::Instant;
use synmill::worker::{Worker, join};

use super::{Client, ENGINE, Family};

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

/// Frames of the engine.
const FRAMES: usize = 2048;
/// Connections between a SYN and the request, and between the request and FIN.
const WINDOW: u64 = 1024;
/// Time from one batch to the next: 64 connections at 6.4 million a second.
const STEP: Duration = Duration::from_micros(10);

/// See the module.
pub struct Responder {
    worker: Worker<MemoryDevice, Listeners<BuiltIn>>,
    client: Client,
    resident: u64,
    /// The next connection to be opened.
    next: u64,
    now: Instant,
}

impl Responder {
    /// Nothing is open yet.
    ///
    /// # Panics
    /// Never: the service is spelled right.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let service: BuiltIn = "http:64".parse().expect("a built-in service");
        let listener = |address| Listener { address, port: 80, service: service.clone() };
        let any = [Address::v4([0; 4]), Address::v6([0; 16])];
        let capacity = setup.resident + setup.spare;
        let config = Config {
            application: Listeners(any.map(listener).into()),
            owned: Vec::new(),
            mac: ENGINE,
            mtu: 1500,
            max_connections: capacity,
            max_kept_frames: FRAMES / 4,
            time_wait: Duration::from_secs(60),
            accept_partial_checksums: false,
            piggyback: true,
            seed: [3, 5, 7, 11],
        };
        let mut endpoints = vec![Endpoint::new(config, Instant::ZERO, Arc::new(Counters::default()))];
        let seat = join(&mut endpoints).remove(0);
        Self {
            worker: Worker::new(MemoryDevice::new(FRAMES, 2048), endpoints.remove(0), seat),
            // No name comes again before its TIME-WAIT was evicted.
            client: Client::new(setup.family, capacity + setup.spare),
            resident: setup.resident as u64,
            next: 0,
            now: Instant::ZERO,
        }
    }

    /// Connections in one batch of [`Responder::prepare`].
    pub const BATCH: u64 = BURST as u64;

    /// The engine's part of a batch: turns until all that was put in is answered.
    #[inline(never)]
    pub fn turn(&mut self) {
        while self.worker.device_mut().waiting() > 0 {
            self.worker.turn(self.now);
        }
    }

    fn put(&mut self, write: impl FnOnce(&Client, Instant, &mut [u8]) -> usize) {
        let (client, now) = (&self.client, self.now);
        assert!(self.worker.device_mut().deliver(|frame| write(client, now, frame)), "a frame for a batch");
    }

    /// The client hears what the engine sent.
    pub fn collect(&mut self) {
        let client = &mut self.client;
        self.worker.device_mut().collect(|packet| client.hear(packet));
    }

    /// Opens the connections that stay, as many as fit into a batch; false when all are open.
    pub fn fill_some(&mut self, turns: &mut impl FnMut(&mut Self)) -> bool {
        let to = (self.next + Self::BATCH).min(self.resident);
        if self.next == to {
            return false;
        }
        self.now = self.now + STEP;
        for number in self.next..to {
            self.put(|client, now, frame| client.syn(number, now, frame));
        }
        turns(self);
        self.collect();
        for number in self.next..to {
            self.put(|client, now, frame| client.ack(number, now, frame));
        }
        turns(self);
        self.collect();
        self.next = to;
        true
    }

    /// Opens all connections that stay.
    pub fn fill(&mut self) {
        while self.fill_some(&mut Self::turn) {}
    }

    /// Puts in the frames of a batch: SYN, request and FIN of three connections in turn, of which each is at another stage.
    /// [`Responder::turn`] and [`Responder::collect`] follow.
    pub fn prepare(&mut self) {
        self.now = self.now + STEP;
        let first = self.resident;
        for number in self.next..self.next + Self::BATCH {
            self.put(|client, now, frame| client.syn(number, now, frame));
            if let Some(number) = number.checked_sub(WINDOW).filter(|number| *number >= first) {
                self.put(|client, now, frame| client.request(number, now, frame));
            }
            if let Some(number) = number.checked_sub(2 * WINDOW).filter(|number| *number >= first) {
                self.put(|client, now, frame| client.fin(number, now, frame));
            }
        }
        self.next += Self::BATCH;
    }

    /// Puts in a request of each of `numbers`, their `nth`.
    pub fn prepare_requests(&mut self, numbers: impl Iterator<Item = u64>, nth: u32) {
        self.now = self.now + STEP;
        for number in numbers {
            self.put(|client, now, frame| client.ask(number, nth, now, frame));
        }
    }

    /// Time goes by for the engine.
    pub fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.worker.turn(self.now);
        self.collect();
    }

    /// Connections in the table.
    #[must_use]
    pub fn held(&self) -> usize {
        self.worker.endpoint().len()
    }

    /// The engine's worker.
    pub fn worker(&self) -> &Worker<MemoryDevice, Listeners<BuiltIn>> {
        &self.worker
    }

    /// The engine's counts.
    #[must_use]
    pub fn counts(&self) -> Snapshot {
        self.worker.endpoint().counters().snapshot()
    }
}
