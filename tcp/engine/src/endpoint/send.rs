//! The sending half: writes what a connection may send now into frames.

use std::hint::cold_path;

use super::application::Application;
use super::connection::Current;
use super::core::Endpoint;
use super::outbox::Outbox;
use super::records::Record;
use crate::device::{Frame, LINK_HEADER};
use crate::flow::FlowKey;
use crate::hint::{mostly, seldom};
use crate::proto::{End, Flags, Outgoing, SackBlocks, Segment, State, Stream, Tcp};
use crate::service::Then;
use crate::time::{Instant, Millis};
use crate::wire::{self, Link};

/// Segments that one connection may send before the next has its turn.
const SEGMENTS_PER_VISIT: usize = 16;

/// When an acknowledgement goes that has no segment to ride on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledge {
    /// Now.
    AtOnce,
    /// Now, if one is owed.
    IfOwed,
    /// After the whole burst is processed, if one is owed then: one for all its segments (RFC 9293 section 3.8.6.3, MUST-59).
    AfterBurst,
}

impl<A: Application> Endpoint<A> {
    /// Sends what connections have ready, each a little in turn, while there are free frames.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Outbox) {
        while !out.free.is_empty() {
            let Some(slot) = self.ready.take() else { return };
            let before = self.connections.state(slot);
            // The slot may be free by now, or have another owner. In TIME-WAIT both streams are complete.
            if before == State::Closed || before.is_half_open() || before == State::TimeWait {
                continue;
            }
            let current = self.current(slot);
            self.respond(current, None, Acknowledge::IfOwed, before, now, out);
        }
    }

    /// Sends what the connection may send now, the first segment in `frame`, the received one; or an acknowledgement alone if one is due
    /// and has nothing to ride on. Returns whether anything was sent. `before` is the state before the event that led here.
    #[inline(always)]
    pub(super) fn respond(
        &mut self,
        mut current: Current,
        mut frame: Option<Frame>,
        acknowledge: Acknowledge,
        before: State,
        now: Instant,
        out: &mut Outbox,
    ) -> bool {
        let millis = now.millis();
        let pending = self.pending(&current);
        let resets = pending.then == Then::Reset && current.tcb.state().aborts_with_rst();
        // An RST in answer to SYN,ACK would end a handshake that the peer does not know to be complete: the ACK goes first.
        let completes = before == State::SynSent && frame.is_some();
        if seldom(resets && !completes) {
            let reset = current.tcb.reset();
            self.send(&mut current, &reset, frame, millis, out);
            self.state_changed(&mut current, before, now);
            self.end(current, End::ResetByUs, now, out);
            return true;
        }
        let stream = self.stream(&current, pending.bytes, pending.then);
        if seldom(self.records.tcp(&mut current.tcb).wants_transfer(stream)) {
            self.attach_record(&mut current);
        }
        // The answer to a segment goes in its own frame at once; further segments take their turn.
        let most = if frame.is_some() { 1 } else { SEGMENTS_PER_VISIT };
        let at_once = acknowledge == Acknowledge::AtOnce;
        let alone =
            seldom(resets) || (frame.is_some() && self.acknowledges_alone(&mut current, at_once, stream));
        let is_due = at_once || (acknowledge == Acknowledge::IfOwed && current.tcb.owes_ack());
        let mut sent = 0;
        let goes_on = loop {
            // The answer may be longer than the received segment, whose frame may be a small one.
            let fits = |frame: &Frame| mostly(frame.capacity() >= self.mtu + LINK_HEADER);
            let has_room = frame.as_ref().is_some_and(fits) || !out.free.is_empty();
            let polled = if !alone && sent < most && has_room {
                let rides = self.rides(&current, stream);
                self.records.tcp(&mut current.tcb).poll_segment(rides, millis)
            } else {
                None
            };
            let goes_on = alone || sent > 0 || !has_room;
            let is_last = polled.is_none();
            if is_last && (sent > 0 || !(alone || is_due)) {
                break goes_on;
            }
            let outgoing = polled.unwrap_or_else(|| current.tcb.bare_ack());
            self.send(&mut current, &outgoing, frame.take(), millis, out);
            sent += 1;
            if is_last {
                break goes_on;
            }
        };
        if resets || (goes_on && self.may_send_more(&mut current, stream)) || current.tcb.owes_ack() {
            self.ready.insert(current.slot);
        }
        if let Some(unused) = frame {
            out.recycle.push(unused);
        }
        self.state_changed(&mut current, before, now);
        self.release_if_idle(&mut current, out);
        self.arm(&mut current);
        self.put_back(current);
        sent > 0
    }

    /// Returns the service's stream as TCP sees it. FIN follows when the service has closed, or when it only waited for the peer to
    /// close, and the peer has, with all its text delivered.
    fn stream(&self, current: &Current, bytes: u64, then: Then) -> Stream {
        let state = current.tcb.state();
        let fin = state.fin_is_out()
            || match then {
                Then::Close => true,
                Then::CloseAfterPeer => {
                    self.held_bytes(current) == 0 && (state == State::CloseWait || self.draining.is_some())
                }
                Then::Wait | Then::Reset => false,
            };
        Stream { bytes, fin }
    }

    /// Does the acknowledgement go alone, ahead of text? Without piggybacking, even one does that could have waited for text.
    fn acknowledges_alone(&mut self, current: &mut Current, at_once: bool, stream: Stream) -> bool {
        if mostly(self.piggyback) {
            return false;
        }
        let (is_pending, is_owed) = (current.tcb.ack_is_pending(), current.tcb.owes_ack());
        at_once || (is_pending && (is_owed || self.may_send_more(current, stream)))
    }

    /// Returns what of the stream may ride in one segment: text and FIN, or without piggybacking one after the other.
    fn rides(&self, current: &Current, stream: Stream) -> Stream {
        let tcb = &current.tcb;
        let waits = !self.piggyback && !tcb.state().fin_is_out() && stream.bytes > u64::from(tcb.flight());
        Stream { fin: stream.fin && !waits, ..stream }
    }

    fn may_send_more(&mut self, current: &mut Current, stream: Stream) -> bool {
        self.records.tcp(&mut current.tcb).may_send_more(stream)
    }

    /// Writes a segment of a connection into `frame`, or into a free one, and puts it into the outbox.
    #[inline(always)]
    pub(super) fn send(
        &mut self,
        current: &mut Current,
        outgoing: &Outgoing,
        frame: Option<Frame>,
        now: Millis,
        out: &mut Outbox,
    ) {
        let key = self.key(current);
        // Not `environment`, which would borrow all of `self`.
        let local_mss = || self.environments[usize::from(!key.local.is_v4())].local_mss;
        let segment = match current.tcb.transfer() {
            None => Tcp::new(&mut current.tcb, None).segment(outgoing, local_mss, || SackBlocks::NONE, now),
            Some(number) => {
                let nxt = current.tcb.rcv_nxt();
                let (Record { transfer, held, latest, .. }, pieces) = self.records.split(number);
                let sack = || pieces.sack_blocks(held, nxt, *latest);
                Tcp::new(&mut current.tcb, Some(transfer)).segment(outgoing, local_mss, sack, now)
            }
        };
        let link = self.paths.next_hop(current.next_hop);
        let layout = wire::Layout::of(link, &key, &segment.options);
        let header_len = layout.header_len();
        let len = header_len + usize::from(segment.text_len);
        let answers = frame.is_some();
        let frame = match frame {
            Some(frame) if mostly(frame.capacity() >= len) => Some(frame),
            small => {
                out.recycle.extend(small);
                out.free.pop_if(|frame| frame.capacity() >= len)
            }
        };
        let Some(mut frame) = frame else {
            cold_path();
            self.counters.no_free_frame.add(1);
            return;
        };
        frame.set_len(len);
        if segment.text_len > 0 {
            self.write_text(current, outgoing.text_at, &mut frame[header_len..]);
        }
        layout.emit(&mut frame, link, &key, &segment);
        self.count_sent(outgoing, &segment, answers);
        current.tcb.ack_sent();
        out.transmit.push(frame);
    }

    fn write_text(&self, current: &Current, at: u32, into: &mut [u8]) {
        let record: Option<&Record> = current.tcb.transfer().map(|number| self.records.get(number));
        match record {
            Some(record) if record.kept_bytes > 0 => self.records.pieces.read(&record.kept, at, into),
            _ => self.application.write(current.id(), &current.memo, u64::from(at), into),
        }
    }

    fn count_sent(&self, outgoing: &Outgoing, segment: &Segment, answers: bool) {
        let counters = &self.counters;
        if seldom(outgoing.again) {
            counters.retrans_segs.add(1);
            if segment.flags.has(Flags::SYN) {
                counters.retrans_syn.add(1);
            }
        } else {
            counters.out_segs.add(1);
            counters.out_bytes.add(u64::from(segment.text_len));
        }
        if seldom(segment.flags.has(Flags::RST)) {
            counters.out_rsts.add(1);
        }
        if !answers {
            counters.frames_originated.add(1);
        }
    }

    /// Writes a segment that belongs to no connection into the frame that provoked it.
    pub(super) fn emit(
        &self,
        mut frame: Frame,
        link: &Link,
        key: &FlowKey,
        segment: &Segment,
        out: &mut Outbox,
    ) {
        let layout = wire::Layout::of(link, key, &segment.options);
        let len = layout.header_len();
        if frame.capacity() < len {
            self.counters.no_free_frame.add(1);
            out.recycle.push(frame);
            return;
        }
        frame.set_len(len);
        layout.emit(&mut frame, link, key, segment);
        self.counters.out_segs.add(1);
        if segment.flags.has(Flags::RST) {
            self.counters.out_rsts.add(1);
        }
        out.transmit.push(frame);
    }
}
