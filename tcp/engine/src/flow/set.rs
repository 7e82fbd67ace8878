//! A set of slots, taken out in a circle.
//!
//! Each slot has a bit, each word of bits that is not zero has a bit in the level above, and so on. A slot takes an eighth of a byte, and
//! a search takes one step a level.

const BITS: usize = u64::BITS as usize;

/// A set of numbers below its capacity.
#[derive(Clone, Debug)]
pub struct SlotSet {
    /// The levels, lowest first; the last one is one word.
    levels: Vec<Box<[u64]>>,
    /// The place where the circle goes on.
    at: usize,
}

/// Returns how many words each level has.
fn levels(capacity: usize) -> impl Iterator<Item = usize> {
    let lowest = capacity.max(1).div_ceil(BITS);
    std::iter::successors(Some(lowest), |&words| (words > 1).then(|| words.div_ceil(BITS)))
}

impl SlotSet {
    /// Returns an empty set for numbers below `capacity`.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { levels: levels(capacity).map(|words| super::table_of(words, |_| 0)).collect(), at: 0 }
    }

    /// Returns how many bytes of memory a set for numbers below `capacity` takes.
    #[must_use]
    pub fn bytes_for(capacity: usize) -> usize {
        levels(capacity).map(|words| words * size_of::<u64>()).sum()
    }

    /// Returns how many bytes of memory the set takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.levels.iter().map(|level| size_of_val(&**level)).sum()
    }

    /// Is the set empty?
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.levels.last().is_none_or(|top| top[0] == 0)
    }

    /// Adds a slot.
    #[inline]
    pub fn insert(&mut self, slot: u32) {
        let mut at = slot as usize;
        for level in &mut self.levels {
            let word = &mut level[at / BITS];
            let was_empty = *word == 0;
            *word |= 1 << (at % BITS);
            if !was_empty {
                return;
            }
            at /= BITS;
        }
    }

    /// Removes and returns the next slot of the circle.
    pub fn take(&mut self) -> Option<u32> {
        let slot = self.next_from(self.at).or_else(|| self.next_from(0))?;
        self.at = slot + 1;
        self.remove(slot);
        Some(slot as u32)
    }

    fn remove(&mut self, slot: usize) {
        let mut at = slot;
        for level in &mut self.levels {
            let word = &mut level[at / BITS];
            *word &= !(1 << (at % BITS));
            if *word != 0 {
                return;
            }
            at /= BITS;
        }
    }

    /// Returns the first member at or after `from`.
    fn next_from(&self, from: usize) -> Option<usize> {
        let mut at = from;
        for (height, level) in self.levels.iter().enumerate() {
            let rest = level.get(at / BITS).map_or(0, |word| word & (u64::MAX << (at % BITS)));
            if rest != 0 {
                let mut found = at / BITS * BITS + rest.trailing_zeros() as usize;
                for lower in self.levels[..height].iter().rev() {
                    found = found * BITS + lower[found].trailing_zeros() as usize;
                }
                return Some(found);
            }
            at = at / BITS + 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_goes_in_a_circle_through_what_a_set_holds(
            capacity in prop::sample::select(vec![1usize, 63, 64, 65, 4096, 4097, 300_000]),
            operations in prop::collection::vec(prop::option::of(any::<u32>()), 1..400),
        ) {
            let mut set = SlotSet::new(capacity);
            let mut model = BTreeSet::new();
            let mut at = 0;
            for operation in operations {
                if let Some(number) = operation {
                    let slot = number % capacity as u32;
                    set.insert(slot);
                    model.insert(slot);
                } else {
                    let next = model.range(at..).next().or_else(|| model.first()).copied();
                    prop_assert_eq!(set.take(), next);
                    if let Some(next) = next {
                        model.remove(&next);
                        at = next + 1;
                    }
                }
                prop_assert_eq!(set.is_empty(), model.is_empty());
            }
        }
    }
}
