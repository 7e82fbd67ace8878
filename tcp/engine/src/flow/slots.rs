//! Records by slot number, which one thread writes and any other may read at any time without making it wait. Knows words; never what
//! a record means.
//!
//! A sequence lock (Boehm: "Can seqlocks get along with programming languages?", MSPC 2012) whose words are atomics themselves, so that
//! a torn read is noticed and never undefined. The counters stand apart, one for `NEIGHBOURS` slots in a row and those as far
//! away as there are counters: a record has no room for its own. A reader that goes from slot to slot touches one counter for a
//! long while, and the writer, who goes about at random, seldom the same.

use crate::sync::{Arc, AtomicU64, Backoff, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence};

/// Counters.
const STRIPES: usize = 1024;
/// Slots in a row that share one.
const NEIGHBOURS: usize = 64;

/// A record as words.
pub trait Words<const N: usize> {
    /// Packs it.
    fn to_words(&self) -> [u64; N];
    /// Unpacks what was packed.
    fn from_words(words: [u64; N]) -> Self;
}

/// One record; of eight words it is one cache line.
#[repr(align(64))]
struct Line<const N: usize>([AtomicU64; N]);

struct Shelf<const N: usize> {
    lines: Box<[Line<N>]>,
    /// Even while nothing is written.
    versions: Box<[AtomicU64]>,
}

impl<const N: usize> Shelf<N> {
    #[inline]
    fn version(&self, slot: u32) -> &AtomicU64 {
        // Their number is a power of two.
        &self.versions[(slot as usize / NEIGHBOURS) & (self.versions.len() - 1)]
    }
}

/// The writer's side: there is one.
pub struct Slots<const N: usize> {
    shelf: Arc<Shelf<N>>,
}

/// A reader's side.
pub struct SlotReader<const N: usize> {
    shelf: Arc<Shelf<N>>,
}

/// Counters for so many records.
fn stripes(count: usize) -> usize {
    count.div_ceil(NEIGHBOURS).clamp(1, STRIPES).next_power_of_two()
}

impl<const N: usize> Slots<N> {
    /// `count` records of zeros.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let line = |_| Line(std::array::from_fn(|_| AtomicU64::new(0)));
        let versions = (0..stripes(count)).map(|_| AtomicU64::new(0)).collect();
        Self { shelf: Arc::new(Shelf { lines: super::table_of(count, line), versions }) }
    }

    /// Bytes of memory that so many records take.
    #[must_use]
    pub fn bytes_for(count: usize) -> usize {
        count * size_of::<Line<N>>() + stripes(count) * size_of::<AtomicU64>()
    }

    /// Another thread's view.
    #[must_use]
    pub fn reader(&self) -> SlotReader<N> {
        SlotReader { shelf: Arc::clone(&self.shelf) }
    }

    /// How many there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.shelf.lines.len()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.shelf.lines) + size_of_val(&*self.shelf.versions)
    }

    /// Asks for the line of a record that will be written to, and for that of its counter: a reader may have both.
    #[inline]
    pub fn prefetch_to_write(&self, slot: u32) {
        super::prefetch_to_write(&self.shelf.lines[slot as usize]);
        super::prefetch_to_write(self.shelf.version(slot));
    }

    /// One word of a record.
    #[must_use]
    #[inline]
    pub fn word(&self, slot: u32, word: usize) -> u64 {
        self.shelf.lines[slot as usize].0[word].load(Relaxed)
    }

    /// All words of a record; who looks at some of them pays for these only.
    #[must_use]
    #[inline]
    pub fn words(&self, slot: u32) -> [u64; N] {
        load(&self.shelf.lines[slot as usize])
    }

    /// A record. Only its writer changes it, and that is us.
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

    /// The same, and `meanwhile` writes elsewhere what belongs to it: who reads both and finds that the record [`is still`] as it was
    /// has both from one moment.
    ///
    /// [`is still`]: SlotReader::is_still
    #[inline]
    pub fn set_with(&mut self, slot: u32, record: &impl Words<N>, meanwhile: impl FnOnce()) {
        self.write(slot, 0, record.to_words(), meanwhile);
    }

    /// Writes the words of a record from number `first` on.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline]
    pub fn set_words<const M: usize>(&mut self, slot: u32, first: usize, words: [u64; M]) {
        self.write(slot, first, words, || ());
    }

    #[inline]
    fn write<const M: usize>(&mut self, slot: u32, first: usize, words: [u64; M], meanwhile: impl FnOnce()) {
        let version = self.shelf.version(slot);
        let before = version.load(Relaxed);
        version.store(before.wrapping_add(1), Relaxed);
        // Whoever reads one of the new words finds the counter moved.
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

/// A reader's place in time: nothing was written to a slot and its neighbours since, or [`SlotReader::is_still`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

impl<const N: usize> SlotReader<N> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shelf.lines.len()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A record as it was at one moment. Waits while the writer is at it, which takes it some
    /// nanoseconds, unless it has lost its processor meanwhile.
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

    /// Is a record still as it was at that moment, and all that was read since from the same time?
    #[must_use]
    #[inline]
    pub fn is_still(&self, slot: u32, moment: Moment) -> bool {
        // What was read before is not older than what is read now.
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

    /// All words are the same number.
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

    /// The reader's closures assert that no record is torn; each of the writer's rounds is seen or not, but never older than one
    /// seen before.
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
