//! The contract between the XDP program and user space: map names, key and value types, counters. Knows no packet.
//!
//! Compiled for the host and for BPF alike. Every key is made of octets as they stand on the wire, so that neither side
//! swaps bytes and no key has hidden padding.
#![no_std]

/// The program's name in the object, and in what `ip -details link` and `bpftool` show.
pub const PROGRAM: &str = "steer";

/// The same program for packets of several buffers (`xdp.frags`, Linux 5.18).
pub const PROGRAM_FRAGS: &str = "steer_frags";

/// Map: hash of [`ListenerKey`] to one octet that nobody reads. TCP segments to these are steered.
pub const LISTENERS: &str = "LISTENERS";

/// Map: longest-prefix trie of addresses (128 bits, IPv4 mapped) to one octet that nobody reads. Addresses that only
/// synmill has: their TCP on any port, address resolution, echo requests and news of unreachable destinations are steered.
pub const OWNED: &str = "OWNED";

/// Map: receive queue to AF_XDP socket.
pub const XSKS: &str = "XSKS";

/// Map: per-CPU array of `u64`, one for each [`Outcome`] at its index.
pub const OUTCOMES: &str = "OUTCOMES";

/// Global, set once before the load: the interface's Ethernet address as a [`Station`].
pub const MAC: &str = "MAC";

/// Room in [`LISTENERS`].
pub const MAX_LISTENERS: u32 = 4096;

/// Room in [`OWNED`].
pub const MAX_OWNED: u32 = 1024;

/// Room in [`XSKS`]: more receive queues than any network card has.
pub const MAX_QUEUES: u32 = 1024;

/// The most IPv6 extension headers that the program walks over. RFC 8200 section 4.1: each kind at most once, destination
/// options at most twice; of those that do not end the walk that makes four.
pub const MAX_EXTENSION_HEADERS: usize = 4;

/// Bits in front of an IPv4 address in its mapped form, `::ffff:0:0/96`.
pub const MAPPED_PREFIX_LEN: u32 = 96;

/// What stands before the hash of its sources in the object.
pub const SOURCES_MARK: &str = "synmill eBPF sources sha256 ";

/// An address as eight pairs of octets in network order, whatever the machine's; IPv4 mapped. Pairs, because headers start
/// at even places: this is the widest load that is aligned everywhere.
pub type Address = [u16; 8];

/// An IPv4 address as an IPv6 address (RFC 4291 section 2.5.5.2), in pairs of octets in network order.
#[must_use]
#[inline(always)]
pub const fn mapped([high, low]: [u16; 2]) -> Address {
    [0, 0, 0, 0, 0, 0xffff, high, low]
}

/// An Ethernet address as three pairs of octets, likewise.
pub type Station = [u16; 3];

/// Is this the address of more than one station? (IEEE 802.3 section 3.2.3: the first bit on the wire.)
#[must_use]
#[inline(always)]
pub const fn is_group([first, ..]: Station) -> bool {
    first & u16::from_be(0x0100) != 0
}

/// Key of [`LISTENERS`]: where a listener listens.
///
/// The wildcard is the unspecified address of its family: `::ffff:0.0.0.0` for IPv4, `::` for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct ListenerKey {
    address: Address,
    /// In network order.
    port: u16,
    /// Fills the key up to whole words, which the kernel hashes faster.
    zero: u16,
}

impl ListenerKey {
    /// A key's size in octets.
    pub const LEN: usize = size_of::<Self>();

    /// A listener at `address`, `port` in network order.
    #[must_use]
    #[inline(always)]
    pub const fn new(address: Address, port: u16) -> Self {
        Self { address, port, zero: 0 }
    }

    /// The key as the map holds it, from an address's octets (IPv4 mapped) and a port as a number.
    #[must_use]
    pub const fn octets(address: [u8; 16], port: u16) -> [u8; Self::LEN] {
        let mut octets = [0; Self::LEN];
        let (head, rest) = octets.split_at_mut(address.len());
        head.copy_from_slice(&address);
        rest.split_at_mut(2).0.copy_from_slice(&port.to_be_bytes());
        octets
    }
}

/// What became of a packet: each packet counts exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Outcome {
    /// A TCP segment to a listener or an owned address, to its queue's socket.
    TcpSteered,
    /// An ARP request or a neighbour solicitation for an owned address, to its queue's socket.
    NeighbourSteered,
    /// An ICMP or ICMPv6 echo request to an owned address, to its queue's socket.
    EchoSteered,
    /// An ICMP or ICMPv6 destination unreachable to an owned address, whatever it is about, to its queue's socket.
    ErrorSteered,
    /// One of these four, but its queue has no socket: to the kernel.
    PassedNoSocket,
    /// One of these four, but not to the interface's own Ethernet address, nor is it address resolution to a group's: to
    /// the kernel, whatever it is about.
    PassedOtherMac,
    /// TCP, an echo request, a destination unreachable or address resolution for somebody else: to the kernel.
    PassedNotOurs,
    /// A fragment, first, last or only one: to the kernel, which puts them together.
    PassedFragment,
    /// More than [`MAX_EXTENSION_HEADERS`]: to the kernel.
    PassedExtensionHeaders,
    /// UDP, an ARP reply and whatever else IP or ARP carry that is never ours: to the kernel.
    PassedOtherProtocol,
    /// Neither IP nor ARP behind at most two VLAN tags: to the kernel.
    PassedNotIp,
    /// Cut short, or its lengths contradict each other: to the kernel, which counts it in its own way.
    PassedMalformed,
}

impl Outcome {
    /// All of them, each at its own index.
    pub const ALL: [Self; 12] = [
        Self::TcpSteered,
        Self::NeighbourSteered,
        Self::EchoSteered,
        Self::ErrorSteered,
        Self::PassedNoSocket,
        Self::PassedOtherMac,
        Self::PassedNotOurs,
        Self::PassedFragment,
        Self::PassedExtensionHeaders,
        Self::PassedOtherProtocol,
        Self::PassedNotIp,
        Self::PassedMalformed,
    ];

    /// Its counter's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpSteered => "tcp_steered",
            Self::NeighbourSteered => "neighbour_steered",
            Self::EchoSteered => "echo_steered",
            Self::ErrorSteered => "error_steered",
            Self::PassedNoSocket => "passed_no_socket",
            Self::PassedOtherMac => "passed_other_mac",
            Self::PassedNotOurs => "passed_not_ours",
            Self::PassedFragment => "passed_fragment",
            Self::PassedExtensionHeaders => "passed_extension_headers",
            Self::PassedOtherProtocol => "passed_other_protocol",
            Self::PassedNotIp => "passed_not_ip",
            Self::PassedMalformed => "passed_malformed",
        }
    }

    /// Is this packet ours?
    #[must_use]
    #[inline(always)]
    pub const fn is_steered(self) -> bool {
        matches!(self, Self::TcpSteered | Self::NeighbourSteered | Self::EchoSteered | Self::ErrorSteered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_stands_at_its_own_index() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index, "{}", outcome.name());
        }
    }

    #[test]
    fn a_group_has_the_first_bit_on_the_wire() {
        let station = |first| [u16::from_ne_bytes([first, 0xfe]), 0xffff, 0xffff];
        assert!([0x01, 0x33, 0xff].into_iter().all(|first| is_group(station(first))));
        assert!(![0x00, 0x02, 0xfe].into_iter().any(|first| is_group(station(first))));
    }

    #[test]
    fn both_sides_make_the_same_key() {
        let pair = |high, low| u16::from_ne_bytes([high, low]);
        let key = ListenerKey::new(mapped([pair(198, 18), pair(0, 2)]), pair(0x1f, 0x90));
        let octets = ListenerKey::octets([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 18, 0, 2], 8080);
        let mut from_pairs = [0; ListenerKey::LEN];
        for (two, pair) in from_pairs.chunks_mut(2).zip(key.address.into_iter().chain([key.port, key.zero])) {
            two.copy_from_slice(&pair.to_ne_bytes());
        }
        assert_eq!(from_pairs, octets);
    }
}
