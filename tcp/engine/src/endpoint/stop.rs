//! The end of an endpoint: drain, abort, release.

use super::application::Application;
use super::core::Endpoint;
use super::outbox::Outbox;
use crate::proto::{End, State};
use crate::time::Instant;

/// Connections woken in one turn while the endpoint drains.
const DRAIN_PER_TURN: u32 = 1024;

impl<A: Application> Endpoint<A> {
    /// Accepts no more connections, and closes each one when its service has sent what was asked for.
    pub fn drain(&mut self) {
        self.draining = Some(0);
    }

    /// Wakes every connection once, some in each turn, so that it learns that the endpoint drains.
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

    /// Resets the connections that are left, but for those in TIME-WAIT, one for each free frame. Returns whether all are done.
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
        self.end(current, end, now, out);
    }

    /// Gives back every received frame that was kept, after the end of all connections.
    pub fn release(&mut self, out: &mut Outbox) {
        self.records.release(&mut out.recycle);
    }
}
