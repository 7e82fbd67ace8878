//! The Internet checksum of the peers that are no endpoints (RFC 1071).

/// Returns the sum of 16-bit words, not folded; an odd byte is the high one of the last word. It adds four bytes a step in the machine's
/// order, and swaps the bytes of the sum (section 2 (B)).
#[must_use]
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    let (steps, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let words = steps.iter().chain([&last]);
    let sum: u64 = words.map(|&word| u64::from(u32::from_ne_bytes(word))).sum();
    u64::from(u16::from_be_bytes(fold(sum).to_ne_bytes()))
}

/// Folds a sum to 16 bits, with end-around carry.
#[must_use]
#[inline]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}
