//! The endpoint itself: what it is made of, and how a connection is found, borrowed and put back.

use std::sync::Arc;
use std::time::Duration;

use super::application::Application;
use super::chain::Chain;
use super::connection::{Connections, Current};
use super::paths::Paths;
use super::records::Records;
use super::view::{Lookup, Viewer};
use super::waiting::Waiting;
use super::work::Work;
use crate::device::BURST;
use crate::flow::{Address, FlowHasher, FlowKey, FlowTable, Prefix, Share, SlotSet, Timers};
use crate::hint::seldom;
use crate::proto::{Environment, IsnSecret};
use crate::service::{Pending, Then};
use crate::stats::Counters;
use crate::time::Instant;
use crate::wire::{Checks, Mac, SHORTEST_HEADERS};

/// The most connections of one run, all workers together. Each takes some 97 bytes ([`Endpoint::memory_bytes`]): 9.7 GB in all.
pub const MAX_CONNECTIONS: usize = 100_000_000;
/// The most half-open connections and the most transfer records: all connections share them, so a large table needs no more.
const MOST_HALF_OPEN: usize = 1 << 20;
const MOST_RECORDS: usize = 1 << 18;

/// The user's choices for an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The most connections held at once, in all states.
    pub max_connections: usize,
    /// 2 MSL.
    pub time_wait: Duration,
    /// Accept segments whose checksum a virtual device left to hardware.
    pub accept_partial_checksums: bool,
    /// Send acknowledgement, text and FIN in one segment where they fit together. Without it each goes alone, as textbooks draw
    /// it.
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

/// The parts and limits of an endpoint.
#[derive(Clone, Debug)]
pub struct Config<A> {
    /// The application that the endpoint works for.
    pub application: A,
    /// The user's choices.
    pub settings: Settings,
    /// Prefixes of addresses that only synmill has. The endpoint answers ARP, neighbour solicitations and echo requests for them, and
    /// refuses their closed ports with RST.
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

/// The sizes of an endpoint's tables.
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
            // A share of the table: a flood of SYNs leaves the rest to established connections.
            max_half_open: (capacity / 4).max(capacity.min(1024)).min(MOST_HALF_OPEN),
            records: (capacity / 16).max(capacity.min(4096)).min(MOST_RECORDS),
        }
    }
}

/// Returns how many bytes of memory an endpoint takes for connections ([`Endpoint::memory_bytes`]), without its application's.
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
    pub(super) application: A,
    pub(super) owned: Vec<Prefix>,
    pub(super) mac: Mac,
    pub(super) mtu: usize,
    pub(super) checks: Checks,
    /// One of IPv4 and one of IPv6.
    pub(super) environments: [Environment; 2],
    pub(super) hasher: FlowHasher,
    pub(super) isn: IsnSecret,
    pub(super) counters: Arc<Counters>,
    pub(super) table: FlowTable,
    pub(super) connections: Connections,
    pub(super) timers: Timers,
    pub(super) records: Records,
    pub(super) paths: Paths,
    /// Connections with something to send.
    pub(super) ready: SlotSet,
    /// Connections in SYN-RECEIVED, and their bound.
    pub(super) half_open: Chain,
    pub(super) max_half_open: usize,
    /// Connections in TIME-WAIT.
    pub(super) waiting: Waiting,
    pub(super) max_connections: usize,
    pub(super) siblings: Vec<(usize, Lookup)>,
    pub(super) work: Box<[Work]>,
    /// The next slot to wake while the endpoint drains; `None` before.
    pub(super) draining: Option<u32>,
    pub(super) piggyback: bool,
    /// The next slot to reset at the end.
    pub(super) aborted: u32,
}

impl<A: Application> Endpoint<A> {
    /// Allocates all memory that the endpoint will ever use.
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
            environments: SHORTEST_HEADERS.map(environment),
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

    /// Returns how many bytes of memory the endpoint and its application take for connections.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.application.memory_bytes()
            + self.table.memory_bytes()
            + self.connections.memory_bytes()
            + self.timers.memory_bytes()
            + self.records.memory_bytes()
            + self.ready.memory_bytes()
    }

    /// Returns the search for this endpoint's flows, for the other workers.
    #[must_use]
    pub fn lookup(&self) -> Lookup {
        Lookup::new(self.table.index(), self.viewer())
    }

    /// Returns the view of this endpoint's connections, for other threads.
    #[must_use]
    pub fn viewer(&self) -> Viewer {
        Viewer {
            connections: self.connections.reader(),
            shared: self.paths.reader(),
            transfers: self.records.reader(),
            varies: A::VARIES,
        }
    }

    /// Sets the other workers, by number, whose flows may arrive here.
    pub fn set_siblings(&mut self, siblings: Vec<(usize, Lookup)>) {
        self.siblings = siblings;
    }

    /// Returns the interface's MTU in bytes.
    #[must_use]
    pub const fn mtu(&self) -> usize {
        self.mtu
    }

    /// Returns the application.
    #[must_use]
    pub fn application(&self) -> &A {
        &self.application
    }

    /// Returns the application.
    pub fn application_mut(&mut self) -> &mut A {
        &mut self.application
    }

    /// Returns the counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns how many connections it holds, in all states.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Does it hold no connection?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Returns how many received frames it keeps for later; for the law of frames.
    #[must_use]
    pub fn frames_kept(&self) -> usize {
        self.records.frames()
    }

    /// Returns how many transfer records are in use.
    #[must_use]
    pub fn records_in_use(&self) -> usize {
        self.records.in_use()
    }

    /// Returns in how many milliseconds [`Endpoint::on_tick`] is due, `None` without a deadline.
    #[must_use]
    pub fn next_tick_ms(&self) -> Option<u32> {
        let waiting = self.waiting.deadline().map(|deadline| deadline.since(self.timers.now()));
        self.timers.next_poll_ms().into_iter().chain(waiting).min()
    }

    /// Does a connection have something to send that only waits for frames or for its turn?
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn environment(&self, address: &Address) -> &Environment {
        &self.environments[usize::from(!address.is_v4())]
    }

    /// Returns the slot of a flow.
    #[inline]
    pub(super) fn find(&self, key: &FlowKey, hash: u64) -> Option<u32> {
        self.table.find(hash, |slot| self.is(slot, key))
    }

    /// Is this the slot of a live connection with this name?
    #[inline]
    pub(super) fn is(&self, slot: u32, key: &FlowKey) -> bool {
        let [own, shared] = A::VARIES.split(key);
        let number = self.connections.shared_of(slot, own);
        number.is_some_and(|number| self.paths.shared(number).end == shared)
    }

    /// Returns the full name of a connection.
    #[inline]
    pub(super) fn key(&self, current: &Current) -> FlowKey {
        current.key(A::VARIES, self.paths.shared(current.shared).end)
    }

    /// Takes the live connection in a slot out for work. [`Endpoint::put_back`] or [`Endpoint::end`] must follow.
    #[inline]
    pub(super) fn current(&self, slot: u32) -> Current {
        self.connections.get(slot, &self.paths)
    }

    /// Writes the connection back: the work on it is done.
    #[inline(always)]
    pub(super) fn put_back(&mut self, current: Current) {
        match current.tcb.transfer() {
            None => self.connections.set(current),
            Some(number) => self.connections.set_with(current, || self.records.publish(number)),
        }
    }

    /// Returns what the connection has to send, and what follows.
    #[inline(always)]
    pub(super) fn pending(&self, current: &Current) -> Pending {
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
