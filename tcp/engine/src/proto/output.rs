//! Which segment a connection sends next, and its header. The text stays with the service: only lengths are here.

use std::hint::cold_path;

use super::tcb::{Flag, RECEIVE_SCALE, Tcb};
use super::tcp::Tcp;
use super::transfer::{INITIAL_WINDOW_SEGMENTS, Probe};
use super::{Flags, Options, Recovery, SackBlocks, Segment, SeqNum, State, Timestamps, WireWindow};
use crate::hint::seldom;
use crate::time::Millis;

/// A segment to be sent: where its text comes from, and what differs in its header from segment to segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// SEG.SEQ
    pub seq: SeqNum,
    /// Control bits.
    pub flags: Flags,
    /// Where the text starts in the stream, counted from SND.UNA.
    pub text_at: u32,
    /// Bytes of text.
    pub text_len: u16,
    /// Is this a retransmission?
    pub again: bool,
}

/// The user's stream, counted from SND.UNA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Bytes ready, those in flight included.
    pub bytes: u64,
    /// Does FIN follow them?
    pub fin: bool,
}

impl Outgoing {
    const fn bare(seq: SeqNum, flags: Flags) -> Self {
        Self { seq, flags, text_at: 0, text_len: 0, again: false }
    }
}

impl Tcb {
    /// Returns an acknowledgement and nothing else.
    #[must_use]
    pub const fn bare_ack(&self) -> Outgoing {
        Outgoing::bare(self.snd_nxt, Flags::ACK)
    }

    /// Returns the SYN or SYN,ACK of the handshake.
    #[must_use]
    pub fn handshake(&self) -> Outgoing {
        let flags = if self.state() == State::SynSent { Flags::SYN } else { Flags::SYN_ACK };
        Outgoing { again: self.backoff() > 0, ..Outgoing::bare(self.snd_una, flags) }
    }

    /// Returns Linux's zero-window probe: a number that is already acknowledged, so that the peer answers with its window.
    #[must_use]
    pub fn probe(&self) -> Outgoing {
        Outgoing::bare(self.snd_una - 1, Flags::ACK)
    }

    /// Returns the RST of an abort, RFC 9293 section 3.10.5.
    #[must_use]
    pub fn reset(&self) -> Outgoing {
        Outgoing::bare(self.snd_nxt, Flags::RST_ACK)
    }

    /// Returns the segment that starts `at` bytes after SND.UNA, of at most `room` bytes and at most an MSS. A retransmission
    /// (`again`) carries what was sent before, FIN included, whatever the user has added since.
    #[inline]
    fn cut(&self, at: u32, room: u32, stream: Stream, again: bool) -> Outgoing {
        let fin_is_out = self.state().fin_is_out();
        let out = u64::from(self.flight()) - u64::from(fin_is_out);
        let (bytes, fin) = if again { (out, fin_is_out) } else { (stream.bytes, stream.fin) };
        let left = bytes.saturating_sub(u64::from(at));
        let text_len = u64::from(room.min(u32::from(self.mss()))).min(left) as u16;
        let last = u64::from(text_len) == left;
        let mut flags = Flags::ACK;
        if text_len > 0 && last {
            flags = flags.with(Flags::PSH);
        }
        if fin && last {
            flags = flags.with(Flags::FIN);
        }
        Outgoing { seq: self.snd_una + at, flags, text_at: at, text_len, again }
    }
}

impl Tcp<'_> {
    /// Returns the header around `outgoing`, with acknowledgement, window and options. A SYN offers `local_mss`. `sack` returns
    /// the blocks received out of order; only an acknowledgement without text has room for them.
    #[must_use]
    #[inline(always)]
    pub fn segment(
        &mut self,
        outgoing: &Outgoing,
        local_mss: impl FnOnce() -> u16,
        sack: impl FnOnce() -> SackBlocks,
        now: Millis,
    ) -> Segment {
        let window = self.rcv_wnd();
        let tcb = &*self.tcb;
        let syn = outgoing.flags.has(Flags::SYN);
        let offers_all = syn && !outgoing.flags.has(Flags::ACK);
        let timestamps = (offers_all || tcb.flag(Flag::Timestamps))
            .then_some(Timestamps { value: now.0, echo: if offers_all { 0 } else { tcb.ts_recent } });
        let scale = if !syn && tcb.flag(Flag::WindowScale) { RECEIVE_SCALE } else { 0 };
        let mut segment = Segment {
            seq: outgoing.seq,
            ack: if outgoing.flags.has(Flags::ACK) { tcb.rcv_nxt } else { SeqNum(0) },
            flags: outgoing.flags,
            window: WireWindow((window >> scale).min(0xffff) as u16),
            text_len: outgoing.text_len,
            options: Options { timestamps, ..Options::NONE },
        };
        if syn {
            let options = &mut segment.options;
            options.mss = Some(local_mss());
            options.window_scale = (offers_all || tcb.flag(Flag::WindowScale)).then_some(RECEIVE_SCALE);
            options.sack_permitted = offers_all || tcb.flag(Flag::Sack);
        }
        if let Some(transfer) = &mut self.transfer {
            cold_path();
            transfer.advertised = window;
            transfer.retransmissions += u32::from(outgoing.again);
            if tcb.flag(Flag::Sack) && outgoing.text_len == 0 {
                segment.options.sack = sack();
            }
        }
        segment
    }

    /// Returns how many bytes of text may be in flight without SACK: the smaller of the peer's window and the congestion window.
    #[inline]
    fn send_limit(&self) -> u32 {
        let mss = u32::from(self.tcb.mss());
        let allowance = match &self.transfer {
            None => INITIAL_WINDOW_SEGMENTS * mss,
            Some(transfer) => {
                cold_path();
                transfer.allowance(mss)
            }
        };
        allowance.min(self.tcb.snd_wnd())
    }

    /// Returns how many bytes of new text the peer's window and the congestion window allow. After a pause, the congestion window shrinks
    /// first.
    #[inline]
    fn room(&mut self, now: Millis) -> u32 {
        let (flight, mss) = (self.tcb.flight(), u32::from(self.tcb.mss()));
        let window = self.tcb.snd_wnd().saturating_sub(flight);
        let allowed = match &mut self.transfer {
            None => (INITIAL_WINDOW_SEGMENTS * mss).saturating_sub(flight),
            Some(transfer) => {
                cold_path();
                transfer.before_new(flight, mss, now);
                transfer.allowance(mss).saturating_sub(transfer.pipe(self.tcb.snd_una(), flight, mss))
            }
        };
        allowed.min(window)
    }

    /// Does only the lack of a transfer record, and of a congestion window that grows, hold the stream back?
    #[must_use]
    #[inline]
    pub fn wants_transfer(&self, stream: Stream) -> bool {
        self.transfer.is_none()
            && stream.bytes > u64::from(INITIAL_WINDOW_SEGMENTS * u32::from(self.tcb.mss()))
    }

    /// Is there text or a FIN that was never sent, or a repair that is not complete?
    #[must_use]
    #[inline]
    pub fn may_send_more(&self, stream: Stream) -> bool {
        let tcb = &*self.tcb;
        self.repairs() || (tcb.state().may_send() && (stream.bytes > u64::from(tcb.flight()) || stream.fin))
    }

    /// Returns the next segment of the stream that may be sent now, retransmissions first; `None` when nothing waits or
    /// nothing may be sent. Advances SND.NXT, changes the state when FIN goes out, and runs the timers.
    #[inline(always)]
    pub fn poll_segment(&mut self, stream: Stream, now: Millis) -> Option<Outgoing> {
        let state = self.tcb.state();
        if seldom(!state.may_send() && !state.fin_is_out()) {
            return None;
        }
        if seldom(self.tcb.flag(Flag::Resend)) {
            self.tcb.set_flag(Flag::Resend, false);
            if self.tcb.flight() > 0 {
                return Some(self.tcb.cut(0, u32::from(self.tcb.mss()), stream, true));
            }
        }
        if let Some(transfer) = &self.transfer {
            cold_path();
            if let Some(next) = transfer.repair_after_timeout() {
                return self.reborrow().poll_timeout_recovery(next, stream);
            }
            let (flight, mss) = (self.tcb.flight(), u32::from(self.tcb.mss()));
            if transfer.probe == Probe::Due {
                let new = if transfer.recovery == Recovery::Open { self.poll_new(stream, now) } else { None };
                return new.or_else(|| self.reborrow().poll_probe(stream));
            }
            if let Some(lost) = transfer.next_lost(flight, mss) {
                return self.reborrow().poll_lost(lost, stream);
            }
        }
        self.poll_new(stream, now)
    }

    /// Returns the retransmission of these lost numbers, if the congestion window allows it.
    fn poll_lost(self, lost: (SeqNum, u32), stream: Stream) -> Option<Outgoing> {
        let (una, flight, mss) = (self.tcb.snd_una(), self.tcb.flight(), u32::from(self.tcb.mss()));
        let transfer = self.transfer.as_ref()?;
        let pipe = transfer.pipe(una, flight, mss);
        let room = transfer.congestion_window.saturating_sub(pipe);
        if pipe > 0 && room < lost.1.min(mss) {
            return None;
        }
        self.send_lost(lost, stream)
    }

    /// Returns the retransmission of these lost numbers, an MSS of them at most.
    fn send_lost(self, (at, len): (SeqNum, u32), stream: Stream) -> Option<Outgoing> {
        let transfer = self.transfer?;
        let outgoing = self.tcb.cut(at - self.tcb.snd_una(), len, stream, true);
        let sent = u32::from(outgoing.text_len) + u32::from(outgoing.flags.has(Flags::FIN));
        // A stream shorter than what was sent leaves nothing to repeat: its service broke its word.
        transfer.sent_again(at, sent, self.tcb.snd_nxt());
        (sent > 0).then_some(outgoing)
    }

    /// Returns a tail loss probe without new text: the first hole once more, or the last segment.
    fn poll_probe(mut self, stream: Stream) -> Option<Outgoing> {
        let (flight, mss) = (self.tcb.flight(), u32::from(self.tcb.mss()));
        let transfer = self.transfer.as_deref_mut()?;
        if flight == 0 {
            transfer.probe = Probe::None;
            return None;
        }
        transfer.probe = Probe::Sent { end: self.tcb.snd_nxt(), again: true };
        if let Some(first) = transfer.lose_first() {
            return self.send_lost(first, stream);
        }
        let text = flight - u32::from(self.tcb.state().fin_is_out());
        Some(self.tcb.cut(text.saturating_sub(mss), mss, stream, true))
    }

    /// Returns the next retransmission after a timeout: slow start sets the pace.
    fn poll_timeout_recovery(self, next: SeqNum, stream: Stream) -> Option<Outgoing> {
        let next = if next.before(self.tcb.snd_una) { self.tcb.snd_una } else { next };
        let at = next - self.tcb.snd_una;
        let room = self.send_limit().max(1).saturating_sub(at);
        if room == 0 || (at > 0 && room < u32::from(self.tcb.mss())) {
            return None;
        }
        let outgoing = self.tcb.cut(at, room, stream, true);
        let sent = u32::from(outgoing.text_len) + u32::from(outgoing.flags.has(Flags::FIN));
        // A stream shorter than what was sent leaves nothing to repeat: its service broke its word.
        self.transfer?.repaired_up_to((sent > 0).then(|| next + sent));
        (sent > 0).then_some(outgoing)
    }

    /// Returns text never sent before, and FIN after the last of it.
    #[inline(always)]
    fn poll_new(&mut self, stream: Stream, now: Millis) -> Option<Outgoing> {
        if !self.tcb.state().may_send() {
            return None;
        }
        let flight = self.tcb.flight();
        let waiting = stream.bytes.saturating_sub(u64::from(flight));
        if waiting == 0 && !stream.fin {
            return None;
        }
        let room = self.room(now);
        if waiting > 0 {
            let whole = u64::from(self.tcb.mss()).min(waiting) as u32;
            // Silly window avoidance: wait for room for a whole segment, unless nothing is in flight that could bring it.
            if seldom(room == 0 || (room < whole && flight > 0)) {
                if flight == 0 && self.tcb.snd_wnd() == 0 {
                    self.reborrow().start_persist(now);
                }
                if let Some(transfer) = &mut self.transfer
                    && self.tcb.snd_wnd().saturating_sub(flight) >= whole
                {
                    transfer.on_limited(self.tcb.snd_nxt());
                }
                return None;
            }
        }
        let outgoing = self.tcb.cut(flight, room, stream, false);
        let fin = outgoing.flags.has(Flags::FIN);
        self.tcb.snd_nxt += u32::from(outgoing.text_len) + u32::from(fin);
        if fin {
            self.tcb.state =
                if self.tcb.state() == State::Established { State::FinWait1 } else { State::LastAck };
        }
        if flight == 0 {
            self.tcb.set_flag(Flag::Timed, true);
            self.tcb.set_backoff(0);
            self.start_retransmit(now);
        }
        if self.transfer.is_some() {
            cold_path();
            self.reborrow().after_new(u32::from(outgoing.text_len), flight == 0, now);
        }
        Some(outgoing)
    }

    /// Notes in the transfer record that `len` numbers were sent for the first time, and starts the timer of a probe.
    fn after_new(mut self, len: u32, is_first: bool, now: Millis) {
        let nxt = self.tcb.snd_nxt();
        let Some(transfer) = &mut self.transfer else { return };
        transfer.sent_new(len, now);
        if transfer.probe == Probe::Due {
            transfer.probe = Probe::Sent { end: nxt, again: false };
        }
        if !is_first {
            self.start_probe(now);
        }
    }
}
