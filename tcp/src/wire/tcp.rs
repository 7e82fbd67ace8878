//! The TCP header, RFC 9293 section 3.1. Knows its bytes and which of them no peer may send; never a connection's state.

use super::checksum::Sum;
use super::ip::{self, Datagram};
use super::{Checks, Link, TcpPacket, options};
use crate::flow::FlowKey;
use crate::proto::{Flags, Options, Segment, SeqNum, WireWindow};
use crate::stats::DropReason;

/// Bytes of a header without options.
pub(super) const HEADER_LEN: usize = 20;

/// The six control bits of [`Flags`]. CWR, ECE and the reserved bits are ignored (RFC 9293 section 3.1).
const CONTROL_BITS: u8 = 0x3f;

/// Checks a segment as far as that needs no state, and writes it to `packet`, whose link header is there already. The datagram's
/// addresses are a host's.
#[inline]
pub(super) fn parse(
    datagram: &Datagram<'_>,
    checks: Checks,
    packet: &mut TcpPacket,
) -> Result<(), DropReason> {
    let bytes = datagram.payload;
    let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(DropReason::Truncated)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    let (options, text) = header_len
        .checked_sub(HEADER_LEN)
        .and_then(|options_len| rest.split_at_checked(options_len))
        .ok_or(DropReason::TcpHeader)?;

    // An IP payload is at most 65,535 bytes long.
    let pseudo = Sum::pseudo_header(&datagram.source, &datagram.destination, ip::TCP, bytes.len() as u16);
    let is_valid = pseudo.bytes(bytes).is_valid();
    packet.partial_checksum =
        !is_valid && checks.accept_partial_checksums && pseudo.folded() == [header[16], header[17]];
    if !is_valid && !packet.partial_checksum {
        return Err(DropReason::TcpChecksum);
    }

    packet.key = FlowKey {
        local: datagram.destination,
        remote: datagram.source,
        local_port: ip::u16_at(header, 2),
        remote_port: ip::u16_at(header, 0),
    };
    let flags = Flags(header[13] & CONTROL_BITS);
    check_ports(&packet.key)?;
    check_flags(flags)?;
    let segment = &mut packet.segment;
    segment.seq = SeqNum(ip::u32_at(header, 4));
    segment.ack = SeqNum(ip::u32_at(header, 8));
    segment.flags = flags;
    segment.window = WireWindow(ip::u16_at(header, 14));
    segment.urgent = ip::u16_at(header, 18);
    segment.text_len = text.len() as u16;
    options::parse(options, flags.has(Flags::SYN), &mut segment.options)?;
    // Link header, IP header and eight extension headers end below 20,000.
    packet.text_start = (datagram.payload_start + header_len) as u16;
    Ok(())
}

#[inline]
pub(super) fn check_ports(key: &FlowKey) -> Result<(), DropReason> {
    if key.local_port == 0 || key.remote_port == 0 {
        return Err(DropReason::PortZero);
    }
    if key.local_port == key.remote_port && key.local == key.remote {
        return Err(DropReason::Land);
    }
    Ok(())
}

#[inline]
const fn check_flags(flags: Flags) -> Result<(), DropReason> {
    if flags.0 == 0 {
        return Err(DropReason::FlagsNone);
    }
    let syn_and_end = flags.has(Flags::SYN) && flags.has_any(Flags::FIN.with(Flags::RST));
    if syn_and_end || flags.has(Flags::FIN) && !flags.has(Flags::ACK) {
        return Err(DropReason::FlagsInvalid);
    }
    Ok(())
}

/// Bytes before the text of a segment with `options` from `key.local` to `key.remote`.
#[must_use]
#[inline]
pub fn header_len(link: &Link, key: &FlowKey, options: &Options) -> usize {
    ip::header_len(link, &key.local, &key.remote) + HEADER_LEN + options::len(options)
}

/// Writes all headers of `segment` from `key.local` to `key.remote` and their checksums, in front of the text that stands
/// at [`header_len`] already. Returns the frame's length, without padding to Ethernet's minimum.
///
/// # Panics
/// If headers and text do not fit into `frame`, or not into an IP datagram: the caller chose the text's length.
#[inline]
pub fn emit(frame: &mut [u8], link: &Link, key: &FlowKey, segment: &Segment) -> usize {
    let header_len = HEADER_LEN + options::len(&segment.options);
    let text_len = usize::from(segment.text_len);
    let start = ip::header_len(link, &key.local, &key.remote);
    let end = start + header_len + text_len;
    assert!(end <= frame.len() && end <= usize::from(u16::MAX), "no room for {text_len} bytes of text");
    let frame = &mut frame[..end];
    let length = (end - start) as u16;
    ip::emit(frame, link, [&key.local, &key.remote], ip::TCP, ip::HOP_LIMIT, length);

    // The header's words are summed while they are in hand: what was just written would have to be waited for.
    let (header, text) = frame[start..].split_at_mut(header_len);
    let mut sum = Sum::pseudo_header(&key.local, &key.remote, ip::TCP, length);
    if !text.is_empty() {
        sum = sum.bytes(text);
    }
    sum = sum.with(options::emit(&mut header[HEADER_LEN..], &segment.options));
    let ports = u64::from(key.local_port) << 16 | u64::from(key.remote_port);
    let first = ports << 32 | u64::from(segment.seq.0);
    let flags = u64::from(segment.flags.0 & CONTROL_BITS);
    let offset = header_len as u64 / 4;
    let state = offset << 28 | flags << 16 | u64::from(segment.window.0);
    let second = u64::from(segment.ack.0) << 32 | state;
    let urgent = segment.urgent;
    let [c0, c1] = sum.number(first).number(second).word(urgent).checksum();
    let [u0, u1] = urgent.to_be_bytes();
    let header = ip::room::<HEADER_LEN>(header);
    header[..8].copy_from_slice(&first.to_be_bytes());
    header[8..16].copy_from_slice(&second.to_be_bytes());
    header[16..].copy_from_slice(&[c0, c1, u0, u1]);
    end
}
