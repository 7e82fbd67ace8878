//! The bytes of generated bodies.

use crate::random::GOLDEN;

/// Returns the byte at `position` of every generated body.
///
/// Byte `i` is byte `i % 8`, lowest first, of the product `(i / 8 + 1) * 0x9E37_79B9_7F4A_7C15` modulo 2^64. So text that is
/// shifted, lost or repeated has another hash.
#[must_use]
pub fn byte(position: u64) -> u8 {
    word(position / 8).to_le_bytes()[(position % 8) as usize]
}

/// Fills `into` with the pattern from `position` on.
#[inline]
pub fn fill(position: u64, into: &mut [u8]) {
    let mut index = position / 8;
    let skip = (position % 8) as usize;
    let first = if skip == 0 { 0 } else { (8 - skip).min(into.len()) };
    let (start, rest) = into.split_at_mut(first);
    if first > 0 {
        start.copy_from_slice(&word(index).to_le_bytes()[skip..skip + first]);
        index += 1;
    }
    // A sum gives the words faster than a product for each.
    let mut next = word(index);
    let (words, end) = rest.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = next.to_le_bytes();
        next = next.wrapping_add(GOLDEN);
    }
    end.copy_from_slice(&next.to_le_bytes()[..end.len()]);
}

#[inline]
const fn word(index: u64) -> u64 {
    index.wrapping_add(1).wrapping_mul(GOLDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_agrees_with_byte_at_every_offset_and_length() {
        for position in (0..20).chain((1 << 40) - 9..(1 << 40) + 9) {
            for len in 0..40 {
                let mut got = vec![0; len];
                fill(position, &mut got);
                let want: Vec<u8> = (0..len as u64).map(|i| byte(position + i)).collect();
                assert_eq!(got, want, "position {position}, length {len}");
            }
        }
    }

    #[test]
    fn a_shift_shows() {
        let mut text = vec![0; 70_000];
        fill(0, &mut text);
        for shift in [1, 2, 7, 8, 255, 256, 1460, 2048, 65_536] {
            assert_ne!(text[..64], text[shift..shift + 64], "shift {shift}");
        }
    }
}
