//! Sequence numbers, RFC 9293 section 3.4: 32 bits around a circle, with no order but the one near a given point.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A sequence or acknowledgement number. It has no `Ord`: on a circle there is none.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct SeqNum(pub u32);

impl SeqNum {
    /// `self < other` on the circle.
    #[must_use]
    #[inline]
    pub const fn before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// `self > other` on the circle.
    #[must_use]
    #[inline]
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// `self <= other` on the circle.
    #[must_use]
    #[inline]
    pub const fn at_or_before(self, other: Self) -> bool {
        !self.after(other)
    }

    /// `self >= other` on the circle.
    #[must_use]
    #[inline]
    pub const fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }

    /// Is this number one of the `length` numbers that start at `start`?
    #[must_use]
    #[inline]
    pub const fn is_within(self, start: Self, length: u32) -> bool {
        self.0.wrapping_sub(start.0) < length
    }
}

impl Add<u32> for SeqNum {
    type Output = Self;

    #[inline]
    fn add(self, distance: u32) -> Self {
        Self(self.0.wrapping_add(distance))
    }
}

impl AddAssign<u32> for SeqNum {
    #[inline]
    fn add_assign(&mut self, distance: u32) {
        *self = *self + distance;
    }
}

impl Sub<u32> for SeqNum {
    type Output = Self;

    #[inline]
    fn sub(self, distance: u32) -> Self {
        Self(self.0.wrapping_sub(distance))
    }
}

impl Sub for SeqNum {
    type Output = u32;

    /// Returns the distance forward from `earlier` to `self`, modulo 2^32.
    #[inline]
    fn sub(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
