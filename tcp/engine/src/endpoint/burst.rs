//! A burst's way through the endpoint: from received frames to what becomes of each.
//!
//! There are three passes. The first parses and hashes, and prefetches index lines. The second finds slots, and prefetches the lines of
//! connections. The third applies RFC 9293, segment by segment. SYNs for new connections come last: the code of each kind stays in the
//! cache, and its branches are predicted. A flow's segments stay in order, but for a SYN.
//!
//! The passes are one function to the compiler. Functions that they call in one or two places are `inline(always)`: a call would save
//! and restore registers each time.

use std::hint::cold_path;

use super::application::Application;
use super::connection::Current;
use super::core::Endpoint;
use super::outbox::Outbox;
use super::send::Acknowledge;
use super::work::{Fate, Work};
use crate::device::{BURST, Burst, Frame};
use crate::flow::{FlowKey, prefetch};
use crate::hint::{mostly, seldom};
use crate::proto::segment_arrives::refusal;
use crate::proto::{Arrival, Disposition, Flags, Outgoing, State};
use crate::stats::DropReason;
use crate::time::Instant;
use crate::wire::{self, Link, TcpPacket};

/// How many frames ahead the headers are prefetched: a cache line from another core takes that long.
const HEADERS_AHEAD: usize = 8;

/// Numbers of segments in a burst, in order.
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

impl<A: Application> Endpoint<A> {
    /// Handles a burst of received frames. `handed` is true for frames that another worker received and found to be ours.
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
            // The flow of most SYNs is in no table: the last pass searches ours, and seldom those of the siblings.
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
            // The first slot with this fingerprint; the last pass compares the name.
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
            // The worker counts it once the other worker's inbox has taken it.
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
            self.count_segment(packet);
            let current = self.current(slot);
            return self.on_connection_segment(now, current, work, frame, out);
        }
        if !handed
            && seldom(work.may_be_elsewhere)
            && let Some(worker) = self.sibling_with(&packet.key, work.hash)
        {
            out.hand_over.push((worker, frame));
            return Fate::HandedOut;
        }
        self.count_segment(packet);
        let listener = self.application.listener(&packet.key);
        if seldom(listener.is_none()) && !self.owns(&packet.key.local) {
            out.recycle.push(frame);
            return Fate::Dropped(DropReason::NotOurs);
        }
        let flags = packet.segment.flags;
        match listener {
            // Section 3.10.7.2: a listener takes a SYN, drops an RST and a segment without ACK, and refuses the rest. While the endpoint
            // drains, it refuses a SYN, too.
            Some(listener)
                if mostly(
                    flags.has(Flags::SYN) && !flags.has_any(Flags::RST_ACK) && self.draining.is_none(),
                ) =>
            {
                self.accept(now, listener, None, work, frame, out)
            }
            Some(_) if !flags.has_any(Flags::SYN_ACK.with(Flags::RST)) => {
                out.recycle.push(frame);
                Fate::Dropped(DropReason::NoAck)
            }
            _ => self.refuse(work, frame, out),
        }
    }

    /// Returns the sibling that owns a flow, if one does.
    pub(super) fn sibling_with(&self, key: &FlowKey, hash: u64) -> Option<usize> {
        self.siblings.iter().find(|(_, lookup)| lookup.has(key, hash)).map(|(worker, _)| *worker)
    }

    fn count_segment(&self, packet: &TcpPacket) {
        self.counters.in_segs.add(1);
        if seldom(packet.partial_checksum) {
            self.counters.in_partial_checksums.add(1);
        }
    }

    /// Answers a segment that belongs to no connection with RST, section 3.10.7.1.
    pub(super) fn refuse(&mut self, work: &Work, frame: Frame, out: &mut Outbox) -> Fate {
        let packet = &work.packet;
        let Some(reset) = refusal(&packet.segment) else {
            out.recycle.push(frame);
            return Fate::Dropped(DropReason::NoConnection);
        };
        self.emit(frame, &packet.link.reversed(), &packet.key, &reset, out);
        Fate::Answered
    }

    /// Handles a segment of one of our connections: RFC 9293's judgement, the service's part, and the answer.
    #[inline(always)]
    fn on_connection_segment(
        &mut self,
        now: Instant,
        mut current: Current,
        work: &Work,
        frame: Frame,
        out: &mut Outbox,
    ) -> Fate {
        let millis = now.millis();
        let before = current.tcb.state();
        let (_, deadline) = current.tcb.timer();
        let environment = *self.environment(&work.packet.key.local);
        let segment = &work.packet.segment;
        let arrival = self.records.tcp(&mut current.tcb).segment_arrives(segment, &environment, millis);
        if matches!(arrival.disposition, Disposition::Accepted | Disposition::RepeatHandshake) {
            self.learn_next_hop(&mut current, &work.packet.link);
        }
        match arrival.disposition {
            // Both streams are complete.
            Disposition::Accepted if seldom(before == State::TimeWait) => {
                out.recycle.push(frame);
                self.put_back(current);
                return Fate::Absorbed;
            }
            Disposition::Accepted => {
                return self.on_accepted(current, before, &arrival, (work, frame), now, out);
            }
            Disposition::Drop(reason) => {
                cold_path();
                out.recycle.push(frame);
                self.put_back(current);
                return Fate::Dropped(reason);
            }
            Disposition::End(end) => {
                if arrival.acked > 0 {
                    self.on_acked(&mut current, arrival.acked, now, out);
                }
                self.end(current, end, now, out);
                out.recycle.push(frame);
                return Fate::Absorbed;
            }
            Disposition::Refuse => {
                cold_path();
                self.put_back(current);
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
                self.send(&mut current, &ack, Some(frame), millis, out);
            }
            Disposition::RepeatHandshake => {
                cold_path();
                let again = before == State::SynReceived;
                let handshake = Outgoing { again, ..current.tcb.handshake() };
                self.send(&mut current, &handshake, Some(frame), millis, out);
            }
        }
        if before == State::TimeWait {
            self.waits_anew(&mut current, deadline);
        } else {
            self.state_changed(&mut current, before, now);
            self.arm(&mut current);
        }
        self.put_back(current);
        Fate::Answered
    }

    /// Learns the peer's next hop: answers go where its last good segment came from.
    #[inline]
    fn learn_next_hop(&mut self, current: &mut Current, link: &Link) {
        if seldom(!self.paths.next_hop(current.next_hop).is_back_of(link)) {
            current.next_hop = self.paths.change(current.next_hop, &link.reversed());
        }
    }

    /// Handles an acceptable segment: acknowledged bytes, text and FIN go to the service, and the service's answer goes out.
    #[inline(always)]
    fn on_accepted(
        &mut self,
        mut current: Current,
        before: State,
        arrival: &Arrival,
        (work, frame): (&Work, Frame),
        now: Instant,
        out: &mut Outbox,
    ) -> Fate {
        let mut must_acknowledge = arrival.must_acknowledge;
        if before.is_half_open() {
            if before == State::SynReceived {
                // From here on the memo is the service's.
                self.half_open.remove(&mut current, &mut self.connections);
            }
            self.counters.established.add(1);
            must_acknowledge |= before == State::SynSent;
            let id = current.id();
            self.application.on_open(id, &mut current.memo, now);
        }
        if seldom(arrival.syn_was_lost) && self.attach_record(&mut current).is_some() {
            self.records.tcp(&mut current.tcb).on_syn_lost();
        }
        if arrival.acked > 0 {
            self.on_acked(&mut current, arrival.acked, now, out);
        }
        if seldom(arrival.is_duplicate_ack)
            && let Some(number) = self.attach_record(&mut current)
        {
            let blocks = &work.packet.segment.options.sack;
            if !blocks.is_empty() {
                self.records.attach_scoreboard(number, current.tcb.snd_una());
            }
            let starts = self.records.tcp(&mut current.tcb).on_duplicate_ack(blocks, now.millis());
            self.counters.retrans_fast.add(starts.into());
        }
        let carried = arrival.text.is_some() || arrival.fin.is_some();
        let (frame, fate) = if carried || self.has_held_text(&current) {
            let received = self.receive(&mut current, arrival, (work, frame), now, out);
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

/// Does the packet ask for a new connection?
#[inline]
fn opens(packet: &TcpPacket) -> bool {
    packet.segment.flags.has(Flags::SYN) && !packet.segment.flags.has(Flags::ACK)
}

/// Prefetches the two cache lines of a frame's headers.
#[inline]
fn prefetch_headers(frame: &Frame) {
    for byte in [frame.first(), frame.get(64)].into_iter().flatten() {
        prefetch(byte);
    }
}
