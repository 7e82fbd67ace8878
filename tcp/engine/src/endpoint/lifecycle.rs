//! How connections begin and end: OPEN in both roles, the bounds and who gives way, the accounts. Knows slots, table and counters;
//! never what is said over a connection.

use std::hint::cold_path;

use super::connection::{Connection, Current};
use super::paths::Shared;
use super::{Application, Endpoint, Fate, Id, Open, OpenError, Outbox, Work};
use crate::device::Frame;
use crate::flow::FlowKey;
use crate::hint::seldom;
use crate::proto::{End, SeqNum, State, Tcb};
use crate::stats::DropReason;
use crate::time::Instant;
use crate::wire::TcpPacket;

/// Where a new connection will be, and what it shares with others there.
#[derive(Clone, Copy)]
struct Place {
    slot: u32,
    shared: u16,
    next_hop: u16,
}

impl<A: Application> Endpoint<A> {
    /// Section 3.10.7.2: a SYN for a listener opens a connection in SYN-RECEIVED.
    pub(super) fn on_syn(
        &mut self,
        now: Instant,
        listener: u16,
        work: &Work,
        frame: Frame,
        out: &mut Outbox,
    ) -> Fate {
        self.accept(now, listener, None, work, frame, out)
    }

    /// A SYN that opens a new connection where an old one waits: its numbers start beyond the old one's.
    pub(super) fn reopen(
        &mut self,
        current: &mut Current,
        work: &Work,
        frame: Frame,
        now: Instant,
        out: &mut Outbox,
    ) -> Fate {
        let listener = self.application.listener(&work.packet.key).filter(|_| self.draining.is_none());
        let Some(listener) = listener else {
            // Nobody would take it: the old connection stays, and says where it is.
            let ack = current.tcb.bare_ack();
            self.send(current, &ack, Some(frame), now.millis(), out);
            return Fate::Answered;
        };
        let beyond = current.tcb.snd_nxt() + 0x1_0001;
        self.end(current, End::Closed, now, out);
        let fate = self.accept(now, listener, Some(beyond), work, frame, out);
        self.counters.time_wait_reopened.add(u64::from(matches!(fate, Fate::Answered)));
        fate
    }

    /// Passive OPEN, unless half-open connections have their share; the initial number lies beyond `beyond`.
    #[inline(always)]
    fn accept(
        &mut self,
        now: Instant,
        listener: u16,
        beyond: Option<SeqNum>,
        work: &Work,
        frame: Frame,
        out: &mut Outbox,
    ) -> Fate {
        if seldom(self.half_open.len() >= self.max_half_open) {
            let Some(mut oldest) = self.evict_half_open(now, out) else {
                out.recycle.push(frame);
                return Fate::Dropped(DropReason::SynBacklog);
            };
            self.connections.put(&mut oldest);
        }
        let TcpPacket { link, key, segment, .. } = &work.packet;
        let clock = self.isn.isn(key.name(&mut [0; FlowKey::NAME_MAX]), now);
        let iss = beyond.filter(|beyond| beyond.after(clock)).unwrap_or(clock);
        let tcb = Tcb::accept(segment, iss, self.environment(&key.local).local_mss, now.millis());
        let open = Open { key: *key, link: link.reversed(), role: listener };
        match self.place(&open, work.hash, now, out) {
            Ok(place) => {
                let mut current = self.begin(place, &open, tcb, now);
                self.state_changed(&mut current, State::Closed, now);
                self.counters.passive_opens.add(1);
                self.shake_hands(&mut current, Some(frame), now, out);
                Fate::Answered
            }
            Err(reason) => {
                cold_path();
                out.recycle.push(frame);
                Fate::Dropped(reason)
            }
        }
    }

    /// Active OPEN: SYN goes out with the next turn. The new connection's slot.
    ///
    /// # Errors
    /// [`OpenError`], and nothing was opened.
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
        let mut current = self.begin(place, open, tcb, now);
        self.state_changed(&mut current, State::Closed, now);
        self.counters.active_opens.add(1);
        self.shake_hands(&mut current, None, now, out);
        Ok(current.slot)
    }

    /// SYN or SYN,ACK goes out, and its timer runs.
    #[inline(always)]
    fn shake_hands(&mut self, current: &mut Current, frame: Option<Frame>, now: Instant, out: &mut Outbox) {
        let handshake = current.tcb.handshake();
        self.send(current, &handshake, frame, now.millis(), out);
        self.arm_handshake(current, now.millis());
        self.connections.set(current);
    }

    /// Finds a place for a new connection, and enters it in the index. Makes room if it must: the oldest TIME-WAIT goes first, then
    /// the oldest half-open connection; never an established one.
    #[inline(always)]
    fn place(&mut self, open: &Open, hash: u64, now: Instant, out: &mut Outbox) -> Result<Place, DropReason> {
        let shared = Shared { end: A::VARIES.split(&open.key)[1], role: open.role };
        let (shared, next_hop) = self.paths.take(&shared, &open.link).ok_or(DropReason::TooManyPaths)?;
        let is_full = self.table.len() == self.max_connections;
        let Some(slot) = (if is_full { self.evict(now, out) } else { self.connections.take() }) else {
            cold_path();
            self.paths.put(shared, next_hop);
            return Err(DropReason::TableFull);
        };
        let entered = self.table.insert(hash, slot);
        assert_eq!(entered, Ok(()), "the table has a place for every slot");
        Ok(Place { slot, shared, next_hop })
    }

    /// A connection begins in its place.
    #[inline(always)]
    fn begin(&mut self, place: Place, open: &Open, tcb: Tcb, now: Instant) -> Current {
        let Place { slot, shared, next_hop } = place;
        let connection = Connection::new(A::VARIES, &open.key, shared, next_hop, tcb, now);
        self.counters.curr_connections.add(1);
        self.connections.start(Id { slot, role: open.role }, connection)
    }

    /// The slot of who gave way, for its next owner.
    #[inline(always)]
    fn evict(&mut self, now: Instant, out: &mut Outbox) -> Option<u32> {
        let Some(slot) = self.waiting.first() else {
            cold_path();
            return self.evict_half_open(now, out).map(|oldest| oldest.slot);
        };
        let mut oldest = self.current(slot);
        self.take_out(&mut oldest, self.waiting.first_hash(), now, out);
        self.counters.ended_evicted_time_wait.add(1);
        self.look_ahead();
        Some(slot)
    }

    /// Asks for the lines of those in TIME-WAIT that leave next, in the array and then in the index.
    pub(super) fn look_ahead(&mut self) {
        let Self { waiting, connections, paths, hasher, table, .. } = self;
        let near = waiting.look_ahead(connections, |slot| {
            let current = connections.get(slot, paths);
            let hash = hasher.hash(&current.key(A::VARIES, paths.shared(current.shared).end));
            table.prefetch_to_write(hash);
            hash
        });
        if let Some(hash) = near {
            table.prefetch_further_to_write(hash);
        }
    }

    /// The oldest half-open connection gives way: under a flood a client that answers at once still gets through. What is
    /// left of it still has its slot.
    fn evict_half_open(&mut self, now: Instant, out: &mut Outbox) -> Option<Current> {
        let mut oldest = self.current(self.half_open.first()?);
        self.counters.attempt_fails.add(1);
        self.tell_end(&oldest, End::TimedOut, now);
        self.take_out(&mut oldest, None, now, out);
        self.counters.ended_evicted_half_open.add(1);
        Some(oldest)
    }

    /// Keeps the gauges and the order of eviction after a change of state, and tells the application how our FIN fares.
    pub(super) fn state_changed(&mut self, current: &mut Current, before: State, now: Instant) {
        let after = current.tcb.state();
        if before == after {
            return;
        }
        let (was, is) = (before.traits(), after.traits());
        let changed = was ^ is;
        let counters = &self.counters;
        if changed & State::IS_HALF_OPEN != 0 {
            counters.curr_half_open.turn(is & State::IS_HALF_OPEN != 0);
        }
        if changed & State::IS_OPEN != 0 {
            counters.curr_estab.turn(is & State::IS_OPEN != 0);
        }
        if after == State::SynReceived {
            self.half_open.push(current, &mut self.connections);
        }
        if changed & is & State::FIN_WAS_SENT != 0 {
            let id = current.id();
            self.application.on_fin_sent(id, now);
        }
        if changed & is & State::FIN_IS_ACKED != 0 {
            let id = current.id();
            self.application.on_fin_acked(id, now);
        }
        if before == State::TimeWait {
            self.counters.curr_time_wait.sub(1);
        }
        if after == State::TimeWait {
            self.counters.curr_time_wait.add(1);
            self.waiting.push(current, &mut self.connections);
            self.application.on_end(current.id(), End::Closed, now);
        }
    }

    /// Tells the application that a connection is over, unless it heard so when TIME-WAIT began.
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
    pub(super) fn end(&mut self, current: &mut Current, end: End, now: Instant, out: &mut Outbox) {
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
        self.tell_end(current, end, now);
        self.take_out(current, None, now, out);
        self.connections.put(current);
    }

    /// Takes a connection out of everything but its slot, which has no owner then. `hash` is that of its name, if it is known.
    #[inline(always)]
    fn take_out(&mut self, current: &mut Current, hash: Option<u64>, now: Instant, out: &mut Outbox) {
        let before = current.tcb.state();
        let hash = hash.unwrap_or_else(|| self.hasher.hash(&self.key(current)));
        let removed = self.table.remove(hash, current.slot);
        assert!(removed, "every connection is in the table");
        match before {
            State::TimeWait => self.waiting.remove(current, &mut self.connections),
            State::SynReceived => {
                self.half_open.remove(current, &mut self.connections);
            }
            _ => {}
        }
        if let Some(number) = current.tcb.transfer() {
            self.records.put(number, &mut out.recycle);
        }
        self.paths.put(current.shared, current.next_hop);
        current.clear();
        self.state_changed(current, before, now);
        self.counters.curr_connections.sub(1);
    }
}
