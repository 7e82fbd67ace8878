//! Which connection a packet, or a deadline, belongs to. Knows keys, slots and deadlines; never TCP.

mod hash;
mod key;
mod prefix;
mod set;
mod slots;
mod table;
mod timers;

pub use hash::FlowHasher;
pub use key::{Address, FlowKey};
pub use prefix::Prefix;
pub use set::SlotSet;
pub use slots::{Moment, SlotReader, Slots, Words};
pub use table::{FlowIndex, FlowTable, Full};
pub use timers::{Armed, Marked, Share, Timers};

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

/// The same for a line that will be written to, and that another core may have read: it is asked to give it up now. (On a processor that
/// does not know the instruction it does nothing.)
#[inline]
#[allow(
    unsafe_code,
    reason = "the compiler has the prefetch for writing only for processors of which it knows that they have it"
)]
pub(crate) fn prefetch_to_write<T>(target: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as a prefetch for reading. It is no access to memory, so the compiler may keep what it knows of it.
    unsafe {
        let line = std::ptr::from_ref(target).addr();
        std::arch::asm!("prefetchw [{}]", in(reg) line, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = target;
}

/// A table of `count` values that will be read at random, in huge pages where the kernel gives them: one entry of the processor's
/// address cache then covers 2 MiB of it.
pub(crate) fn table_of<T>(count: usize, value: impl FnMut(usize) -> T) -> Box<[T]> {
    let mut table = Vec::with_capacity(count);
    // Before the memory is written to for the first time: that is when the kernel chooses its pages.
    advise_huge_pages(table.spare_capacity_mut());
    table.extend((0..count).map(value));
    table.into_boxed_slice()
}

/// The pages that `madvise` counts in, in bytes.
const PAGE: usize = 4096;

/// Asks for huge pages (madvise(2), `MADV_HUGEPAGE`). A kernel without them refuses, and all is as it was.
#[allow(unsafe_code, reason = "madvise takes an address")]
fn advise_huge_pages<T>(memory: &mut [std::mem::MaybeUninit<T>]) {
    let range = memory.as_mut_ptr_range();
    let start = range.start.addr().next_multiple_of(PAGE);
    let len = range.end.addr().saturating_sub(start) & !(PAGE - 1);
    // SAFETY: the pages lie within `memory`, which is borrowed whole; the advice changes nothing of what they hold.
    let _ = unsafe { libc::madvise(range.start.with_addr(start).cast(), len, libc::MADV_HUGEPAGE) };
}
