//! User calls, RFC 9293 section 3.10.1 to 3.10.5: OPEN in both roles and RECEIVE; [`Tcp::poll_segment`] is SEND and CLOSE.

use super::tcb::{DELAYED_ACK_MS, FIN_WAIT_2_MS, Flag, Tcb};
use super::tcp::Tcp;
use super::{Rtt, Segment, SeqNum, State, Timer};
use crate::hint::seldom;
use crate::time::Millis;

/// The outcome for a FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinArrival {
    /// The connection has received it.
    Received,
    /// Text before it is missing, and the transfer record keeps its number. Without a record, the peer's retransmission
    /// brings it again.
    Early,
    /// The stream has passed its number, or nothing more can be received: it means nothing.
    Stale,
}

impl Tcb {
    /// Active OPEN, section 3.10.1: SYN-SENT, with `iss` as the initial send sequence number. The SYN is [`Tcb::handshake`].
    #[must_use]
    pub fn open(iss: SeqNum, now: Millis) -> Self {
        let mut tcb = Self::start(State::SynSent, iss, Flag::Active as u8 | Flag::Timed as u8);
        tcb.set_timer(Timer::Retransmit, now + Rtt::NONE.rto_ms(0));
        tcb
    }

    /// Passive OPEN for a SYN that came to a listener, section 3.10.7.2: SYN-RECEIVED. The SYN,ACK is [`Tcb::handshake`].
    #[must_use]
    pub fn accept(seg: &Segment, iss: SeqNum, local_mss: u16, now: Millis) -> Self {
        let mut tcb = Self::start(State::SynReceived, iss, Flag::Timed as u8);
        tcb.learn(seg, local_mss);
        tcb.set_timer(Timer::Retransmit, now + Rtt::NONE.rto_ms(0));
        tcb
    }

    /// RECEIVE: `bytes` bytes of text in order have found a place. While nothing of ours is in flight, the acknowledgement of
    /// the first segment may wait 40 ms for a second one (section 3.8.6.3); otherwise [`Tcb::owes_ack`] is true from now on.
    pub fn receive(&mut self, bytes: u32, now: Millis) {
        self.rcv_nxt += bytes;
        let may_wait = self.flight() == 0
            && self.state() == State::Established
            && !self.flag(Flag::AckPending)
            && matches!(self.timer().0, Timer::None | Timer::DelayedAck);
        self.set_flag(Flag::AckPending, true);
        if may_wait {
            self.set_timer(Timer::DelayedAck, now + DELAYED_ACK_MS);
        } else if self.state() == State::FinWait2 {
            // Text shows that the peer lives: its FIN comes after the last of it.
            self.set_timer(Timer::Linger, now + FIN_WAIT_2_MS);
        } else if self.timer().0 == Timer::DelayedAck {
            self.clear_timer();
        }
    }

    /// Enters TIME-WAIT: starts its timer and stops all others.
    pub(super) fn enter_time_wait(&mut self, time_wait_ms: u32, now: Millis) {
        self.state = State::TimeWait;
        self.set_backoff(0);
        self.set_timer(Timer::Linger, now + time_wait_ms);
    }
}

impl Tcp<'_> {
    /// RECEIVE of text that the service has not taken yet: the receive window shrinks by `bytes` until [`Tcp::delivered`].
    pub fn receive_held(&mut self, bytes: u32, now: Millis) {
        if bytes == 0 {
            return;
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.held_bytes += bytes;
        }
        self.tcb.receive(bytes, now);
    }

    /// Notes that the service has taken `bytes` of the text that waited for it.
    pub fn delivered(&mut self, bytes: u32) {
        if let Some(transfer) = &mut self.transfer {
            transfer.held_bytes -= bytes;
        }
    }

    /// Returns the number of the next byte that the service has not taken.
    #[must_use]
    pub fn undelivered(&self) -> SeqNum {
        let held = self.transfer.as_ref().map_or(0, |transfer| transfer.held_bytes);
        self.tcb.rcv_nxt - u32::from(self.tcb.state().peer_has_closed()) - held
    }

    /// Receives a FIN with this number if its turn has come, section 3.10.7.4, eighth. Its acknowledgement then goes at once.
    pub fn receive_fin(&mut self, fin: SeqNum, time_wait_ms: u32, now: Millis) -> FinArrival {
        if seldom(!self.tcb.state().may_receive()) {
            return FinArrival::Stale;
        }
        if seldom(fin != self.tcb.rcv_nxt) {
            let early = fin.after(self.tcb.rcv_nxt).then_some(fin);
            if let Some(transfer) = &mut self.transfer {
                transfer.early_fin = early;
            }
            return if early.is_some() { FinArrival::Early } else { FinArrival::Stale };
        }
        if let Some(transfer) = &mut self.transfer {
            transfer.early_fin = None;
        }
        let tcb = &mut *self.tcb;
        tcb.rcv_nxt += 1;
        tcb.set_flag(Flag::AckPending, true);
        match tcb.state() {
            State::Established => tcb.state = State::CloseWait,
            // An acknowledgement of our FIN would have led to FIN-WAIT-2.
            State::FinWait1 => tcb.state = State::Closing,
            _ => tcb.enter_time_wait(time_wait_ms, now),
        }
        if tcb.timer().0 == Timer::DelayedAck {
            tcb.clear_timer();
        }
        FinArrival::Received
    }
}
