//! IPv4, RFC 791. Knows the header; never what it carries.

use super::checksum::Sum;
use super::ip::{Datagram, room, u16_at, u32_at};
use crate::flow::Address;
use crate::stats::DropReason;

/// Bytes of a header without options.
pub(super) const HEADER_LEN: usize = 20;

/// Where in its datagram a fragment belongs.
pub(super) const FRAGMENT_OFFSET: u16 = 0x1fff;
/// More fragments, and the fragment offset.
const FRAGMENT: u16 = 0x3fff;

/// Checks a header and skips its options. `start` is where `bytes` stands in the frame.
#[inline]
pub(super) fn parse(bytes: &[u8], start: usize) -> Result<Datagram<'_>, DropReason> {
    let header = bytes.first_chunk::<HEADER_LEN>().ok_or(DropReason::Truncated)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let total_len = usize::from(u16_at(header, 2));
    if header[0] >> 4 != 4 || header_len < HEADER_LEN || total_len < header_len {
        return Err(DropReason::IpHeader);
    }
    let (whole, payload) = bytes
        .get(..total_len)
        .and_then(|bytes| bytes.split_at_checked(header_len))
        .ok_or(DropReason::Truncated)?;
    // Nearly every header is without options.
    let sum = match <&[u8; HEADER_LEN]>::try_from(whole) {
        Ok(header) => Sum::ZERO.bytes(header),
        Err(_) => Sum::ZERO.bytes(whole),
    };
    if !sum.is_valid() {
        return Err(DropReason::IpChecksum);
    }
    if u16_at(header, 6) & FRAGMENT != 0 {
        return Err(DropReason::Fragment);
    }
    Ok(Datagram {
        source: Address::v4_of(u32_at(header, 12)),
        destination: Address::v4_of(u32_at(header, 16)),
        protocol: header[9],
        hop_limit: header[8],
        payload_start: start + header_len,
        payload,
    })
}

/// Writes a header without options: DF set and identification 0, an atomic datagram (RFC 6864 section 4.1).
#[inline]
pub(super) fn emit(
    into: &mut [u8],
    [source, destination]: [u32; 2],
    protocol: u8,
    hop_limit: u8,
    payload_len: u16,
) {
    let first = 0x4500_0000 | u64::from(payload_len + HEADER_LEN as u16);
    let second = 0x4000 << 32 | u64::from(hop_limit) << 24 | u64::from(protocol) << 16;
    let addresses = u64::from(source) << 32 | u64::from(destination);
    let [c0, c1] = Sum::ZERO.number(first).number(second).number(addresses).checksum();
    let header = room::<HEADER_LEN>(into);
    header[..4].copy_from_slice(&(first as u32).to_be_bytes());
    header[4..12].copy_from_slice(&(second | u64::from(u16::from_be_bytes([c0, c1]))).to_be_bytes());
    header[12..].copy_from_slice(&addresses.to_be_bytes());
}
