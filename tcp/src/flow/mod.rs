//! Which connection a packet, or a deadline, belongs to. Knows keys, slots and deadlines; never TCP.

mod hash;
mod key;
mod table;
mod timers;

pub use hash::FlowHasher;
pub use key::{Address, FlowKey};
pub use table::{FlowIndex, FlowTable, Full};
pub use timers::{Armed, Marked, Timers};

/// Asks the processor for the cache line of `target`, without waiting for it.
#[inline]
#[allow(unsafe_code, reason = "the prefetch instruction is only offered as an unsafe intrinsic")]
pub(crate) fn prefetch<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, writes nothing and never faults, whatever the address; this one is a reference's.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}
