//! How connections begin and end: OPEN in both roles, the bounds, eviction, and the accounts.

use std::hint::cold_path;

use super::application::Id;
use super::application::{Application, Open, OpenError, Order};
use super::connection::{Connection, Connections, Current, Vacant};
use super::core::Endpoint;
use super::outbox::Outbox;
use super::paths::Shared;
use super::work::{Fate, Work};
use crate::device::{BURST, Frame};
use crate::flow::FlowKey;
use crate::hint::seldom;
use crate::proto::{End, SeqNum, State, Tcb};
use crate::stats::DropReason;
use crate::time::Instant;
use crate::wire::TcpPacket;

/// The most orders of the application that one turn carries out.
const ORDERS_PER_TURN: usize = 2 * BURST;

/// The slot of a new connection, and the numbers of the values that it shares with others.
struct Place {
    vacant: Vacant,
    shared: u16,
    next_hop: u16,
}

impl<A: Application> Endpoint<A> {
    /// Carries out the application's orders.
    pub fn poll_application(&mut self, now: Instant, out: &mut Outbox) {
        for _ in 0..ORDERS_PER_TURN {
            // Ready connections send after this: a burst of frames stays for what they owe.
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

    /// Opens a new connection where an old one is in TIME-WAIT: its numbers start beyond the old one's.
    pub(super) fn reopen(
        &mut self,
        mut current: Current,
        work: &Work,
        frame: Frame,
        now: Instant,
        out: &mut Outbox,
    ) -> Fate {
        let listener = self.application.listener(&work.packet.key).filter(|_| self.draining.is_none());
        let Some(listener) = listener else {
            // Without a listener the old connection stays, and acknowledges.
            let ack = current.tcb.bare_ack();
            self.send(&mut current, &ack, Some(frame), now.millis(), out);
            self.put_back(current);
            return Fate::Answered;
        };
        let beyond = current.tcb.snd_nxt() + 0x1_0001;
        self.end(current, End::Closed, now, out);
        let fate = self.accept(now, listener, Some(beyond), work, frame, out);
        self.counters.time_wait_reopened.add(u64::from(matches!(fate, Fate::Answered)));
        fate
    }

    /// Passive OPEN for a SYN, section 3.10.7.2. The initial sequence number lies beyond `beyond`. When half-open connections have used
    /// up their share, the oldest of them is evicted.
    #[inline(always)]
    pub(super) fn accept(
        &mut self,
        now: Instant,
        listener: u16,
        beyond: Option<SeqNum>,
        work: &Work,
        frame: Frame,
        out: &mut Outbox,
    ) -> Fate {
        if seldom(self.half_open.len() >= self.max_half_open) {
            let Some(oldest) = self.evict_half_open(now, out) else {
                out.recycle.push(frame);
                return Fate::Dropped(DropReason::SynBacklog);
            };
            self.connections.put(oldest);
        }
        let TcpPacket { link, key, segment, .. } = &work.packet;
        let clock = self.isn.isn(key.name(&mut [0; FlowKey::NAME_MAX]), now);
        let iss = beyond.filter(|beyond| beyond.after(clock)).unwrap_or(clock);
        let tcb = Tcb::accept(segment, iss, self.environment(&key.local).local_mss, now.millis());
        let open = Open { key: *key, link: link.reversed(), role: listener };
        match self.place(&open, work.hash, now, out) {
            Ok(place) => {
                let current = self.begin(place, &open, tcb, now);
                self.counters.passive_opens.add(1);
                self.shake_hands(current, Some(frame), now, out);
                Fate::Answered
            }
            Err(reason) => {
                cold_path();
                out.recycle.push(frame);
                Fate::Dropped(reason)
            }
        }
    }

    /// Active OPEN: the SYN goes out with the next turn. Returns the new connection's slot.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was opened.
    pub fn open(&mut self, now: Instant, open: &Open, out: &mut Outbox) -> Result<u32, OpenError> {
        let hash = self.hasher.hash(&open.key);
        if self.find(&open.key, hash).is_some() {
            return Err(OpenError::Exists);
        }
        let iss = self.isn.isn(open.key.name(&mut [0; FlowKey::NAME_MAX]), now);
        let tcb = Tcb::open(iss, now.millis());
        let place = self.place(open, hash, now, out).map_err(|reason| match reason {
            DropReason::TooManyPaths => OpenError::TooManyPaths,
            _ => OpenError::TableFull,
        })?;
        let current = self.begin(place, open, tcb, now);
        let slot = current.slot;
        self.counters.active_opens.add(1);
        self.shake_hands(current, None, now, out);
        Ok(slot)
    }

    /// Sends SYN or SYN,ACK and arms its timer.
    #[inline(always)]
    fn shake_hands(&mut self, mut current: Current, frame: Option<Frame>, now: Instant, out: &mut Outbox) {
        let handshake = current.tcb.handshake();
        self.send(&mut current, &handshake, frame, now.millis(), out);
        self.arm_handshake(&mut current, now.millis());
        self.connections.set(current);
    }

    /// Finds a place for a new connection and enters it in the index. A full table evicts the oldest connection in TIME-WAIT, else the
    /// oldest half-open one; never an established one.
    #[inline(always)]
    fn place(&mut self, open: &Open, hash: u64, now: Instant, out: &mut Outbox) -> Result<Place, DropReason> {
        let shared = Shared { end: A::VARIES.split(&open.key)[1], role: open.role };
        let (shared, next_hop) = self.paths.take(&shared, &open.link).ok_or(DropReason::TooManyPaths)?;
        let is_full = self.table.len() == self.max_connections;
        let Some(vacant) = (if is_full { self.evict(now, out) } else { self.connections.take() }) else {
            cold_path();
            self.paths.put(shared, next_hop);
            return Err(DropReason::TableFull);
        };
        let entered = self.table.insert(hash, vacant.slot);
        assert_eq!(entered, Ok(()), "the table has a place for every slot");
        Ok(Place { vacant, shared, next_hop })
    }

    /// Begins a connection in its place, and counts it.
    #[inline(always)]
    fn begin(&mut self, place: Place, open: &Open, tcb: Tcb, now: Instant) -> Current {
        let Place { vacant, shared, next_hop } = place;
        let connection = Connection::new(A::VARIES, &open.key, shared, next_hop, tcb, now);
        self.counters.curr_connections.add(1);
        let mut current = Connections::start(vacant, open.role, connection);
        self.state_changed(&mut current, State::Closed, now);
        current
    }

    /// Evicts a connection for a new one.
    #[inline(always)]
    fn evict(&mut self, now: Instant, out: &mut Outbox) -> Option<Vacant> {
        let Some(slot) = self.waiting.first() else {
            cold_path();
            return self.evict_half_open(now, out);
        };
        let oldest = self.current(slot);
        let vacant = self.take_out(oldest, self.waiting.first_hash(), out);
        self.counters.ended_evicted_time_wait.add(1);
        self.look_ahead();
        Some(vacant)
    }

    /// Prefetches the lines of the connections in TIME-WAIT that end next: their own lines, then their index lines.
    pub(super) fn look_ahead(&mut self) {
        let Self { waiting, connections, paths, hasher, table, .. } = self;
        let near = waiting.look_ahead(connections, |slot| {
            let key = connections.key(slot, A::VARIES, paths);
            let hash = hasher.hash(&key);
            table.prefetch_to_write(hash);
            hash
        });
        if let Some(hash) = near {
            table.prefetch_further_to_write(hash);
        }
    }

    /// Evicts the oldest half-open connection: under a flood, a client that answers at once still gets through.
    fn evict_half_open(&mut self, now: Instant, out: &mut Outbox) -> Option<Vacant> {
        let oldest = self.current(self.half_open.first()?);
        self.counters.attempt_fails.add(1);
        self.tell_end(&oldest, End::TimedOut, now);
        let vacant = self.take_out(oldest, None, out);
        self.counters.ended_evicted_half_open.add(1);
        Some(vacant)
    }

    /// Keeps the gauges after a change of state. Returns the facts that became true, as bits of [`State::traits`].
    #[inline(always)]
    fn count_change(&self, before: State, after: State) -> u8 {
        let (was, is) = (before.traits(), after.traits());
        let changed = was ^ is;
        let counters = &self.counters;
        if changed & State::IS_HALF_OPEN != 0 {
            counters.curr_half_open.turn(is & State::IS_HALF_OPEN != 0);
        }
        if changed & State::IS_OPEN != 0 {
            counters.curr_estab.turn(is & State::IS_OPEN != 0);
        }
        if before == State::TimeWait {
            counters.curr_time_wait.sub(1);
        }
        changed & is
    }

    /// Keeps the gauges and the orders of eviction after a change of state, and reports the progress of our FIN to the application.
    pub(super) fn state_changed(&mut self, current: &mut Current, before: State, now: Instant) {
        let after = current.tcb.state();
        if before == after {
            return;
        }
        let became = self.count_change(before, after);
        if after == State::SynReceived {
            self.half_open.push(current, &mut self.connections);
        }
        let id = current.id();
        if became & State::FIN_WAS_SENT != 0 {
            self.application.on_fin_sent(id, now);
        }
        if became & State::FIN_IS_ACKED != 0 {
            self.application.on_fin_acked(id, now);
        }
        if after == State::TimeWait {
            self.counters.curr_time_wait.add(1);
            self.waiting.push(current, &mut self.connections);
            self.application.on_end(id, End::Closed, now);
        }
    }

    /// Reports the end of a connection to the application, unless TIME-WAIT has done so.
    fn tell_end(&mut self, current: &Current, end: End, now: Instant) {
        let state = current.tcb.state();
        if state == State::TimeWait {
            return;
        }
        let id = current.id();
        if state == State::LastAck && end == End::Closed {
            self.application.on_fin_acked(id, now);
        }
        self.application.on_end(id, end, now);
    }

    /// Ends a connection and counts how.
    pub(super) fn end(&mut self, current: Current, end: End, now: Instant, out: &mut Outbox) {
        let counters = &self.counters;
        match current.tcb.state() {
            State::SynSent | State::SynReceived => counters.attempt_fails.add(1),
            state if state.is_open() && end != End::Closed => counters.estab_resets.add(1),
            _ => {}
        }
        match end {
            End::Closed => counters.ended_closed.add(1),
            End::ResetByPeer => counters.ended_reset_by_peer.add(1),
            End::ResetByUs => counters.ended_reset_by_us.add(1),
            End::TimedOut => counters.ended_timed_out.add(1),
            End::Unreachable => counters.ended_unreachable.add(1),
        }
        self.tell_end(&current, end, now);
        let vacant = self.take_out(current, None, out);
        self.connections.put(vacant);
    }

    /// Takes a connection out of the index and of all that refers to it. `hash` is that of its name, where it is known.
    #[inline(always)]
    fn take_out(&mut self, mut current: Current, hash: Option<u64>, out: &mut Outbox) -> Vacant {
        let before = current.tcb.state();
        let hash = hash.unwrap_or_else(|| self.hasher.hash(&self.key(&current)));
        let removed = self.table.remove(hash, current.slot);
        assert!(removed, "every connection is in the table");
        match before {
            State::TimeWait => self.waiting.remove(&mut current, &mut self.connections),
            State::SynReceived => {
                self.half_open.remove(&mut current, &mut self.connections);
            }
            _ => {}
        }
        if let Some(number) = current.tcb.transfer() {
            self.records.put(number, &mut out.recycle);
        }
        self.paths.put(current.shared, current.next_hop);
        self.count_change(before, State::Closed);
        self.counters.curr_connections.sub(1);
        Connections::vacate(current)
    }
}
