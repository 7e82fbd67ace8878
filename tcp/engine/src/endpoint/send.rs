//! The sending half: what a connection may send now, written into frames. Knows frames and the outbox; never where they go.

use std::hint::cold_path;

use super::connection::Current;
use super::records::Record;
use super::{Application, Endpoint, Outbox, SEGMENTS_PER_VISIT};
use crate::device::{Frame, LINK_HEADER};
use crate::flow::FlowKey;
use crate::hint::{mostly, seldom};
use crate::proto::{End, Flags, Outgoing, Recovery, Segment, State, Stream};
use crate::service::Then;
use crate::time::{Instant, Millis};
use crate::wire::{self, Link};

/// When an acknowledgement goes that nothing carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledge {
    /// Now.
    AtOnce,
    /// Now, if one is owed.
    IfOwed,
    /// When all segments of the burst have been looked at, if one is owed then: one for all of them (RFC 9293 section 3.8.6.3, MUST-59).
    AfterBurst,
}

impl<A: Application> Endpoint<A> {
    /// Sends what the connection may send now, the first segment in `frame`, the received one; an acknowledgement alone if one
    /// is due and nothing else goes. Whether anything was sent. `before` is the state before the event that led here.
    #[inline(always)]
    pub(super) fn respond(
        &mut self,
        current: &mut Current,
        mut frame: Option<Frame>,
        acknowledge: Acknowledge,
        before: State,
        now: Instant,
        out: &mut Outbox,
    ) -> bool {
        let millis = now.millis();
        let pending = self.pending(current);
        let resets = pending.then == Then::Reset && current.tcb.state().aborts_with_rst();
        // In answer to SYN,ACK, RST would end a handshake that the peer does not know to be complete: ACK goes first.
        let completes = before == State::SynSent && frame.is_some();
        if seldom(resets && !completes) {
            let reset = current.tcb.reset();
            self.send(current, &reset, frame, millis, out);
            self.state_changed(current, before, now);
            self.end(current, End::ResetByUs, now, out);
            return true;
        }
        let stream = self.stream(current, pending.bytes, pending.then);
        if seldom(current.tcb.wants_transfer(stream)) {
            self.attach_record(current);
        }
        // In answer to a segment one goes in its own frame at once; the others take their turn.
        let most = if frame.is_some() { 1 } else { SEGMENTS_PER_VISIT };
        let at_once = acknowledge == Acknowledge::AtOnce;
        let alone = seldom(resets) || (frame.is_some() && self.acknowledges_alone(current, at_once, stream));
        let is_due = at_once || (acknowledge == Acknowledge::IfOwed && current.tcb.owes_ack());
        let mut sent = 0;
        let goes_on = loop {
            // What is sent may be longer than what came: a received frame may be a small one.
            let fits = |frame: &Frame| mostly(frame.capacity() >= self.mtu + LINK_HEADER);
            let has_room = frame.as_ref().is_some_and(fits) || !out.free.is_empty();
            let polled = if !alone && sent < most && has_room {
                let rides = self.rides(current, stream);
                let transfer =
                    current.tcb.transfer().map(|number| &mut self.records.get_mut(number).transfer);
                current.tcb.poll_segment(transfer, rides, millis)
            } else {
                None
            };
            let goes_on = alone || sent > 0 || !has_room;
            let is_last = polled.is_none();
            if is_last && (sent > 0 || !(alone || is_due)) {
                break goes_on;
            }
            let outgoing = polled.unwrap_or_else(|| current.tcb.bare_ack());
            self.send(current, &outgoing, frame.take(), millis, out);
            sent += 1;
            if is_last {
                break goes_on;
            }
        };
        if resets || (goes_on && self.may_send_more(current, stream)) || current.tcb.owes_ack() {
            self.ready.insert(current.slot);
        }
        if let Some(unused) = frame {
            out.recycle.push(unused);
        }
        self.state_changed(current, before, now);
        self.release_if_idle(current, out);
        self.arm(current);
        sent > 0
    }

    /// The service's stream as TCP sees it. FIN follows when the service has closed; or when it only waited for the peer to
    /// close, and the peer has, and all its text was taken.
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

    /// Does the acknowledgement go by itself, ahead of what there is to say? Even one that could have waited, if something would
    /// otherwise carry it.
    fn acknowledges_alone(&self, current: &Current, at_once: bool, stream: Stream) -> bool {
        let tcb = &current.tcb;
        !self.piggyback
            && (at_once || (tcb.ack_is_pending() && (tcb.owes_ack() || self.may_send_more(current, stream))))
    }

    /// What of the stream may ride in one segment: all of it, or FIN only behind the last text.
    fn rides(&self, current: &Current, stream: Stream) -> Stream {
        let tcb = &current.tcb;
        let waits = !self.piggyback && !tcb.state().fin_is_out() && stream.bytes > u64::from(tcb.flight());
        Stream { fin: stream.fin && !waits, ..stream }
    }

    /// Is there data or a FIN that was never sent, or a repair going on?
    fn may_send_more(&self, current: &Current, stream: Stream) -> bool {
        let tcb = &current.tcb;
        let repairs = seldom(tcb.wants_resend()) || tcb.transfer().is_some_and(|number| {
            matches!(self.records.get(number).transfer.recovery, Recovery::Timeout { next, recover } if next != recover)
        });
        repairs || (tcb.state().may_send() && (stream.bytes > u64::from(tcb.flight()) || stream.fin))
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
        // Not by `environment`, which would hold on to all of `self`.
        let local_mss = || self.environments[usize::from(!key.local.is_v4())].local_mss;
        let segment = match current.tcb.transfer() {
            None => current.tcb.segment(outgoing, None, local_mss, now),
            Some(number) => {
                let transfer = &mut self.records.get_mut(number).transfer;
                transfer.retransmissions += u32::from(outgoing.again);
                let mut segment = current.tcb.segment(outgoing, Some(transfer), local_mss, now);
                if current.tcb.permits_sack() && segment.text_len == 0 {
                    // Beside text there is no room for blocks: bare acknowledgements tell of what is missing.
                    segment.options.sack = self.records.sack_blocks(number, current.tcb.rcv_nxt());
                }
                segment
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
