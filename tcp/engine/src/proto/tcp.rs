//! One connection's TCP: the control block and the transfer record, borrowed together, so that every rule sees both.

use std::hint::cold_path;

use super::tcb::{Flag, RECEIVE_WINDOW, Tcb};
use super::transfer::Probe;
use super::{Rtt, SackBlocks, Timer, Transfer};
use crate::hint::seldom;
use crate::time::Millis;

/// A connection's control block and, where it has one, its transfer record.
#[derive(Debug)]
pub struct Tcp<'a> {
    /// The control block.
    pub tcb: &'a mut Tcb,
    /// The record that [`Tcb::transfer`] names.
    pub transfer: Option<&'a mut Transfer>,
}

impl<'a> Tcp<'a> {
    /// Joins a control block and its transfer record.
    #[must_use]
    #[inline(always)]
    pub fn new(tcb: &'a mut Tcb, transfer: Option<&'a mut Transfer>) -> Self {
        debug_assert_eq!(
            tcb.transfer().is_some(),
            transfer.is_some(),
            "a record belongs to its control block"
        );
        Self { tcb, transfer }
    }

    /// Lends both again: a function that is called, and not inlined, takes them by value, in registers.
    #[inline(always)]
    pub(super) fn reborrow(&mut self) -> Tcp<'_> {
        Tcp { tcb: self.tcb, transfer: self.transfer.as_deref_mut() }
    }

    #[inline(always)]
    pub(super) fn rtt(&self) -> Rtt {
        match &self.transfer {
            None => Rtt::from_bits(self.tcb.rtt),
            Some(transfer) => {
                cold_path();
                transfer.rtt
            }
        }
    }

    #[inline(always)]
    pub(super) fn update_rtt(&mut self, update: impl FnOnce(&mut Rtt)) {
        if let Some(transfer) = &mut self.transfer {
            cold_path();
            update(&mut transfer.rtt);
        } else {
            let mut rtt = Rtt::from_bits(self.tcb.rtt);
            update(&mut rtt);
            self.tcb.rtt = rtt.to_bits();
        }
    }

    /// Returns RCV.WND in bytes.
    #[must_use]
    #[inline]
    pub fn rcv_wnd(&self) -> u32 {
        match &self.transfer {
            None => RECEIVE_WINDOW,
            Some(transfer) => {
                cold_path();
                RECEIVE_WINDOW - transfer.held_bytes.min(RECEIVE_WINDOW)
            }
        }
    }

    #[inline(always)]
    pub(super) fn start_retransmit(&mut self, now: Millis) {
        let mut timeout_ms = self.rtt().rto_ms(self.tcb.backoff());
        if let Some(transfer) = &mut self.transfer {
            cold_path();
            if transfer.probe == Probe::Armed {
                transfer.probe = Probe::None;
            }
            let (flight, mss) = (self.tcb.flight(), u32::from(self.tcb.mss()));
            if self.tcb.backoff() == 0
                && let Some(probe_ms) = transfer.probe_timeout_ms(flight, mss)
            {
                timeout_ms = probe_ms;
                transfer.probe = Probe::Armed;
            }
            transfer.timeout_ms = timeout_ms;
        }
        self.tcb.set_timer(Timer::Retransmit, now + timeout_ms);
    }

    /// Starts the timer of a tail loss probe, where one has become possible with what was just sent.
    pub(super) fn start_probe(&mut self, now: Millis) {
        let Some(transfer) = &self.transfer else { return };
        let (flight, mss) = (self.tcb.flight(), u32::from(self.tcb.mss()));
        if self.tcb.backoff() == 0
            && transfer.probe == Probe::None
            && transfer.probe_timeout_ms(flight, mss).is_some()
        {
            self.start_retransmit(now);
        }
    }

    /// Returns the time that the retransmission timer was started with, in milliseconds.
    #[inline(always)]
    pub(super) fn timeout_ms(&self) -> u32 {
        match &self.transfer {
            None => Rtt::from_bits(self.tcb.rtt).rto_ms(0),
            Some(transfer) => {
                cold_path();
                transfer.timeout_ms
            }
        }
    }

    pub(super) fn start_persist(self, now: Millis) {
        if self.tcb.timer().0 != Timer::Persist {
            self.tcb.set_backoff(0);
            let rto = self.rtt().rto_ms(0);
            self.tcb.set_timer(Timer::Persist, now + rto);
        }
    }

    /// Notes one more acknowledgement of the same number (RFC 5681 section 3.2), or one with these SACK blocks. Returns whether it starts
    /// fast recovery. Without a transfer record nothing happens: the retransmission timer repairs the loss.
    pub fn on_duplicate_ack(&mut self, blocks: &SackBlocks, now: Millis) -> bool {
        let (una, nxt, mss) = (self.tcb.snd_una(), self.tcb.snd_nxt(), u32::from(self.tcb.mss()));
        let starts =
            self.transfer.as_mut().is_some_and(|transfer| transfer.on_duplicate_ack(blocks, una, nxt, mss));
        if starts {
            // Without a scoreboard, the first segment is lost.
            let is_known = self.transfer.as_ref().is_some_and(|transfer| transfer.has_scoreboard());
            self.tcb.set_flag(Flag::Resend, !is_known);
            // Karn's rule.
            self.tcb.set_flag(Flag::Timed, false);
            if is_known {
                // The probe and the timeout count from the retransmission.
                self.start_retransmit(now);
            }
        }
        starts
    }

    /// Opens the congestion window with one segment, because our SYN or SYN,ACK was lost (RFC 5681 section 3.1). Without a
    /// transfer record the initial window stays.
    pub fn on_syn_lost(&mut self) {
        let mss = u32::from(self.tcb.mss());
        if let Some(transfer) = &mut self.transfer {
            transfer.congestion_window = mss;
        }
    }

    /// Has the receive window opened so far since the last advertisement that the peer should know (RFC 9293 section 3.8.6.2.2)?
    #[must_use]
    pub fn owes_window_update(&self) -> bool {
        let Some(transfer) = &self.transfer else { return false };
        let (window, advertised) = (self.rcv_wnd(), transfer.advertised);
        window > advertised
            && advertised < RECEIVE_WINDOW / 2
            && window - advertised >= u32::from(self.tcb.mss()).min(RECEIVE_WINDOW / 2)
    }

    /// Does the first unacknowledged segment wait for its retransmission, or does the repair after a timeout go on?
    #[inline]
    pub(super) fn repairs(&self) -> bool {
        seldom(self.tcb.flag(Flag::Resend))
            || self.transfer.as_ref().is_some_and(|transfer| {
                let (flight, mss) = (self.tcb.flight(), u32::from(self.tcb.mss()));
                transfer.repair_after_timeout().is_some()
                    || transfer.next_lost(flight, mss).is_some()
                    || transfer.probe == Probe::Due
            })
    }
}
