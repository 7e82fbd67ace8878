//! Headers as the numbers that their words are.

/// Splits `frame` into its first `N` bytes, to be written, and the bytes behind.
///
/// # Panics
/// If there are fewer than `N` bytes.
#[inline]
pub(super) fn room<const N: usize>(frame: &mut [u8]) -> (&mut [u8; N], &mut [u8]) {
    frame.split_first_chunk_mut().expect("room for a header")
}

/// Returns the five words of a header without options.
#[inline]
pub(super) const fn words_of(header: &[u8; 20]) -> [u32; 5] {
    [u32_at(header, 0), u32_at(header, 4), u32_at(header, 8), u32_at(header, 12), u32_at(header, 16)]
}

/// Returns the word in the four bytes from `at` on.
#[inline]
pub(super) const fn u32_at<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
