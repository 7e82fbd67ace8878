//! How connections begin and end: OPEN in both roles, the bounds and who gives way, the accounts. Knows slots, table and counters;
//! never what is said over a connection.

use super::connection::Connection;
use super::paths::Shared;
use super::{Application, Endpoint, Fate, Open, OpenError, Outbox, Work};
use crate::device::Frame;
use crate::flow::{Marked, prefetch};
use crate::proto::{End, SeqNum, State, Tcb};
use crate::stats::DropReason;
use crate::time::Instant;
use crate::wire::TcpPacket;

/// How many evictions before its own a connection's lines are asked for.
const VICTIMS_AHEAD: usize = 4;

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
        slot: u32,
        work: &Work,
        frame: Frame,
        now: Instant,
        out: &mut Outbox,
    ) -> Fate {
        let beyond = self.connections[slot].tcb.snd_nxt() + 0x1_0001;
        let listener = self.application.listener(&work.packet.key).filter(|_| self.draining.is_none());
        self.end(slot, End::Closed, now, out);
        self.counters.time_wait_reopened.add(1);
        match listener {
            Some(listener) => self.accept(now, listener, Some(beyond), work, frame, out),
            None => self.refuse(work, frame, out),
        }
    }

    /// Passive OPEN, unless half-open connections have their share; the initial number lies beyond `beyond`.
    fn accept(
        &mut self,
        now: Instant,
        listener: u16,
        beyond: Option<SeqNum>,
        work: &Work,
        frame: Frame,
        out: &mut Outbox,
    ) -> Fate {
        if self.half_open_now >= self.max_half_open && !self.evict_half_open(now, out) {
            out.recycle.push(frame);
            return Fate::Dropped(DropReason::SynBacklog);
        }
        let TcpPacket { link, key, segment, .. } = &work.packet;
        let clock = self.isn.isn(key, now);
        let iss = beyond.filter(|beyond| beyond.after(clock)).unwrap_or(clock);
        let tcb = Tcb::accept(segment, iss, self.environment(&key.local).local_mss, now.millis());
        let open = Open { key: *key, link: link.reversed(), role: listener };
        match self.enter(&open, work.hash, tcb, now, out) {
            Ok(slot) => {
                self.counters.passive_opens.add(1);
                self.shake_hands(slot, Some(frame), now, out);
                Fate::Answered
            }
            Err(reason) => {
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
        let tcb = Tcb::open(self.isn.isn(&open.key, now), now.millis());
        let slot = self.enter(open, hash, tcb, now, out).map_err(|reason| match reason {
            DropReason::TooManyPaths => OpenError::TooManyPaths,
            _ => OpenError::TableFull,
        })?;
        self.counters.active_opens.add(1);
        self.shake_hands(slot, None, now, out);
        Ok(slot)
    }

    /// SYN or SYN,ACK goes out, and its timer runs.
    fn shake_hands(&mut self, slot: u32, frame: Option<Frame>, now: Instant, out: &mut Outbox) {
        let handshake = self.connections[slot].tcb.handshake();
        self.send(slot, &handshake, frame, now.millis(), out);
        self.arm(slot);
    }

    /// Finds a place for a new connection. Makes room if it must: the oldest TIME-WAIT goes first, then the oldest half-open
    /// connection; never an established one.
    fn enter(
        &mut self,
        open: &Open,
        hash: u64,
        tcb: Tcb,
        now: Instant,
        out: &mut Outbox,
    ) -> Result<u32, DropReason> {
        let shared = Shared { address: A::VARIES.split(&open.key)[1], role: open.role };
        let (shared, next_hop) = self.paths.take(shared, open.link).ok_or(DropReason::TooManyPaths)?;
        let full = self.table.len() == self.max_connections && !self.evict(now, out);
        let Some(slot) = (if full { None } else { self.connections.take() }) else {
            self.paths.put(shared, next_hop);
            return Err(DropReason::TableFull);
        };
        let old = &self.connections[slot];
        let (armed, is_ready) = (old.armed(), old.is_ready());
        let connection = &mut self.connections[slot];
        *connection = Connection::new(A::VARIES, &open.key, shared, next_hop, tcb);
        connection.set_armed(armed);
        connection.set_ready(is_ready);
        let entered = self.table.insert(hash, slot);
        assert_eq!(entered, Ok(()), "the table has a place for every slot");
        self.counters.curr_connections.add(1);
        self.state_changed(slot, State::Closed, now);
        Ok(slot)
    }

    fn evict(&mut self, now: Instant, out: &mut Outbox) -> bool {
        while let Some(slot) = self.time_wait.pop_front() {
            self.prefetch_next_victims();
            if self.connections[slot].tcb.state() == State::TimeWait {
                self.forget(slot, now, out);
                self.counters.ended_evicted_time_wait.add(1);
                return true;
            }
        }
        self.evict_half_open(now, out)
    }

    /// What waits longest in TIME-WAIT has not been touched for long: asks for the lines of those that give way next, and when these
    /// are here, for their lines in the index.
    fn prefetch_next_victims(&self) {
        if let Some(&slot) = self.time_wait.get(2 * VICTIMS_AHEAD) {
            prefetch(&self.connections[slot]);
        }
        if let Some(&slot) = self.time_wait.get(VICTIMS_AHEAD) {
            self.table.prefetch(self.hasher.hash(&self.key(slot)));
        }
    }

    /// The oldest half-open connection gives way: under a flood a client that answers at once still gets through.
    fn evict_half_open(&mut self, now: Instant, out: &mut Outbox) -> bool {
        while let Some(slot) = self.half_open.pop_front() {
            if self.connections[slot].tcb.state() == State::SynReceived {
                self.counters.attempt_fails.add(1);
                self.tell_end(slot, End::TimedOut, now);
                self.forget(slot, now, out);
                self.counters.ended_evicted_half_open.add(1);
                return true;
            }
        }
        false
    }

    /// Keeps the gauges and the order of eviction after a change of state.
    pub(super) fn state_changed(&mut self, slot: u32, before: State, now: Instant) {
        let after = self.connections[slot].tcb.state();
        if before == after {
            return;
        }
        self.half_open_now += usize::from(after == State::SynReceived);
        self.half_open_now -= usize::from(before == State::SynReceived);
        let counters = &self.counters;
        for (gauge, was, is) in [
            (&counters.curr_half_open, before.is_half_open(), after.is_half_open()),
            (&counters.curr_estab, before.is_open(), after.is_open()),
            (&counters.curr_time_wait, before == State::TimeWait, after == State::TimeWait),
        ] {
            match (was, is) {
                (false, true) => gauge.add(1),
                (true, false) => gauge.sub(1),
                _ => {}
            }
        }
        let queue = match after {
            State::TimeWait => &mut self.time_wait,
            State::SynReceived => &mut self.half_open,
            _ => {
                self.tell_fin(slot, before, after, now);
                return;
            }
        };
        if queue.len() == queue.capacity() {
            queue.pop_front();
        }
        queue.push_back(slot);
        self.tell_fin(slot, before, after, now);
        if after == State::TimeWait {
            let id = self.id(slot);
            self.application.on_end(id, End::Closed, now);
        }
    }

    /// Tells the application how our FIN fares.
    fn tell_fin(&mut self, slot: u32, before: State, after: State, now: Instant) {
        if !before.fin_was_sent() && after.fin_was_sent() {
            let id = self.id(slot);
            self.application.on_fin_sent(id, now);
        }
        if !before.fin_is_acked() && after.fin_is_acked() {
            let id = self.id(slot);
            self.application.on_fin_acked(id, now);
        }
    }

    /// Tells the application that a connection is over, unless it heard so when TIME-WAIT began.
    fn tell_end(&mut self, slot: u32, end: End, now: Instant) {
        let state = self.connections[slot].tcb.state();
        if state == State::TimeWait {
            return;
        }
        let id = self.id(slot);
        if state == State::LastAck && end == End::Closed {
            self.application.on_fin_acked(id, now);
        }
        self.application.on_end(id, end, now);
    }

    /// Ends a connection and counts how.
    pub(super) fn end(&mut self, slot: u32, end: End, now: Instant, out: &mut Outbox) {
        let counters = &self.counters;
        match self.connections[slot].tcb.state() {
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
        self.tell_end(slot, end, now);
        self.forget(slot, now, out);
    }

    /// Takes a connection out of everything.
    fn forget(&mut self, slot: u32, now: Instant, out: &mut Outbox) {
        let before = self.connections[slot].tcb.state();
        let hash = self.hasher.hash(&self.key(slot));
        let removed = self.table.remove(hash, slot);
        assert!(removed, "every connection is in the table");
        if let Some(number) = self.connections[slot].tcb.transfer() {
            self.records.put(number, &mut out.recycle);
        }
        let Connection { shared, .. } = self.connections[slot];
        self.paths.put(shared, self.connections[slot].next_hop());
        self.connections.put(slot);
        self.state_changed(slot, before, now);
        self.counters.curr_connections.sub(1);
    }
}
