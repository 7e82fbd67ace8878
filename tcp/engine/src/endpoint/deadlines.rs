//! Deadlines: armed in the wheel, or kept in TIME-WAIT's order, and handled when they come.

use super::application::Application;
use super::connection::Current;
use super::core::Endpoint;
use super::outbox::Outbox;
use crate::proto::{End, MIN_RTO_MS, State, Timeout, Timer};
use crate::time::{Instant, Millis};

/// The most entries of the wheel and ends of TIME-WAIT in one turn, so that a burst never waits long behind them.
const DEADLINES_PER_TURN: usize = 1024;

impl<A: Application> Endpoint<A> {
    /// Arms the connection's deadline in the wheel. Connections in TIME-WAIT have an order of their own.
    #[inline]
    pub(super) fn arm(&mut self, current: &mut Current) {
        let (timer, deadline) = current.tcb.timer();
        if timer != Timer::None && current.tcb.state() != State::TimeWait {
            self.timers.arm(current.slot, &mut **current, deadline);
        }
    }

    /// Arms a handshake's deadline. The entry comes up for the earliest deadline that may follow the handshake: so it serves that one,
    /// too, and no later entry stays behind in the wheel.
    #[inline]
    pub(super) fn arm_handshake(&mut self, current: &mut Current, now: Millis) {
        self.timers.arm(current.slot, &mut **current, now + MIN_RTO_MS);
    }

    /// Moves a connection in TIME-WAIT behind all others if its deadline has moved from `deadline`.
    pub(super) fn waits_anew(&mut self, current: &mut Current, deadline: Millis) {
        if current.tcb.timer().1 != deadline {
            self.waiting.remove(current, &mut self.connections);
            self.waiting.push(current, &mut self.connections);
        }
    }

    /// Handles the deadlines that have come. A connection that must send and finds no frame tries again with the next bucket.
    pub fn on_tick(&mut self, now: Instant, out: &mut Outbox) {
        let millis = now.millis();
        let mut looks = DEADLINES_PER_TURN;
        while let Some(slot) = self.timers.poll(millis, &mut looks, &mut self.connections) {
            let mut current = self.current(slot);
            if out.free.is_empty() && current.tcb.timer().0 != Timer::Linger {
                self.arm(&mut current);
                self.put_back(current);
            } else {
                self.on_deadline(current, now, out);
            }
        }
        self.counters.timer_wheel_full.add(self.timers.take_full());
        self.end_waiting(now, out);
        self.drain_some();
    }

    /// Ends the connections in TIME-WAIT whose 2 MSL are over.
    fn end_waiting(&mut self, now: Instant, out: &mut Outbox) {
        for _ in 0..DEADLINES_PER_TURN {
            let over = self.waiting.deadline().is_some_and(|at| at.is_due(now.millis()));
            let Some(slot) = self.waiting.first().filter(|_| over) else { return };
            let current = self.current(slot);
            self.end(current, End::Closed, now, out);
            self.look_ahead();
        }
    }

    fn on_deadline(&mut self, mut current: Current, now: Instant, out: &mut Outbox) {
        let millis = now.millis();
        // The record holds the congestion window that shrinks, and the repair. Without one, TCP repairs segment by segment.
        if current.tcb.loses_text(millis)
            && let Some(number) = self.attach_record(&mut current)
        {
            self.records.attach_scoreboard(number, current.tcb.snd_una());
        }
        let outgoing = match self.records.tcp(&mut current.tcb).on_deadline(millis) {
            Timeout::Nothing => None,
            Timeout::End(end) => return self.end(current, end, now, out),
            Timeout::RepeatHandshake => Some(current.tcb.handshake()),
            Timeout::Acknowledge => {
                self.counters.delayed_acks.add(1);
                Some(current.tcb.bare_ack())
            }
            Timeout::Probe => {
                self.counters.window_probes.add(1);
                Some(current.tcb.probe())
            }
            Timeout::TailLossProbe => {
                self.counters.tail_loss_probes.add(1);
                self.ready.insert(current.slot);
                None
            }
            Timeout::Retransmit => {
                self.counters.retrans_timeout.add(1);
                self.ready.insert(current.slot);
                None
            }
        };
        if let Some(outgoing) = outgoing {
            self.send(&mut current, &outgoing, None, millis, out);
        }
        self.arm(&mut current);
        self.put_back(current);
    }
}
