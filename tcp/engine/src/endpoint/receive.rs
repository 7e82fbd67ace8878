//! The receiving half: text goes to the service in order, and frames are kept for later.

use super::application::Application;
use super::connection::Current;
use super::core::Endpoint;
use super::outbox::Outbox;
use super::records::Piece;
use super::work::{Fate, Work};
use crate::device::Frame;
use crate::hint::{mostly, seldom};
use crate::proto::{Arrival, Environment, FinArrival, RECEIVE_WINDOW, SeqNum, Text};
use crate::service::Taken;
use crate::stats::DropReason;
use crate::time::Instant;

/// The outcome for a segment's text.
pub(super) struct Received {
    /// The frame, unless it is kept.
    pub(super) frame: Option<Frame>,
    /// Must the acknowledgement go at once, and not after the burst?
    pub(super) must_acknowledge: bool,
    pub(super) fate: Fate,
}

impl Received {
    const fn absorbed(frame: Option<Frame>, must_acknowledge: bool) -> Self {
        Self { frame, must_acknowledge, fate: Fate::Absorbed }
    }
}

/// The service's answer to text.
enum Offered {
    /// It has taken so many bytes.
    Taken(u16),
    /// It echoes all of it: the frame is kept.
    Echo,
}

impl<A: Application> Endpoint<A> {
    /// Does the connection keep text that the service has not taken, in order or not?
    pub(super) fn has_held_text(&self, current: &Current) -> bool {
        current.tcb.transfer().is_some_and(|number| !self.records.get(number).held.is_empty())
    }

    /// Returns how many bytes received in order the service has not taken.
    pub(super) fn held_bytes(&self, current: &Current) -> u32 {
        let transfer = current.tcb.transfer();
        transfer.map_or(0, |number| self.records.get(number).transfer.held_bytes)
    }

    /// Handles the acknowledgement of `acked` bytes of our stream.
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

    /// Returns the number of the connection's transfer record, a new one if it has none; `None` when the pool is empty.
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

    /// Gives the transfer record back when it holds nothing. While there are plenty, an open connection keeps its congestion window.
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
            // Text in order waits only behind text that the service has not taken.
            Some(text) if mostly(text.seq == current.tcb.rcv_nxt() && self.held_bytes(current) == 0) => {
                self.receive_in_order(current, text, start, frame, now, out)
            }
            Some(text) => self.hold(current, text, start, frame, out),
            None => Received::absorbed(Some(frame), false),
        };
        let mut fin = arrival.fin;
        if let Some(number) = current.tcb.transfer() {
            if arrival.text.is_some() {
                received.must_acknowledge |= self.join_held(current, number, now);
            }
            received.must_acknowledge |= self.offer_held(current, number, now, out);
            fin = fin.or(self.records.get(number).transfer.early_fin);
        }
        // A FIN is acknowledged each time it arrives. While it waits behind missing text, other segments bring no acknowledgement for it.
        received.must_acknowledge |= arrival.fin.is_some();
        if let Some(fin) = fin {
            received.must_acknowledge |= self.receive_fin(current, fin, now, out);
        }
        received
    }

    /// Receives a FIN if its turn has come. Returns whether it has.
    fn receive_fin(&mut self, current: &mut Current, fin: SeqNum, now: Instant, out: &mut Outbox) -> bool {
        // Both families have the same time.
        let [Environment { time_wait_ms, .. }, _] = self.environments;
        if current.tcb.state().may_receive() && seldom(fin.after(current.tcb.rcv_nxt())) {
            self.attach_record(current);
        }
        let arrival = self.records.tcp(&mut current.tcb).receive_fin(fin, time_wait_ms, now.millis());
        if arrival != FinArrival::Received {
            return false;
        }
        if let Some(number) = current.tcb.transfer() {
            let (record, pieces) = self.records.split(number);
            // Text behind a FIN is a lie.
            while let Some(piece) = pieces.pop_last_after(&mut record.held, fin - 1) {
                out.recycle.push(piece.frame);
            }
        }
        self.tell_peer_closed(current, now);
        true
    }

    /// Reports to the service that the peer's stream is complete, once the service has taken all of it.
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

    /// Offers text to the service that is next in order.
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
            Offered::Taken(taken) => {
                self.counters.in_bytes.add(u64::from(taken));
                current.tcb.receive(u32::from(taken), now.millis());
                if mostly(taken == text.len) {
                    return Received::absorbed(Some(frame), false);
                }
                let rest =
                    Text { seq: text.seq + u32::from(taken), skip: text.skip + taken, len: text.len - taken };
                self.hold(current, rest, text_start, frame, out)
            }
            Offered::Echo => {
                let piece = Piece { frame, seq: text.seq, start, len: text.len };
                match self.keep(current, piece) {
                    Ok(()) => {
                        current.tcb.receive(u32::from(text.len), now.millis());
                        Received::absorbed(None, false)
                    }
                    Err(piece) => self.hold(current, text, text_start, piece.frame, out),
                }
            }
        }
    }

    /// Keeps text that the service echoes, unless enough of it waits already.
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

    /// Keeps text for later: it is out of order, or the service does not take it yet.
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
            // Text in order replaces text behind a hole: otherwise nothing would ever fill the hole.
            let ahead = if in_order { pieces.pop_last_after(&mut record.held, text.seq) } else { None };
            let Some(ahead) = ahead else { return no_room(frame) };
            out.recycle.push(ahead.frame);
        }
        let piece = Piece { frame, seq: text.seq, start: text_start + text.skip, len: text.len };
        record.latest = text.seq;
        if let Err(piece) = pieces.insert(&mut record.held, piece) {
            self.counters.in_duplicates.add(1);
            return Received::absorbed(Some(piece.frame), true);
        }
        if !in_order {
            self.counters.in_out_of_order.add(1);
        }
        Received::absorbed(None, true)
    }

    /// Counts held text as received as far as it is in order by now. Returns whether the acknowledgement must go at once: a hole was
    /// filled, or one is left (RFC 5681 section 4.2).
    fn join_held(&mut self, current: &mut Current, number: u32, now: Instant) -> bool {
        let (record, pieces) = self.records.split(number);
        if record.held.is_empty() {
            return false;
        }
        let mut nxt = current.tcb.rcv_nxt();
        for piece in pieces.iter(&record.held) {
            if piece.seq.after(nxt) {
                break;
            }
            if piece.end().after(nxt) {
                nxt = piece.end();
            }
        }
        let bytes = nxt - current.tcb.rcv_nxt();
        self.records.tcp(&mut current.tcb).receive_held(bytes, now.millis());
        true
    }

    /// Offers held text in order to the service. Returns whether the peer should know of the room that this made.
    fn offer_held(&mut self, current: &mut Current, number: u32, now: Instant, out: &mut Outbox) -> bool {
        if self.records.get(number).held.is_empty() {
            return false;
        }
        loop {
            let undelivered = self.records.tcp(&mut current.tcb).undelivered();
            let (record, pieces) = self.records.split(number);
            let Some(front) = pieces.front(&record.held) else { break };
            if front.seq.after(undelivered) || (record.transfer.held_bytes == 0 && front.seq == undelivered) {
                break;
            }
            if front.end().at_or_before(undelivered) {
                // An overlap: the service has taken these bytes from other pieces.
                out.recycle.extend(pieces.pop(&mut record.held).map(|piece| piece.frame));
                continue;
            }
            let overlap = (undelivered - front.seq) as u16;
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
            self.records.tcp(&mut current.tcb).delivered(taken.into());
            if taken < len {
                break;
            }
        }
        self.tell_peer_closed(current, now);
        self.records.tcp(&mut current.tcb).owes_window_update()
    }

    /// Puts a piece back to the front.
    fn hold_again(&mut self, number: u32, piece: Piece, out: &mut Outbox) {
        let (record, pieces) = self.records.split(number);
        if let Err(piece) = pieces.insert(&mut record.held, piece) {
            // The next piece covers it.
            out.recycle.push(piece.frame);
        }
    }
}
