//! The transmission control block: RFC 9293 section 3.3.1's variables in half a cache line.

use super::{Rtt, Segment, SeqNum, State, Timer, Transfer, WireWindow};
use crate::hint::seldom;
use crate::time::Millis;

/// The receive window in bytes: what a peer may have out to us.
pub const RECEIVE_WINDOW: u32 = 65536;
/// The shift that we offer for our window (RFC 7323 section 2): Linux's usual one.
pub(super) const RECEIVE_SCALE: u8 = 7;
/// How long an acknowledgement may wait for a segment to ride on: Linux's TCP_DELACK_MIN. RFC 9293 section 3.8.6.3 allows 500 ms.
pub(super) const DELAYED_ACK_MS: u32 = 40;
/// How long FIN-WAIT-2 waits for the peer's FIN, or for text before it: Linux's tcp_fin_timeout.
pub(super) const FIN_WAIT_2_MS: u32 = 60_000;
/// Bytes of options in a segment with timestamps, padding included.
pub(super) const TIMESTAMPS_LEN: u16 = 12;
/// The MSS of a peer that names none, RFC 9293 section 3.7.1.
pub(super) const DEFAULT_MSS: u16 = 536;
/// The smallest MSS that we use, whatever the peer names: Linux's TCP_MIN_SND_MSS.
pub(super) const MIN_MSS: u16 = 48;

/// One bit each in [`Tcb`]'s flags.
#[derive(Clone, Copy)]
pub(super) enum Flag {
    /// Timestamps were negotiated, RFC 7323.
    Timestamps = 1,
    /// Window scaling was negotiated, RFC 7323.
    WindowScale = 2,
    /// The peer permits SACK, RFC 2018.
    Sack = 4,
    /// `rtt` is the number of a [`super::Transfer`] record.
    Transfer = 8,
    /// Received text is not acknowledged yet.
    AckPending = 16,
    /// The oldest number out started the retransmission timer and was sent once: the timer's running time is a round trip.
    Timed = 32,
    /// The first unacknowledged segment waits for its retransmission.
    Resend = 64,
    /// We sent the first SYN.
    Active = 128,
}

/// The control block. Packed (`Tcb::words`) it takes 32 bytes, half of a connection's line:
///
/// | bytes | what |
/// |---|---|
/// | 0-15 | SND.UNA, SND.NXT, RCV.NXT, TS.Recent |
/// | 16-23 | deadline in ms; round-trip times, or the number of the transfer record that holds them |
/// | 24-27 | SND.WND as on the wire; the most text a segment to the peer may carry |
/// | 28-31 | state and SND.WND's shift; back-off and timer; flags; a spare byte |
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcb {
    pub(super) snd_una: SeqNum,
    pub(super) snd_nxt: SeqNum,
    pub(super) rcv_nxt: SeqNum,
    pub(super) ts_recent: u32,
    deadline: Millis,
    pub(super) rtt: u32,
    pub(super) snd_wnd: WireWindow,
    mss: u16,
    pub(super) state: State,
    /// The shift of SND.WND, at most 14.
    snd_scale: u8,
    /// At most 15.
    backoff: u8,
    timer: Timer,
    flags: u8,
    /// A byte that TCP does not use: its owner may.
    pub spare: u8,
}

impl Tcb {
    /// Returns the block as four words, as a table keeps it where other threads read.
    #[inline]
    pub(crate) const fn words(&self) -> [u64; 4] {
        let state = self.state as u8 | self.snd_scale << 4;
        let timer = self.backoff | (self.timer as u8) << 4;
        [
            self.snd_una.0 as u64 | (self.snd_nxt.0 as u64) << 32,
            self.rcv_nxt.0 as u64 | (self.ts_recent as u64) << 32,
            self.deadline.0 as u64 | (self.rtt as u64) << 32,
            self.snd_wnd.0 as u64
                | (self.mss as u64) << 16
                | (state as u64) << 32
                | (timer as u64) << 40
                | (self.flags as u64) << 48
                | (self.spare as u64) << 56,
        ]
    }

    /// Returns the block that [`Tcb::words`] packed.
    #[inline]
    pub(crate) const fn from_words([send, receive, time, rest]: [u64; 4]) -> Self {
        Self {
            snd_una: SeqNum(send as u32),
            snd_nxt: SeqNum((send >> 32) as u32),
            rcv_nxt: SeqNum(receive as u32),
            ts_recent: (receive >> 32) as u32,
            deadline: Millis(time as u32),
            rtt: (time >> 32) as u32,
            snd_wnd: WireWindow(rest as u16),
            mss: (rest >> 16) as u16,
            state: State::from_number((rest >> 32) as u8 & 15),
            snd_scale: (rest >> 36) as u8 & 15,
            backoff: (rest >> 40) as u8 & 15,
            timer: Timer::from_number((rest >> 44) as u8 & 15),
            flags: (rest >> 48) as u8,
            spare: (rest >> 56) as u8,
        }
    }

    /// Returns the state, the timer and the owner's byte from the last of [`Tcb::words`].
    #[inline]
    pub(crate) const fn peek(rest: u64) -> (State, Timer, u8) {
        let (state, timer) = ((rest >> 32) as u8 & 15, (rest >> 44) as u8 & 15);
        (State::from_number(state), Timer::from_number(timer), (rest >> 56) as u8)
    }

    /// Returns the last of [`Tcb::words`] with another owner's byte.
    #[inline]
    pub(crate) const fn with_spare(rest: u64, spare: u8) -> u64 {
        rest & (u64::MAX >> 8) | (spare as u64) << 56
    }

    /// Returns the deadline of [`Tcb::timer`] from the third of [`Tcb::words`].
    #[inline]
    pub(crate) const fn peek_deadline(time: u64) -> Millis {
        Millis(time as u32)
    }

    /// Returns a block with the numbers that a handshake starts with.
    pub(super) fn start(state: State, iss: SeqNum, flags: u8) -> Self {
        Self { snd_una: iss, snd_nxt: iss + 1, mss: DEFAULT_MSS, state, flags, ..Self::default() }
    }

    /// Returns the state.
    #[must_use]
    #[inline]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Returns SND.UNA.
    #[must_use]
    #[inline]
    pub const fn snd_una(&self) -> SeqNum {
        self.snd_una
    }

    /// Returns SND.NXT.
    #[must_use]
    #[inline]
    pub const fn snd_nxt(&self) -> SeqNum {
        self.snd_nxt
    }

    /// Returns RCV.NXT.
    #[must_use]
    #[inline]
    pub const fn rcv_nxt(&self) -> SeqNum {
        self.rcv_nxt
    }

    /// Returns SND.WND in bytes.
    #[must_use]
    #[inline]
    pub const fn snd_wnd(&self) -> u32 {
        self.snd_wnd.bytes(self.snd_scale)
    }

    /// Returns the shift of SND.WND in bits.
    #[inline]
    pub(crate) const fn snd_scale(&self) -> u8 {
        self.snd_scale
    }

    /// Returns how many numbers are sent and not acknowledged, SYN and FIN included.
    #[must_use]
    #[inline]
    pub fn flight(&self) -> u32 {
        self.snd_nxt - self.snd_una
    }

    /// Returns the most text in a segment to the peer, in bytes.
    #[must_use]
    #[inline]
    pub const fn mss(&self) -> u16 {
        self.mss
    }

    #[inline]
    pub(super) const fn flag(&self, flag: Flag) -> bool {
        self.flags & flag as u8 != 0
    }

    #[inline]
    pub(super) const fn set_flag(&mut self, flag: Flag, on: bool) {
        if on {
            self.flags |= flag as u8;
        } else {
            self.flags &= !(flag as u8);
        }
    }

    /// Were timestamps negotiated (RFC 7323)?
    #[inline]
    pub(crate) const fn uses_timestamps(&self) -> bool {
        self.flag(Flag::Timestamps)
    }

    /// Was window scaling negotiated (RFC 7323)?
    #[inline]
    pub(crate) const fn uses_window_scale(&self) -> bool {
        self.flag(Flag::WindowScale)
    }

    /// Does the peer permit SACK (RFC 2018)?
    #[inline]
    pub(crate) const fn permits_sack(&self) -> bool {
        self.flag(Flag::Sack)
    }

    /// Returns the round-trip times, none where a transfer record holds them.
    #[inline]
    pub(crate) const fn own_rtt(&self) -> Rtt {
        if self.flag(Flag::Transfer) { Rtt::NONE } else { Rtt::from_bits(self.rtt) }
    }

    /// Did we send the first SYN?
    #[must_use]
    #[inline]
    pub const fn is_active(&self) -> bool {
        self.flag(Flag::Active)
    }

    /// Is received text still unacknowledged?
    #[must_use]
    #[inline]
    pub const fn ack_is_pending(&self) -> bool {
        self.flag(Flag::AckPending)
    }

    /// Is received text unacknowledged that must not, or can no longer, wait for a segment to ride on?
    #[must_use]
    #[inline]
    pub const fn owes_ack(&self) -> bool {
        self.flag(Flag::AckPending) && !matches!(self.timer, Timer::DelayedAck)
    }

    /// Returns how many retransmissions in a row found no answer.
    #[must_use]
    #[inline]
    pub const fn backoff(&self) -> u8 {
        self.backoff
    }

    #[inline]
    pub(super) const fn set_backoff(&mut self, backoff: u8) {
        self.backoff = backoff & 15;
    }

    /// Returns the running timer and when it is due.
    #[must_use]
    #[inline]
    pub const fn timer(&self) -> (Timer, Millis) {
        (self.timer, self.deadline)
    }

    #[inline]
    pub(super) const fn set_timer(&mut self, timer: Timer, deadline: Millis) {
        self.timer = timer;
        self.deadline = deadline;
    }

    #[inline]
    pub(super) const fn clear_timer(&mut self) {
        self.timer = Timer::None;
    }

    /// Returns the number of the connection's transfer record, if it has one.
    #[must_use]
    #[inline]
    pub const fn transfer(&self) -> Option<u32> {
        // A connection with a record has so much work that the unlikely branch does not matter.
        if seldom(self.flag(Flag::Transfer)) { Some(self.rtt) } else { None }
    }

    /// Moves the round-trip times into a new transfer record and remembers its number.
    pub fn attach_transfer(&mut self, number: u32) -> Transfer {
        debug_assert!(self.transfer().is_none(), "a connection has one transfer record");
        let rtt = Rtt::from_bits(self.rtt);
        self.rtt = number;
        self.set_flag(Flag::Transfer, true);
        Transfer::new(rtt, u32::from(self.mss), self.snd_una, RECEIVE_WINDOW, self.flag(Flag::Sack))
    }

    /// Takes the round-trip times back: the record is free again.
    pub fn detach_transfer(&mut self, transfer: &Transfer) {
        self.set_flag(Flag::Transfer, false);
        self.rtt = transfer.rtt.to_bits();
    }

    /// Learns the options and the window of the peer's SYN. The window of a SYN is never scaled (RFC 7323 section 2.2).
    /// `local_mss` is the largest text that fits our MTU without options, in bytes.
    pub(super) fn learn(&mut self, seg: &Segment, local_mss: u16) {
        let mss = seg.options.mss.unwrap_or(DEFAULT_MSS).clamp(MIN_MSS, local_mss);
        self.set_flag(Flag::Timestamps, seg.options.timestamps.is_some());
        self.set_flag(Flag::WindowScale, seg.options.window_scale.is_some());
        self.set_flag(Flag::Sack, seg.options.sack_permitted);
        self.mss = if self.flag(Flag::Timestamps) { mss - TIMESTAMPS_LEN } else { mss };
        if let Some(timestamps) = seg.options.timestamps {
            self.ts_recent = timestamps.value;
        }
        let scale = seg.options.window_scale.unwrap_or(0).min(14);
        self.snd_scale = scale;
        // Rounded up: a window smaller than one unit of its scale is open.
        self.snd_wnd = WireWindow(u32::from(seg.window.0).div_ceil(1 << scale) as u16);
        self.rcv_nxt = seg.seq + 1;
    }

    /// Notes that a segment with the acknowledgement has gone out.
    #[inline]
    pub fn ack_sent(&mut self) {
        if self.flag(Flag::AckPending) {
            self.set_flag(Flag::AckPending, false);
            if seldom(self.timer == Timer::DelayedAck) {
                self.clear_timer();
            }
        }
    }
}
