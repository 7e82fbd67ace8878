//! Timeouts, RFC 9293 section 3.10.8: what a connection does when its deadline has come.

use super::segment_arrives::End;
use super::tcb::Flag;
use super::{State, Tcb, Timer, Transfer};
use crate::time::Millis;

/// SYN,ACK goes again so often: Linux's tcp_synack_retries.
pub const SYN_ACK_RETRIES: u8 = 5;
/// SYN goes again so often: Linux's tcp_syn_retries.
pub const SYN_RETRIES: u8 = 6;
/// Data goes again so often, and a shut window is probed so often without an answer: Linux's tcp_retries2.
pub const DATA_RETRIES: u8 = 15;
/// FIN goes again so often: Linux's tcp_orphan_retries, as it is when 0.
pub const FIN_RETRIES: u8 = 8;

/// What a deadline brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// Nothing was due.
    Nothing,
    /// SYN or SYN,ACK goes again: [`Tcb::handshake`].
    RepeatHandshake,
    /// The oldest numbers go again: [`Tcb::poll_segment`].
    Retransmit,
    /// The shut window is probed: [`Tcb::probe`].
    Probe,
    /// The acknowledgement that was held back goes: [`Tcb::bare_ack`].
    Acknowledge,
    /// The connection is over.
    End(End),
}

impl Tcb {
    /// The deadline has come. A timer that goes on is set again.
    pub fn on_deadline(&mut self, transfer: Option<&mut Transfer>, now: Millis) -> Timeout {
        let (timer, deadline) = self.timer();
        if timer == Timer::None || !deadline.is_due(now) {
            return Timeout::Nothing;
        }
        match timer {
            Timer::None => Timeout::Nothing,
            Timer::DelayedAck => {
                self.clear_timer();
                Timeout::Acknowledge
            }
            Timer::Linger => {
                Timeout::End(if self.state() == State::TimeWait { End::Closed } else { End::TimedOut })
            }
            Timer::Persist => self.on_persist_timeout(transfer.as_deref(), now),
            Timer::Retransmit => self.on_retransmit_timeout(transfer, now),
        }
    }

    fn on_persist_timeout(&mut self, transfer: Option<&Transfer>, now: Millis) -> Timeout {
        if self.backoff() >= DATA_RETRIES {
            return Timeout::End(End::TimedOut);
        }
        self.set_backoff(self.backoff() + 1);
        let rto = self.rtt(transfer).rto_ms(self.backoff());
        self.set_timer(Timer::Persist, now + rto);
        Timeout::Probe
    }

    fn on_retransmit_timeout(&mut self, transfer: Option<&mut Transfer>, now: Millis) -> Timeout {
        let (retries, timeout) = match self.state() {
            State::SynSent => (SYN_RETRIES, Timeout::RepeatHandshake),
            State::SynReceived => (SYN_ACK_RETRIES, Timeout::RepeatHandshake),
            state if state.fin_is_out() => (FIN_RETRIES, Timeout::Retransmit),
            _ => (DATA_RETRIES, Timeout::Retransmit),
        };
        if self.backoff() >= retries {
            return Timeout::End(End::TimedOut);
        }
        // RFC 6298 (5.5) and (5.6), and Karn's rule: no round trip is taken from what goes twice.
        self.set_backoff(self.backoff() + 1);
        self.set_flag(Flag::Timed, false);
        let mss = u32::from(self.mss());
        match transfer {
            Some(transfer) => {
                transfer.on_timeout(self.snd_una(), self.snd_nxt(), mss);
                self.start_retransmit(Some(transfer), now);
            }
            None => {
                self.set_flag(Flag::Resend, timeout == Timeout::Retransmit);
                self.start_retransmit(None, now);
            }
        }
        timeout
    }
}
