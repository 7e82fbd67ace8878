//! What IPv4 and IPv6 have in common: a datagram, which addresses a host may have, and a header for an answer.

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
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram<'a> {
    /// Source address.
    pub(super) source: Address,
    /// Destination address.
    pub(super) destination: Address,
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
#[inline(always)]
pub(super) fn is_host(address: &Address) -> bool {
    match address.v4_bits() {
        Some(bits) => !matches!(bits >> 24, 127 | 224..=239) && bits != 0 && bits != u32::MAX,
        // ::/127 is the unspecified address and loopback.
        None => address.halves()[0] >> 56 != 0xff && address.bits() > 1,
    }
}

/// Bytes of link and network header. Datagrams between addresses of which one is IPv6's are IPv6.
#[inline]
pub(super) const fn header_len(link: &Link, source: &Address, destination: &Address) -> usize {
    let network = if are_v4(source, destination) { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
    ethernet::header_len(link) + network
}

#[inline]
const fn are_v4(source: &Address, destination: &Address) -> bool {
    source.is_v4() && destination.is_v4()
}

/// Writes link and network header for `payload_len` bytes of `protocol`; returns their length. `frame` is at least that long.
#[inline]
pub(super) fn emit(
    frame: &mut [u8],
    link: &Link,
    [source, destination]: [&Address; 2],
    protocol: u8,
    hop_limit: u8,
    payload_len: u16,
) -> usize {
    if let (Some(source), Some(destination)) = (source.v4_bits(), destination.v4_bits()) {
        let at = ethernet::emit(frame, link, ethernet::IPV4);
        ipv4::emit(&mut frame[at..], [source, destination], protocol, hop_limit, payload_len);
        at + ipv4::HEADER_LEN
    } else {
        let at = ethernet::emit(frame, link, ethernet::IPV6);
        ipv6::emit(&mut frame[at..], [source, destination], protocol, hop_limit, payload_len);
        at + ipv6::HEADER_LEN
    }
}

/// The first `N` bytes of `frame`, to be written.
///
/// # Panics
/// If there are fewer.
#[inline]
pub(super) fn room<const N: usize>(frame: &mut [u8]) -> &mut [u8; N] {
    frame.first_chunk_mut().expect("room for a header")
}

/// The number in two bytes of a header.
#[inline]
pub(super) const fn u16_at<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// The number in four bytes of a header.
#[inline]
pub(super) const fn u32_at<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}
