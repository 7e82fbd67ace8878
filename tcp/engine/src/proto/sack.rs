//! SACK blocks, RFC 2018: which numbers beyond the acknowledgement a receiver holds.

use std::fmt;

use super::SeqNum;

/// Blocks of numbers received beyond the acknowledgement, RFC 2018 section 3: each its first number and the one after its last.
#[derive(Clone, Copy, Default)]
pub struct SackBlocks {
    blocks: [(SeqNum, SeqNum); Self::MOST],
    len: u8,
}

impl PartialEq for SackBlocks {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for SackBlocks {}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

impl SackBlocks {
    /// The most blocks that fit beside timestamps.
    pub const MOST: usize = 3;
    /// No block.
    pub const NONE: Self = Self { blocks: [(SeqNum(0), SeqNum(0)); Self::MOST], len: 0 };

    /// Returns the blocks.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[(SeqNum, SeqNum)] {
        &self.blocks[..usize::from(self.len)]
    }

    /// Is there none?
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Removes all blocks.
    #[inline]
    pub const fn clear(&mut self) {
        self.len = 0;
    }

    /// Adds a block while there is room.
    pub fn push(&mut self, start: SeqNum, end: SeqNum) {
        if let Some(block) = self.blocks.get_mut(usize::from(self.len)) {
            *block = (start, end);
            self.len += 1;
        }
    }

    /// Returns the blocks of held text beyond `nxt`, the one with the `latest` text first (RFC 2018 section 4). `held` yields each
    /// piece's first number and the one after its last, in order of first numbers; gaps and overlaps are possible.
    pub fn of_held(held: impl Iterator<Item = (SeqNum, SeqNum)>, nxt: SeqNum, latest: SeqNum) -> Self {
        let (mut newest, mut rest) = (Self::NONE, Self::NONE);
        let mut held = held.filter(|(start, _)| start.after(nxt)).peekable();
        while let Some((start, mut end)) = held.next() {
            while let Some((_, further)) = held.next_if(|(next, _)| next.at_or_before(end)) {
                end = if further.after(end) { further } else { end };
            }
            let is_newest = latest.at_or_after(start) && latest.before(end);
            if is_newest { &mut newest } else { &mut rest }.push(start, end);
        }
        for (start, end) in rest.as_slice() {
            newest.push(*start, *end);
        }
        newest
    }
}
