//! The index: from a flow's hash to the slot of its connection. Knows fingerprints and slot numbers; never what a slot holds.
//!
//! A line of 64 bytes has ten entries, their fingerprints together and their slots together, and what is known of its strays: the
//! entries at home in this line that found their place in a later one. A search looks at all fingerprints of a line at once, and goes
//! on only if what it looks for may be a stray, as far as the furthest of them. So an entry never moves once it is in, removal
//! leaves no tombstones and writes to two lines at most, and another worker may search the index at any moment without a lock: it
//! finds an entry for as long as it is there.

mod strays;

use strays::Strays;

use crate::hint::{mostly, seldom};
use crate::sync::{Arc, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

const ENTRIES: usize = 10;
/// Entries are filled up to this share of a line on average: 5.5 of 10. A search that goes on is one that the processor does not
/// foresee: at 75 % of seven entries that took a tenth of a connection's time.
const LOAD_PERCENT: usize = 55;

/// Lines behind the first that are asked for ahead of a search that may go on.
const PREFETCHED: usize = 2;

/// Four fingerprints to a word and two slots, the first of them lowest. Behind the last fingerprint stand the strays. A fingerprint of 0
/// is no entry.
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

    /// An entry's slot first, then its fingerprint: who finds this finds that.
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

/// A line's fingerprints and strays as they were read.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fingerprints([u64; 3]);

impl Fingerprints {
    /// Which of the ten are this one.
    #[inline]
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code, reason = "the compiler wants to be told that this processor has SSE2")]
    fn equal(&self, wanted: u16) -> Matches {
        use std::arch::x86_64::{
            _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set_epi64x, _mm_set1_epi16,
        };
        let [a, b, c] = self.0.map(u64::cast_signed);
        // SAFETY: numbers in and numbers out, and every x86-64 has SSE2.
        let sixteen = unsafe {
            let wanted = _mm_set1_epi16(wanted.cast_signed());
            let lower = _mm_cmpeq_epi16(_mm_set_epi64x(b, a), wanted);
            let upper = _mm_cmpeq_epi16(_mm_set_epi64x(0, c), wanted);
            _mm_movemask_epi8(_mm_packs_epi16(lower, upper))
        };
        Matches(sixteen.cast_unsigned() & ALL)
    }

    /// Which of the ten are this one.
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

/// Positions in a line, a bit each.
#[derive(Clone, Copy)]
struct Matches(u32);

/// All ten.
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

/// The part of `BITS` bits at this position of a word, or of the words that it is one of; the first is lowest.
#[inline]
const fn part<const BITS: usize>(word: u64, position: usize) -> u64 {
    word >> (BITS * position % 64) & (u64::MAX >> (64 - BITS))
}

/// A word with that part anew.
#[inline]
const fn with_part<const BITS: usize>(word: u64, position: usize, value: u64) -> u64 {
    let (shift, mask) = (BITS * position % 64, u64::MAX >> (64 - BITS));
    word & !(mask << shift) | value << shift
}

#[cfg(not(feature = "model"))]
const _: () = assert!(size_of::<Line>() == 64, "a search touches one cache line a step");

/// The table is as full as it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One worker's index. It alone writes; [`FlowIndex`] reads.
pub struct FlowTable {
    index: FlowIndex,
    len: usize,
    capacity: usize,
}

/// A view of a worker's index for the other workers.
#[derive(Clone)]
pub struct FlowIndex {
    lines: Arc<Lines>,
}

/// All lines.
struct Lines {
    lines: Box<[Line]>,
    /// As far as any entry ever was from home, in lines.
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

/// The lowest bits of the hash, never 0.
#[inline]
const fn fingerprint(hash: u64) -> u16 {
    match hash as u16 {
        0 => 1,
        lowest => lowest,
    }
}

impl FlowIndex {
    /// The line where a hash is at home: its high half, spread over all lines.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        (((hash >> 32) * self.lines.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, line: usize) -> usize {
        if line + 1 == self.lines.len() { 0 } else { line + 1 }
    }

    /// As far as any entry ever was from home, in lines.
    fn furthest(&self) -> usize {
        self.lines.furthest.load(Acquire) as usize
    }

    /// Lines that a search goes on for which began in a line with these strays.
    #[inline]
    fn reach(&self, strays: Strays, hash: u64) -> usize {
        strays.reach(hash, || self.furthest())
    }

    /// The place of the entry with this hash whose slot `is_it`.
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
            // Mostly it is at home: then nobody asks for its strays.
            let further = left.unwrap_or_else(|| self.reach(strays, hash)).checked_sub(1)?;
            left = Some(further);
            at = self.next(at);
            line = &self.lines[at];
            fingerprints = line.read();
        }
    }

    /// Asks for the line that a search for this hash starts with.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        super::prefetch(&self.lines[self.home(hash)]);
    }

    /// Once that line is there: may a flow with this hash be in the table? If a search would go on behind that line, the next lines are
    /// asked for.
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

    /// The slot whose record `is_it`, of those with this hash as far as fingerprints of 16 bits tell: a stranger's is among them once in
    /// ten thousand searches.
    #[must_use]
    pub fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.search(hash, is_it).map(|(_, _, slot)| slot)
    }
}

impl FlowTable {
    /// Room for `capacity` flows.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let lines = super::table_of(lines_for(capacity), |_| Line::new());
        let lines = Lines { lines, furthest: AtomicU64::new(0) };
        Self { index: FlowIndex { lines: Arc::new(lines) }, len: 0, capacity }
    }

    /// Bytes of memory that a table for so many flows takes.
    #[must_use]
    pub const fn bytes_for(capacity: usize) -> usize {
        lines_for(capacity) * size_of::<Line>()
    }

    /// The view for other workers.
    #[must_use]
    pub fn index(&self) -> FlowIndex {
        self.index.clone()
    }

    /// Flows in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.index.lines.lines)
    }

    /// See [`FlowIndex::prefetch`].
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// The same for a flow that will be entered or taken out: the line is written to.
    #[inline]
    pub fn prefetch_to_write(&self, hash: u64) {
        super::prefetch_to_write(&self.index.lines[self.index.home(hash)]);
    }

    /// Once that line is there: the same for those behind it, if it has strays. (So it has no room, or had none.)
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

    /// The slot with this fingerprint whose connection `is_it`.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.index.search(hash, is_it).map(|(_, _, slot)| slot)
    }

    /// Enters a flow that is not in the table.
    ///
    /// # Errors
    /// [`Full`] when the table holds as many as it was made for.
    pub fn insert(&mut self, hash: u64, slot: u32) -> Result<(), Full> {
        if self.len == self.capacity {
            return Err(Full);
        }
        let home = self.index.home(hash);
        let (mut at, mut distance) = (home, 0);
        // There is room somewhere: capacity is below the number of entries.
        let position = loop {
            match self.index.lines[at].read().equal(0).next() {
                Some(position) => break position,
                None => (at, distance) = (self.index.next(at), distance + 1),
            }
        };
        if distance > 0 {
            // Before the entry is there: who begins to search afterwards gets as far as it.
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

    /// Takes a flow out; whether it was in.
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

    /// A third of all slots are in the table after a while: mostly as many as there is room for.
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
        /// Against a map, with hashes of two homes, so that lines overflow, the last one to the first, and the table gets full.
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
