//! The Internet checksum, RFC 1071.

use crate::flow::Address;

/// A one's-complement sum in progress: 64 bits with end-around carry, which fold to the sum of their four 16-bit words. Only the last
/// piece may end within a 16-bit word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sum(u64);

impl Sum {
    /// The sum of no bytes.
    pub(super) const ZERO: Self = Self(0);

    /// Returns the sum of eight bytes, given as a number in the order of the wire.
    #[inline]
    pub(super) const fn of(number: u64) -> Self {
        Self(number)
    }

    /// Returns the pseudo-header's sum for either family, RFC 9293 section 3.1 and RFC 8200 section 8.1. `length` is the payload's,
    /// in bytes. An IPv4 address counts in its mapped form: the prefix adds 0xffff, which is zero in this arithmetic.
    #[inline]
    pub(super) const fn pseudo_header(
        source: &Address,
        destination: &Address,
        protocol: u8,
        length: u16,
    ) -> Self {
        let ([a, b], [c, d]) = (source.halves(), destination.halves());
        Self(a).number(b).number(c).number(d).number(protocol as u64 + length as u64)
    }

    /// Adds four 16-bit words, given as one number in the order of the wire.
    #[must_use]
    #[inline]
    pub(super) const fn number(self, number: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(number);
        Self(sum + carry as u64)
    }

    /// Adds five 32-bit words, given as numbers in the order of the wire: their sum does not overflow 64 bits.
    #[must_use]
    #[inline]
    pub(super) fn words(self, words: [u32; 5]) -> Self {
        self.number(words.map(u64::from).iter().sum())
    }

    /// Adds another sum.
    #[must_use]
    #[inline]
    pub(super) const fn with(self, other: Self) -> Self {
        self.number(other.0)
    }

    /// Adds `bytes`, an odd last one padded with zero. The loop sums in the machine's byte order; swapping that sum's bytes gives the
    /// sum in the wire's order (RFC 1071 section 2 (B)).
    #[must_use]
    #[inline(always)]
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let (pairs, last) = words.as_chunks::<2>();
        let wide = |word: &[u8; 8]| u128::from(u64::from_ne_bytes(*word));
        // Fewer than 2^13 carries gather in the upper half.
        let mut sum = 0;
        for [one, other] in pairs {
            sum += wide(one);
            sum += wide(other);
        }
        if let [word] = last {
            sum += wide(word);
        }
        let (four, rest) = match rest.split_first_chunk::<4>() {
            Some((four, rest)) => (u32::from_ne_bytes(*four), rest),
            None => (0, rest),
        };
        let last = match *rest {
            [a, b, c] => u32::from_ne_bytes([a, b, c, 0]),
            [a, b] => u32::from_ne_bytes([a, b, 0, 0]),
            [a] => u32::from_ne_bytes([a, 0, 0, 0]),
            _ => 0,
        };
        sum += u128::from(four) + u128::from(last);
        self.number(Self(sum as u64).number((sum >> 64) as u64).0.to_be())
    }

    /// Returns the sum folded to 16 bits, in the order of the wire. It is 0 only if all added bytes are.
    #[inline]
    pub(super) const fn folded(self) -> [u8; 2] {
        self.to_word().to_be_bytes()
    }

    #[inline]
    const fn to_word(self) -> u16 {
        let (sum, carry) = (self.0 as u32).overflowing_add((self.0 >> 32) as u32);
        let sum = sum + carry as u32;
        // The carry of the lower halves goes to the upper halves.
        (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16
    }

    /// Returns the value of the checksum field, in the order of the wire.
    #[inline]
    pub(super) const fn checksum(self) -> [u8; 2] {
        (!self.to_word()).to_be_bytes()
    }

    /// Returns whether a sum that includes the checksum field is right.
    #[inline]
    pub(super) const fn is_valid(self) -> bool {
        self.to_word() == 0xffff
    }
}

/// Returns the checksum field that was `old` before one word of the message changed from `from` to `to`: RFC 1624 section 3,
/// equation 3.
#[inline]
pub(super) const fn updated(old: [u8; 2], from: u16, to: u16) -> [u8; 2] {
    // The sum of three 16-bit words does not overflow.
    Sum::of(!u16::from_be_bytes(old) as u64 + !from as u64 + to as u64).checksum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sums word by word, as RFC 1071 section 1 defines it.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn known_sums() {
        // RFC 1071 section 3's example.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.bytes(&bytes).folded(), [0xdd, 0xf2]);
        assert_eq!(Sum::ZERO.bytes(&bytes).checksum(), [0x22, 0x0d]);
        // RFC 1624 section 4's example: the field 0xdd2f and a word that changes from 0x5555 to 0x3285 must give 0x0000.
        assert_eq!(updated([0xdd, 0x2f], 0x5555, 0x3285), [0x00, 0x00]);
        assert_eq!(Sum::ZERO.folded(), [0, 0]);
        assert_eq!(Sum::ZERO.bytes(&[0xab]).folded(), [0xab, 0]);
        assert_eq!(Sum::ZERO.bytes(&[0xff; 65536]).folded(), [0xff, 0xff]);
    }

    #[test]
    fn every_length_at_every_alignment() {
        let bytes: Vec<u8> = (0..400u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for start in 0..16 {
            for end in start..bytes.len() {
                let slice = &bytes[start..end];
                assert_eq!(
                    u16::from_be_bytes(Sum::ZERO.bytes(slice).folded()),
                    naive(slice),
                    "{start}..{end}"
                );
            }
        }
    }

    proptest! {
        #[test]
        fn as_the_naive_sum(bytes in proptest::collection::vec(any::<u8>(), 0..70_000), start in 0usize..9) {
            let slice = &bytes[start.min(bytes.len())..];
            prop_assert_eq!(u16::from_be_bytes(Sum::ZERO.bytes(slice).folded()), naive(slice));
        }

        #[test]
        fn in_pieces_as_in_one(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..100) {
            let (first, second) = bytes.split_at((cut * 2).min(bytes.len() & !1));
            prop_assert_eq!(Sum::ZERO.bytes(first).bytes(second).folded(), Sum::ZERO.bytes(&bytes).folded());
        }

        #[test]
        fn pseudo_headers(source in any::<[u8; 16]>(), destination in any::<[u8; 16]>(), protocol: u8, length: u16) {
            let mut v6 = [&source[..], &destination[..]].concat();
            v6.extend([0, 0]);
            v6.extend(length.to_be_bytes());
            v6.extend([0, 0, 0, protocol]);
            let sum = Sum::pseudo_header(&Address::v6(source), &Address::v6(destination), protocol, length);
            prop_assert_eq!(u16::from_be_bytes(sum.folded()), naive(&v6));

            let (source, destination) = (*source.first_chunk().unwrap(), *destination.first_chunk().unwrap());
            let mut v4 = [&source[..], &destination[..]].concat();
            v4.extend([0, protocol]);
            v4.extend(length.to_be_bytes());
            let sum = Sum::pseudo_header(&Address::v4(source), &Address::v4(destination), protocol, length);
            // A real pseudo-header is never all zeros: its protocol is not 0.
            if naive(&v4) != 0 {
                prop_assert_eq!(u16::from_be_bytes(sum.folded()), naive(&v4));
            }
        }

        #[test]
        fn an_update_keeps_a_message_valid(mut bytes in proptest::collection::vec(any::<u8>(), 4..80), to: u16) {
            let from = u16::from_be_bytes([bytes[0], bytes[1]]);
            bytes[2..4].fill(0);
            let old = Sum::ZERO.bytes(&bytes).checksum();
            bytes[..2].copy_from_slice(&to.to_be_bytes());
            bytes[2..4].copy_from_slice(&updated(old, from, to));
            let all_zero = bytes.iter().all(|&byte| byte == 0);
            prop_assert!(Sum::ZERO.bytes(&bytes).is_valid() || all_zero);
        }
    }
}
