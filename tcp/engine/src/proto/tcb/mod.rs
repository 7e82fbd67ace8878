//! The transmission control block: RFC 9293 section 3.3.1's variables in half a cache line. [`output`] says what it sends next.

mod output;

pub use output::{Outgoing, Stream};

use std::hint::cold_path;

use super::{Rtt, Segment, SeqNum, Transfer, WireWindow};
use crate::hint::seldom;
use crate::time::Millis;

/// The receive window in bytes: what a peer may have out to us.
pub const RECEIVE_WINDOW: u32 = 65536;
/// The shift we offer for our window (RFC 7323 section 2); Linux's usual one.
pub(super) const RECEIVE_SCALE: u8 = 7;
/// How long an acknowledgement may wait for company: Linux's TCP_DELACK_MIN; RFC 9293 section 3.8.6.3 allows 500 ms.
pub(super) const DELAYED_ACK_MS: u32 = 40;
/// How long FIN-WAIT-2 waits for the peer's FIN, or for text before it: Linux's tcp_fin_timeout.
pub(super) const FIN_WAIT_2_MS: u32 = 60_000;
/// Options of a segment with timestamps, padded.
pub(super) const TIMESTAMPS_LEN: u16 = 12;
/// What may be sent to a peer that named no MSS, RFC 9293 section 3.7.1.
pub(super) const DEFAULT_MSS: u16 = 536;
/// No segment is cut smaller than this, whatever MSS the peer names (Linux's TCP_MIN_SND_MSS).
pub(super) const MIN_MSS: u16 = 48;

/// A connection's state, RFC 9293 section 3.3.2. LISTEN is a listener's, not a connection's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// No connection: an unused record.
    #[default]
    Closed = 0,
    /// We have sent SYN.
    SynSent,
    /// SYN came, and our SYN,ACK is out.
    SynReceived,
    /// Open.
    Established,
    /// Our FIN is out.
    FinWait1,
    /// Our FIN is acknowledged.
    FinWait2,
    /// The peer's FIN has come.
    CloseWait,
    /// Both FINs are out; ours is not acknowledged.
    Closing,
    /// The peer's FIN came first, and ours is out.
    LastAck,
    /// Over, and still here to answer.
    TimeWait,
}

impl State {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Closed,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
    ];

    /// From its number; CLOSED for none that a state has.
    #[inline]
    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::SynSent,
            2 => Self::SynReceived,
            3 => Self::Established,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::CloseWait,
            7 => Self::Closing,
            8 => Self::LastAck,
            9 => Self::TimeWait,
            _ => Self::Closed,
        }
    }

    /// The RFC's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
        }
    }

    /// Is our FIN out and not yet acknowledged?
    #[must_use]
    #[inline]
    pub const fn fin_is_out(self) -> bool {
        matches!(self, Self::FinWait1 | Self::Closing | Self::LastAck)
    }

    /// Was our FIN sent, acknowledged or not?
    #[must_use]
    #[inline]
    pub const fn fin_was_sent(self) -> bool {
        self.fin_is_out() || self.fin_is_acked()
    }

    /// Is our FIN acknowledged, with the record still there?
    #[must_use]
    #[inline]
    pub const fn fin_is_acked(self) -> bool {
        matches!(self, Self::FinWait2 | Self::TimeWait)
    }

    /// May the service's stream be sent?
    #[must_use]
    #[inline]
    pub const fn may_send(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait)
    }

    /// Can the peer still send text?
    #[must_use]
    #[inline]
    pub const fn may_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }

    /// Has the peer's FIN been received, with all text before it?
    #[must_use]
    #[inline]
    pub const fn peer_has_closed(self) -> bool {
        matches!(self, Self::CloseWait | Self::Closing | Self::LastAck | Self::TimeWait)
    }

    /// Is the handshake still under way?
    #[must_use]
    #[inline]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived)
    }

    /// Is the peer told by RST when the connection is aborted? It knows of no connection before, and has closed it after
    /// (RFC 9293 section 3.10.5).
    #[must_use]
    #[inline]
    pub const fn aborts_with_rst(self) -> bool {
        matches!(
            self,
            Self::SynReceived | Self::Established | Self::FinWait1 | Self::FinWait2 | Self::CloseWait
        )
    }

    /// ESTABLISHED or CLOSE-WAIT: what RFC 4022's tcpCurrEstab counts.
    #[must_use]
    #[inline]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait)
    }
}

/// What is true of a state, so that a change of several things shows in one look.
impl State {
    /// [`State::is_half_open`], as a bit of [`State::traits`].
    pub(crate) const IS_HALF_OPEN: u8 = 1;
    /// [`State::is_open`]
    pub(crate) const IS_OPEN: u8 = 2;
    /// [`State::fin_was_sent`]
    pub(crate) const FIN_WAS_SENT: u8 = 4;
    /// [`State::fin_is_acked`]
    pub(crate) const FIN_IS_ACKED: u8 = 8;

    const TRAITS: [u8; Self::ALL.len()] = {
        let mut traits = [0; Self::ALL.len()];
        let mut number = 0;
        while number < traits.len() {
            let state = Self::ALL[number];
            traits[number] = (state.is_half_open() as u8 * Self::IS_HALF_OPEN)
                | (state.is_open() as u8 * Self::IS_OPEN)
                | (state.fin_was_sent() as u8 * Self::FIN_WAS_SENT)
                | (state.fin_is_acked() as u8 * Self::FIN_IS_ACKED);
            number += 1;
        }
        traits
    };

    /// What is true of it, a bit each.
    #[inline]
    pub(crate) const fn traits(self) -> u8 {
        Self::TRAITS[self as usize]
    }
}

/// What the connection's one deadline is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Timer {
    /// No deadline.
    #[default]
    None = 0,
    /// RFC 6298's retransmission timer; in SYN-SENT and SYN-RECEIVED too.
    Retransmit,
    /// RFC 9293 section 3.8.6.1: the peer's window is shut.
    Persist,
    /// RFC 9293 section 3.8.6.3. Runs only while nothing of ours is out, so that it never stands in the way of a retransmission.
    DelayedAck,
    /// 2 MSL in TIME-WAIT, or the wait for the peer's FIN in FIN-WAIT-2.
    Linger,
}

impl Timer {
    /// From its number; none for a number that no timer has.
    #[inline]
    const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Retransmit,
            2 => Self::Persist,
            3 => Self::DelayedAck,
            4 => Self::Linger,
            _ => Self::None,
        }
    }
}

/// One bit each in [`Tcb`]'s flags.
#[derive(Clone, Copy)]
pub(super) enum Flag {
    /// Timestamps were negotiated, RFC 7323.
    Timestamps = 1,
    /// Window scaling was negotiated, RFC 7323.
    WindowScale = 2,
    /// The peer permits SACK, RFC 2018.
    Sack = 4,
    /// `rtt` is the number of a [`Transfer`] record.
    Transfer = 8,
    /// Received text is not acknowledged yet.
    AckPending = 16,
    /// The retransmission timer was started by the oldest number out, sent once: its running time is a round trip.
    Timed = 32,
    /// The first unacknowledged segment must go again.
    Resend = 64,
    /// We sent the first SYN.
    Active = 128,
}

/// The control block. Packed it takes 32 bytes, half of a connection's line (`Tcb::words`):
///
/// | bytes | what |
/// |---|---|
/// | 0-15 | SND.UNA, SND.NXT, RCV.NXT, TS.Recent |
/// | 16-23 | deadline in ms; round-trip times, or the number of the transfer record that holds them |
/// | 24-27 | SND.WND as on the wire; the most text a segment to the peer may carry |
/// | 28-31 | state and SND.WND's shift; back-off and timer; flags; a byte to spare |
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcb {
    snd_una: SeqNum,
    snd_nxt: SeqNum,
    rcv_nxt: SeqNum,
    ts_recent: u32,
    deadline: Millis,
    rtt: u32,
    snd_wnd: WireWindow,
    mss: u16,
    state: State,
    /// Of SND.WND, at most 14.
    snd_scale: u8,
    /// At most 15.
    backoff: u8,
    timer: Timer,
    flags: u8,
    /// A byte that TCP has no use for: its owner's.
    pub spare: u8,
}

impl Tcb {
    /// The block as four words, for who keeps it where other threads read.
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

    /// The inverse of [`Tcb::words`].
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

    /// Of the last of the words: the state, and the owner's byte.
    #[inline]
    pub(crate) const fn peek(rest: u64) -> (State, u8) {
        (State::from_number((rest >> 32) as u8 & 15), (rest >> 56) as u8)
    }

    /// Takes the numbers that a handshake starts with.
    pub(super) fn start(state: State, iss: SeqNum, flags: u8) -> Self {
        let mut tcb = Self { snd_una: iss, snd_nxt: iss + 1, mss: DEFAULT_MSS, flags, ..Self::default() };
        tcb.set_state(state);
        tcb
    }

    /// The state.
    #[must_use]
    #[inline]
    pub const fn state(&self) -> State {
        self.state
    }

    #[inline]
    pub(super) const fn set_state(&mut self, state: State) {
        self.state = state;
    }

    /// SND.UNA
    #[must_use]
    #[inline]
    pub const fn snd_una(&self) -> SeqNum {
        self.snd_una
    }

    /// SND.NXT
    #[must_use]
    #[inline]
    pub const fn snd_nxt(&self) -> SeqNum {
        self.snd_nxt
    }

    /// RCV.NXT
    #[must_use]
    #[inline]
    pub const fn rcv_nxt(&self) -> SeqNum {
        self.rcv_nxt
    }

    #[inline]
    pub(super) const fn set_snd_una(&mut self, una: SeqNum) {
        self.snd_una = una;
    }

    #[inline]
    pub(super) const fn set_rcv_nxt(&mut self, nxt: SeqNum) {
        self.rcv_nxt = nxt;
    }

    /// TS.Recent, RFC 7323 section 4.3.
    #[inline]
    pub(super) const fn ts_recent(&self) -> u32 {
        self.ts_recent
    }

    #[inline]
    pub(super) const fn set_ts_recent(&mut self, value: u32) {
        self.ts_recent = value;
    }

    /// SND.WND in bytes.
    #[must_use]
    #[inline]
    pub const fn snd_wnd(&self) -> u32 {
        self.snd_wnd.bytes(self.snd_scale())
    }

    /// The shift of SND.WND, in bits.
    #[inline]
    pub(crate) const fn snd_scale(&self) -> u8 {
        self.snd_scale
    }

    #[inline]
    pub(super) const fn set_snd_wnd(&mut self, window: WireWindow) {
        self.snd_wnd = window;
    }

    /// Numbers that are out: sent and not acknowledged, SYN and FIN counted.
    #[must_use]
    #[inline]
    pub fn flight(&self) -> u32 {
        self.snd_nxt - self.snd_una
    }

    /// The most text in a segment to the peer, in bytes.
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

    /// May the peer be told of blocks received out of order (RFC 2018)?
    #[must_use]
    #[inline]
    pub const fn permits_sack(&self) -> bool {
        self.flag(Flag::Sack)
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

    /// The round-trip times, unless a transfer record has them.
    pub(crate) const fn own_rtt(&self) -> Rtt {
        if self.flag(Flag::Transfer) { Rtt::NONE } else { Rtt::from_bits(self.rtt) }
    }

    /// Did we send the first SYN?
    #[must_use]
    #[inline]
    pub const fn is_active(&self) -> bool {
        self.flag(Flag::Active)
    }

    /// Does the first unacknowledged segment wait to go again?
    #[must_use]
    #[inline]
    pub const fn wants_resend(&self) -> bool {
        self.flag(Flag::Resend)
    }

    /// Is received text still unacknowledged?
    #[must_use]
    #[inline]
    pub const fn ack_is_pending(&self) -> bool {
        self.flag(Flag::AckPending)
    }

    /// Is received text unacknowledged that may not, or no longer, wait for company?
    #[must_use]
    #[inline]
    pub const fn owes_ack(&self) -> bool {
        self.flag(Flag::AckPending) && !matches!(self.timer().0, Timer::DelayedAck)
    }

    /// Retransmissions in a row without an answer.
    #[must_use]
    #[inline]
    pub const fn backoff(&self) -> u8 {
        self.backoff
    }

    #[inline]
    pub(super) const fn set_backoff(&mut self, backoff: u8) {
        self.backoff = backoff & 15;
    }

    /// The running timer, and when it is due.
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
        self.set_timer(Timer::None, self.deadline);
    }

    /// The number of the connection's transfer record, if it has one.
    #[must_use]
    #[inline]
    pub const fn transfer(&self) -> Option<u32> {
        // What the others wait for, those with one have work enough not to notice.
        if seldom(self.flag(Flag::Transfer)) { Some(self.rtt) } else { None }
    }

    /// Moves the round-trip times out into a new transfer record, and remembers its number.
    pub fn attach_transfer(&mut self, number: u32) -> Transfer {
        debug_assert!(self.transfer().is_none(), "a connection has one transfer record");
        let rtt = Rtt::from_bits(self.rtt);
        self.rtt = number;
        self.set_flag(Flag::Transfer, true);
        Transfer::new(rtt, u32::from(self.mss), self.snd_una, RECEIVE_WINDOW)
    }

    /// Takes the round-trip times back; the record is free again.
    pub fn detach_transfer(&mut self, transfer: &Transfer) {
        self.set_flag(Flag::Transfer, false);
        self.rtt = transfer.rtt.to_bits();
    }

    pub(super) fn rtt(&self, transfer: Option<&Transfer>) -> Rtt {
        match transfer {
            None => Rtt::from_bits(self.rtt),
            Some(transfer) => {
                cold_path();
                transfer.rtt
            }
        }
    }

    /// RFC 6298 (5.7): after a lost SYN, and without a sample, the timeout of data starts at 3 s.
    pub(super) fn expect_slow_peer(&mut self) {
        self.rtt = Rtt::AFTER_LOST_SYN.to_bits();
    }

    pub(super) fn sample_rtt(&mut self, transfer: Option<&mut Transfer>, sample_ms: u32) {
        self.update_rtt(transfer, |rtt| rtt.sample(sample_ms));
    }

    /// Where no sample could be taken, the timeout stays as long as it has become.
    pub(super) fn keep_backoff(&mut self, transfer: Option<&mut Transfer>) {
        let backoff = self.backoff();
        self.update_rtt(transfer, |rtt| rtt.keep(backoff));
    }

    fn update_rtt(&mut self, transfer: Option<&mut Transfer>, update: impl FnOnce(&mut Rtt)) {
        if let Some(transfer) = transfer {
            cold_path();
            update(&mut transfer.rtt);
        } else {
            let mut rtt = Rtt::from_bits(self.rtt);
            update(&mut rtt);
            self.rtt = rtt.to_bits();
        }
    }

    /// RCV.WND in bytes.
    #[must_use]
    #[inline]
    pub fn rcv_wnd(&self, transfer: Option<&Transfer>) -> u32 {
        match transfer {
            None => RECEIVE_WINDOW,
            Some(transfer) => {
                cold_path();
                RECEIVE_WINDOW - transfer.held_bytes.min(RECEIVE_WINDOW)
            }
        }
    }

    /// Learns what a SYN says: its options against ours, its window (never scaled, RFC 7323 section 2.2).
    /// `local_mss` is the largest text that fits our side's MTU without options.
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
        // Rounded up: a window below the grain of its scale is not shut.
        self.snd_wnd = WireWindow(u32::from(seg.window.0).div_ceil(1 << scale) as u16);
        self.rcv_nxt = seg.seq + 1;
    }

    #[inline]
    pub(super) fn start_retransmit(&mut self, transfer: Option<&Transfer>, now: Millis) {
        let rto = self.rtt(transfer).rto_ms(self.backoff());
        self.set_timer(Timer::Retransmit, now + rto);
    }

    pub(super) fn start_persist(&mut self, transfer: Option<&Transfer>, now: Millis) {
        if self.timer().0 != Timer::Persist {
            self.set_backoff(0);
            let rto = self.rtt(transfer).rto_ms(0);
            self.set_timer(Timer::Persist, now + rto);
        }
    }

    /// A segment with the acknowledgement has gone out: none is owed any more.
    #[inline]
    pub fn ack_sent(&mut self) {
        if self.flag(Flag::AckPending) {
            self.set_flag(Flag::AckPending, false);
            if seldom(self.timer().0 == Timer::DelayedAck) {
                self.clear_timer();
            }
        }
    }
}
