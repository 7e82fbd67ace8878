//! What a connection sends next, and how every header of it looks. Knows the control block and the stream's length; never its
//! bytes.

use std::hint::cold_path;

use super::{Flag, RECEIVE_SCALE, State, Tcb};
use crate::hint::seldom;
use crate::proto::transfer::{INITIAL_WINDOW_SEGMENTS, Recovery};
use crate::proto::{Flags, Options, Segment, SeqNum, Timestamps, Transfer, WireWindow};
use crate::time::Millis;

/// A segment to be sent: where its text comes from, and its header less what every segment says alike.
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
    /// Was it sent before?
    pub again: bool,
}

/// What the user has for the connection to send, counted from SND.UNA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Bytes ready, those that are out included.
    pub bytes: u64,
    /// Does FIN follow them?
    pub fin: bool,
}

impl Tcb {
    /// A header around `outgoing`: acknowledgement, window and options as every segment of the connection carries them. A SYN asks for
    /// `local_mss`.
    #[must_use]
    #[inline(always)]
    pub fn segment(
        &self,
        outgoing: &Outgoing,
        transfer: Option<&mut Transfer>,
        local_mss: impl FnOnce() -> u16,
        now: Millis,
    ) -> Segment {
        let syn = outgoing.flags.has(Flags::SYN);
        let offers_all = syn && !outgoing.flags.has(Flags::ACK);
        let timestamps = (offers_all || self.flag(Flag::Timestamps))
            .then_some(Timestamps { value: now.0, echo: if offers_all { 0 } else { self.ts_recent } });
        let window = self.rcv_wnd(transfer.as_deref());
        let scale = if !syn && self.flag(Flag::WindowScale) { RECEIVE_SCALE } else { 0 };
        if let Some(transfer) = transfer {
            cold_path();
            transfer.advertised = window;
        }
        let mut segment = Segment {
            seq: outgoing.seq,
            ack: if outgoing.flags.has(Flags::ACK) { self.rcv_nxt } else { SeqNum(0) },
            flags: outgoing.flags,
            window: WireWindow((window >> scale).min(0xffff) as u16),
            urgent: 0,
            text_len: outgoing.text_len,
            options: Options { timestamps, ..Options::NONE },
        };
        if syn {
            let options = &mut segment.options;
            options.mss = Some(local_mss());
            options.window_scale = (offers_all || self.flag(Flag::WindowScale)).then_some(RECEIVE_SCALE);
            options.sack_permitted = offers_all || self.flag(Flag::Sack);
        }
        segment
    }

    /// An acknowledgement and nothing else.
    #[must_use]
    pub const fn bare_ack(&self) -> Outgoing {
        Outgoing { seq: self.snd_nxt, flags: Flags::ACK, text_at: 0, text_len: 0, again: false }
    }

    /// The SYN or SYN,ACK of the handshake.
    #[must_use]
    pub fn handshake(&self) -> Outgoing {
        let flags = if self.state() == State::SynSent { Flags::SYN } else { Flags::SYN.with(Flags::ACK) };
        Outgoing { seq: self.snd_una, flags, text_at: 0, text_len: 0, again: self.backoff() > 0 }
    }

    /// Linux's zero-window probe: a number that is already acknowledged, so that the peer answers with its window.
    #[must_use]
    pub fn probe(&self) -> Outgoing {
        Outgoing { seq: self.snd_una - 1, flags: Flags::ACK, text_at: 0, text_len: 0, again: false }
    }

    /// An RST of our own accord, RFC 9293 section 3.10.5.
    #[must_use]
    pub fn reset(&self) -> Outgoing {
        Outgoing {
            seq: self.snd_nxt,
            flags: Flags::RST.with(Flags::ACK),
            text_at: 0,
            text_len: 0,
            again: false,
        }
    }

    /// Bytes of text that may be out at once: the peer's window and the network's.
    #[inline]
    fn send_limit(&self, transfer: Option<&Transfer>) -> u32 {
        let mss = u32::from(self.mss);
        let allowance = match transfer {
            None => INITIAL_WINDOW_SEGMENTS * mss,
            Some(transfer) => {
                cold_path();
                transfer.allowance(mss)
            }
        };
        allowance.min(self.snd_wnd())
    }

    /// Would the stream be held back only because there is no transfer record to grow a window in?
    #[must_use]
    pub fn wants_transfer(&self, stream: Stream) -> bool {
        self.transfer().is_none() && stream.bytes > u64::from(INITIAL_WINDOW_SEGMENTS * u32::from(self.mss))
    }

    /// The next segment of the stream that may be sent now, retransmissions first; `None` when there is nothing or no room.
    /// Advances SND.NXT, moves the state when FIN goes out, and runs the timers. Every segment carries the acknowledgement.
    #[inline(always)]
    pub fn poll_segment(
        &mut self,
        transfer: Option<&mut Transfer>,
        stream: Stream,
        now: Millis,
    ) -> Option<Outgoing> {
        let state = self.state();
        if seldom(!state.may_send() && !state.fin_is_out()) {
            return None;
        }
        if seldom(self.flag(Flag::Resend)) {
            self.set_flag(Flag::Resend, false);
            if self.flight() > 0 {
                return Some(self.cut(0, u32::from(self.mss), stream, true));
            }
        }
        if let Some(transfer) = transfer {
            cold_path();
            if let Recovery::Timeout { recover, next } = transfer.recovery
                && next.before(recover)
            {
                return self.poll_timeout_recovery(transfer, recover, next, stream);
            }
            return self.poll_new(Some(transfer), stream, now);
        }
        self.poll_new(None, stream, now)
    }

    /// What was out when the timer ran out goes again, as fast as slow start lets it.
    fn poll_timeout_recovery(
        &mut self,
        transfer: &mut Transfer,
        recover: SeqNum,
        next: SeqNum,
        stream: Stream,
    ) -> Option<Outgoing> {
        let next = if next.before(self.snd_una) { self.snd_una } else { next };
        let at = next - self.snd_una;
        let room = self.send_limit(Some(transfer)).max(1).saturating_sub(at);
        if room == 0 || (at > 0 && room < u32::from(self.mss)) {
            return None;
        }
        let outgoing = self.cut(at, room, stream, true);
        let sent = u32::from(outgoing.text_len) + u32::from(outgoing.flags.has(Flags::FIN));
        if sent == 0 {
            // The stream is shorter than what was sent: its service broke its word. Nothing is left to repeat.
            transfer.recovery = Recovery::Timeout { recover, next: recover };
            return None;
        }
        transfer.recovery = Recovery::Timeout { recover, next: next + sent };
        Some(outgoing)
    }

    /// Data never sent before, and FIN after the last of it.
    #[inline(always)]
    fn poll_new(&mut self, transfer: Option<&Transfer>, stream: Stream, now: Millis) -> Option<Outgoing> {
        if !self.state().may_send() {
            return None;
        }
        let flight = self.flight();
        let waiting = stream.bytes.saturating_sub(u64::from(flight));
        if waiting == 0 && !stream.fin {
            return None;
        }
        let limit = self.send_limit(transfer);
        let room = limit.saturating_sub(flight);
        if waiting > 0 {
            let whole = u64::from(self.mss).min(waiting) as u32;
            // Silly windows are avoided by waiting for room for a whole segment, unless nothing is out that could bring it.
            if seldom(room == 0 || (room < whole && flight > 0)) {
                if flight == 0 && self.snd_wnd() == 0 {
                    self.start_persist(transfer, now);
                }
                return None;
            }
        }
        let outgoing = self.cut(flight, room, stream, false);
        let fin = outgoing.flags.has(Flags::FIN);
        self.snd_nxt += u32::from(outgoing.text_len) + u32::from(fin);
        if fin {
            self.set_state(if self.state() == State::Established { State::FinWait1 } else { State::LastAck });
        }
        if flight == 0 {
            self.set_flag(Flag::Timed, true);
            self.set_backoff(0);
            self.start_retransmit(transfer, now);
        }
        Some(outgoing)
    }

    /// The segment that starts `at` bytes after SND.UNA, of at most `room` bytes and at most an MSS. What goes `again` carries
    /// what was out, FIN included, whatever the user has added since.
    #[inline]
    fn cut(&self, at: u32, room: u32, stream: Stream, again: bool) -> Outgoing {
        let out = u64::from(self.flight()) - u64::from(self.state().fin_is_out());
        let (bytes, fin) = if again { (out, self.state().fin_is_out()) } else { (stream.bytes, stream.fin) };
        let left = bytes.saturating_sub(u64::from(at));
        let text_len = u64::from(room.min(u32::from(self.mss))).min(left) as u16;
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
