//! The IPv6 header and its extension headers, RFC 8200.

use super::checksum::Sum;
use super::datagram::Datagram;
use crate::flow::Address;
use crate::stats::DropReason;

/// Bytes of the header.
pub(super) const HEADER_LEN: usize = 40;

/// The most extension headers that the parser skips.
const MAX_EXTENSION_HEADERS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// The fields of a header that the engine reads.
pub(super) struct Header {
    pub(super) payload_len: usize,
    pub(super) protocol: u8,
    pub(super) hop_limit: u8,
    pub(super) source: Address,
    pub(super) destination: Address,
}

impl Header {
    /// Reads a header, and returns it with the bytes behind it.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::Truncated)?;
        let (fixed, addresses) = header.split_at(8);
        let (Some(&[first, _, _, _, l0, l1, protocol, hop_limit]), Some(&source), Some(&destination)) =
            (fixed.first_chunk(), addresses.first_chunk(), addresses.last_chunk())
        else {
            return Err(DropReason::Truncated);
        };
        if first >> 4 != 6 {
            return Err(DropReason::IpHeader);
        }
        let payload_len = u16::from_be_bytes([l0, l1]).into();
        let (source, destination) = (Address::v6(source), Address::v6(destination));
        Ok((Self { payload_len, protocol, hop_limit, source, destination }, rest))
    }

    /// Checks that no address is a mapped one: these name IPv4 hosts, and never stand on the wire (RFC 4291 section 2.5.5.2).
    #[inline]
    pub(super) const fn check_unmapped(&self) -> Result<(), DropReason> {
        if self.source.is_v4() || self.destination.is_v4() { Err(DropReason::Martian) } else { Ok(()) }
    }
}

/// Checks the header and skips extension headers. `start` is where `bytes` stands in the frame. After an error the value of
/// `datagram` is meaningless.
#[inline]
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    start: usize,
    datagram: &mut Datagram<'a>,
) -> Result<(), DropReason> {
    let (header, rest) = Header::read(bytes)?;
    let payload = rest.get(..header.payload_len).ok_or(DropReason::Truncated)?;
    header.check_unmapped()?;
    let Header { protocol, hop_limit, source, destination, .. } = header;
    *datagram = Datagram {
        source,
        destination,
        is_between_hosts: is_host(&source) && is_host(&destination),
        protocol,
        hop_limit,
        payload_start: start + HEADER_LEN,
        payload,
    };
    if is_extension_header(protocol) { skip_extension_headers(datagram) } else { Ok(()) }
}

#[inline]
const fn is_extension_header(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// Advances `datagram` to the first header that is no extension header.
#[cold]
fn skip_extension_headers(datagram: &mut Datagram<'_>) -> Result<(), DropReason> {
    for nth in 0..=MAX_EXTENSION_HEADERS {
        if !is_extension_header(datagram.protocol) {
            return Ok(());
        }
        let &[next, length, _, segments_left, ..] =
            datagram.payload.first_chunk::<8>().ok_or(DropReason::Truncated)?;
        match datagram.protocol {
            FRAGMENT => return Err(DropReason::Fragment),
            // Only right behind the IPv6 header (RFC 8200 section 4.1).
            HOP_BY_HOP if nth > 0 => return Err(DropReason::ExtensionHeaders),
            // The packet is not at its last stop, and the engine is no router (RFC 8200 section 4.4).
            ROUTING if segments_left != 0 => return Err(DropReason::ExtensionHeaders),
            _ => {}
        }
        let length = (usize::from(length) + 1) * 8;
        datagram.payload = datagram.payload.get(length..).ok_or(DropReason::ExtensionHeaders)?;
        datagram.payload_start += length;
        datagram.protocol = next;
    }
    Err(DropReason::ExtensionHeaders)
}

/// Returns whether a host may have this IPv6 address: see [`super::ip::is_host`].
#[inline]
pub(super) const fn is_host(address: &Address) -> bool {
    // ::/127 is the unspecified address and loopback.
    address.halves()[0] >> 56 != 0xff && address.bits() > 1
}

/// Writes a header with traffic class and flow label 0. Returns the pseudo-header's sum.
#[inline]
pub(super) fn emit(
    header: &mut [u8; HEADER_LEN],
    [source, destination]: [&Address; 2],
    protocol: u8,
    hop_limit: u8,
    payload_len: u16,
) -> Sum {
    let first = 0x60 << 56 | u64::from(payload_len) << 16 | u64::from(protocol) << 8 | u64::from(hop_limit);
    header[..8].copy_from_slice(&first.to_be_bytes());
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    Sum::pseudo_header(source, destination, protocol, payload_len)
}
