//! Records by slot number. One thread writes them; other threads read at any time and never make it wait.
//!
//! This is a sequence lock (Boehm: "Can seqlocks get along with programming languages?", MSPC 2012) with atomic words: a reader notices a
//! torn read, and it is never undefined. A record has no room for a counter of its own, so the counters stand apart, each for stripes of
//! `NEIGHBOURS` slots. A reader that goes from slot to slot stays with one counter for long; the writer, at random, seldom meets it.

use crate::sync::{Arc, AtomicU64, Backoff, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence};

/// The number of counters.
const STRIPES: usize = 1024;
/// The number of slots in a row that share a counter.
const NEIGHBOURS: usize = 64;

/// A record as words.
pub trait Words<const N: usize> {
    /// Packs the record.
    fn to_words(&self) -> [u64; N];
    /// Unpacks a record.
    fn from_words(words: [u64; N]) -> Self;
}

/// One record. Eight words are one cache line.
#[repr(align(64))]
struct Line<const N: usize>([AtomicU64; N]);

struct Shelf<const N: usize> {
    lines: Box<[Line<N>]>,
    /// The sequence counters: even while the writer is elsewhere.
    versions: Box<[AtomicU64]>,
}

impl<const N: usize> Shelf<N> {
    #[inline]
    fn version(&self, slot: u32) -> &AtomicU64 {
        // The number of counters is a power of two.
        &self.versions[(slot as usize / NEIGHBOURS) & (self.versions.len() - 1)]
    }
}

/// The writer's side; there is one writer.
pub struct Slots<const N: usize> {
    shelf: Arc<Shelf<N>>,
}

/// A reader's side.
pub struct SlotReader<const N: usize> {
    shelf: Arc<Shelf<N>>,
}

/// Returns how many counters this number of records gets.
fn stripes(count: usize) -> usize {
    count.div_ceil(NEIGHBOURS).clamp(1, STRIPES).next_power_of_two()
}

impl<const N: usize> Slots<N> {
    /// Returns `count` records of zeros.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let line = |_| Line(std::array::from_fn(|_| AtomicU64::new(0)));
        let versions = (0..stripes(count)).map(|_| AtomicU64::new(0)).collect();
        Self { shelf: Arc::new(Shelf { lines: super::table_of(count, line), versions }) }
    }

    /// Returns how many bytes of memory `count` records take.
    #[must_use]
    pub fn bytes_for(count: usize) -> usize {
        count * size_of::<Line<N>>() + stripes(count) * size_of::<AtomicU64>()
    }

    /// Returns another thread's view.
    #[must_use]
    pub fn reader(&self) -> SlotReader<N> {
        SlotReader { shelf: Arc::clone(&self.shelf) }
    }

    /// Returns the number of records.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.shelf.lines.len()
    }

    /// Is there no record?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how many bytes of memory the records take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.shelf.lines) + size_of_val(&*self.shelf.versions)
    }

    /// Prefetches a record and its counter for writing: a reader on another core may have both lines.
    #[inline]
    pub fn prefetch_to_write(&self, slot: u32) {
        super::prefetch_to_write(&self.shelf.lines[slot as usize]);
        super::prefetch_to_write(self.shelf.version(slot));
    }

    /// Returns one word of a record.
    #[must_use]
    #[inline]
    pub fn word(&self, slot: u32, word: usize) -> u64 {
        self.shelf.lines[slot as usize].0[word].load(Relaxed)
    }

    /// Returns all words of a record; the compiler loads only those that the caller uses.
    #[must_use]
    #[inline]
    pub fn words(&self, slot: u32) -> [u64; N] {
        load(&self.shelf.lines[slot as usize])
    }

    /// Returns a record. No lock is needed: only this side changes it.
    #[must_use]
    #[inline]
    pub fn get<T: Words<N>>(&self, slot: u32) -> T {
        T::from_words(load(&self.shelf.lines[slot as usize]))
    }

    /// Writes a record.
    #[inline]
    pub fn set(&mut self, slot: u32, record: &impl Words<N>) {
        self.set_words(slot, 0, record.to_words());
    }

    /// Writes a record, and runs `meanwhile` inside the write section of the sequence lock. A reader of both that finds the record
    /// [`is still`] as it was has both from one moment.
    ///
    /// [`is still`]: SlotReader::is_still
    #[inline]
    pub fn set_with(&mut self, slot: u32, record: &impl Words<N>, meanwhile: impl FnOnce()) {
        self.write(slot, 0, record.to_words(), meanwhile);
    }

    /// Writes the words of a record from number `first` on.
    ///
    /// # Panics
    /// If the record has fewer words.
    #[inline]
    pub fn set_words<const M: usize>(&mut self, slot: u32, first: usize, words: [u64; M]) {
        self.write(slot, first, words, || ());
    }

    #[inline]
    fn write<const M: usize>(&mut self, slot: u32, first: usize, words: [u64; M], meanwhile: impl FnOnce()) {
        let version = self.shelf.version(slot);
        let before = version.load(Relaxed);
        version.store(before.wrapping_add(1), Relaxed);
        // A reader of a new word finds the counter changed.
        fence(Release);
        for (to, word) in self.shelf.lines[slot as usize].0[first..first + M].iter().zip(words) {
            to.store(word, Relaxed);
        }
        meanwhile();
        version.store(before.wrapping_add(2), Release);
    }
}

#[inline]
fn load<const N: usize>(line: &Line<N>) -> [u64; N] {
    std::array::from_fn(|word| line.0[word].load(Relaxed))
}

/// The moment of a read: [`SlotReader::is_still`] tells whether the slot or a neighbour was written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

impl<const N: usize> SlotReader<N> {
    /// Returns the number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shelf.lines.len()
    }

    /// Is there no record?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a record as it was at one moment. Waits while the writer writes: some nanoseconds, unless the writer has lost its core.
    #[must_use]
    #[inline]
    pub fn read<T: Words<N>>(&self, slot: u32) -> (T, Moment) {
        let backoff = Backoff::new();
        loop {
            let version = self.shelf.version(slot).load(Acquire);
            if version & 1 == 0 {
                let words = load(&self.shelf.lines[slot as usize]);
                let moment = Moment(version);
                if self.is_still(slot, moment) {
                    return (T::from_words(words), moment);
                }
            }
            backoff.snooze();
        }
    }

    /// Is a record unchanged since that moment, so that all reads since then belong to it?
    #[must_use]
    #[inline]
    pub fn is_still(&self, slot: u32, moment: Moment) -> bool {
        // Earlier reads are not older than this one.
        fence(Acquire);
        self.shelf.version(slot).load(Relaxed) == moment.0
    }
}

impl<const N: usize> Clone for SlotReader<N> {
    fn clone(&self) -> Self {
        Self { shelf: Arc::clone(&self.shelf) }
    }
}

impl<const N: usize> std::fmt::Debug for SlotReader<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SlotReader({} slots)", self.len())
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    use super::*;

    /// A record of equal words.
    #[derive(Debug, PartialEq)]
    struct Uniform(u64);

    impl Words<8> for Uniform {
        fn to_words(&self) -> [u64; 8] {
            [self.0; 8]
        }

        fn from_words(words: [u64; 8]) -> Self {
            assert!(words.iter().all(|word| *word == words[0]), "torn: {words:?}");
            Self(words[0])
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let mut slots = Slots::<8>::new(3);
        let reader = slots.reader();
        slots.set(1, &Uniform(7));
        assert_eq!((slots.get::<Uniform>(1), slots.get::<Uniform>(2)), (Uniform(7), Uniform(0)));
        let (read, moment) = reader.read::<Uniform>(1);
        assert_eq!((read, reader.is_still(1, moment)), (Uniform(7), true));
        slots.set_words(1, 2, [1, 2]);
        assert_eq!((slots.word(1, 1), slots.word(1, 2), slots.word(1, 3), slots.word(1, 4)), (7, 1, 2, 7));
        assert!(!reader.is_still(1, moment));
    }

    /// The reader's closures assert that no record is torn. A reader may miss rounds of the writer, but never sees an older one after a newer
    /// one.
    #[test]
    fn readers_see_whole_records_in_the_order_of_writing() {
        const SLOTS: u32 = 8;
        let rounds = if cfg!(miri) { 200 } else { 2_000_000 };
        let mut slots = Slots::<8>::new(SLOTS as usize);
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let reader = slots.reader();
                scope.spawn(|| {
                    let reader = reader;
                    let mut last = [0; SLOTS as usize];
                    while !over.load(Relaxed) {
                        for slot in 0..SLOTS {
                            let (Uniform(read), _) = reader.read(slot);
                            assert!(read >= last[slot as usize], "slot {slot} went back");
                            last[slot as usize] = read;
                        }
                    }
                });
            }
            for round in 1..=rounds {
                slots.set((round % u64::from(SLOTS)) as u32, &Uniform(round));
            }
            over.store(true, Relaxed);
        });
    }
}
