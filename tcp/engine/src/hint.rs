//! What the compiler is told of a branch where the way of most packets parts from the others': those are laid out apart. Knows nothing
//! of what is decided.

use std::hint::cold_path;

/// The condition, which seldom holds.
#[inline(always)]
pub(crate) const fn seldom(condition: bool) -> bool {
    if condition {
        cold_path();
    }
    condition
}

/// The condition, which mostly holds.
#[inline(always)]
pub(crate) const fn mostly(condition: bool) -> bool {
    if !condition {
        cold_path();
    }
    condition
}
