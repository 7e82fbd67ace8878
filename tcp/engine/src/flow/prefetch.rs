//! Prefetches: the processor fetches a cache line that the worker needs in a moment.

/// Prefetches the cache line of `target`.
#[inline]
#[allow(unsafe_code, reason = "the prefetch instruction is only offered as an unsafe intrinsic")]
pub(crate) fn prefetch<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, writes nothing and never faults, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(target).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

/// Prefetches the cache line of `target` for writing: another core that has read it gives it up now. A processor without the
/// instruction does nothing.
#[inline]
#[allow(
    unsafe_code,
    reason = "the compiler offers the prefetch for writing only for processors that it knows to have it"
)]
pub(crate) fn prefetch_to_write<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as a prefetch for reading: it is no access to memory.
    unsafe {
        let line = std::ptr::from_ref(target).addr();
        std::arch::asm!("prefetchw [{}]", in(reg) line, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}
