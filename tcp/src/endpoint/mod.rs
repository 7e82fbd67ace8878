//! One core's TCP: joins wire, flow, proto and an application. Knows all of these; never which device, which thread, or
//! the wall clock.
//!
//! A burst is passed over three times: parse and hash, with the index lines on their way; look the connection's line up, with
//! that on its way; then RFC 9293, segment by segment. What is to be sent goes to an [`Outbox`]. From the frame to the answer the passes
//! are one function to the compiler: what they call at a place or two is `inline(always)`, or it would be called, and every time save and
//! fetch what is in registers.

mod application;
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

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

pub use application::{Application, Id, Listener, Listeners, Open, Order, Varies};
use connection::{Connections, Current};
use paths::Paths;
use records::Records;
use send::Acknowledge;
pub use view::{Lookup, View, Viewer};
use waiting::Waiting;

use crate::device::{BURST, Burst, Frame};
use crate::flow::{Address, FlowHasher, FlowKey, FlowTable, Share, SlotSet, Timers, prefetch};
use crate::proto::segment_arrives::refusal;
use crate::proto::{Arrival, Disposition, Environment, Flags, IsnSecret, State};
use crate::service::{Pending, Then};
use crate::stats::{Counters, DropReason};
use crate::time::Instant;
use crate::wire::{self, Checks, Link, Mac, TcpPacket};

/// Connections looked at in one turn while the endpoint drains.
const DRAIN_PER_TURN: u32 = 1024;
/// How many frames before its turn a frame's headers are asked for: what came from another core takes that long.
const HEADERS_AHEAD: usize = 8;
/// Orders of the application carried out in one turn, at most.
const ORDERS_PER_TURN: usize = 2 * BURST;
/// Half-open connections and second records, at most: what is shared by all of a large table need not grow with it.
const MOST_HALF_OPEN: usize = 1 << 20;
const MOST_RECORDS: usize = 1 << 18;
/// Segments one connection may send before the next has its turn.
const SEGMENTS_PER_VISIT: usize = 16;

/// What an endpoint is made of.
#[derive(Clone, Debug)]
pub struct Config<A> {
    /// What the endpoint works for.
    pub application: A,
    /// Prefixes of addresses that only synmill has, with their lengths (0 to 32 for IPv4, 0 to 128 for IPv6): ARP,
    /// neighbour discovery and echo are answered for them, and closed ports on them refuse with RST.
    pub owned: Vec<(Address, u8)>,
    /// The interface's Ethernet address.
    pub mac: Mac,
    /// The interface's MTU in bytes.
    pub mtu: usize,
    /// The most connections held at once, in all states.
    pub max_connections: usize,
    /// The most received frames kept for later, all connections together.
    pub max_kept_frames: usize,
    /// 2 MSL.
    pub time_wait: Duration,
    /// Accept segments whose checksum a virtual device left to hardware.
    pub accept_partial_checksums: bool,
    /// Send acknowledgement, text and FIN together where they may ride together. Without it each goes alone, as textbooks
    /// draw it.
    pub piggyback: bool,
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

/// What became of a received frame: exactly one of these is counted.
enum Fate {
    Answered,
    Absorbed,
    Dropped(DropReason),
    HandedOut,
}

/// A parsed segment between the passes. It stays where it was parsed to.
#[derive(Default)]
struct Work {
    packet: TcpPacket,
    hash: u64,
    /// The slot where the connection seems to be.
    guess: Option<u32>,
    frame: Option<Frame>,
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
    let Sizes { capacity, max_half_open, records } = Sizes::of(max_connections);
    FlowTable::bytes_for(capacity)
        + Connections::bytes_for(capacity)
        + Timers::bytes_for(capacity, Share::Half)
        + Records::bytes_for(records, max_kept_frames)
        + SlotSet::bytes_for(capacity)
        + max_half_open * size_of::<u32>()
}

/// One core's TCP.
pub struct Endpoint<A> {
    application: A,
    owned: Vec<(Address, u8)>,
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
    /// Connections in the order they became half-open; stale entries are skipped.
    half_open: VecDeque<u32>,
    /// Those in TIME-WAIT.
    waiting: Waiting,
    /// Connections in SYN-RECEIVED, and the most there may be.
    half_open_now: usize,
    max_half_open: usize,
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
        let time_wait_ms = config.time_wait.as_millis().min(u128::from(u32::MAX / 4)) as u32;
        let environment = |headers: usize| Environment {
            local_mss: config.mtu.saturating_sub(headers).clamp(64, 0xffff - 1) as u16,
            time_wait_ms,
        };
        let Sizes { capacity, max_half_open, records } = Sizes::of(config.max_connections);
        Self {
            environments: [environment(40), environment(60)],
            application: config.application,
            owned: config.owned,
            mac: config.mac,
            mtu: config.mtu,
            checks: Checks { accept_partial_checksums: config.accept_partial_checksums },
            hasher: FlowHasher::new(config.seed),
            isn: IsnSecret::from_seed(&config.seed),
            counters,
            table: FlowTable::new(capacity),
            connections: Connections::new(capacity),
            timers: Timers::new(capacity, Share::Half, now.millis()),
            records: Records::new(records, config.max_kept_frames),
            paths: Paths::new(capacity),
            ready: SlotSet::new(capacity),
            half_open: VecDeque::with_capacity(max_half_open),
            waiting: Waiting::new(),
            half_open_now: 0,
            max_half_open,
            max_connections: capacity,
            siblings: Vec::new(),
            work: std::iter::repeat_with(Work::default).take(BURST).collect(),
            draining: None,
            piggyback: config.piggyback,
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
            + self.half_open.capacity() * size_of::<u32>()
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

    /// Takes a burst of received frames; `handed` when another worker saw them first and found their flow to be ours.
    pub fn on_burst(&mut self, now: Instant, burst: &mut Burst, handed: bool, out: &mut Outbox) {
        let seen = if handed { &self.counters.frames_handed_in } else { &self.counters.in_frames };
        seen.add(burst.len() as u64);
        let mut all = std::mem::take(&mut self.work);
        let mut segments = 0;
        for frame in burst.iter().take(HEADERS_AHEAD) {
            prefetch_headers(frame);
        }
        let mut frames = burst.drain(..);
        while let Some(frame) = frames.next() {
            if let Some(ahead) = frames.as_slice().get(HEADERS_AHEAD - 1) {
                prefetch_headers(ahead);
            }
            let work = &mut all[segments];
            match wire::parse_into(&frame, self.checks, &mut work.packet) {
                Ok(None) => {
                    work.hash = self.hasher.hash(&work.packet.key);
                    if !opens(&work.packet) {
                        self.table.prefetch(work.hash);
                    } else {
                        self.table.prefetch_to_write(work.hash);
                        self.siblings.iter().for_each(|(_, lookup)| lookup.prefetch(work.hash));
                    }
                    work.frame = Some(frame);
                    segments += 1;
                }
                other => self.on_other(frame, other, handed, now, out),
            }
        }
        for work in &mut all[..segments] {
            if opens(&work.packet) {
                // Mostly its flow is in no table: one search of each is enough.
                work.guess = None;
                self.table.prefetch_further(work.hash);
                self.siblings.iter().for_each(|(_, lookup)| lookup.prefetch_further(work.hash));
                continue;
            }
            // The first with this fingerprint; whether it is the one is for the last pass to say.
            work.guess = self.table.find(work.hash, |_| true);
            if let Some(slot) = work.guess {
                self.connections.prefetch(slot);
            }
        }
        for work in &mut all[..segments] {
            let Some(frame) = work.frame.take() else { continue };
            let fate = self.on_segment(now, work, frame, handed, out);
            self.count(&fate);
        }
        self.work = all;
    }

    fn count(&self, fate: &Fate) {
        match fate {
            Fate::Answered => self.counters.frames_answered.add(1),
            Fate::Absorbed => self.counters.frames_absorbed.add(1),
            // The worker counts it when the other's inbox has taken it.
            Fate::HandedOut => {}
            Fate::Dropped(reason) => self.counters.drop_for(*reason),
        }
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

    /// The connection as the application knows it.
    #[inline]
    fn id(&self, current: &Current) -> Id {
        Id { slot: current.slot, role: self.paths.shared(current.shared).role }
    }

    #[inline(always)]
    fn on_segment(
        &mut self,
        now: Instant,
        work: &Work,
        frame: Frame,
        handed: bool,
        out: &mut Outbox,
    ) -> Fate {
        let packet = &work.packet;
        if packet.link.destination != self.mac {
            out.recycle.push(frame);
            return Fate::Dropped(DropReason::NotOurs);
        }
        let found = work.guess.filter(|&slot| self.is(slot, &packet.key));
        if let Some(slot) = found.or_else(|| self.find(&packet.key, work.hash)) {
            self.segment_counted(packet);
            let mut current = self.connections.get(slot);
            let fate = self.on_connection_segment(now, &mut current, work, frame, out);
            self.put_back(&current);
            return fate;
        }
        if !handed && let Some(worker) = self.sibling_with(&packet.key, work.hash) {
            out.hand_over.push((worker, frame));
            return Fate::HandedOut;
        }
        self.segment_counted(packet);
        let listener = self.application.listener(&packet.key);
        if listener.is_none() && !self.owns(&packet.key.local) {
            out.recycle.push(frame);
            return Fate::Dropped(DropReason::NotOurs);
        }
        let flags = packet.segment.flags;
        match listener {
            // Section 3.10.7.2: a listener takes SYN, ignores RST, and refuses the rest. One that drains refuses SYN too.
            Some(listener)
                if flags.has(Flags::SYN)
                    && !flags.has_any(Flags::RST.with(Flags::ACK))
                    && self.draining.is_none() =>
            {
                self.on_syn(now, listener, work, frame, out)
            }
            _ => self.refuse(work, frame, out),
        }
    }

    /// The worker that owns a flow, if another one does.
    fn sibling_with(&self, key: &FlowKey, hash: u64) -> Option<usize> {
        self.siblings.iter().find(|(_, lookup)| lookup.has(key, hash)).map(|(worker, _)| *worker)
    }

    fn segment_counted(&self, packet: &TcpPacket) {
        self.counters.in_segs.add(1);
        if packet.partial_checksum {
            self.counters.in_partial_checksums.add(1);
        }
    }

    /// RST for what belongs to no connection, section 3.10.7.1.
    fn refuse(&mut self, work: &Work, frame: Frame, out: &mut Outbox) -> Fate {
        let packet = &work.packet;
        let Some(reset) = refusal(&packet.segment) else {
            out.recycle.push(frame);
            return Fate::Dropped(DropReason::NoConnection);
        };
        self.emit(frame, &packet.link.reversed(), &packet.key, &reset, out);
        Fate::Answered
    }

    /// A segment of a connection of ours: what RFC 9293 makes of it, what the service makes of that, and the answer.
    #[inline(always)]
    fn on_connection_segment(
        &mut self,
        now: Instant,
        current: &mut Current,
        work: &Work,
        frame: Frame,
        out: &mut Outbox,
    ) -> Fate {
        let millis = now.millis();
        let before = current.tcb.state();
        let (_, deadline) = current.tcb.timer();
        let environment = *self.environment(&work.packet.key.local);
        let segment = &work.packet.segment;
        let transfer = current.tcb.transfer().map(|number| &mut self.records.get_mut(number).transfer);
        let arrival = current.tcb.segment_arrives(transfer, segment, &environment, millis);
        if matches!(arrival.disposition, Disposition::Accepted | Disposition::RepeatHandshake) {
            self.learn_next_hop(current, &work.packet.link);
        }
        match arrival.disposition {
            // All was said, and all was heard.
            Disposition::Accepted if before == State::TimeWait => {
                out.recycle.push(frame);
                return Fate::Absorbed;
            }
            Disposition::Accepted => {
                return self.on_accepted(current, before, &arrival, (work, frame), now, out);
            }
            Disposition::Drop(reason) => {
                out.recycle.push(frame);
                return Fate::Dropped(reason);
            }
            Disposition::End(end) => {
                if arrival.acked > 0 {
                    self.on_acked(current, arrival.acked, now, out);
                }
                self.end(current, end, now, out);
                out.recycle.push(frame);
                return Fate::Absorbed;
            }
            Disposition::Refuse => return self.refuse(work, frame, out),
            Disposition::Reopen => return self.reopen(current, work, frame, now, out),
            Disposition::Acknowledge => {
                if segment.text_len > 0 {
                    self.counters.in_duplicates.add(1);
                }
                let ack = current.tcb.bare_ack();
                self.send(current, &ack, Some(frame), millis, out);
            }
            Disposition::RepeatHandshake => {
                let again = before == State::SynReceived;
                let handshake = current.tcb.handshake();
                let handshake = crate::proto::Outgoing { again, ..handshake };
                self.send(current, &handshake, Some(frame), millis, out);
            }
        }
        if before == State::TimeWait {
            self.waits_anew(current, deadline);
        } else {
            self.state_changed(current, before, now);
            self.arm(current);
        }
        Fate::Answered
    }

    /// The peer's next hop may have changed: the way back is where its last good segment came from.
    #[inline]
    fn learn_next_hop(&mut self, current: &mut Current, link: &Link) {
        let back = link.reversed();
        if *self.paths.next_hop(current.next_hop) != back {
            current.next_hop = self.paths.change(current.next_hop, &back);
        }
    }

    /// An acceptable segment: acknowledged bytes, text and FIN go to the service, and the service's answer goes out.
    #[inline(always)]
    fn on_accepted(
        &mut self,
        current: &mut Current,
        before: State,
        arrival: &Arrival,
        (work, frame): (&Work, Frame),
        now: Instant,
        out: &mut Outbox,
    ) -> Fate {
        let mut must_acknowledge = arrival.must_acknowledge;
        if matches!(before, State::SynSent | State::SynReceived) {
            self.counters.established.add(1);
            must_acknowledge |= before == State::SynSent;
            let id = self.id(current);
            self.application.on_open(id, &mut current.memo, now);
        }
        if arrival.syn_was_lost
            && let Some(number) = self.attach_record(current)
        {
            let mss = u32::from(current.tcb.mss());
            self.records.get_mut(number).transfer.congestion_window = mss;
        }
        if arrival.acked > 0 {
            self.on_acked(current, arrival.acked, now, out);
        }
        if arrival.is_duplicate_ack {
            self.on_duplicate_ack(current);
        }
        let carried = arrival.text.is_some() || arrival.fin.is_some();
        let (frame, fate) = if carried || self.has_held_text(current) {
            let received = self.receive(current, arrival, (work, frame), now, out);
            must_acknowledge |= received.must_acknowledge;
            (received.frame, received.fate)
        } else {
            (Some(frame), Fate::Absorbed)
        };
        let acknowledge = if must_acknowledge { Acknowledge::AtOnce } else { Acknowledge::AfterBurst };
        let answered = self.respond(current, frame, acknowledge, before, now, out);
        match fate {
            Fate::Absorbed if answered => Fate::Answered,
            fate => fate,
        }
    }

    /// The work on a connection is done.
    #[inline(always)]
    fn put_back(&mut self, current: &Current) {
        // A slot that was freed was written then, and may have another owner.
        if current.tcb.state() == State::Closed {
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
            let mut current = self.connections.get(slot);
            self.respond(&mut current, None, Acknowledge::IfOwed, before, now, out);
            self.put_back(&current);
        }
    }

    /// What the connection has to send, and what follows.
    #[inline(always)]
    fn pending(&self, current: &Current) -> Pending {
        let mut pending = self.application.pending(self.id(current), &current.memo);
        if let Some(number) = current.tcb.transfer() {
            let record = self.records.get(number);
            if record.kept_bytes > 0 {
                pending.bytes = u64::from(record.kept_bytes);
            }
        }
        if self.draining.is_some() && pending.bytes == 0 && pending.then == Then::Wait {
            pending.then = Then::Close;
        }
        pending
    }
}

/// Does it ask for a new connection?
#[inline]
fn opens(packet: &TcpPacket) -> bool {
    packet.segment.flags.has(Flags::SYN) && !packet.segment.flags.has(Flags::ACK)
}

/// Asks for the two cache lines that a frame's headers are in.
#[inline]
fn prefetch_headers(frame: &Frame) {
    for byte in [frame.first(), frame.get(64)].into_iter().flatten() {
        prefetch(byte);
    }
}
