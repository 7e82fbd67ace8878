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

/// Lets the other thread go on, from a loop that waits for it.
#[inline]
pub(crate) fn spin() {
    #[cfg(feature = "model")]
    loom::thread::yield_now();
    #[cfg(not(feature = "model"))]
    std::hint::spin_loop();
}
