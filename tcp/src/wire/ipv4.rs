//! IPv4, RFC 791. Knows the header; never what it carries.

use std::hint::cold_path;

use super::checksum::Sum;
use super::ip::{Datagram, u16_at, u32_at};
use crate::flow::Address;
use crate::hint::seldom;
use crate::stats::DropReason;

/// Bytes of a header without options.
pub(super) const HEADER_LEN: usize = 20;

/// Where in its datagram a fragment belongs.
pub(super) const FRAGMENT_OFFSET: u16 = 0x1fff;
/// More fragments, and the fragment offset.
const FRAGMENT: u16 = 0x3fff;

/// Checks a header and skips its options. `start` is where `bytes` stands in the frame. What `datagram` holds after an error means
/// nothing. (A [`Result`] with a datagram in it shares bytes with the reason, and is taken apart and put together again in memory.)
#[inline(always)]
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    start: usize,
    datagram: &mut Datagram<'a>,
) -> Result<(), DropReason> {
    let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
        cold_path();
        return Err(DropReason::Truncated);
    };
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16_at(header, 2));
    if seldom(header[0] >> 4 != 4 || header_len < HEADER_LEN || total_len < header_len) {
        return Err(DropReason::IpHeader);
    }
    let Some((whole, payload)) = bytes.get(..total_len).and_then(|bytes| bytes.split_at_checked(header_len))
    else {
        cold_path();
        return Err(DropReason::Truncated);
    };
    // Nearly every header is without options.
    let sum = match <&[u8; HEADER_LEN]>::try_from(whole) {
        Ok(header) => Sum::ZERO.bytes(header),
        Err(_) => {
            cold_path();
            Sum::ZERO.bytes(whole)
        }
    };
    if seldom(!sum.is_valid()) {
        return Err(DropReason::IpChecksum);
    }
    if seldom(u16_at(header, 6) & FRAGMENT != 0) {
        return Err(DropReason::Fragment);
    }
    let (source, destination) = (u32_at(header, 12), u32_at(header, 16));
    *datagram = Datagram {
        source: Address::v4_of(source),
        destination: Address::v4_of(destination),
        is_between_hosts: is_host(source) && is_host(destination),
        protocol: header[9],
        hop_limit: header[8],
        payload_start: start + header_len,
        payload,
    };
    Ok(())
}

/// See [`super::ip::is_host`].
#[inline]
pub(super) const fn is_host(address: u32) -> bool {
    let is_loopback = address >> 24 == 127;
    let is_multicast = address >> 28 == 0b1110;
    !is_loopback && !is_multicast && address != 0 && address != u32::MAX
}

/// Writes a header without options: DF set and identification 0, an atomic datagram (RFC 6864 section 4.1). Returns the pseudo-header's
/// sum.
#[inline]
pub(super) fn emit(
    header: &mut [u8; HEADER_LEN],
    [source, destination]: [u32; 2],
    protocol: u8,
    hop_limit: u8,
    payload_len: u16,
) -> Sum {
    let first = 0x4500_0000 | u32::from(payload_len + HEADER_LEN as u16);
    let third = u32::from(hop_limit) << 24 | u32::from(protocol) << 16;
    // Sums of 32-bit numbers carry nothing out of 64 bits.
    let addresses = u64::from(source) + u64::from(destination);
    let checksum = Sum::of(addresses + u64::from(first) + 0x4000 + u64::from(third)).checksum();
    header[..4].copy_from_slice(&first.to_be_bytes());
    header[4..8].copy_from_slice(&[0, 0, 0x40, 0]);
    header[8..12].copy_from_slice(&(third | u32::from(u16::from_be_bytes(checksum))).to_be_bytes());
    header[12..16].copy_from_slice(&source.to_be_bytes());
    header[16..].copy_from_slice(&destination.to_be_bytes());
    Sum::of(addresses + u64::from(protocol) + u64::from(payload_len))
}
