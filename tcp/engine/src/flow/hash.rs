//! The keyed hash of a flow's name. It spreads flows over the table, and a peer that does not know the seed cannot steer it.

use super::FlowKey;

/// The keys of the hash: 256 random bits, the same in all workers that search each other's tables.
#[derive(Clone, Copy)]
pub struct FlowHasher {
    seed: [u64; 4],
}

/// Returns the folded halves of a 128-bit product: every input bit reaches every output bit.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    product as u64 ^ (product >> 64) as u64
}

impl FlowHasher {
    /// Returns the hash with the keys made of 256 random bits.
    #[must_use]
    pub const fn new(seed: [u64; 4]) -> Self {
        // Odd keys are never zero: a factor of zero would lose the other one.
        Self { seed: [seed[0] | 1, seed[1] | 1, seed[2] | 1, seed[3] | 1] }
    }

    /// Returns the hash of a name: 64 bits, all of them usable.
    #[must_use]
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        let [a, b, c, d] = self.seed;
        let local = key.local.halves();
        let remote = key.remote.halves();
        // A shift by 16 would make the compiler load both ports as one word, which stalls until both stores are done.
        let ports = u64::from(key.local_port) << 32 | u64::from(key.remote_port);
        let first = fold(local[0] ^ a, local[1] ^ b);
        let second = fold(remote[0] ^ c, remote[1] ^ d);
        fold(fold(first ^ ports ^ c, second ^ a) ^ b, d)
    }
}

impl std::fmt::Debug for FlowHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FlowHasher(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Address;

    fn key(remote: u32, remote_port: u16) -> FlowKey {
        FlowKey {
            local: Address::v4([198, 18, 0, 2]),
            remote: Address::v4(remote.to_be_bytes()),
            local_port: 80,
            remote_port,
        }
    }

    #[test]
    fn neighbouring_flows_spread_evenly() {
        // The first bits of pi: a seed of small numbers would make small products.
        let hasher = FlowHasher::new([
            0x243f_6a88_85a3_08d3,
            0x1319_8a2e_0370_7344,
            0xa409_3822_299f_31d0,
            0x082e_fa98_ec4e_6c89,
        ]);
        // Buckets by each of the eight bytes.
        let mut counts = [[0u32; 256]; 8];
        for remote in 0..64u32 {
            for port in 0..1024u16 {
                let hash = hasher.hash(&key(0xc612_0000 + remote, port));
                for (counts, byte) in counts.iter_mut().zip(hash.to_le_bytes()) {
                    counts[usize::from(byte)] += 1;
                }
            }
        }
        // The mean is 256 flows a bucket, the standard deviation 16: six of these either way.
        for counts in counts {
            assert!(counts.iter().all(|count| (160..=352).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn every_part_of_the_name_and_of_the_seed_counts() {
        let hasher = FlowHasher::new([11, 22, 33, 44]);
        let base = key(0xc612_0001, 1000);
        let reversed = FlowKey { local_port: 1000, remote_port: 80, ..base };
        let swapped = FlowKey { local: base.remote, remote: base.local, ..base };
        let hashes = [base, reversed, swapped, key(0xc612_0002, 1000), key(0xc612_0001, 1001)]
            .map(|key| hasher.hash(&key));
        for (index, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..index].contains(hash));
        }
        assert_ne!(FlowHasher::new([11, 22, 33, 46]).hash(&base), hashes[0]);
    }
}
