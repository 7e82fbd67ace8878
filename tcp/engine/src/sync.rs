//! Atomics, as loom's model checker wants them to be taken: its own when it runs (feature `model`), the standard library's otherwise.

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

/// Waits for another thread, in a loop: a while by spinning, then by letting go of the processor, which that thread may need.
#[cfg(not(feature = "model"))]
pub(crate) use crossbeam::utils::Backoff;

/// The model's: each step lets the other thread go on.
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
