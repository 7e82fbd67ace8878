//! What IPv4 and IPv6 have in common: a datagram, which addresses a host may have, and a header for an answer.

use super::checksum::Sum;
use super::{Link, ethernet, ipv4, ipv6};
use crate::flow::Address;

/// Protocol number of ICMP.
pub(super) const ICMP: u8 = 1;
/// Protocol number of TCP.
pub(super) const TCP: u8 = 6;
/// Protocol number of ICMPv6.
pub(super) const ICMPV6: u8 = 58;

/// TTL and hop limit of what we send.
pub(super) const HOP_LIMIT: u8 = 64;

/// A checked datagram.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Datagram<'a> {
    /// Source address.
    pub(super) source: Address,
    /// Destination address.
    pub(super) destination: Address,
    /// May hosts have both addresses? See [`is_host`].
    pub(super) is_between_hosts: bool,
    /// Of the payload, behind all extension headers.
    pub(super) protocol: u8,
    /// TTL or hop limit, as received.
    pub(super) hop_limit: u8,
    /// Where the payload starts in the frame.
    pub(super) payload_start: usize,
    /// The payload, without the link's padding. At most 65,535 bytes.
    pub(super) payload: &'a [u8],
}

/// May a host on some link have this address? Not if it is multicast, limited broadcast, loopback or unspecified.
/// As Linux, 0.0.0.0/8 and 240.0.0.0/4 are ordinary, but for their first and last address.
#[inline]
pub(super) const fn is_host(address: &Address) -> bool {
    match address.v4_bits() {
        Some(bits) => ipv4::is_host(bits),
        None => ipv6::is_host(address),
    }
}

/// Bytes of link and network header. Datagrams between addresses of which one is IPv6's are IPv6.
#[inline]
pub(super) const fn header_len(link: &Link, source: &Address, destination: &Address) -> usize {
    ethernet::header_len(link) + Family::of(source, destination).header_len()
}

/// What carries a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Of a datagram between two addresses.
    #[inline]
    pub(super) const fn of(source: &Address, destination: &Address) -> Self {
        if source.is_v4() && destination.is_v4() { Self::V4 } else { Self::V6 }
    }

    /// Bytes of its header.
    #[inline]
    pub(super) const fn header_len(self) -> usize {
        match self {
            Self::V4 => ipv4::HEADER_LEN,
            Self::V6 => ipv6::HEADER_LEN,
        }
    }
}

/// Writes link and network header for `payload_len` bytes of `protocol` from the first of the `ends` to the other; returns the
/// pseudo-header's sum, and what is behind the headers. `frame` is at least as long as they are.
#[inline(always)]
pub(super) fn emit<'a>(
    frame: &'a mut [u8],
    link: &Link,
    family: Family,
    ends: [&Address; 2],
    protocol: u8,
    hop_limit: u8,
    payload_len: u16,
) -> (Sum, &'a mut [u8]) {
    match family {
        Family::V4 => {
            let (header, rest) = room(ethernet::emit(frame, link, ethernet::IPV4));
            // An IPv4 address is the lower half of its mapped form.
            let ends = ends.map(|end| end.halves()[1] as u32);
            (ipv4::emit(header, ends, protocol, hop_limit, payload_len), rest)
        }
        Family::V6 => {
            let (header, rest) = room(ethernet::emit(frame, link, ethernet::IPV6));
            (ipv6::emit(header, ends, protocol, hop_limit, payload_len), rest)
        }
    }
}

/// The first `N` bytes of `frame`, to be written, and those behind.
///
/// # Panics
/// If there are fewer.
#[inline]
pub(super) fn room<const N: usize>(frame: &mut [u8]) -> (&mut [u8; N], &mut [u8]) {
    frame.split_first_chunk_mut().expect("room for a header")
}

/// A header without options, as the numbers that its words are.
#[inline]
pub(super) const fn words_of(header: &[u8; 20]) -> [u32; 5] {
    [u32_at(header, 0), u32_at(header, 4), u32_at(header, 8), u32_at(header, 12), u32_at(header, 16)]
}

/// The number in four bytes of a header.
#[inline]
pub(super) const fn u32_at<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
