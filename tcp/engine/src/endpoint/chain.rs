//! Connections in the order in which they came to a state. In such a state no service uses the memo: it holds the neighbours.

use super::connection::{Connections, Current};
use crate::service::Memo;

/// No neighbour.
const NONE: u32 = u32::MAX;

/// A queue that a connection may leave from anywhere.
pub(super) struct Chain {
    first: u32,
    last: u32,
    len: usize,
}

/// Returns the neighbours as a memo.
const fn links(before: u32, after: u32) -> Memo {
    Memo::of(before as u64 | (after as u64) << 32)
}

const fn before(memo: Memo) -> u32 {
    memo.get() as u32
}

const fn after(memo: Memo) -> u32 {
    (memo.get() >> 32) as u32
}

#[inline]
const fn some(slot: u32) -> Option<u32> {
    if slot == NONE { None } else { Some(slot) }
}

impl Chain {
    pub(super) const EMPTY: Self = Self { first: NONE, last: NONE, len: 0 };

    /// Returns how many connections it holds.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Returns the connection that came first.
    #[inline]
    pub(super) const fn first(&self) -> Option<u32> {
        some(self.first)
    }

    /// Returns the connection that came after the one in `slot`.
    #[inline]
    pub(super) fn after(&self, slot: u32, connections: &Connections) -> Option<u32> {
        some(after(connections.memo(slot)))
    }

    /// Adds a connection behind all others.
    #[inline]
    pub(super) fn push(&mut self, current: &mut Current, connections: &mut Connections) {
        let slot = current.slot;
        current.memo = links(self.last, NONE);
        if self.last == NONE {
            self.first = slot;
        } else {
            connections.set_memo(self.last, links(before(connections.memo(self.last)), slot));
        }
        self.last = slot;
        self.len += 1;
    }

    /// Removes a connection and empties its memo. Returns whether it was the first.
    #[inline]
    pub(super) fn remove(&mut self, current: &mut Current, connections: &mut Connections) -> bool {
        let (before, after) = (before(current.memo), after(current.memo));
        if before == NONE {
            self.first = after;
        } else {
            connections.set_memo(before, links(self::before(connections.memo(before)), after));
        }
        if after == NONE {
            self.last = before;
        } else {
            connections.set_memo(after, links(before, self::after(connections.memo(after))));
        }
        current.memo = Memo::default();
        self.len -= 1;
        before == NONE
    }
}
