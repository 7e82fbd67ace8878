//! Deadlines: armed in the wheel, waited for in TIME-WAIT's order, and what they bring. Knows slots and when; never why a deadline was
//! set.

use super::connection::Current;
use super::{Application, Endpoint, Outbox};
use crate::flow::{Armed, Marked as _};
use crate::hint::seldom;
use crate::proto::{End, MIN_RTO_MS, State, Timeout, Timer};
use crate::time::{Instant, Millis};

/// Deadlines handled in one turn, so that a burst never waits long behind them.
const DEADLINES_PER_TURN: usize = 1024;

impl<A: Application> Endpoint<A> {
    /// Makes sure the connection's deadline will come up. Those in TIME-WAIT come up in their own order.
    #[inline]
    pub(super) fn arm(&mut self, current: &mut Current) {
        let (timer, deadline) = current.tcb.timer();
        if timer != Timer::None && current.tcb.state() != State::TimeWait {
            self.come_up(current, deadline);
        }
    }

    /// The same for a handshake that begins. Its own deadline is the latest of all that follow if it succeeds: an entry for the
    /// earliest of those serves them, too, where one for its own would be left behind in the wheel, and another be needed.
    #[inline]
    pub(super) fn arm_handshake(&mut self, current: &mut Current, now: Millis) {
        self.come_up(current, now + MIN_RTO_MS);
    }

    #[inline]
    fn come_up(&mut self, current: &mut Current, deadline: Millis) {
        let slot = current.slot;
        if seldom(!self.timers.arm(slot, &mut **current, deadline)) {
            self.counters.timer_wheel_full.add(1);
        }
    }

    /// In TIME-WAIT, from `deadline` on: if that has moved, the connection waits behind all others.
    pub(super) fn waits_anew(&mut self, current: &mut Current, deadline: Millis) {
        if current.tcb.timer().1 != deadline {
            self.waiting.remove(current, &mut self.connections);
            self.waiting.push(current, &mut self.connections);
        }
    }

    /// Handles the deadlines that have come. What has to send and finds no frame tries again with the next bucket.
    pub fn on_tick(&mut self, now: Instant, out: &mut Outbox) {
        let millis = now.millis();
        for _ in 0..DEADLINES_PER_TURN {
            let Some((slot, mark)) = self.timers.poll(millis, |soon| self.connections.prefetch(soon)) else {
                break;
            };
            if self.connections.armed(slot) != mark {
                continue;
            }
            let mut current = self.current(slot);
            current.set_armed(Armed::default());
            if out.free.is_empty() && current.tcb.timer().0 != Timer::Linger {
                self.arm(&mut current);
            } else if current.tcb.state() != State::Closed {
                self.on_deadline(&mut current, now, out);
                self.put_back(&current);
                continue;
            }
            self.connections.set(&current);
        }
        self.end_waiting(now, out);
        self.drain_some();
    }

    /// Ends those in TIME-WAIT whose time is over.
    fn end_waiting(&mut self, now: Instant, out: &mut Outbox) {
        for _ in 0..DEADLINES_PER_TURN {
            let over = self.waiting.deadline().is_some_and(|at| at.is_due(now.millis()));
            let Some(slot) = self.waiting.first().filter(|_| over) else { return };
            let mut current = self.current(slot);
            self.end(&mut current, End::Closed, now, out);
            self.look_ahead();
        }
    }

    fn on_deadline(&mut self, current: &mut Current, now: Instant, out: &mut Outbox) {
        let millis: Millis = now.millis();
        let (timer, deadline) = current.tcb.timer();
        if timer == Timer::Retransmit && deadline.is_due(millis) && !current.tcb.state().is_half_open() {
            // The record must be there to learn of the loss: it holds the window that shrinks and the repair.
            self.attach_record(current);
        }
        let transfer = current.tcb.transfer().map(|number| &mut self.records.get_mut(number).transfer);
        match current.tcb.on_deadline(transfer, millis) {
            Timeout::Nothing => {}
            Timeout::End(end) => {
                self.end(current, end, now, out);
                return;
            }
            Timeout::RepeatHandshake => {
                let handshake = current.tcb.handshake();
                self.send(current, &handshake, None, millis, out);
            }
            Timeout::Acknowledge => {
                self.counters.delayed_acks.add(1);
                let ack = current.tcb.bare_ack();
                self.send(current, &ack, None, millis, out);
            }
            Timeout::Probe => {
                self.counters.window_probes.add(1);
                let probe = current.tcb.probe();
                self.send(current, &probe, None, millis, out);
            }
            Timeout::Retransmit => {
                self.counters.retrans_timeout.add(1);
                self.ready.insert(current.slot);
            }
        }
        self.arm(current);
    }
}
