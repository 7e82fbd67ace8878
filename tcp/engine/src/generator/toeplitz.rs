//! Receive side scaling (RSS): predicts which receive queue a NIC chooses for a packet.

use std::fmt;

use crate::flow::FlowKey;

/// The hashed bytes of an IPv6 packet: two addresses and two ports.
const INPUT_LEN: usize = 2 * 16 + 2 * 2;

/// The bytes of a key that reach the hash: each bit of the input selects the 32 bits of the key from its own place on.
const KEY_LEN: usize = INPUT_LEN + 4;

/// RSS as NICs do it for TCP: Microsoft's Toeplitz hash over addresses and ports ("RSS hashing functions" and "Verifying the RSS hash
/// calculation" in the Windows driver documentation), and the indirection table. It takes 36 KiB, and twelve or thirty-six look-ups for
/// a hash.
pub struct Rss {
    /// The hash of one byte of the input, by its place and its value.
    bytes: Box<[[u32; 256]]>,
    /// Queues by hash.
    table: Vec<u16>,
}

impl Rss {
    /// Takes the NIC's key, of 40 or 52 bytes, and its indirection table of queue numbers, both as `ethtool -x` shows them. Returns
    /// `None` if the key has another length, or the table is empty or has a queue beyond 65535.
    #[must_use]
    pub fn new(key: &[u8], table: Vec<u32>) -> Option<Self> {
        if !matches!(key.len(), 40 | 52) || table.is_empty() {
            return None;
        }
        let table = table.into_iter().map(|queue| queue.try_into().ok()).collect::<Option<_>>()?;
        let bytes = key[..KEY_LEN].windows(5).map(|window| {
            let window = window.iter().fold(0u64, |bits, &byte| bits << 8 | u64::from(byte));
            let mut hashes = [0; 256];
            for value in 1usize..256 {
                // Without the highest bit this is a smaller value, whose hash is known. The highest bit of a byte comes first.
                let highest = value.ilog2();
                hashes[value] = hashes[value ^ (1 << highest)] ^ (window >> (highest + 1)) as u32;
            }
            hashes
        });
        Some(Self { bytes: bytes.collect(), table })
    }

    /// Returns the hash of the packets that a connection's peer sends: from `remote` to `local`.
    #[must_use]
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u32 {
        let ports = [key.remote_port.to_be_bytes(), key.local_port.to_be_bytes()];
        match (key.remote.as_v4(), key.local.as_v4()) {
            (Some(remote), Some(local)) => {
                self.hash_bytes([remote, local].as_flattened(), ports.as_flattened())
            }
            _ => {
                let addresses = [key.remote.octets(), key.local.octets()];
                self.hash_bytes(addresses.as_flattened(), ports.as_flattened())
            }
        }
    }

    /// Returns the queue at which a peer's packets arrive.
    #[must_use]
    #[inline]
    pub fn queue(&self, key: &FlowKey) -> u16 {
        // Nearly every NIC has a power of two as length, and takes the hash modulo that.
        self.table[self.hash(key) as usize % self.table.len()]
    }

    /// Returns the number of table entries that lead to one of `queues`, and the number of all entries.
    #[must_use]
    pub fn share(&self, queues: &[u16]) -> (usize, usize) {
        (self.table.iter().filter(|queue| queues.contains(queue)).count(), self.table.len())
    }

    #[inline]
    fn hash_bytes(&self, addresses: &[u8], ports: &[u8]) -> u32 {
        let input = addresses.iter().chain(ports);
        self.bytes.iter().zip(input).fold(0, |hash, (hashes, &byte)| hash ^ hashes[usize::from(byte)])
    }
}

impl fmt::Debug for Rss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rss").field("table", &self.table).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::flow::Address;

    /// The key of the verification suite.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    /// Returns the connection whose peer sends from `source` to `destination`.
    fn received(source: &str, destination: &str) -> FlowKey {
        let [source, destination]: [SocketAddr; 2] = [source, destination].map(|end| end.parse().unwrap());
        FlowKey {
            local: destination.ip().into(),
            remote: source.ip().into(),
            local_port: destination.port(),
            remote_port: source.port(),
        }
    }

    /// Computes the hash by its definition: bit by bit, with the key shifted by one bit each time.
    fn by_definition(key: &[u8], input: &[u8]) -> u32 {
        let key_bit = |place: usize| u32::from(key[place / 8] >> (7 - place % 8) & 1);
        (0..input.len() * 8)
            .filter(|place| input[place / 8] >> (7 - place % 8) & 1 == 1)
            .fold(0, |hash, place| {
                hash ^ (place..place + 32).fold(0, |bits, place| bits << 1 | key_bit(place))
            })
    }

    #[test]
    fn the_verification_suite_is_met() {
        let rss = Rss::new(&KEY, vec![0]).unwrap();
        for (source, destination, hash) in [
            ("66.9.149.187:2794", "161.142.100.80:1766", 0x51cc_c178),
            ("199.92.111.2:14230", "65.69.140.83:4739", 0xc626_b0ea),
            ("24.19.198.95:12898", "12.22.207.184:38024", 0x5c2b_394a),
            ("38.27.205.30:48228", "209.142.163.6:2217", 0xafc7_327f),
            ("153.39.163.191:44251", "202.188.127.2:1303", 0x10e8_28a2),
            ("[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x4020_7d3d),
            ("[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0xdde5_1bbf),
            ("[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", "[fe80::200:f8ff:fe21:67cf]:38024", 0x02d1_feef),
        ] {
            assert_eq!(rss.hash(&received(source, destination)), hash, "{source} to {destination}");
        }
    }

    #[test]
    fn the_hash_picks_the_tables_entry() {
        let key = received("66.9.149.187:2794", "161.142.100.80:1766");
        for len in [1, 4, 48, 128, 512] {
            let rss = Rss::new(&KEY, (0..len).collect()).unwrap();
            assert_eq!(u32::from(rss.queue(&key)), 0x51cc_c178 % len, "{len} entries");
        }
        let rss = Rss::new(&KEY, vec![0, 1, 2, 1, 65535, 1]).unwrap();
        for (queues, share) in [(&[1][..], (3, 6)), (&[0, 65535], (2, 6)), (&[7], (0, 6)), (&[], (0, 6))] {
            assert_eq!(rss.share(queues), share, "{queues:?}");
        }
    }

    #[test]
    fn only_what_an_adapter_can_have_is_taken() {
        for (key_len, table, taken) in [
            (40, vec![0], true),
            (52, vec![0, 1], true),
            (0, vec![0], false),
            (39, vec![0], false),
            (41, vec![0], false),
            (40, vec![], false),
            (40, vec![0, 65536], false),
        ] {
            assert_eq!(Rss::new(&vec![1; key_len], table.clone()).is_some(), taken, "{key_len} {table:?}");
        }
    }

    proptest! {
        #[test]
        fn the_tables_agree_with_the_definition(
            mut key in prop::collection::vec(any::<u8>(), 52),
            long in any::<bool>(),
            v4 in any::<bool>(),
            remote in any::<[u8; 16]>(),
            local in any::<[u8; 16]>(),
            remote_port in any::<u16>(),
            local_port in any::<u16>(),
        ) {
            key.truncate(if long { 52 } else { 40 });
            let address = |octets: [u8; 16]| match octets {
                [a, b, c, d, ..] if v4 => Address::v4([a, b, c, d]),
                _ => Address::v6(octets),
            };
            let len = if v4 { 4 } else { 16 };
            let ports = [remote_port.to_be_bytes(), local_port.to_be_bytes()];
            let input = [&remote[..len], &local[..len], ports.as_flattened()].concat();
            let flow = FlowKey { local: address(local), remote: address(remote), local_port, remote_port };
            prop_assert_eq!(Rss::new(&key, vec![0]).unwrap().hash(&flow), by_definition(&key, &input));
        }
    }
}
