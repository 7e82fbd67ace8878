//! The summary of a line's strays, in 32 bits.

/// The number of strays with a tag of their own.
const TAGS: u32 = 4;
/// The bits of a tag; the value 0 is no tag.
const TAG_BITS: u32 = 5;
/// A one in the lowest bit of each tag, and one in the highest.
const LOWEST: u32 = 0x0_8421;
const HIGHEST: u32 = LOWEST << (TAG_BITS - 1);
const ALL_TAGS: u32 = (1 << (TAGS * TAG_BITS)) - 1;
/// The place of the count of strays without a tag, and its largest value.
const UNTAGGED_SHIFT: u32 = 20;
const UNTAGGED_MOST: u32 = 127;
/// The place of the distance, and its largest value.
const FURTHEST_SHIFT: u32 = 27;
const FURTHEST_MOST: u32 = 31;

/// The entries whose home is a line and whose place is a later one: tags of four of them, the number of others, and the distance of the
/// furthest.
///
/// | bits | what |
/// |---|---|
/// | 0-19 | four tags: some bits of a stray's hash that its fingerprint has not, in no order |
/// | 20-26 | the number of strays without a tag; the largest value stays once it is reached |
/// | 27-31 | an upper bound of the lines to the furthest; the largest value means the furthest of the whole table |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Strays(pub(super) u32);

/// Returns the tag of a hash, from 1 to 31, in the first place. Its bits are in neither the home line's number nor the fingerprint.
#[inline]
const fn tag(hash: u64) -> u32 {
    (((hash >> 16 & 0xffff) as u32 * 31) >> 16) + 1
}

impl Strays {
    /// Returns the highest bits of the tags equal to this one, exact up to the first (Hacker's Delight, section 6-1).
    #[inline]
    const fn equal(self, wanted: u32) -> u32 {
        let differing = (self.0 & ALL_TAGS) ^ (wanted * LOWEST);
        differing.wrapping_sub(LOWEST) & !differing & HIGHEST
    }

    const fn untagged(self) -> u32 {
        self.0 >> UNTAGGED_SHIFT & UNTAGGED_MOST
    }

    /// Returns how many further lines a search for this hash must read. `most` returns the distance of the table's furthest stray.
    #[inline]
    pub(super) fn reach(self, hash: u64, most: impl FnOnce() -> usize) -> usize {
        if self.untagged() == 0 && self.equal(tag(hash)) == 0 {
            return 0;
        }
        match self.0 >> FURTHEST_SHIFT {
            FURTHEST_MOST => most(),
            lines => lines as usize,
        }
    }

    /// Returns the summary with one more stray at this distance in lines.
    pub(super) fn with(self, hash: u64, distance: usize) -> Self {
        let furthest = (self.0 >> FURTHEST_SHIFT).max(distance.min(FURTHEST_MOST as usize) as u32);
        let free = self.equal(0);
        let others = self.0 & !(FURTHEST_MOST << FURTHEST_SHIFT) | furthest << FURTHEST_SHIFT;
        Self(if free != 0 {
            others | tag(hash) << (free.trailing_zeros() + 1 - TAG_BITS)
        } else if self.untagged() < UNTAGGED_MOST {
            others + (1 << UNTAGGED_SHIFT)
        } else {
            others
        })
    }

    /// Returns the summary with one stray fewer; empty without the last one.
    pub(super) fn without(self, hash: u64) -> Self {
        let found = self.equal(tag(hash));
        let left = if found != 0 {
            let lowest = found.trailing_zeros() + 1 - TAG_BITS;
            self.0 & !(((1 << TAG_BITS) - 1) << lowest)
        } else if self.untagged() < UNTAGGED_MOST {
            self.0 - (1 << UNTAGGED_SHIFT)
        } else {
            self.0
        };
        Self(if left << (32 - FURTHEST_SHIFT) == 0 { 0 } else { left })
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_few_are_told_from_all_others() {
        let mut strays = Strays::default();
        assert_eq!(strays.reach(7, || 99), 0);
        let hashes = [1 << 27, 2 << 27, 3 << 27, 4 << 27];
        for (hash, distance) in hashes.into_iter().zip([1, 3, 2, 1]) {
            strays = strays.with(hash, distance);
        }
        let reached = (0..32).filter(|upper| strays.reach(upper << 27, || 99) == 3).count();
        assert!((4..=8).contains(&reached), "{reached}");
        // A fifth stray has no tag: every hash may be it.
        let more = strays.with(5 << 27, 1000);
        assert_eq!((0..32).filter(|upper| more.reach(upper << 27, || 99) == 99).count(), 32);
        let rest = hashes.into_iter().fold(more.without(5 << 27), Strays::without);
        assert_eq!(rest, Strays::default());
    }

    proptest! {
        /// Every stray is reached, and the summary of no stray is empty.
        #[test]
        fn none_that_is_there_is_missed(steps in prop::collection::vec((0u64..12, 1usize..20), 1..400), most in 2usize..13) {
            let mut strays = Strays::default();
            let mut there: Vec<(u64, usize)> = Vec::new();
            for (number, distance) in steps {
                let hash = number << 28 | number;
                match there.iter().position(|(other, _)| *other == hash) {
                    Some(at) if there.len() >= most || distance % 3 == 0 => {
                        there.swap_remove(at);
                        strays = strays.without(hash);
                    }
                    _ if there.len() < most => {
                        there.push((hash, distance));
                        strays = strays.with(hash, distance);
                    }
                    _ => {}
                }
                for (hash, distance) in &there {
                    prop_assert!(strays.reach(*hash, || 20) >= *distance);
                }
                prop_assert!(!there.is_empty() || strays == Strays::default(), "{strays:?}");
            }
        }
    }
}
