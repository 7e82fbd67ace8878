//! Atomics: loom's when its model checker runs (feature `model`), the standard library's otherwise.

#[cfg(feature = "model")]
pub(crate) use loom::sync::{
    Arc,
    atomic::{AtomicU64, Ordering, fence},
};
#[cfg(not(feature = "model"))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering, fence},
};

/// Waits for another thread in a loop: first by spinning, then by yielding the processor, which that thread may need.
#[cfg(not(feature = "model"))]
pub(crate) use crossbeam::utils::Backoff;

/// Waits for another thread under loom: each step yields to it.
#[cfg(feature = "model")]
pub(crate) struct Backoff;

#[cfg(feature = "model")]
impl Backoff {
    pub(crate) const fn new() -> Self {
        Self
    }

    pub(crate) fn snooze(&self) {
        loom::thread::yield_now();
    }
}
