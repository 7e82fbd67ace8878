//! The receiving half: text in and out of order to the service, and frames kept for later. Knows text and frames; never headers.

use super::connection::Current;
use super::records::Piece;
use super::{Application, Endpoint, Fate, Outbox, Work};
use crate::device::Frame;
use crate::hint::{mostly, seldom};
use crate::proto::{Arrival, Environment, RECEIVE_WINDOW, SeqNum, Text};
use crate::service::Taken;
use crate::stats::DropReason;
use crate::time::Instant;

/// What became of a segment's text.
pub(super) struct Received {
    /// The frame, unless it was kept.
    pub(super) frame: Option<Frame>,
    /// The peer is to hear of it at once, and not only when the burst is done.
    pub(super) must_acknowledge: bool,
    pub(super) fate: Fate,
}

/// What became of text that was offered to the service.
enum Offered {
    /// So many bytes were taken.
    Taken(u16),
    /// All of it goes back to the peer: the frame is to be kept.
    Echo,
}

impl<A: Application> Endpoint<A> {
    /// Is text kept for the connection that the service has not taken, in order or not?
    pub(super) fn has_held_text(&self, current: &Current) -> bool {
        current.tcb.transfer().is_some_and(|number| !self.records.get(number).held.is_empty())
    }

    /// Bytes received in order that the service has not taken.
    pub(super) fn held_bytes(&self, current: &Current) -> u32 {
        let transfer = current.tcb.transfer();
        transfer.map_or(0, |number| self.records.get(number).transfer.held_bytes)
    }

    /// The peer has acknowledged bytes of our stream.
    #[inline(always)]
    pub(super) fn on_acked(&mut self, current: &mut Current, acked: u32, now: Instant, out: &mut Outbox) {
        if let Some(number) = current.tcb.transfer() {
            let (record, pieces) = self.records.split(number);
            if record.kept_bytes > 0 {
                let mut left = acked.min(record.kept_bytes);
                record.kept_bytes -= left;
                while left > 0 {
                    let Some(front) = pieces.front(&record.kept) else { break };
                    if u32::from(front.len) > left {
                        front.trim(left as u16);
                        break;
                    }
                    left -= u32::from(front.len);
                    out.recycle.extend(pieces.pop(&mut record.kept).map(|piece| piece.frame));
                }
                return;
            }
        }
        let id = current.id();
        self.application.on_acked(id, &mut current.memo, u64::from(acked), now);
    }

    pub(super) fn on_duplicate_ack(&mut self, current: &mut Current) {
        if let Some(number) = self.attach_record(current) {
            let transfer = &mut self.records.get_mut(number).transfer;
            let before = transfer.recovery;
            current.tcb.on_duplicate_ack(transfer);
            if transfer.recovery != before {
                self.counters.retrans_fast.add(1);
            }
        }
    }

    /// The connection's second record, made now if it has none; `None` when the pool is empty.
    pub(super) fn attach_record(&mut self, current: &mut Current) -> Option<u32> {
        if let Some(number) = current.tcb.transfer() {
            return Some(number);
        }
        let Some(number) = self.records.take() else {
            self.counters.no_transfer_record.add(1);
            return None;
        };
        let transfer = current.tcb.attach_transfer(number);
        self.records.start(number, transfer);
        Some(number)
    }

    /// Gives the second record back when it holds nothing. While there are plenty, an open connection keeps its congestion window.
    pub(super) fn release_if_idle(&mut self, current: &mut Current, out: &mut Outbox) {
        let tcb = &mut current.tcb;
        let Some(number) = tcb.transfer() else { return };
        let may_keep = tcb.state().is_open() && !self.records.is_scarce();
        if tcb.flight() == 0 && !may_keep && self.records.get(number).is_idle() {
            tcb.detach_transfer(&self.records.get(number).transfer);
            self.records.put(number, &mut out.recycle);
        }
    }

    /// Seventh and eighth of section 3.10.7.4: text finds its place, then FIN.
    #[inline(always)]
    pub(super) fn receive(
        &mut self,
        current: &mut Current,
        arrival: &Arrival,
        (work, frame): (&Work, Frame),
        now: Instant,
        out: &mut Outbox,
    ) -> Received {
        let start = work.packet.text_start;
        let mut received = match arrival.text {
            // What comes in order waits only behind text that the service has not taken.
            Some(text) if mostly(text.seq == current.tcb.rcv_nxt() && self.held_bytes(current) == 0) => {
                self.receive_in_order(current, text, start, frame, now, out)
            }
            Some(text) => self.hold(current, text, start, frame, out),
            None => Received { frame: Some(frame), must_acknowledge: false, fate: Fate::Absorbed },
        };
        let mut fin = arrival.fin;
        if let Some(number) = current.tcb.transfer() {
            if arrival.text.is_some() {
                received.must_acknowledge |= self.join_held(current, number, now);
            }
            received.must_acknowledge |= self.offer_held(current, number, now, out);
            fin = fin.or(self.records.get(number).transfer.early_fin);
        }
        // Once for each that comes; one that waits behind missing text is no reason to acknowledge acknowledgements.
        received.must_acknowledge |= arrival.fin.is_some();
        if let Some(fin) = fin {
            received.must_acknowledge |= self.receive_fin(current, fin, now, out);
        }
        received
    }

    /// FIN, if its turn has come; whether it has.
    fn receive_fin(&mut self, current: &mut Current, fin: SeqNum, now: Instant, out: &mut Outbox) -> bool {
        let tcb = &current.tcb;
        if seldom(!tcb.state().may_receive()) {
            return false;
        }
        if seldom(fin != tcb.rcv_nxt()) {
            // Text before it is still missing; or the stream has gone on beyond it, and it was a lie. Without a record, the peer will send
            // it again.
            let early = fin.after(tcb.rcv_nxt()).then_some(fin);
            if let Some(number) = self.attach_record(current) {
                self.records.get_mut(number).transfer.early_fin = early;
            }
            return false;
        }
        // The same for both families.
        let [Environment { time_wait_ms, .. }, _] = self.environments;
        current.tcb.receive_fin(time_wait_ms, now.millis());
        if let Some(number) = current.tcb.transfer() {
            let (record, pieces) = self.records.split(number);
            record.transfer.early_fin = None;
            // Nothing follows a FIN: what claims to is a lie.
            while let Some(piece) = pieces.pop_last_after(&mut record.held, fin - 1) {
                out.recycle.push(piece.frame);
            }
        }
        self.tell_peer_closed(current, now);
        true
    }

    /// Tells the service that the peer has said all, once all of it was taken.
    fn tell_peer_closed(&mut self, current: &mut Current, now: Instant) {
        if !current.tcb.state().peer_has_closed() || self.held_bytes(current) > 0 {
            return;
        }
        let id = current.id();
        self.application.on_peer_closed(id, &mut current.memo, now);
    }

    #[inline(always)]
    fn offer(&mut self, current: &mut Current, text: &[u8], now: Instant) -> Offered {
        let id = current.id();
        match self.application.on_data(id, &mut current.memo, text, now) {
            Taken::Bytes(bytes) => Offered::Taken(bytes.min(text.len()) as u16),
            Taken::Echo if current.tcb.state().may_send() => Offered::Echo,
            // Our FIN is out: nothing can follow it.
            Taken::Echo => Offered::Taken(text.len() as u16),
        }
    }

    /// Text in order with nothing before it that the service has not taken: straight to the service.
    #[inline(always)]
    fn receive_in_order(
        &mut self,
        current: &mut Current,
        text: Text,
        text_start: u16,
        frame: Frame,
        now: Instant,
        out: &mut Outbox,
    ) -> Received {
        let start = text_start + text.skip;
        let bytes = &frame[usize::from(start)..][..usize::from(text.len)];
        match self.offer(current, bytes, now) {
            Offered::Taken(taken) if mostly(taken == text.len) => {
                self.counters.in_bytes.add(u64::from(taken));
                current.tcb.receive(u32::from(taken), now.millis());
                Received { frame: Some(frame), must_acknowledge: false, fate: Fate::Absorbed }
            }
            Offered::Taken(taken) => {
                self.counters.in_bytes.add(u64::from(taken));
                current.tcb.receive(u32::from(taken), now.millis());
                let rest =
                    Text { seq: text.seq + u32::from(taken), skip: text.skip + taken, len: text.len - taken };
                self.hold(current, rest, text_start, frame, out)
            }
            Offered::Echo => {
                let piece = Piece { frame, seq: text.seq, start, len: text.len };
                match self.keep(current, piece) {
                    Ok(()) => {
                        current.tcb.receive(u32::from(text.len), now.millis());
                        Received { frame: None, must_acknowledge: false, fate: Fate::Absorbed }
                    }
                    Err(piece) => self.hold(current, text, text_start, piece.frame, out),
                }
            }
        }
    }

    /// Keeps text that goes back to the peer, unless enough of it waits already.
    fn keep(&mut self, current: &mut Current, piece: Piece) -> Result<(), Piece> {
        let Some(number) = self.attach_record(current) else { return Err(piece) };
        let (record, pieces) = self.records.split(number);
        let len = u32::from(piece.len);
        if record.kept.is_full() || record.kept_bytes + len > RECEIVE_WINDOW {
            return Err(piece);
        }
        pieces.push(&mut record.kept, piece)?;
        record.kept_bytes += len;
        self.counters.in_bytes.add(u64::from(len));
        Ok(())
    }

    /// Keeps text for later: it came out of order, or the service does not take it yet.
    fn hold(
        &mut self,
        current: &mut Current,
        text: Text,
        text_start: u16,
        frame: Frame,
        out: &mut Outbox,
    ) -> Received {
        let no_room = |frame| Received {
            frame: Some(frame),
            must_acknowledge: true,
            fate: Fate::Dropped(DropReason::TextNoRoom),
        };
        let Some(number) = self.attach_record(current) else { return no_room(frame) };
        let (record, pieces) = self.records.split(number);
        let in_order = text.seq == current.tcb.rcv_nxt();
        if record.held.is_full() || pieces.is_exhausted() {
            // What is next goes before what is ahead of a hole, or the hole would never be filled.
            let ahead = if in_order { pieces.pop_last_after(&mut record.held, text.seq) } else { None };
            let Some(ahead) = ahead else { return no_room(frame) };
            out.recycle.push(ahead.frame);
        }
        let piece = Piece { frame, seq: text.seq, start: text_start + text.skip, len: text.len };
        record.latest = text.seq;
        if let Err(piece) = pieces.insert(&mut record.held, piece) {
            self.counters.in_duplicates.add(1);
            return Received { frame: Some(piece.frame), must_acknowledge: true, fate: Fate::Absorbed };
        }
        if !in_order {
            self.counters.in_out_of_order.add(1);
        }
        Received { frame: None, must_acknowledge: true, fate: Fate::Absorbed }
    }

    /// Counts held text as received as far as it is in order by now. Whether the peer should hear at once: a hole was filled,
    /// or one is left (RFC 5681 section 4.2).
    fn join_held(&mut self, current: &mut Current, number: u32, now: Instant) -> bool {
        let tcb = &mut current.tcb;
        let (record, pieces) = self.records.split(number);
        if record.held.is_empty() {
            return false;
        }
        let mut nxt = tcb.rcv_nxt();
        for piece in pieces.iter(&record.held) {
            if piece.seq.after(nxt) {
                break;
            }
            if piece.end().after(nxt) {
                nxt = piece.end();
            }
        }
        let bytes = nxt - tcb.rcv_nxt();
        if bytes > 0 {
            record.transfer.held_bytes += bytes;
            tcb.receive(bytes, now.millis());
        }
        true
    }

    /// Offers held text that is in order to the service; whether the peer should hear of the room that made.
    fn offer_held(&mut self, current: &mut Current, number: u32, now: Instant, out: &mut Outbox) -> bool {
        if self.records.get(number).held.is_empty() {
            return false;
        }
        loop {
            let (record, pieces) = self.records.split(number);
            let tcb = &current.tcb;
            let delivered =
                tcb.rcv_nxt() - u32::from(tcb.state().peer_has_closed()) - record.transfer.held_bytes;
            let Some(front) = pieces.front(&record.held) else { break };
            if front.seq.after(delivered) || (record.transfer.held_bytes == 0 && front.seq == delivered) {
                break;
            }
            if front.end().at_or_before(delivered) {
                // Overlap: received twice in part, and all of it delivered since.
                out.recycle.extend(pieces.pop(&mut record.held).map(|piece| piece.frame));
                continue;
            }
            let overlap = (delivered - front.seq) as u16;
            front.trim(overlap);
            let Some(mut piece) = pieces.pop(&mut record.held) else { break };
            let len = piece.len;
            let taken = match self.offer(current, piece.text(), now) {
                Offered::Taken(taken) => {
                    self.counters.in_bytes.add(u64::from(taken));
                    piece.trim(taken);
                    if piece.len == 0 {
                        out.recycle.push(piece.frame);
                    } else {
                        self.hold_again(number, piece, out);
                    }
                    taken
                }
                Offered::Echo => match self.keep(current, piece) {
                    Ok(()) => len,
                    Err(piece) => {
                        self.hold_again(number, piece, out);
                        0
                    }
                },
            };
            self.records.get_mut(number).transfer.held_bytes -= u32::from(taken);
            if taken < len {
                break;
            }
        }
        self.tell_peer_closed(current, now);
        let tcb = &current.tcb;
        tcb.owes_window_update(&self.records.get(number).transfer)
    }

    /// Text just taken from the front goes back there.
    fn hold_again(&mut self, number: u32, piece: Piece, out: &mut Outbox) {
        let (record, pieces) = self.records.split(number);
        if let Err(piece) = pieces.insert(&mut record.held, piece) {
            // Covered by the next piece: that one is as good.
            out.recycle.push(piece.frame);
        }
    }
}
