//! Memory for large tables.

/// Returns a table of `count` values for random access, in huge pages where the kernel gives them: one TLB entry then covers
/// 2 MiB.
pub(crate) fn table_of<T>(count: usize, value: impl FnMut(usize) -> T) -> Box<[T]> {
    let mut table = Vec::with_capacity(count);
    // The kernel chooses the pages when the memory is first written to: the advice comes before.
    advise_huge_pages(table.spare_capacity_mut());
    table.extend((0..count).map(value));
    table.into_boxed_slice()
}

/// The page size of `madvise`, in bytes.
const PAGE: usize = 4096;

/// Asks for huge pages (madvise(2), `MADV_HUGEPAGE`). A kernel without them refuses, and nothing changes.
#[allow(unsafe_code, reason = "madvise takes an address")]
fn advise_huge_pages<T>(memory: &mut [std::mem::MaybeUninit<T>]) {
    let range = memory.as_mut_ptr_range();
    let start = range.start.addr().next_multiple_of(PAGE);
    let len = range.end.addr().saturating_sub(start) & !(PAGE - 1);
    // SAFETY: the pages lie within `memory`, which is borrowed whole, and the advice does not change their content.
    let _ = unsafe { libc::madvise(range.start.with_addr(start).cast(), len, libc::MADV_HUGEPAGE) };
}
