//! The timer wheel: which connection has a deadline when.
//!
//! It has two rings of buckets: 128 of 4 ms, and behind them 127 of 512 ms. Timers are lazy: each connection keeps its own
//! deadline, and the wheel holds an entry that comes up no later. A deadline that moves later costs nothing: its entry comes up
//! early, and the wheel arms the connection again. One byte in the connection names the bucket of its entry ([`Armed`]). An
//! entry that comes up from another bucket is stale, and the wheel drops it.
//!
//! The wheel has room for as many entries as are likely ([`Share`]). A deadline that finds no room is found by a sweep over all
//! slots, some of them in each millisecond, until every deadline has an entry again.

use std::hint::cold_path;

use crate::time::Millis;

const FINE_MS_LOG2: u32 = 2;
const COARSE_MS_LOG2: u32 = 9;
const BUCKETS: u64 = 128;
/// One bucket fewer than the fine ring has, so that a bucket's number plus one fits a byte.
const COARSE_BUCKETS: u64 = 127;
const HEADS: usize = (BUCKETS + COARSE_BUCKETS) as usize;
const CHUNK: usize = 14;
const NO_CHUNK: u32 = u32::MAX;
/// Up to this number of slots, the wheel has room for one stale entry each.
const SMALL: usize = 1 << 20;
/// Slots that the sweep looks at with each series of polls, and in each millisecond: a few percent of a core's time, and 100 M slots in
/// 12 s.
const SEEN_PER_POLL: u32 = 256;
const SEEN_PER_MS: u32 = 8192;

/// The share of the slots that has a deadline at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// At most half of them, where there are many: most connections of a large table are idle.
    Half,
    /// All of them.
    All,
}

/// The wheel's mark in a connection: 0 without an entry, else the number of the entry's bucket plus one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Armed(pub u8);

/// A connection's copy of the wheel's mark.
pub trait Marked {
    /// Returns the mark.
    fn armed(&self) -> Armed;
    /// Sets the mark.
    fn set_armed(&mut self, armed: Armed);
}

/// The connections that a wheel serves, by slot.
pub trait Deadlines {
    /// Returns the wheel's mark of the connection in `slot`.
    fn armed(&self, slot: u32) -> Armed;
    /// Sets the wheel's mark of the connection in `slot`.
    fn set_armed(&mut self, slot: u32, armed: Armed);
    /// Returns the deadline of the connection in `slot`, `None` where it has none or the wheel does not keep it.
    fn deadline(&self, slot: u32) -> Option<Millis>;
    /// Prefetches the connection in `slot`: the wheel soon looks at it.
    fn prefetch(&self, slot: u32);
}

/// Entries of a bucket, one cache line of them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Chunk {
    slots: [u32; CHUNK],
    len: u32,
    next: u32,
}

/// The wheel. All its memory is allocated at the start.
#[derive(Debug)]
pub struct Timers {
    /// The present in milliseconds since the wheel was made; it does not wrap.
    now: u64,
    now_millis: Millis,
    /// The buckets before these ticks are empty.
    fine_done: u64,
    coarse_done: u64,
    heads: [u32; HEADS],
    chunks: Box<[Chunk]>,
    free: u32,
    /// The chain of entries that have come up, and its bucket.
    reading: u32,
    reading_bucket: Armed,
    /// Entries, stale ones included.
    len: usize,
    /// The sweep: all slots, how many of them are left, the last one, and how many it saw since a poll found nothing.
    slots: u32,
    unseen: u32,
    at: u32,
    seen: u32,
    /// Slots that the sweep may still look at in this millisecond.
    left_now: u32,
    /// Deadlines that found no room since [`Timers::take_full`].
    full: u64,
}

fn chunks_for(capacity: usize, share: Share) -> usize {
    let live = match share {
        Share::Half => capacity / 2,
        Share::All => capacity + capacity / 8,
    };
    // Each bucket and the chain that is read may have a chunk that is not full.
    (capacity.min(SMALL) + live).div_ceil(CHUNK) + HEADS + 2
}

impl Timers {
    /// Returns a wheel for `capacity` connections that starts at `now`.
    #[must_use]
    pub fn new(capacity: usize, share: Share, now: Millis) -> Self {
        Self::with_chunks(capacity, chunks_for(capacity, share), now)
    }

    /// Returns how many bytes of memory a wheel for `capacity` connections takes.
    #[must_use]
    pub fn bytes_for(capacity: usize, share: Share) -> usize {
        chunks_for(capacity, share) * size_of::<Chunk>()
    }

    fn with_chunks(slots: usize, count: usize, now: Millis) -> Self {
        let chunks = super::memory::table_of(count, |number| Chunk {
            slots: [0; CHUNK],
            len: 0,
            next: if number + 1 < count { number as u32 + 1 } else { NO_CHUNK },
        });
        Self {
            now: 0,
            now_millis: now,
            fine_done: 0,
            coarse_done: 0,
            heads: [NO_CHUNK; HEADS],
            chunks,
            free: 0,
            reading: NO_CHUNK,
            reading_bucket: Armed(0),
            len: 0,
            slots: slots as u32,
            unseen: 0,
            at: 0,
            seen: 0,
            left_now: SEEN_PER_MS,
            full: 0,
        }
    }

    /// Returns how many bytes of memory the wheel takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.chunks)
    }

    /// Returns the time of the last poll.
    #[must_use]
    pub const fn now(&self) -> Millis {
        self.now_millis
    }

    /// Returns how many deadlines found no room since the last call.
    pub const fn take_full(&mut self) -> u64 {
        std::mem::replace(&mut self.full, 0)
    }

    /// Makes sure that an entry for the connection in `slot` comes up at or before `deadline`. In a full wheel the sweep finds the
    /// deadline instead.
    #[inline]
    pub fn arm(&mut self, slot: u32, connection: &mut impl Marked, deadline: Millis) {
        let wanted = self.bucket_for(deadline);
        let armed = connection.armed();
        if armed.0 != 0 && self.comes_up(armed) <= self.comes_up(wanted) {
            return;
        }
        // A later entry that is there would come up too late: without room, the connection has no valid one.
        connection.set_armed(self.enter(slot, wanted));
    }

    /// Enters a slot in a bucket. Returns the mark of its connection.
    #[inline]
    fn enter(&mut self, slot: u32, bucket: Armed) -> Armed {
        if self.push(bucket, slot) {
            return bucket;
        }
        cold_path();
        self.unseen = self.slots;
        self.full += 1;
        Armed::default()
    }

    /// Returns the latest bucket that comes up in time. A fine bucket comes up after its last millisecond, when the deadline is due;
    /// a coarse one with its first, so that the entry can still move to a fine one.
    #[inline]
    fn bucket_for(&self, deadline: Millis) -> Armed {
        let ahead = i64::from(deadline.0.wrapping_sub(self.now_millis.0) as i32).max(0) as u64;
        let at = self.now + ahead;
        let fine = (at >> FINE_MS_LOG2).max(self.fine_done);
        if fine < self.fine_done + BUCKETS {
            return Armed((fine % BUCKETS) as u8 + 1);
        }
        let coarse = at >> COARSE_MS_LOG2;
        if coarse < self.coarse_done {
            return Armed(((self.fine_done + BUCKETS - 1) % BUCKETS) as u8 + 1);
        }
        let coarse = coarse.min(self.coarse_done + COARSE_BUCKETS - 1);
        Armed((BUCKETS + coarse % COARSE_BUCKETS) as u8 + 1)
    }

    /// Returns when a bucket comes up, in milliseconds since the wheel was made.
    #[inline]
    fn comes_up(&self, bucket: Armed) -> u64 {
        let number = u64::from(bucket.0 - 1);
        if number < BUCKETS {
            let ahead = (number + BUCKETS - self.fine_done % BUCKETS) % BUCKETS;
            (self.fine_done + ahead + 1) << FINE_MS_LOG2
        } else {
            let done = self.coarse_done % COARSE_BUCKETS;
            let ahead = (number - BUCKETS + COARSE_BUCKETS - done) % COARSE_BUCKETS;
            (self.coarse_done + ahead) << COARSE_MS_LOG2
        }
    }

    fn push(&mut self, bucket: Armed, slot: u32) -> bool {
        let head = self.heads[usize::from(bucket.0 - 1)];
        if head != NO_CHUNK {
            let chunk = &mut self.chunks[head as usize];
            if (chunk.len as usize) < CHUNK {
                chunk.slots[chunk.len as usize] = slot;
                chunk.len += 1;
                self.len += 1;
                return true;
            }
        }
        let number = self.free;
        if number == NO_CHUNK {
            return false;
        }
        let chunk = &mut self.chunks[number as usize];
        self.free = chunk.next;
        chunk.slots[0] = slot;
        chunk.len = 1;
        chunk.next = head;
        if let Some(free) = self.chunks.get(self.free as usize) {
            super::prefetch::prefetch_to_write(free);
        }
        self.heads[usize::from(bucket.0 - 1)] = number;
        self.len += 1;
        true
    }

    /// Returns the next slot whose deadline is due at `now`, and takes its connection out of the wheel. Looks at no more than
    /// `looks` entries, and takes their number off `looks`.
    pub fn poll(
        &mut self,
        now: Millis,
        looks: &mut usize,
        connections: &mut (impl Deadlines + ?Sized),
    ) -> Option<u32> {
        let elapsed = now.since(self.now_millis);
        self.now += u64::from(elapsed);
        if elapsed > 0 {
            self.now_millis = now;
            self.left_now = SEEN_PER_MS;
        }
        while *looks > 0 {
            let (slot, mark) = self.next_entry(connections)?;
            *looks -= 1;
            if connections.armed(slot) != mark {
                continue;
            }
            let deadline = connections.deadline(slot);
            let still = match deadline {
                Some(deadline) if !deadline.is_due(now) => self.enter(slot, self.bucket_for(deadline)),
                _ => Armed::default(),
            };
            if still != mark {
                connections.set_armed(slot, still);
            }
            if deadline.is_some_and(|deadline| deadline.is_due(now)) {
                return Some(slot);
            }
        }
        None
    }

    /// Returns the next entry that has come up, and the mark of its connection if the entry is not stale.
    fn next_entry(&mut self, connections: &(impl Deadlines + ?Sized)) -> Option<(u32, Armed)> {
        loop {
            if self.reading != NO_CHUNK {
                let chunk = &mut self.chunks[self.reading as usize];
                if chunk.len > 0 {
                    chunk.len -= 1;
                    self.len -= 1;
                    return Some((chunk.slots[chunk.len as usize], self.reading_bucket));
                }
                let (emptied, next) = (self.reading, chunk.next);
                chunk.next = self.free;
                self.free = emptied;
                self.read(next, connections);
                continue;
            }
            if self.len == 0 {
                self.fine_done = self.now >> FINE_MS_LOG2;
                self.coarse_done = (self.now >> COARSE_MS_LOG2) + 1;
                return self.next_unseen();
            }
            let bucket = if self.coarse_done << COARSE_MS_LOG2 <= self.now {
                let bucket = BUCKETS + self.coarse_done % COARSE_BUCKETS;
                self.coarse_done += 1;
                bucket
            } else if (self.fine_done + 1) << FINE_MS_LOG2 <= self.now {
                let bucket = self.fine_done % BUCKETS;
                self.fine_done += 1;
                bucket
            } else {
                return self.next_unseen();
            };
            self.reading_bucket = Armed(bucket as u8 + 1);
            let first = std::mem::replace(&mut self.heads[bucket as usize], NO_CHUNK);
            self.read(first, connections);
        }
    }

    /// Begins to read a chunk, if there is one: prefetches its connections and the chunk behind it.
    #[inline]
    fn read(&mut self, number: u32, connections: &(impl Deadlines + ?Sized)) {
        self.reading = number;
        let Some(chunk) = self.chunks.get(number as usize) else { return };
        chunk.slots[..chunk.len as usize].iter().rev().for_each(|slot| connections.prefetch(*slot));
        if let Some(next) = self.chunks.get(chunk.next as usize) {
            super::prefetch::prefetch_to_write(next);
        }
    }

    /// Returns the sweep's next slot while deadlines are without an entry, and the mark of a connection without one.
    #[inline]
    fn next_unseen(&mut self) -> Option<(u32, Armed)> {
        if self.unseen == 0 {
            return None;
        }
        if self.seen == SEEN_PER_POLL || self.left_now == 0 {
            self.seen = 0;
            return None;
        }
        self.seen += 1;
        self.left_now -= 1;
        self.unseen -= 1;
        self.at = if self.at + 1 < self.slots { self.at + 1 } else { 0 };
        Some((self.at, Armed::default()))
    }

    /// Returns in how many milliseconds from the last poll the next one is wanted, at the latest; `None` for an empty wheel.
    #[must_use]
    pub fn next_poll_ms(&self) -> Option<u32> {
        if self.reading != NO_CHUNK || self.unseen > 0 {
            return Some(u32::from(self.reading == NO_CHUNK && self.left_now == 0));
        }
        (0..HEADS)
            .filter(|bucket| self.heads[*bucket] != NO_CHUNK)
            .map(|bucket| self.comes_up(Armed(bucket as u8 + 1)).saturating_sub(self.now) as u32)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A connection as the wheel sees it.
    #[derive(Clone, Default)]
    struct Connection {
        armed: Armed,
        deadline: Option<Millis>,
    }

    impl Marked for Connection {
        fn armed(&self) -> Armed {
            self.armed
        }

        fn set_armed(&mut self, armed: Armed) {
            self.armed = armed;
        }
    }

    impl Deadlines for [Connection] {
        fn armed(&self, slot: u32) -> Armed {
            self[slot as usize].armed
        }

        fn set_armed(&mut self, slot: u32, armed: Armed) {
            self[slot as usize].armed = armed;
        }

        fn deadline(&self, slot: u32) -> Option<Millis> {
            self[slot as usize].deadline
        }

        fn prefetch(&self, _slot: u32) {}
    }

    struct Harness {
        timers: Timers,
        connections: Vec<Connection>,
        now: Millis,
        /// Deadlines that found no room.
        full: u64,
    }

    impl Harness {
        fn new(capacity: usize, start: u32) -> Self {
            Self {
                timers: Timers::new(capacity, Share::Half, Millis(start)),
                connections: vec![Connection::default(); capacity],
                now: Millis(start),
                full: 0,
            }
        }

        fn set(&mut self, slot: usize, in_ms: u32) {
            let deadline = self.now + in_ms;
            self.connections[slot].deadline = Some(deadline);
            self.timers.arm(slot as u32, &mut self.connections[slot], deadline);
        }

        /// Polls as an endpoint does; the slots whose deadline was found due.
        fn advance(&mut self, by_ms: u32) -> Vec<usize> {
            self.now = self.now + by_ms;
            let mut fired = Vec::new();
            while let Some(slot) = self.timers.poll(self.now, &mut { usize::MAX }, &mut *self.connections) {
                self.connections[slot as usize].deadline = None;
                fired.push(slot as usize);
            }
            self.full += self.timers.take_full();
            fired
        }
    }

    #[test]
    fn deadlines_come_up_in_time_from_milliseconds_to_hours() {
        for start in [0, 1, 511, u32::MAX - 5000] {
            for in_ms in
                [0, 1, 3, 4, 40, 200, 507, 508, 511, 512, 513, 1000, 60_000, 65_535, 120_000, 7_200_000]
            {
                let mut harness = Harness::new(4, start);
                harness.advance(3);
                harness.set(1, in_ms);
                let mut waited = 0;
                while harness.advance(1).is_empty() {
                    waited += 1;
                    assert!(waited <= in_ms + 8, "{in_ms} from {start}");
                }
                assert!(waited + 1 >= in_ms, "{in_ms} from {start} fired after {waited}");
            }
        }
    }

    #[test]
    fn a_deadline_that_only_moves_later_keeps_one_entry() {
        let mut harness = Harness::new(1, 0);
        for _ in 0..10_000 {
            harness.set(0, 200);
            assert!(harness.advance(1).is_empty());
        }
        assert!(harness.timers.len <= 1);
        assert_eq!(harness.full, 0);
    }

    #[test]
    fn deadlines_that_find_no_room_are_found_all_the_same() {
        let mut harness = Harness::new(64, 0);
        harness.timers = Timers::with_chunks(64, 3, Millis(0));
        for round in 0..200u32 {
            for slot in 0..64 {
                // First far, then near: leaves the far entry behind.
                harness.set(slot, 30_000 + round);
                harness.set(slot, 8);
            }
            harness.advance(8);
            let mut fired = harness.advance(4);
            fired.extend(harness.advance(4));
            fired.sort_unstable();
            assert!(harness.connections.iter().all(|connection| connection.deadline.is_none()), "{fired:?}");
        }
        assert!(harness.full > 0);
        // Without the far entries there is room again, and the sweep ends.
        harness.advance(60_000);
        harness.advance(4);
        let full = harness.full;
        harness.set(7, 100);
        assert_eq!((0..30).flat_map(|_| harness.advance(4)).collect::<Vec<_>>(), [7]);
        assert_eq!((harness.full, harness.timers.unseen), (full, 0));
    }

    proptest! {
        #[test]
        fn no_deadline_is_lost_and_none_fires_early(
            start in any::<u32>(),
            steps in prop::collection::vec((0usize..24, 0u32..100_000, 0u32..3, 0u32..900), 1..300),
        ) {
            let mut harness = Harness::new(24, start);
            for (slot, in_ms, scale, by_ms) in steps {
                harness.set(slot, in_ms >> (4 * scale));
                let before: Vec<_> = harness.connections.iter().map(|connection| connection.deadline).collect();
                for fired in harness.advance(by_ms) {
                    prop_assert!(before[fired].is_some_and(|deadline| deadline.is_due(harness.now)));
                }
                for connection in &harness.connections {
                    if let Some(deadline) = connection.deadline {
                        prop_assert!(harness.now.since(deadline) <= 4, "overdue by {}", harness.now.since(deadline));
                    }
                }
            }
        }
    }
}
