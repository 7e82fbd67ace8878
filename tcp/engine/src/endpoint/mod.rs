//! One core's TCP: joins wire, flow, proto and an application. Knows all of these; never which device, which thread, or
//! the wall clock. What is to be sent goes to an [`Outbox`].

mod application;
mod burst;
mod chain;
mod connection;
mod control;
mod deadlines;
mod lifecycle;
mod paths;
mod receive;
mod records;
mod send;
mod stop;
#[cfg(test)]
mod tests;
mod view;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

pub use application::{Application, Id, Listener, Listeners, Open, Order, Varies};
use burst::{Fate, Work};
use chain::Chain;
use connection::{Connections, Current};
use paths::Paths;
use records::Records;
use send::Acknowledge;
pub use view::{Lookup, View, Viewer};
use waiting::Waiting;

use crate::device::{BURST, Burst, Frame};
use crate::flow::{Address, FlowHasher, FlowKey, FlowTable, Prefix, Share, SlotSet, Timers};
use crate::hint::seldom;
use crate::proto::{Environment, IsnSecret, State};
use crate::service::{Pending, Then};
use crate::stats::Counters;
use crate::time::Instant;
use crate::wire::{Checks, Mac};

/// Connections looked at in one turn while the endpoint drains.
const DRAIN_PER_TURN: u32 = 1024;
/// Orders of the application carried out in one turn, at most.
const ORDERS_PER_TURN: usize = 2 * BURST;
/// The most connections one run holds, all workers together.
pub const MAX_CONNECTIONS: usize = 100_000_000;
/// Half-open connections and second records, at most: what is shared by all of a large table need not grow with it.
const MOST_HALF_OPEN: usize = 1 << 20;
const MOST_RECORDS: usize = 1 << 18;
/// Segments one connection may send before the next has its turn.
const SEGMENTS_PER_VISIT: usize = 16;

/// What the user chooses of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most connections held at once, in all states.
    pub max_connections: usize,
    /// 2 MSL.
    pub time_wait: Duration,
    /// Accept segments whose checksum a virtual device left to hardware.
    pub accept_partial_checksums: bool,
    /// Send acknowledgement, text and FIN in one segment where they may share it. Without it each has a segment of its own, as
    /// textbooks draw it.
    pub piggyback: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 1_000_000,
            time_wait: Duration::from_secs(60),
            accept_partial_checksums: false,
            piggyback: true,
        }
    }
}

/// What an endpoint is made of.
#[derive(Clone, Debug)]
pub struct Config<A> {
    /// What the endpoint works for.
    pub application: A,
    /// What the user chose.
    pub settings: Settings,
    /// Addresses that only synmill has: the endpoint answers ARP, neighbour discovery and echo for them, and refuses closed ports
    /// on them with RST.
    pub owned: Vec<Prefix>,
    /// The interface's Ethernet address.
    pub mac: Mac,
    /// The interface's MTU in bytes.
    pub mtu: usize,
    /// The most received frames kept for later, all connections together.
    pub max_kept_frames: usize,
    /// 256 random bits, the same for all workers that share flows.
    pub seed: [u64; 4],
}

/// Frames on their way from an endpoint, and free ones on their way to it.
#[derive(Debug)]
pub struct Outbox {
    /// To be sent.
    pub transmit: Burst,
    /// To be given back to the device.
    pub recycle: Burst,
    /// Free frames for what answers no received one, or many; the worker fills it up before each turn.
    pub free: Burst,
    /// Frames whose flow another worker owns, with its number; to be copied there and recycled.
    pub hand_over: Vec<(usize, Frame)>,
}

impl Outbox {
    /// An empty outbox with room for a turn.
    #[must_use]
    pub fn new() -> Self {
        Self {
            transmit: Burst::with_capacity(4 * BURST),
            recycle: Burst::with_capacity(4 * BURST),
            free: Burst::with_capacity(2 * BURST),
            hand_over: Vec::with_capacity(BURST),
        }
    }

    /// Frames in it.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.transmit.len() + self.recycle.len() + self.free.len() + self.hand_over.len()
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

/// Why [`Endpoint::open`] opened nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// A connection of that name exists.
    Exists,
    /// No slot is free.
    TableFull,
    /// Too many distinct addresses or next hops.
    TooManyPaths,
}

/// What an endpoint has room for.
struct Sizes {
    capacity: usize,
    max_half_open: usize,
    records: usize,
}

impl Sizes {
    fn of(max_connections: usize) -> Self {
        let capacity = max_connections.max(1);
        Self {
            capacity,
            // A share of all: what a flood of SYNs may take from those that are established.
            max_half_open: (capacity / 4).max(capacity.min(1024)).min(MOST_HALF_OPEN),
            records: (capacity / 16).max(capacity.min(4096)).min(MOST_RECORDS),
        }
    }
}

/// Bytes of memory for connections that an endpoint will take ([`Endpoint::memory_bytes`]), its application's apart.
#[must_use]
pub fn memory_needed(max_connections: usize, max_kept_frames: usize) -> usize {
    let Sizes { capacity, records, .. } = Sizes::of(max_connections);
    FlowTable::bytes_for(capacity)
        + Connections::bytes_for(capacity)
        + Timers::bytes_for(capacity, Share::Half)
        + Records::bytes_for(records, max_kept_frames)
        + SlotSet::bytes_for(capacity)
}

/// One core's TCP.
pub struct Endpoint<A> {
    application: A,
    owned: Vec<Prefix>,
    mac: Mac,
    mtu: usize,
    checks: Checks,
    /// Of IPv4 and of IPv6.
    environments: [Environment; 2],
    hasher: FlowHasher,
    isn: IsnSecret,
    counters: Arc<Counters>,
    table: FlowTable,
    connections: Connections,
    timers: Timers,
    records: Records,
    paths: Paths,
    /// Connections with something to send.
    ready: SlotSet,
    /// Those in SYN-RECEIVED, and the most there may be.
    half_open: Chain,
    max_half_open: usize,
    /// Those in TIME-WAIT.
    waiting: Waiting,
    max_connections: usize,
    siblings: Vec<(usize, Lookup)>,
    work: Box<[Work]>,
    /// Set while the endpoint drains: the next slot to look at.
    draining: Option<u32>,
    piggyback: bool,
    /// The next slot to look at while connections are reset at the end.
    aborted: u32,
}

impl<A: Application> Endpoint<A> {
    /// Allocates everything the endpoint will ever use.
    #[must_use]
    pub fn new(config: Config<A>, now: Instant, counters: Arc<Counters>) -> Self {
        let Settings { max_connections, time_wait, accept_partial_checksums, piggyback } = config.settings;
        let time_wait_ms = time_wait.as_millis().min(u128::from(u32::MAX / 4)) as u32;
        let environment = |headers: usize| Environment {
            local_mss: config.mtu.saturating_sub(headers).clamp(64, 0xffff - 1) as u16,
            time_wait_ms,
        };
        let Sizes { capacity, max_half_open, records } = Sizes::of(max_connections);
        Self {
            environments: [environment(40), environment(60)],
            application: config.application,
            owned: config.owned,
            mac: config.mac,
            mtu: config.mtu,
            checks: Checks { accept_partial_checksums },
            hasher: FlowHasher::new(config.seed),
            isn: IsnSecret::from_seed(&config.seed),
            counters,
            table: FlowTable::new(capacity),
            connections: Connections::new(capacity),
            timers: Timers::new(capacity, Share::Half, now.millis()),
            records: Records::new(records, config.max_kept_frames),
            paths: Paths::new(capacity),
            ready: SlotSet::new(capacity),
            half_open: Chain::EMPTY,
            max_half_open,
            waiting: Waiting::new(),
            max_connections: capacity,
            siblings: Vec::new(),
            work: std::iter::repeat_with(Work::default).take(BURST).collect(),
            draining: None,
            piggyback,
            aborted: 0,
        }
    }

    /// Bytes of memory for connections.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.application.memory_bytes()
            + self.table.memory_bytes()
            + self.connections.memory_bytes()
            + self.timers.memory_bytes()
            + self.records.memory_bytes()
            + self.ready.memory_bytes()
    }

    /// Finds this endpoint's flows, for the other workers.
    #[must_use]
    pub fn lookup(&self) -> Lookup {
        Lookup::new(self.table.index(), self.viewer())
    }

    /// This endpoint's connections, for other threads.
    #[must_use]
    pub fn viewer(&self) -> Viewer {
        Viewer {
            connections: self.connections.reader(),
            shared: self.paths.reader(),
            transfers: self.records.reader(),
            varies: A::VARIES,
        }
    }

    /// The other workers, by number, whose flows may arrive here.
    pub fn set_siblings(&mut self, siblings: Vec<(usize, Lookup)>) {
        self.siblings = siblings;
    }

    /// The interface's MTU in bytes.
    #[must_use]
    pub const fn mtu(&self) -> usize {
        self.mtu
    }

    /// What it works for.
    #[must_use]
    pub fn application(&self) -> &A {
        &self.application
    }

    /// What it works for, to be told something.
    pub fn application_mut(&mut self) -> &mut A {
        &mut self.application
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Connections held, in all states.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Is none held?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Received frames kept for later; for the law of frames.
    #[must_use]
    pub fn frames_kept(&self) -> usize {
        self.records.frames()
    }

    /// Transfer records in use.
    #[must_use]
    pub fn records_in_use(&self) -> usize {
        self.records.in_use()
    }

    /// When [`Endpoint::on_tick`] wants to be called next, in milliseconds, if any deadline is set.
    #[must_use]
    pub fn next_tick_ms(&self) -> Option<u32> {
        let waiting = self.waiting.deadline().map(|deadline| deadline.since(self.timers.now()));
        self.timers.next_poll_ms().into_iter().chain(waiting).min()
    }

    /// Has it something to send that only waits for frames or for its turn?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn environment(&self, address: &Address) -> &Environment {
        &self.environments[usize::from(!address.is_v4())]
    }

    /// The slot of a flow.
    #[inline]
    fn find(&self, key: &FlowKey, hash: u64) -> Option<u32> {
        self.table.find(hash, |slot| self.is(slot, key))
    }

    /// Is this the slot of a live connection of that name?
    #[inline]
    fn is(&self, slot: u32, key: &FlowKey) -> bool {
        let [own, shared] = A::VARIES.split(key);
        let number = self.connections.shared_of(slot, own);
        number.is_some_and(|number| self.paths.shared(number).end == shared)
    }

    /// The full name of a connection.
    #[inline]
    fn key(&self, current: &Current) -> FlowKey {
        current.key(A::VARIES, self.paths.shared(current.shared).end)
    }

    /// The connection in a slot, to be worked on.
    #[inline]
    fn current(&self, slot: u32) -> Current {
        self.connections.get(slot, &self.paths)
    }

    /// The work on a connection is done.
    #[inline(always)]
    fn put_back(&mut self, current: &Current) {
        // A slot that was freed was written then, and may have another owner.
        if seldom(current.tcb.state() == State::Closed) {
            return;
        }
        match current.tcb.transfer() {
            None => self.connections.set(current),
            Some(number) => self.connections.set_with(current, || self.records.tell(number)),
        }
    }

    /// Does what the application wants.
    pub fn poll_application(&mut self, now: Instant, out: &mut Outbox) {
        for _ in 0..ORDERS_PER_TURN {
            // Who is ready sends after this, and what is owed comes before what is new.
            let kept = if self.ready.is_empty() { 0 } else { BURST };
            match self.application.poll(now, out.free.len() > kept) {
                None => return,
                Some(Order::Open(open)) => {
                    if let Some(key) = self.application.upcoming() {
                        self.table.prefetch_to_write(self.hasher.hash(key));
                    }
                    match self.open(now, &open, out) {
                        Ok(slot) => self.application.on_opened(Id { slot, role: open.role }, now),
                        Err(error) => self.application.on_not_opened(error, now),
                    }
                }
                Some(Order::Wake(slot)) => self.ready.insert(slot),
                Some(Order::Abort(slot, end)) => self.abort_one(slot, end, now, out),
            }
        }
    }

    /// Sends what connections have ready, each a little in turn, as long as there are free frames.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Outbox) {
        while !out.free.is_empty() {
            let Some(slot) = self.ready.take() else { return };
            let before = self.connections.state(slot);
            // The slot may have another owner by now, or none; in TIME-WAIT all was said.
            if before == State::Closed || before.is_half_open() || before == State::TimeWait {
                continue;
            }
            let mut current = self.current(slot);
            self.respond(&mut current, None, Acknowledge::IfOwed, before, now, out);
            self.put_back(&current);
        }
    }

    /// What the connection has to send, and what follows.
    #[inline(always)]
    fn pending(&self, current: &Current) -> Pending {
        let mut pending = self.application.pending(current.id(), &current.memo);
        if let Some(number) = current.tcb.transfer() {
            let record = self.records.get(number);
            if record.kept_bytes > 0 {
                pending.bytes = u64::from(record.kept_bytes);
            }
        }
        if seldom(self.draining.is_some()) && pending.bytes == 0 && pending.then == Then::Wait {
            pending.then = Then::Close;
        }
        pending
    }
}
