//! The IPv4 header, RFC 791.

use std::hint::cold_path;

use super::bytes::words_of;
use super::checksum::Sum;
use super::datagram::Datagram;
use crate::flow::Address;
use crate::hint::seldom;
use crate::stats::DropReason;

/// Bytes of a header without options.
pub(super) const HEADER_LEN: usize = 20;

/// The fragment offset, in its field.
pub(super) const FRAGMENT_OFFSET: u16 = 0x1fff;
/// More fragments, and the fragment offset.
const FRAGMENT: u16 = 0x2000 | FRAGMENT_OFFSET;

/// Returns the header's and the datagram's length in bytes; `None` if the first word contradicts itself.
#[inline]
pub(super) const fn lengths(first: u32) -> Option<(usize, usize)> {
    let header_len = (first >> 24 & 0x0f) as usize * 4;
    let total_len = first as u16 as usize;
    if seldom(first >> 28 != 4 || header_len < HEADER_LEN || total_len < header_len) {
        return None;
    }
    Some((header_len, total_len))
}

/// Checks a header and skips its options. `start` is where `bytes` stands in the frame. After an error the value of `datagram` is
/// meaningless. (A [`Result`] with a datagram in it would share bytes with the reason, and so go through memory.)
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
    let words @ [first, second, third, source, destination] = words_of(header);
    let Some((header_len, total_len)) = lengths(first) else {
        return Err(DropReason::IpHeader);
    };
    let Some((whole, payload)) = bytes.get(..total_len).and_then(|bytes| bytes.split_at_checked(header_len))
    else {
        cold_path();
        return Err(DropReason::Truncated);
    };
    let mut sum = Sum::ZERO.words(words);
    if seldom(header_len > HEADER_LEN) {
        sum = sum.bytes(&whole[HEADER_LEN..]);
    }
    if seldom(!sum.is_valid()) {
        return Err(DropReason::IpChecksum);
    }
    if seldom(second as u16 & FRAGMENT != 0) {
        return Err(DropReason::Fragment);
    }
    *datagram = Datagram {
        source: Address::v4_of(source),
        destination: Address::v4_of(destination),
        is_between_hosts: is_host(source) && is_host(destination),
        protocol: (third >> 16) as u8,
        hop_limit: (third >> 24) as u8,
        payload_start: start + header_len,
        payload,
    };
    Ok(())
}

/// Returns whether a host may have this address: see [`super::ip::is_host`].
#[inline]
pub(super) const fn is_host(address: u32) -> bool {
    // All but 0.0.0.0, 127/8, 224/4 and 255.255.255.255.
    matches!(address, 1..0x7f00_0000 | 0x8000_0000..0xe000_0000 | 0xf000_0000..=0xffff_fffe)
}

/// Writes a header without options, with DF set and identification 0: an atomic datagram (RFC 6864 section 4.1). Returns the
/// pseudo-header's sum.
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
