//! Which connection has a deadline when. Knows slots and milliseconds; never what a deadline is for.
//!
//! Two rings of buckets: 128 of 4 ms, and behind them 127 of 512 ms. Timers are lazy: a connection's deadline is its own, and
//! the wheel holds an entry that comes up no later. A deadline that moves later costs nothing: when its entry comes up early,
//! it is armed again. The connection remembers in one byte which bucket holds its entry ([`Armed`]); an entry that comes up
//! from another bucket is stale and dropped.
//!
//! The wheel has room for so many entries as are likely ([`Share`]). When it is full, deadlines that find no room are found by going
//! through all slots, some in each millisecond, until all have an entry again.

use crate::time::Millis;

const FINE_MS_LOG2: u32 = 2;
const COARSE_MS_LOG2: u32 = 9;
const BUCKETS: u64 = 128;
/// One coarse bucket fewer, so that a bucket's number plus one fits a byte.
const COARSE_BUCKETS: u64 = 127;
const HEADS: usize = (BUCKETS + COARSE_BUCKETS) as usize;
const CHUNK: usize = 14;
const NO_CHUNK: u32 = u32::MAX;
/// Up to so many slots the wheel has room for a stale entry each.
const SMALL: usize = 1 << 20;
/// Slots looked at with each poll while some have no entry, and in each millisecond: a few percent of a core's time, and a hundred
/// million slots in 12 s.
const SEEN_PER_POLL: u32 = 256;
const SEEN_PER_MS: u32 = 8192;

/// How many of the slots have a deadline at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Half of them at most, where there are many: most connections of a large table are idle and have none.
    Half,
    /// All of them.
    All,
}

/// Which bucket holds a connection's entry: 0 for none, else the bucket's number plus one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Armed(pub u8);

/// What has a deadline, as far as the wheel goes: it keeps one byte for it.
pub trait Marked {
    /// Where its entry is.
    fn armed(&self) -> Armed;
    /// Remembers where.
    fn set_armed(&mut self, armed: Armed);
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
    /// The present, in milliseconds since the first; grows without wrapping.
    now: u64,
    now_millis: Millis,
    /// Buckets before these ticks were emptied.
    fine_done: u64,
    coarse_done: u64,
    heads: [u32; HEADS],
    chunks: Box<[Chunk]>,
    free: u32,
    /// The chain that is being read, and the bucket it came from.
    reading: u32,
    reading_bucket: Armed,
    /// Entries, stale ones included.
    len: usize,
    /// All slots that may be armed, how many of them are still to be looked at, which was the last, and how many were since the
    /// last poll that found nothing.
    slots: u32,
    unseen: u32,
    at: u32,
    seen: u32,
    /// Those that may still be looked at in this millisecond.
    left_now: u32,
}

fn chunks_for(capacity: usize, share: Share) -> usize {
    let live = match share {
        Share::Half => capacity / 2,
        Share::All => capacity + capacity / 8,
    };
    // A chunk is begun in each bucket and in the chain being read.
    (capacity.min(SMALL) + live).div_ceil(CHUNK) + HEADS + 2
}

impl Timers {
    /// For `capacity` connections, from `now` on.
    #[must_use]
    pub fn new(capacity: usize, share: Share, now: Millis) -> Self {
        Self::with_chunks(capacity, chunks_for(capacity, share), now)
    }

    /// Bytes of memory that a wheel for so many connections takes.
    #[must_use]
    pub fn bytes_for(capacity: usize, share: Share) -> usize {
        chunks_for(capacity, share) * size_of::<Chunk>()
    }

    fn with_chunks(slots: usize, count: usize, now: Millis) -> Self {
        let chunks = super::table_of(count, |number| Chunk {
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
        }
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.chunks)
    }

    /// When it was polled last.
    #[must_use]
    pub const fn now(&self) -> Millis {
        self.now_millis
    }

    /// Makes sure that an entry for the connection in `slot` comes up at or before `deadline`, and tells it where. False when the
    /// wheel is full: then the connection has no entry, and comes up when all slots are gone through.
    #[inline]
    pub fn arm(&mut self, slot: u32, connection: &mut impl Marked, deadline: Millis) -> bool {
        let wanted = self.bucket_for(deadline);
        let armed = connection.armed();
        if armed.0 != 0 && self.comes_up(armed) <= self.comes_up(wanted) {
            return true;
        }
        if !self.push(wanted, slot) {
            // A later entry that is there would come up too late.
            connection.set_armed(Armed::default());
            self.unseen = self.slots;
            return false;
        }
        connection.set_armed(wanted);
        true
    }

    /// The latest bucket that still comes up in time: a fine one once its last millisecond has passed, so that the deadline
    /// is due; a coarse one when its first begins, so that the entry can still move to a fine one.
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

    /// When a bucket will be emptied, in milliseconds.
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
            super::prefetch_to_write(free);
        }
        self.heads[usize::from(bucket.0 - 1)] = number;
        self.len += 1;
        true
    }

    /// The next entry that has come up by `now`, and the mark its connection bears if the entry is not stale. The caller clears that mark,
    /// and arms the connection again when its deadline is still to come. `soon` is told of the entries that come up with the next polls, this
    /// one's too, before the first of them does.
    pub fn poll(&mut self, now: Millis, mut soon: impl FnMut(u32)) -> Option<(u32, Armed)> {
        let elapsed = now.since(self.now_millis);
        self.now += u64::from(elapsed);
        if elapsed > 0 {
            self.now_millis = now;
            self.left_now = SEEN_PER_MS;
        }
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
                self.read(next, &mut soon);
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
            self.read(first, &mut soon);
        }
    }

    /// Begins with a chunk, if there is one: tells `soon` of its entries, and asks for the line of the one behind it.
    #[inline]
    fn read(&mut self, number: u32, soon: &mut impl FnMut(u32)) {
        self.reading = number;
        let Some(chunk) = self.chunks.get(number as usize) else { return };
        chunk.slots[..chunk.len as usize].iter().rev().for_each(|slot| soon(*slot));
        if let Some(next) = self.chunks.get(chunk.next as usize) {
            super::prefetch_to_write(next);
        }
    }

    /// While deadlines are without an entry: the next slot to look at, some with each poll. Its connection bears this mark if it has
    /// no entry.
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

    /// When the wheel next wants to be polled, if it holds anything: at the latest so many milliseconds from the last poll.
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

    /// A connection as far as the wheel goes, and what it expects of it.
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

    struct Harness {
        timers: Timers,
        connections: Vec<Connection>,
        now: Millis,
        /// Deadlines that found no room.
        full: usize,
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
            self.arm(slot, deadline);
        }

        fn arm(&mut self, slot: usize, deadline: Millis) {
            self.full += usize::from(!self.timers.arm(slot as u32, &mut self.connections[slot], deadline));
        }

        /// Polls as an endpoint does; the slots whose deadline was found due.
        fn advance(&mut self, by_ms: u32) -> Vec<usize> {
            self.now = self.now + by_ms;
            let mut fired = Vec::new();
            while let Some((slot, mark)) = self.timers.poll(self.now, |_| ()) {
                let slot = slot as usize;
                if self.connections[slot].armed != mark {
                    continue;
                }
                self.connections[slot].armed = Armed::default();
                match self.connections[slot].deadline {
                    Some(deadline) if deadline.is_due(self.now) => {
                        self.connections[slot].deadline = None;
                        fired.push(slot);
                    }
                    Some(deadline) => self.arm(slot, deadline),
                    None => {}
                }
            }
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
        // With the far ones gone there is room again, and nobody is looked for.
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
