//! The index: from a flow's hash to the slot of its connection.
//!
//! A line of 64 bytes has ten entries, the fingerprints together and the slots together, and a summary of its strays: entries whose home is
//! this line and whose place is in a later one. A search compares all fingerprints of a line at once. It goes on only if the flow may be a
//! stray, and only as far as the furthest of them. So an entry never moves, and a removal leaves no tombstone and writes at most two lines.
//! Another worker may search the index at any moment without a lock, and finds an entry as long as it is there.

mod strays;

use strays::Strays;

use crate::hint::{mostly, seldom};
use crate::sync::{Arc, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

const ENTRIES: usize = 10;
/// The mean load of a full table: 5.5 of 10 entries a line. The processor mispredicts a search that goes on to the next line: at 75 % of
/// seven entries, such searches took a tenth of a connection's time.
const LOAD_PERCENT: usize = 55;

/// Lines behind the first that are prefetched for a search that may go on.
const PREFETCHED: usize = 2;

/// Ten entries. A word holds four fingerprints or two slots, the first one lowest. The strays stand behind the last fingerprint. A
/// fingerprint of 0 is no entry.
#[repr(C, align(64))]
struct Line {
    fingerprints: [AtomicU64; 3],
    slots: [AtomicU64; 5],
}

impl Line {
    fn new() -> Self {
        Self {
            fingerprints: std::array::from_fn(|_| AtomicU64::new(0)),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    #[inline]
    fn read(&self) -> Fingerprints {
        let [a, b, c] = &self.fingerprints;
        Fingerprints([a.load(Acquire), b.load(Acquire), c.load(Acquire)])
    }

    #[inline]
    fn strays(&self) -> Strays {
        let [.., last] = &self.fingerprints;
        Strays(part::<32>(last.load(Acquire), 1) as u32)
    }

    #[inline]
    fn slot(&self, position: usize) -> u32 {
        part::<32>(self.slots[position / 2].load(Relaxed), position) as u32
    }

    /// Writes an entry: first its slot, then its fingerprint, so that a reader of the fingerprint finds the slot.
    #[inline]
    fn set(&self, position: usize, fingerprint: u16, slot: u32) {
        let word = &self.slots[position / 2];
        word.store(with_part::<32>(word.load(Relaxed), position, slot.into()), Relaxed);
        self.set_fingerprint(position, fingerprint);
    }

    #[inline]
    fn set_fingerprint(&self, position: usize, fingerprint: u16) {
        let word = &self.fingerprints[position / 4];
        word.store(with_part::<16>(word.load(Relaxed), position, fingerprint.into()), Release);
    }

    fn set_strays(&self, strays: Strays) {
        let [.., last] = &self.fingerprints;
        last.store(with_part::<32>(last.load(Relaxed), 1, strays.0.into()), Release);
    }
}

/// A copy of a line's fingerprints and strays.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fingerprints([u64; 3]);

impl Fingerprints {
    /// Returns the positions of this fingerprint.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "the intrinsics of SSE2 are unsafe functions")]
    fn equal(&self, wanted: u16) -> Matches {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set_epi64x, _mm_set1_epi16,
        };
        let [a, b, c] = self.0.map(u64::cast_signed);
        // SAFETY: the intrinsics only compute, and every x86-64 has SSE2.
        let sixteen = unsafe {
            let wanted = _mm_set1_epi16(wanted.cast_signed());
            let lower = _mm_cmpeq_epi16(_mm_set_epi64x(b, a), wanted);
            let upper = _mm_cmpeq_epi16(_mm_set_epi64x(0, c), wanted);
            _mm_movemask_epi8(_mm_packs_epi16(lower, upper))
        };
        Matches(sixteen.cast_unsigned() & ALL)
    }

    /// Returns the positions of this fingerprint.
    #[inline]
    #[cfg(not(target_arch = "x86_64"))]
    fn equal(&self, wanted: u16) -> Matches {
        let is_equal = |position: usize| part::<16>(self.0[position / 4], position) == u64::from(wanted);
        Matches((0..ENTRIES).fold(0, |found, position| found | u32::from(is_equal(position)) << position))
    }

    #[inline]
    fn strays(&self) -> Strays {
        let [.., last] = self.0;
        Strays(part::<32>(last, 1) as u32)
    }
}

/// Positions in a line, one bit each.
#[derive(Clone, Copy)]
struct Matches(u32);

/// All ten positions.
const ALL: u32 = (1 << ENTRIES) - 1;

impl Iterator for Matches {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let position = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(position)
    }
}

/// Returns the part of `BITS` bits at a position of a word, or of the words that it is one of; the first part is lowest.
#[inline]
const fn part<const BITS: usize>(word: u64, position: usize) -> u64 {
    word >> (BITS * position % 64) & (u64::MAX >> (64 - BITS))
}

/// Returns the word with another value in that part.
#[inline]
const fn with_part<const BITS: usize>(word: u64, position: usize, value: u64) -> u64 {
    let (shift, mask) = (BITS * position % 64, u64::MAX >> (64 - BITS));
    word & !(mask << shift) | value << shift
}

#[cfg(not(feature = "model"))]
const _: () = assert!(size_of::<Line>() == 64, "a search touches one cache line a step");

/// The table holds as many flows as it has capacity for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One worker's index, for the worker itself, which alone writes.
pub struct FlowTable {
    index: FlowIndex,
    len: usize,
    capacity: usize,
}

/// One worker's index, for the other workers, which read.
#[derive(Clone)]
pub struct FlowIndex {
    lines: Arc<Lines>,
}

/// All lines.
struct Lines {
    lines: Box<[Line]>,
    /// The largest distance of an entry from its home so far, in lines.
    furthest: AtomicU64,
}

impl std::ops::Deref for Lines {
    type Target = [Line];

    #[inline]
    fn deref(&self) -> &[Line] {
        &self.lines
    }
}

const fn lines_for(capacity: usize) -> usize {
    let lines = (capacity * 100).div_ceil(ENTRIES * LOAD_PERCENT);
    if lines < 2 { 2 } else { lines }
}

/// Returns the lowest bits of the hash, never 0.
#[inline]
const fn fingerprint(hash: u64) -> u16 {
    match hash as u16 {
        0 => 1,
        lowest => lowest,
    }
}

impl FlowIndex {
    /// Returns the home line of a hash: its high half, scaled to the number of lines.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.lines.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, line: usize) -> usize {
        if line + 1 == self.lines.len() { 0 } else { line + 1 }
    }

    /// Returns the largest distance of an entry from its home so far, in lines.
    fn furthest(&self) -> usize {
        self.lines.furthest.load(Acquire) as usize
    }

    /// Returns how many further lines a search must read that began in a line with these strays.
    #[inline]
    fn reach(&self, strays: Strays, hash: u64) -> usize {
        strays.reach(hash, || self.furthest())
    }

    /// Returns line, position and slot of the entry with this hash whose slot `is_it`.
    #[inline]
    fn search(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<(usize, usize, u32)> {
        let wanted = fingerprint(hash);
        let mut at = self.home(hash);
        let mut line = &self.lines[at];
        let mut fingerprints = line.read();
        let strays = fingerprints.strays();
        let mut left = None;
        loop {
            for position in fingerprints.equal(wanted) {
                let slot = line.slot(position);
                if mostly(is_it(slot)) {
                    return Some((at, position, slot));
                }
            }
            // Most entries are at home: then the strays do not matter.
            let further = left.unwrap_or_else(|| self.reach(strays, hash)).checked_sub(1)?;
            left = Some(further);
            at = self.next(at);
            line = &self.lines[at];
            fingerprints = line.read();
        }
    }

    /// Prefetches the home line of a hash.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        super::prefetch(&self.lines[self.home(hash)]);
    }

    /// May a flow with this hash be in the table? Reads the home line, and prefetches the next lines if a search would go on.
    #[inline]
    pub fn may_hold(&self, hash: u64) -> bool {
        let mut at = self.home(hash);
        let home = self.lines[at].read();
        let reach = self.reach(home.strays(), hash);
        for _ in 0..reach.min(PREFETCHED) {
            at = self.next(at);
            super::prefetch(&self.lines[at]);
        }
        reach > 0 || home.equal(fingerprint(hash)).next().is_some()
    }

    /// Returns the slot whose record `is_it`, of those whose fingerprint of 16 bits matches. Once in ten thousand searches another flow's
    /// matches, too.
    #[must_use]
    pub fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.search(hash, is_it).map(|(_, _, slot)| slot)
    }
}

impl FlowTable {
    /// Returns a table with room for `capacity` flows.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let lines = super::table_of(lines_for(capacity), |_| Line::new());
        let lines = Lines { lines, furthest: AtomicU64::new(0) };
        Self { index: FlowIndex { lines: Arc::new(lines) }, len: 0, capacity }
    }

    /// Returns how many bytes of memory a table for `capacity` flows takes.
    #[must_use]
    pub const fn bytes_for(capacity: usize) -> usize {
        lines_for(capacity) * size_of::<Line>()
    }

    /// Returns the view for other workers.
    #[must_use]
    pub fn index(&self) -> FlowIndex {
        self.index.clone()
    }

    /// Returns the number of flows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Is there no flow?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns how many bytes of memory the table takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.index.lines.lines)
    }

    /// Prefetches the home line of a hash.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Prefetches the home line of a hash for writing: its flow is about to be inserted or removed.
    #[inline]
    pub fn prefetch_to_write(&self, hash: u64) {
        super::prefetch_to_write(&self.index.lines[self.index.home(hash)]);
    }

    /// Prefetches the lines behind the home line for writing, if that has strays and so is, or was, full. Reads the home line.
    #[inline]
    pub fn prefetch_further_to_write(&self, hash: u64) {
        let mut at = self.index.home(hash);
        if seldom(self.index.lines[at].strays() != Strays::default()) {
            for _ in 0..PREFETCHED {
                at = self.index.next(at);
                super::prefetch_to_write(&self.index.lines[at]);
            }
        }
    }

    /// Returns the slot with this fingerprint whose connection `is_it`.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.index.search(hash, is_it).map(|(_, _, slot)| slot)
    }

    /// Inserts a flow that is not in the table.
    ///
    /// # Errors
    /// [`Full`] when the table is at its capacity.
    pub fn insert(&mut self, hash: u64, slot: u32) -> Result<(), Full> {
        if self.len == self.capacity {
            return Err(Full);
        }
        let home = self.index.home(hash);
        let (mut at, mut distance) = (home, 0);
        // The capacity is below the number of entries, so the loop ends.
        let position = loop {
            match self.index.lines[at].read().equal(0).next() {
                Some(position) => break position,
                None => (at, distance) = (self.index.next(at), distance + 1),
            }
        };
        if distance > 0 {
            // This comes before the entry: a search that begins later reaches it.
            if distance > self.index.furthest() {
                self.index.lines.furthest.store(distance as u64, Release);
            }
            let line = &self.index.lines[home];
            line.set_strays(line.strays().with(hash, distance));
        }
        self.index.lines[at].set(position, fingerprint(hash), slot);
        self.len += 1;
        Ok(())
    }

    /// Removes a flow. Returns whether it was in the table.
    pub fn remove(&mut self, hash: u64, slot: u32) -> bool {
        let Some((found, position, _)) = self.index.search(hash, |candidate| candidate == slot) else {
            return false;
        };
        self.index.lines[found].set_fingerprint(position, 0);
        let home = self.index.home(hash);
        if home != found {
            let line = &self.index.lines[home];
            line.set_strays(line.strays().without(hash));
        }
        self.len -= 1;
        true
    }
}

#[cfg(all(test, not(feature = "model")))]
mod crowding;

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// A third of the slots fill the table.
    const CAPACITY: usize = 32;
    const SLOTS: u32 = 96;

    #[test]
    fn a_full_table_refuses_and_takes_again_after_a_removal() {
        let mut table = FlowTable::new(3);
        for slot in 0..3 {
            assert_eq!(table.insert(u64::from(slot), slot), Ok(()));
        }
        assert_eq!(table.insert(9, 9), Err(Full));
        assert!(table.remove(1, 1));
        assert!(!table.remove(1, 1));
        assert_eq!(table.insert(9, 9), Ok(()));
        assert_eq!(table.find(9, |slot| slot == 9), Some(9));
    }

    proptest! {
        /// Compares the table with a map. The hashes have two homes, so lines overflow, the last one into the first, and the table gets full.
        #[test]
        fn it_holds_what_a_map_holds(operations in prop::collection::vec((0u32..SLOTS, any::<bool>(), any::<bool>()), 1..600)) {
            let mut table = FlowTable::new(CAPACITY);
            let mut model = HashMap::new();
            let reader = table.index();
            for (slot, insert, last_line) in operations {
                let home = if last_line { u64::from(u32::MAX) } else { 0 };
                let hash = home << 32 | u64::from(slot % 3) << 30 | u64::from(slot % 5);
                if insert && !model.contains_key(&slot) {
                    prop_assert_eq!(table.insert(hash, slot).is_ok(), model.len() < CAPACITY);
                    if model.len() < CAPACITY {
                        model.insert(slot, hash);
                    }
                } else if let Some(hash) = model.remove(&slot) {
                    prop_assert!(table.remove(hash, slot));
                }
                prop_assert_eq!(table.len(), model.len());
            }
            for (slot, hash) in &model {
                prop_assert_eq!(table.find(*hash, |candidate| candidate == *slot), Some(*slot));
                prop_assert!(reader.find(*hash, |_| true).is_some());
            }
            for slot in 0..SLOTS {
                if let Some(hash) = model.remove(&slot) {
                    prop_assert!(table.remove(hash, slot));
                }
            }
            prop_assert!(table.index.lines.iter().all(|line| line.read() == Fingerprints([0; 3])));
        }
    }
}
