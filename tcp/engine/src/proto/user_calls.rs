//! What the user may ask for, RFC 9293 section 3.10.1 to 3.10.5: OPEN in both roles, RECEIVE, and by [`Tcb::poll_segment`] SEND
//! and CLOSE.

use super::tcb::{DELAYED_ACK_MS, FIN_WAIT_2_MS, Flag, RECEIVE_WINDOW};
use super::{Rtt, Segment, SeqNum, State, Tcb, Timer, Transfer};
use crate::time::Millis;

impl Tcb {
    /// Active OPEN, section 3.10.1: SYN-SENT, with `iss` as the initial send sequence number. SYN is [`Tcb::handshake`].
    #[must_use]
    pub fn open(iss: SeqNum, now: Millis) -> Self {
        let mut tcb = Self::start(State::SynSent, iss, Flag::Active as u8 | Flag::Timed as u8);
        tcb.set_timer(Timer::Retransmit, now + Rtt::NONE.rto_ms(0));
        tcb
    }

    /// A SYN has come to a listener, section 3.10.7.2: SYN-RECEIVED. SYN,ACK is [`Tcb::handshake`].
    #[must_use]
    pub fn accept(seg: &Segment, iss: SeqNum, local_mss: u16, now: Millis) -> Self {
        let mut tcb = Self::start(State::SynReceived, iss, Flag::Timed as u8);
        tcb.learn(seg, local_mss);
        tcb.set_timer(Timer::Retransmit, now + Rtt::NONE.rto_ms(0));
        tcb
    }

    /// RECEIVE: `bytes` bytes of text in order have found a place. The acknowledgement may wait for a second segment, for 40 ms, and only
    /// while nothing of ours is out (section 3.8.6.3); else [`Tcb::owes_ack`] is true from now on.
    pub fn receive(&mut self, bytes: u32, now: Millis) {
        self.set_rcv_nxt(self.rcv_nxt() + bytes);
        let may_wait = self.flight() == 0
            && self.state() == State::Established
            && !self.flag(Flag::AckPending)
            && matches!(self.timer().0, Timer::None | Timer::DelayedAck);
        self.set_flag(Flag::AckPending, true);
        if may_wait {
            self.set_timer(Timer::DelayedAck, now + DELAYED_ACK_MS);
        } else if self.state() == State::FinWait2 {
            // The peer lives, and its FIN comes when it has said all.
            self.set_timer(Timer::Linger, now + FIN_WAIT_2_MS);
        } else if self.timer().0 == Timer::DelayedAck {
            self.clear_timer();
        }
    }

    /// Section 3.10.7.4, eighth: the peer's FIN has come, and all text before it is received. The acknowledgement goes at once.
    pub fn receive_fin(&mut self, time_wait_ms: u32, now: Millis) {
        self.set_rcv_nxt(self.rcv_nxt() + 1);
        self.set_flag(Flag::AckPending, true);
        match self.state() {
            State::SynReceived | State::Established => self.set_state(State::CloseWait),
            // Had our FIN been acknowledged, this would be FIN-WAIT-2.
            State::FinWait1 => self.set_state(State::Closing),
            State::FinWait2 => self.enter_time_wait(time_wait_ms, now),
            State::Closed
            | State::SynSent
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => {}
        }
        if self.timer().0 == Timer::DelayedAck {
            self.clear_timer();
        }
    }

    /// TIME-WAIT: start its timer, turn off all others.
    pub(super) fn enter_time_wait(&mut self, time_wait_ms: u32, now: Millis) {
        self.set_state(State::TimeWait);
        self.set_backoff(0);
        self.set_timer(Timer::Linger, now + time_wait_ms);
    }

    /// Has the receive window opened so far since it was last told that the peer should know (section 3.8.6.2.2)?
    #[must_use]
    pub fn owes_window_update(&self, transfer: &Transfer) -> bool {
        let window = self.rcv_wnd(Some(transfer));
        window > transfer.advertised
            && transfer.advertised < RECEIVE_WINDOW / 2
            && window - transfer.advertised >= u32::from(self.mss()).min(RECEIVE_WINDOW / 2)
    }
}
