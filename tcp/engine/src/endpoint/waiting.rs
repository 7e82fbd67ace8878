//! TIME-WAIT in the order of its beginning, which is also the order of its end and of eviction. The lines of the connections that end
//! next are prefetched.

use super::chain::Chain;
use super::connection::{Connections, Current};
use crate::hint::mostly;
use crate::time::Millis;

/// How many connections ahead are known. Nobody has touched the oldest ones for long, so their lines need a prefetch.
const AHEAD: usize = 8;
/// The places among these where the connection's line has arrived, and where the index line has.
const HERE: usize = AHEAD / 2;
const NEAR: usize = AHEAD / 4;

/// The queue.
pub(super) struct Waiting {
    chain: Chain,
    /// When the first connection's 2 MSL are over.
    deadline: Millis,
    /// A ring with the first `known` connections in order, from `start` on.
    next: [Next; AHEAD],
    start: usize,
    known: usize,
}

/// A connection that ends soon.
#[derive(Clone, Copy)]
struct Next {
    slot: u32,
    /// The hash of its name, known once its line has arrived.
    hash: Option<u64>,
}

impl Waiting {
    pub(super) const fn new() -> Self {
        let next = [Next { slot: 0, hash: None }; AHEAD];
        Self { chain: Chain::EMPTY, deadline: Millis(0), next, start: 0, known: 0 }
    }

    #[inline]
    const fn nth(&self, number: usize) -> usize {
        (self.start + number) % AHEAD
    }

    /// Returns the connection that waits longest.
    #[inline]
    pub(super) const fn first(&self) -> Option<u32> {
        self.chain.first()
    }

    /// Returns when the first connection's 2 MSL are over.
    #[inline]
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.first().map(|_| self.deadline)
    }

    /// Adds a connection.
    pub(super) fn push(&mut self, current: &mut Current, connections: &mut Connections) {
        self.chain.push(current, connections);
        if self.chain.len() == 1 {
            self.deadline = current.tcb.timer().1;
        }
    }

    /// Removes a connection.
    pub(super) fn remove(&mut self, current: &mut Current, connections: &mut Connections) {
        let was_first = self.chain.remove(current, connections);
        if mostly(was_first)
            && let Some(first) = self.chain.first()
        {
            self.deadline = connections.deadline(first);
        }
        self.forget(current.slot, was_first);
    }

    /// Forgets a removed connection and those known behind it: its slot may have another owner soon.
    #[inline]
    fn forget(&mut self, slot: u32, was_first: bool) {
        if mostly(was_first) {
            if self.known > 0 {
                self.start = self.nth(1);
                self.known -= 1;
            }
        } else if let Some(place) = (0..self.known).find(|place| self.next[self.nth(*place)].slot == slot) {
            self.known = place;
        }
    }

    /// Returns the hash of the first connection's name, if it is known.
    #[inline]
    pub(super) const fn first_hash(&self) -> Option<u64> {
        if self.known > 0 { self.next[self.start].hash } else { None }
    }

    /// Prefetches the lines of the connections that end next. `hash` returns the hash for a slot whose line has arrived. Returns the hash of
    /// a connection whose index line has arrived.
    #[inline]
    pub(super) fn look_ahead(
        &mut self,
        connections: &Connections,
        hash: impl FnOnce(u32) -> u64,
    ) -> Option<u64> {
        debug_assert!(
            self.known == 0 || Some(self.next[self.start].slot) == self.first(),
            "those known are the first"
        );
        // One replaces the connection that has left; one more while fewer are known than could be.
        for _ in 0..2 {
            if self.known == AHEAD {
                break;
            }
            let slot = match self.known.checked_sub(1) {
                None => self.first(),
                Some(last) => self.chain.after(self.next[self.nth(last)].slot, connections),
            }?;
            connections.prefetch(slot);
            let at = self.nth(self.known);
            self.next[at] = Next { slot, hash: None };
            self.known += 1;
        }
        if self.known < AHEAD {
            return None;
        }
        let here = self.nth(HERE);
        self.next[here].hash = Some(hash(self.next[here].slot));
        self.next[self.nth(NEAR)].hash
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::endpoint::application::Varies;
    use crate::endpoint::connection::Connection;
    use crate::endpoint::paths::{Paths, Shared};
    use crate::flow::{Address, FlowKey};
    use crate::proto::Tcb;
    use crate::service::Memo;
    use crate::time::Instant;
    use crate::wire::Link;

    /// Returns paths with the end and next hop that all connections share.
    fn paths() -> Paths {
        let mut paths = Paths::new(32);
        let shared = Shared { end: (Address::default(), 0), role: 0 };
        assert_eq!(paths.take(&shared, &Link::default()), Some((0, 0)));
        paths
    }

    fn some_connection() -> Connection {
        Connection::new(Varies::Remote, &FlowKey::default(), 0, 0, Tcb::default(), Instant::ZERO)
    }

    #[test]
    fn those_that_leave_next_are_known_while_others_leave_and_come() {
        let (mut connections, paths) = (Connections::new(64), paths());
        let mut waiting = Waiting::new();
        let come = |waiting: &mut Waiting, connections: &mut Connections| {
            let mut current = Connections::start(connections.take().unwrap(), 0, some_connection());
            let slot = current.slot;
            waiting.push(&mut current, connections);
            connections.set(current);
            slot
        };
        let mut order: VecDeque<u32> = (0..32).map(|_| come(&mut waiting, &mut connections)).collect();
        for round in 0..100 {
            let first = waiting.first().unwrap();
            assert_eq!(order.pop_front(), Some(first));
            // It takes some rounds to know as many as it will, and some more for one to come so near.
            let hashed = AHEAD - 2 + HERE;
            assert_eq!(
                waiting.first_hash(),
                (round > hashed).then(|| u64::from(first) << 32),
                "round {round}"
            );
            let mut current = connections.get(first, &paths);
            waiting.remove(&mut current, &mut connections);
            connections.put(Connections::vacate(current));
            let near = waiting.look_ahead(&connections, |slot| u64::from(slot) << 32);
            let is_known = round >= hashed - NEAR;
            assert_eq!(near, is_known.then(|| u64::from(order[NEAR]) << 32), "round {round}");
            order.push_back(come(&mut waiting, &mut connections));
        }
    }

    proptest! {
        /// Whoever leaves, first or not, and whoever has the slot afterwards: what is known is always the first ones', and their own.
        #[test]
        fn those_known_are_the_first_whoever_leaves(steps in prop::collection::vec((0u8..4, any::<prop::sample::Index>()), 1..400)) {
            let (mut connections, paths) = (Connections::new(32), paths());
            let mut waiting = Waiting::new();
            let (mut order, mut lives) = (VecDeque::new(), [0u64; 32]);
            for (what, which) in steps {
                if what == 0 && order.len() < 32 || order.is_empty() {
                    let mut current =
                        Connections::start(connections.take().unwrap(), 0, some_connection());
                    let slot = current.slot;
                    // Another name has another hash, in the same slot as well.
                    lives[slot as usize] += 1;
                    waiting.push(&mut current, &mut connections);
                    connections.set(current);
                    order.push_back(slot);
                } else {
                    let place = if what < 3 { 0 } else { which.index(order.len()) };
                    let slot = order.remove(place).unwrap();
                    let mut current = connections.get(slot, &paths);
                    waiting.remove(&mut current, &mut connections);
                    // A service may leave such a memo: it must lead to no slot.
                    current.memo = Memo::of(u64::MAX - 1);
                    connections.set(current);
                    let current = connections.get(slot, &paths);
                    connections.put(Connections::vacate(current));
                    if what == 1 {
                        let hash = |slot: u32| lives[slot as usize] << 32 | u64::from(slot);
                        waiting.look_ahead(&connections, hash);
                    }
                }
                prop_assert_eq!(waiting.first(), order.front().copied());
                prop_assert!(waiting.known <= order.len());
                for (place, first) in order.iter().enumerate().take(waiting.known) {
                    let Next { slot, hash } = waiting.next[waiting.nth(place)];
                    prop_assert_eq!(slot, *first);
                    prop_assert!(hash.is_none_or(|hash| hash == lives[slot as usize] << 32 | u64::from(slot)));
                }
            }
        }
    }
}
