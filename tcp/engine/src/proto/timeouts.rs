//! Timeouts, RFC 9293 section 3.10.8: what a connection does when its deadline has come.

use super::tcb::{Flag, Tcb};
use super::tcp::Tcp;
use super::transfer::Probe;
use super::{End, State, Timer};
use crate::time::Millis;

/// Retransmissions of a SYN,ACK: Linux's tcp_synack_retries.
pub const SYN_ACK_RETRIES: u8 = 5;
/// Retransmissions of a SYN: Linux's tcp_syn_retries.
pub const SYN_RETRIES: u8 = 6;
/// Retransmissions of text, and probes of a shut window, without an answer: Linux's tcp_retries2.
pub const DATA_RETRIES: u8 = 15;
/// Retransmissions of a FIN: Linux's tcp_orphan_retries, as 0 means there.
pub const FIN_RETRIES: u8 = 8;

/// The action that a deadline asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Nothing: no deadline was due.
    Nothing,
    /// A retransmission of SYN or SYN,ACK: [`Tcb::handshake`].
    RepeatHandshake,
    /// A retransmission of the oldest numbers: [`Tcp::poll_segment`].
    Retransmit,
    /// A tail loss probe: [`Tcp::poll_segment`].
    TailLossProbe,
    /// A probe of the shut window: [`Tcb::probe`].
    Probe,
    /// The delayed acknowledgement: [`Tcb::bare_ack`].
    Acknowledge,
    /// The end of the connection.
    End(End),
}

impl Tcb {
    /// Does [`Tcp::on_deadline`] find text or a FIN lost, and so want a transfer record?
    #[must_use]
    pub fn loses_text(&self, now: Millis) -> bool {
        let (timer, deadline) = self.timer();
        timer == Timer::Retransmit && deadline.is_due(now) && !self.state().is_half_open()
    }
}

impl Tcp<'_> {
    /// Handles a deadline that may have come, and sets the timer again where it goes on.
    pub fn on_deadline(&mut self, now: Millis) -> Timeout {
        let (timer, deadline) = self.tcb.timer();
        if !deadline.is_due(now) {
            return Timeout::Nothing;
        }
        match timer {
            Timer::None => Timeout::Nothing,
            Timer::DelayedAck => {
                self.tcb.clear_timer();
                Timeout::Acknowledge
            }
            Timer::Linger => {
                let waited = self.tcb.state() == State::TimeWait;
                Timeout::End(if waited { End::Closed } else { End::TimedOut })
            }
            Timer::Persist => self.on_persist_timeout(now),
            Timer::Retransmit => self.on_retransmit_timeout(now),
        }
    }

    fn on_persist_timeout(&mut self, now: Millis) -> Timeout {
        let backoff = self.tcb.backoff() + 1;
        if backoff > DATA_RETRIES {
            return Timeout::End(End::TimedOut);
        }
        self.tcb.set_backoff(backoff);
        let rto = self.rtt().rto_ms(backoff);
        self.tcb.set_timer(Timer::Persist, now + rto);
        Timeout::Probe
    }

    fn on_retransmit_timeout(&mut self, now: Millis) -> Timeout {
        if let Some(transfer) = &mut self.transfer
            && transfer.probe == Probe::Armed
        {
            transfer.probe = Probe::Due;
            self.tcb.set_flag(Flag::Timed, false);
            self.start_retransmit(now);
            return Timeout::TailLossProbe;
        }
        let (retries, timeout) = match self.tcb.state() {
            State::SynSent => (SYN_RETRIES, Timeout::RepeatHandshake),
            State::SynReceived => (SYN_ACK_RETRIES, Timeout::RepeatHandshake),
            state if state.fin_is_out() => (FIN_RETRIES, Timeout::Retransmit),
            _ => (DATA_RETRIES, Timeout::Retransmit),
        };
        if self.tcb.backoff() >= retries {
            return Timeout::End(End::TimedOut);
        }
        // RFC 6298 (5.5) and (5.6), and Karn's rule: a segment sent twice gives no round trip.
        self.tcb.set_backoff(self.tcb.backoff() + 1);
        self.tcb.set_flag(Flag::Timed, false);
        let (una, nxt, mss) = (self.tcb.snd_una(), self.tcb.snd_nxt(), u32::from(self.tcb.mss()));
        match &mut self.transfer {
            Some(transfer) => transfer.on_timeout(una, nxt, mss),
            None => self.tcb.set_flag(Flag::Resend, timeout == Timeout::Retransmit),
        }
        self.start_retransmit(now);
        timeout
    }
}
