//! The way of a burst: from received frames to what becomes of each. Knows segments, connections and the outbox; never how a connection
//! begins, keeps its text, or sends.
//!
//! It is passed over three times: parse and hash, with the index lines on their way; look the connection's line up, with
//! that on its way; then RFC 9293, segment by segment. SYNs for new connections come after all others: so what each kind goes through
//! stays near the core, and which way it goes is foreseen. (A flow's segments stay in order, but for a SYN.)
//!
//! From the frame to the answer the passes are one function to the compiler: what they call at a place or two is `inline(always)`, or it
//! would be called, and every time save and fetch what is in registers.

use std::hint::cold_path;

use super::connection::Current;
use super::send::Acknowledge;
use super::{Application, Endpoint, Outbox};
use crate::device::{BURST, Burst, Frame};
use crate::flow::{FlowKey, prefetch};
use crate::hint::{mostly, seldom};
use crate::proto::segment_arrives::refusal;
use crate::proto::{Arrival, Disposition, Flags, State};
use crate::stats::DropReason;
use crate::time::Instant;
use crate::wire::{self, Link, TcpPacket};

/// How many frames before its turn a frame's headers are asked for: what came from another core takes that long.
const HEADERS_AHEAD: usize = 8;

/// What became of a received frame: exactly one of these is counted.
pub(super) enum Fate {
    Answered,
    Absorbed,
    Dropped(DropReason),
    HandedOut,
}

/// Numbers of segments of a burst, in order.
struct Numbers {
    numbers: [u8; BURST],
    len: usize,
}

const _: () = assert!(BURST <= 256, "a number is a byte");

impl Numbers {
    const NONE: Self = Self { numbers: [0; BURST], len: 0 };

    #[inline]
    fn push(&mut self, number: usize) {
        self.numbers[self.len] = number as u8;
        self.len += 1;
    }

    #[inline]
    fn iter(&self) -> impl Iterator<Item = usize> {
        self.numbers[..self.len].iter().map(|number| usize::from(*number))
    }
}

/// A parsed segment between the passes. It stays where it was parsed to.
#[derive(Default)]
pub(super) struct Work {
    pub(super) packet: TcpPacket,
    pub(super) hash: u64,
    /// The slot where the connection seems to be.
    pub(super) guess: Option<u32>,
    /// Is it worth asking whether another worker has it?
    pub(super) may_be_elsewhere: bool,
    pub(super) frame: Option<Frame>,
}

impl<A: Application> Endpoint<A> {
    /// Takes a burst of received frames; `handed` when another worker saw them first and found their flow to be ours.
    pub fn on_burst(&mut self, now: Instant, burst: &mut Burst, handed: bool, out: &mut Outbox) {
        let seen = if handed { &self.counters.frames_handed_in } else { &self.counters.in_frames };
        seen.add(burst.len() as u64);
        let mut all = std::mem::take(&mut self.work);
        let mut segments = 0;
        let (mut opening, mut others) = (Numbers::NONE, Numbers::NONE);
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
                        others.push(segments);
                        self.table.prefetch(work.hash);
                    } else {
                        opening.push(segments);
                        self.table.prefetch_to_write(work.hash);
                        self.siblings.iter().for_each(|(_, lookup)| lookup.prefetch(work.hash));
                    }
                    work.frame = Some(frame);
                    segments += 1;
                }
                other => {
                    cold_path();
                    self.on_other(frame, other, handed, now, out);
                }
            }
        }
        for number in opening.iter() {
            let work = &mut all[number];
            // Mostly its flow is in no table: one search of our own is enough, and mostly none of the others'.
            work.guess = None;
            self.table.prefetch_further_to_write(work.hash);
            work.may_be_elsewhere = false;
            for (_, lookup) in &self.siblings {
                work.may_be_elsewhere |= lookup.may_hold(work.hash);
            }
        }
        for number in others.iter() {
            let work = &mut all[number];
            work.may_be_elsewhere = true;
            // The first with this fingerprint; whether it is the one is for the last pass to say.
            work.guess = self.table.find(work.hash, |_| true);
            if let Some(slot) = work.guess {
                self.connections.prefetch(slot);
            }
        }
        for number in others.iter().chain(opening.iter()) {
            let work = &mut all[number];
            let Some(frame) = work.frame.take() else { continue };
            let fate = self.on_segment(now, work, frame, handed, out);
            self.count(&fate);
        }
        self.work = all;
    }

    pub(super) fn count(&self, fate: &Fate) {
        match fate {
            Fate::Answered => self.counters.frames_answered.add(1),
            Fate::Absorbed => self.counters.frames_absorbed.add(1),
            // The worker counts it when the other's inbox has taken it.
            Fate::HandedOut => {}
            Fate::Dropped(reason) => self.counters.drop_for(*reason),
        }
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
        if seldom(packet.link.destination != self.mac) {
            out.recycle.push(frame);
            return Fate::Dropped(DropReason::NotOurs);
        }
        let found = work.guess.filter(|&slot| mostly(self.is(slot, &packet.key)));
        if let Some(slot) = found.or_else(|| self.find(&packet.key, work.hash)) {
            self.segment_counted(packet);
            let mut current = self.current(slot);
            let fate = self.on_connection_segment(now, &mut current, work, frame, out);
            self.put_back(&current);
            return fate;
        }
        if !handed
            && seldom(work.may_be_elsewhere)
            && let Some(worker) = self.sibling_with(&packet.key, work.hash)
        {
            out.hand_over.push((worker, frame));
            return Fate::HandedOut;
        }
        self.segment_counted(packet);
        let listener = self.application.listener(&packet.key);
        if seldom(listener.is_none()) && !self.owns(&packet.key.local) {
            out.recycle.push(frame);
            return Fate::Dropped(DropReason::NotOurs);
        }
        let flags = packet.segment.flags;
        match listener {
            // Section 3.10.7.2: a listener takes SYN, ignores RST and what has no ACK, and refuses the rest. One that drains refuses SYN
            // too.
            Some(listener)
                if mostly(
                    flags.has(Flags::SYN)
                        && !flags.has_any(Flags::RST.with(Flags::ACK))
                        && self.draining.is_none(),
                ) =>
            {
                self.on_syn(now, listener, work, frame, out)
            }
            Some(_) if !flags.has_any(Flags::SYN.with(Flags::ACK).with(Flags::RST)) => {
                out.recycle.push(frame);
                Fate::Dropped(DropReason::NoAck)
            }
            _ => self.refuse(work, frame, out),
        }
    }

    /// The worker that owns a flow, if another one does.
    pub(super) fn sibling_with(&self, key: &FlowKey, hash: u64) -> Option<usize> {
        self.siblings.iter().find(|(_, lookup)| lookup.has(key, hash)).map(|(worker, _)| *worker)
    }

    fn segment_counted(&self, packet: &TcpPacket) {
        self.counters.in_segs.add(1);
        if seldom(packet.partial_checksum) {
            self.counters.in_partial_checksums.add(1);
        }
    }

    /// RST for what belongs to no connection, section 3.10.7.1.
    pub(super) fn refuse(&mut self, work: &Work, frame: Frame, out: &mut Outbox) -> Fate {
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
            Disposition::Accepted if seldom(before == State::TimeWait) => {
                out.recycle.push(frame);
                return Fate::Absorbed;
            }
            Disposition::Accepted => {
                return self.on_accepted(current, before, &arrival, (work, frame), now, out);
            }
            Disposition::Drop(reason) => {
                cold_path();
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
            Disposition::Refuse => {
                cold_path();
                return self.refuse(work, frame, out);
            }
            Disposition::Reopen => {
                cold_path();
                return self.reopen(current, work, frame, now, out);
            }
            Disposition::Acknowledge => {
                cold_path();
                if segment.text_len > 0 {
                    self.counters.in_duplicates.add(1);
                }
                let ack = current.tcb.bare_ack();
                self.send(current, &ack, Some(frame), millis, out);
            }
            Disposition::RepeatHandshake => {
                cold_path();
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
        if seldom(!self.paths.next_hop(current.next_hop).is_back_of(link)) {
            current.next_hop = self.paths.change(current.next_hop, &link.reversed());
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
            if before == State::SynReceived {
                // From here on the memo is the service's.
                self.half_open.remove(current, &mut self.connections);
            }
            self.counters.established.add(1);
            must_acknowledge |= before == State::SynSent;
            let id = current.id();
            self.application.on_open(id, &mut current.memo, now);
        }
        if seldom(arrival.syn_was_lost)
            && let Some(number) = self.attach_record(current)
        {
            let mss = u32::from(current.tcb.mss());
            self.records.get_mut(number).transfer.congestion_window = mss;
        }
        if arrival.acked > 0 {
            self.on_acked(current, arrival.acked, now, out);
        }
        if seldom(arrival.is_duplicate_ack) {
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
