//! Hints to the compiler about unlikely branches, whose code it lays out apart from the likely path.

use std::hint::cold_path;

/// Returns the condition, which is unlikely to hold.
#[inline(always)]
pub(crate) const fn seldom(condition: bool) -> bool {
    if condition {
        cold_path();
    }
    condition
}

/// Returns the condition, which is likely to hold.
#[inline(always)]
pub(crate) const fn mostly(condition: bool) -> bool {
    !seldom(!condition)
}
