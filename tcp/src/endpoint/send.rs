//! The sending half: what a connection may send now, written into frames. Knows frames and the outbox; never where they go.

use super::records::Record;
use super::{Application, Endpoint, Outbox, SEGMENTS_PER_VISIT};
use crate::device::Frame;
use crate::flow::FlowKey;
use crate::proto::{End, Flags, Outgoing, Recovery, Segment, State, Stream};
use crate::service::Then;
use crate::time::{Instant, Millis};
use crate::wire::{self, Link};

impl<A: Application> Endpoint<A> {
    /// Sends what the connection may send now, the first segment in `frame`, the received one; an acknowledgement alone if one
    /// is due and nothing else goes. Whether anything was sent. `before` is the state before the event that led here.
    pub(super) fn respond(
        &mut self,
        slot: u32,
        mut frame: Option<Frame>,
        must_acknowledge: bool,
        before: State,
        now: Instant,
        out: &mut Outbox,
    ) -> bool {
        let millis = now.millis();
        let pending = self.pending(slot);
        let resets = pending.then == Then::Reset && self.connections[slot].tcb.state().aborts_with_rst();
        // In answer to SYN,ACK, RST would end a handshake that the peer does not know to be complete: ACK goes first.
        let completes = before == State::SynSent && frame.is_some();
        if resets && !completes {
            let reset = self.connections[slot].tcb.reset();
            self.send(slot, &reset, frame, millis, out);
            self.state_changed(slot, before, now);
            self.end(slot, End::ResetByUs, now, out);
            return true;
        }
        let stream = self.stream(slot, pending.bytes, pending.then);
        if self.connections[slot].tcb.wants_transfer(stream) {
            self.attach_record(slot);
        }
        // In answer to a segment one goes in its own frame at once; the others take their turn.
        let most = if frame.is_some() { 1 } else { SEGMENTS_PER_VISIT };
        let mut sent = 0;
        let alone = resets || (frame.is_some() && self.acknowledges_alone(slot, must_acknowledge, stream));
        while !alone && sent < most && (frame.is_some() || !out.free.is_empty()) {
            let rides = self.rides(slot, stream);
            let connection = &mut self.connections[slot];
            let transfer = connection.tcb.transfer().map(|number| &mut self.records.get_mut(number).transfer);
            let Some(outgoing) = connection.tcb.poll_segment(transfer, rides, millis) else { break };
            self.send(slot, &outgoing, frame.take(), millis, out);
            sent += 1;
        }
        let goes_on = alone || sent > 0 || (frame.is_none() && out.free.is_empty());
        if sent == 0 && (alone || must_acknowledge || self.connections[slot].tcb.owes_ack()) {
            let ack = self.connections[slot].tcb.bare_ack();
            self.send(slot, &ack, frame.take(), millis, out);
            sent = 1;
        }
        if resets || (goes_on && self.may_send_more(slot, stream)) {
            self.make_ready(slot);
        }
        out.recycle.extend(frame);
        self.state_changed(slot, before, now);
        self.release_if_idle(slot, out);
        self.arm(slot);
        sent > 0
    }

    /// The service's stream as TCP sees it. FIN follows when the service has closed; or when it only waited for the peer to
    /// close, and the peer has, and all its text was taken.
    fn stream(&self, slot: u32, bytes: u64, then: Then) -> Stream {
        let connection = &self.connections[slot];
        let state = connection.tcb.state();
        let held =
            connection.tcb.transfer().is_some_and(|number| self.records.get(number).transfer.held_bytes > 0);
        let fin = state.fin_is_out()
            || match then {
                Then::Close => true,
                Then::CloseAfterPeer => !held && (state == State::CloseWait || self.draining.is_some()),
                Then::Wait | Then::Reset => false,
            };
        Stream { bytes, fin }
    }

    /// Does the acknowledgement go by itself, ahead of what there is to say? Even one that could have waited, if something would
    /// otherwise carry it.
    fn acknowledges_alone(&self, slot: u32, must_acknowledge: bool, stream: Stream) -> bool {
        let tcb = &self.connections[slot].tcb;
        !self.piggyback
            && (must_acknowledge
                || (tcb.ack_is_pending() && (tcb.owes_ack() || self.may_send_more(slot, stream))))
    }

    /// What of the stream may ride in one segment: all of it, or FIN only behind the last text.
    fn rides(&self, slot: u32, stream: Stream) -> Stream {
        let tcb = &self.connections[slot].tcb;
        let waits = !self.piggyback && !tcb.state().fin_is_out() && stream.bytes > u64::from(tcb.flight());
        Stream { fin: stream.fin && !waits, ..stream }
    }

    /// Is there data or a FIN that was never sent, or a repair going on?
    fn may_send_more(&self, slot: u32, stream: Stream) -> bool {
        let tcb = &self.connections[slot].tcb;
        let repairs = tcb.wants_resend() || tcb.transfer().is_some_and(|number| {
            matches!(self.records.get(number).transfer.recovery, Recovery::Timeout { next, recover } if next != recover)
        });
        repairs || (tcb.state().may_send() && (stream.bytes > u64::from(tcb.flight()) || stream.fin))
    }

    /// Writes a segment of a connection into `frame`, or into a free one, and puts it into the outbox.
    pub(super) fn send(
        &mut self,
        slot: u32,
        outgoing: &Outgoing,
        frame: Option<Frame>,
        now: Millis,
        out: &mut Outbox,
    ) {
        let key = self.key(slot);
        let local_mss = self.environment(&key.local).local_mss;
        let connection = &mut self.connections[slot];
        let record = connection.tcb.transfer().map(|number| self.records.get_mut(number));
        let transfer = record.map(|record| &mut record.transfer);
        let mut segment = connection.tcb.segment(outgoing, transfer, local_mss, now);
        if let Some(number) = connection.tcb.transfer()
            && connection.tcb.permits_sack()
            && segment.text_len == 0
        {
            // Beside text there is no room for blocks: bare acknowledgements tell of what is missing.
            segment.options.sack = self.records.sack_blocks(number, connection.tcb.rcv_nxt());
        }
        let link = *self.paths.next_hops.get(connection.next_hop());
        let header_len = wire::header_len(&link, &key, &segment.options);
        let len = header_len + usize::from(segment.text_len);
        let answers = frame.is_some();
        let frame = match frame {
            Some(frame) if frame.capacity() >= len => Some(frame),
            small => {
                out.recycle.extend(small);
                out.free.pop_if(|frame| frame.capacity() >= len)
            }
        };
        let Some(mut frame) = frame else {
            self.counters.no_free_frame.add(1);
            return;
        };
        frame.set_len(len);
        if segment.text_len > 0 {
            self.write_text(slot, outgoing.text_at, &mut frame[header_len..]);
        }
        wire::emit(&mut frame, &link, &key, &segment);
        self.count_sent(outgoing, &segment, answers);
        self.connections[slot].tcb.ack_sent();
        out.transmit.push(frame);
    }

    fn write_text(&self, slot: u32, at: u32, into: &mut [u8]) {
        let connection = &self.connections[slot];
        let record: Option<&Record> = connection.tcb.transfer().map(|number| self.records.get(number));
        match record {
            Some(record) if record.kept_bytes > 0 => self.records.pieces.read(&record.kept, at, into),
            _ => self.application.write(self.id(slot), &connection.memo, u64::from(at), into),
        }
    }

    fn count_sent(&self, outgoing: &Outgoing, segment: &Segment, answers: bool) {
        let counters = &self.counters;
        if outgoing.again {
            counters.retrans_segs.add(1);
            if segment.flags.has(Flags::SYN) {
                counters.retrans_syn.add(1);
            }
        } else {
            counters.out_segs.add(1);
            counters.out_bytes.add(u64::from(segment.text_len));
        }
        if segment.flags.has(Flags::RST) {
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
        let len = wire::header_len(link, key, &segment.options);
        if frame.capacity() < len {
            self.counters.no_free_frame.add(1);
            out.recycle.push(frame);
            return;
        }
        frame.set_len(len);
        wire::emit(&mut frame, link, key, segment);
        self.counters.out_segs.add(1);
        if segment.flags.has(Flags::RST) {
            self.counters.out_rsts.add(1);
        }
        out.transmit.push(frame);
    }
}
