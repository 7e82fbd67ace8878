//! Time as a value: nanoseconds since a zero that the process chose.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, in nanoseconds since an arbitrary zero. The worker's loop reads the clock once a turn, and passes the value on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// The zero.
    pub const ZERO: Self = Self(0);

    /// Returns the point that is `nanos` nanoseconds after the zero.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the point in whole milliseconds modulo 2^32.
    #[must_use]
    #[inline]
    pub const fn millis(self) -> Millis {
        Millis((self.0 / 1_000_000) as u32)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration.as_nanos() as u64)
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds modulo 2^32, as deadlines and RFC 7323's timestamps carry them. Two such points can be compared only while they are
/// less than 24 days apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Millis(pub u32);

impl Millis {
    /// Returns whether this point is at or before `now`.
    #[must_use]
    #[inline]
    pub const fn is_due(self, now: Self) -> bool {
        now.0.wrapping_sub(self.0) as i32 >= 0
    }

    /// Returns the milliseconds from `earlier` to this point; 0 when `earlier` is later.
    #[must_use]
    #[inline]
    pub const fn since(self, earlier: Self) -> u32 {
        let difference = self.0.wrapping_sub(earlier.0);
        if (difference as i32) < 0 { 0 } else { difference }
    }
}

impl Add<u32> for Millis {
    type Output = Self;

    #[inline]
    fn add(self, millis: u32) -> Self {
        Self(self.0.wrapping_add(millis))
    }
}
