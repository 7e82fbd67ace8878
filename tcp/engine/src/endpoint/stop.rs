//! The way down: drain, abort, release. Knows when; never why.

use super::{Application, DRAIN_PER_TURN, Endpoint, Outbox};
use crate::proto::{End, State};
use crate::time::Instant;

impl<A: Application> Endpoint<A> {
    /// Takes no more connections, and closes each as soon as its service has said what was asked of it.
    pub fn drain(&mut self) {
        self.draining = Some(0);
    }

    /// Wakes every connection once, a part of them a turn, so that it sees that the endpoint drains.
    pub(super) fn drain_some(&mut self) {
        let Some(next) = self.draining else { return };
        let end = next.saturating_add(DRAIN_PER_TURN).min(self.connections.used());
        for slot in next..end {
            if self.connections.state(slot).is_open() {
                self.ready.insert(slot);
            }
        }
        self.draining = Some(end);
    }

    /// Resets what is left but TIME-WAIT, as many connections as there are free frames; whether all are done.
    pub fn abort(&mut self, now: Instant, out: &mut Outbox) -> bool {
        while self.aborted < self.connections.used() {
            if out.free.is_empty() {
                return false;
            }
            let slot = self.aborted;
            self.aborted += 1;
            self.abort_one(slot, End::ResetByUs, now, out);
        }
        true
    }

    /// Ends a connection that is not closed yet, with RST where its peer knows of it.
    pub(super) fn abort_one(&mut self, slot: u32, end: End, now: Instant, out: &mut Outbox) {
        let state = self.connections.state(slot);
        if state == State::Closed || state == State::TimeWait {
            return;
        }
        let mut current = self.current(slot);
        if state.aborts_with_rst() {
            let reset = current.tcb.reset();
            self.send(&mut current, &reset, None, now.millis(), out);
        }
        self.end(&mut current, end, now, out);
    }

    /// Gives back every received frame that was kept: the end of all connections.
    pub fn release(&mut self, out: &mut Outbox) {
        self.records.release(&mut out.recycle);
    }
}
