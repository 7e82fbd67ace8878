//! Either IP family: which addresses a host may have, and the headers before an IP payload.

use super::bytes::room;
use super::checksum::Sum;
use super::ethernet::{self, Link};
use super::{ipv4, ipv6};
use crate::flow::Address;

/// Returns whether a host may have this address: it is not multicast, limited broadcast, loopback or unspecified. As in Linux,
/// 0.0.0.0/8 and 240.0.0.0/4 are ordinary but for their first and last address.
#[inline]
pub(super) const fn is_host(address: &Address) -> bool {
    match address.v4_bits() {
        Some(bits) => ipv4::is_host(bits),
        None => ipv6::is_host(address),
    }
}

/// Returns the bytes of link and network header. A datagram is IPv6 if one of its addresses is.
#[inline]
pub(super) const fn header_len(link: &Link, source: &Address, destination: &Address) -> usize {
    ethernet::header_len(link) + Family::of(source, destination).header_len()
}

/// The IP version of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// Returns the family of a datagram between two addresses.
    #[inline]
    pub(super) const fn of(source: &Address, destination: &Address) -> Self {
        if source.is_v4() && destination.is_v4() { Self::V4 } else { Self::V6 }
    }

    /// Returns the bytes of the family's header.
    #[inline]
    pub(super) const fn header_len(self) -> usize {
        match self {
            Self::V4 => ipv4::HEADER_LEN,
            Self::V6 => ipv6::HEADER_LEN,
        }
    }
}

/// Writes link and network header for `payload_len` bytes of `protocol` from the first of the `ends` to the second. Returns the
/// pseudo-header's sum, and the bytes behind the headers.
///
/// # Panics
/// If `frame` is shorter than the headers.
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
