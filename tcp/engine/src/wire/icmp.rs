//! ICMP and ICMPv6, RFC 792 and RFC 4443: echo, and destination unreachable.

use super::bytes::words_of;
use super::checksum::{self, Sum};
use super::datagram::{Datagram, HOP_LIMIT, ICMP, ICMPV6, TCP};
use super::ethernet::{self, Link};
use super::ip::{self, Family};
use super::packet::{EchoRequest, Packet, Unreachable};
use super::{ipv4, ipv6, ndp, tcp};
use crate::flow::{Address, FlowKey};
use crate::proto::SeqNum;
use crate::stats::DropReason;

/// Bytes of an echo message before its data, and of an error before the quoted datagram.
const HEADER_LEN: usize = 8;
/// The fewest bytes of a segment that an error quotes, RFC 792: ports and sequence number.
const QUOTED_LEN: usize = 8;
/// ICMP's code for a datagram that is too large for the path and must not be fragmented.
const FRAGMENTATION_NEEDED: u8 = 4;
/// Type and code of ICMP's echo request and reply.
const ECHO: [u16; 2] = [0x0800, 0x0000];
/// Type and code of ICMPv6's echo request and reply.
const ECHO_V6: [u16; 2] = [0x8000, 0x8100];

/// Checks an ICMP message. The datagram comes by value, as in [`parse_v6`]: a reference would force every datagram into memory.
#[cold]
pub(super) fn parse(link: Link, datagram: Datagram<'_>) -> Result<Packet, DropReason> {
    if !Sum::ZERO.bytes(datagram.payload).is_valid() {
        return Err(DropReason::Malformed);
    }
    match datagram.payload {
        [0x08, 0x00, ..] if datagram.source.is_v4() => echo(link, &datagram),
        // Path MTU discovery is not implemented: no code reads the next hop's MTU, nor ICMPv6's packet too big.
        [0x03, code, ..] if *code != FRAGMENTATION_NEEDED => unreachable(link, &datagram, quoted_v4),
        _ => Err(DropReason::Protocol),
    }
}

/// Checks an ICMPv6 message.
#[cold]
pub(super) fn parse_v6(link: Link, datagram: Datagram<'_>) -> Result<Packet, DropReason> {
    let length = datagram.payload.len() as u16;
    let pseudo = Sum::pseudo_header(&datagram.source, &datagram.destination, ICMPV6, length);
    if !pseudo.bytes(datagram.payload).is_valid() {
        return Err(DropReason::Malformed);
    }
    match datagram.payload {
        [0x80, 0x00, ..] => echo(link, &datagram),
        [0x01, ..] => unreachable(link, &datagram, quoted_v6),
        [ndp::SOLICITATION, ..] => ndp::parse(link, &datagram).map(Packet::NeighbourSolicitation),
        _ => Err(DropReason::Protocol),
    }
}

/// Checks an echo request. One to a group gets no answer, because many hosts would answer (RFC 1122 section 3.2.2.6).
fn echo(link: Link, datagram: &Datagram<'_>) -> Result<Packet, DropReason> {
    let Datagram { source, destination, payload_start, payload, .. } = *datagram;
    if payload.len() < HEADER_LEN {
        return Err(DropReason::Malformed);
    }
    if ethernet::is_group(&link.destination) || !datagram.is_between_hosts {
        return Err(DropReason::Martian);
    }
    if source == destination {
        return Err(DropReason::Land);
    }
    let (start, len) = (payload_start as u16, payload.len() as u16);
    Ok(Packet::EchoRequest(EchoRequest { link, source, destination, start, len }))
}

/// The datagram that an error quotes: its source and destination, and the quoted part of its payload.
type Quoted<'a> = ([Address; 2], &'a [u8]);

/// Checks an error about a segment that the error's destination has sent.
fn unreachable(
    link: Link,
    datagram: &Datagram<'_>,
    quoted: impl Fn(&[u8]) -> Result<Quoted<'_>, DropReason>,
) -> Result<Packet, DropReason> {
    let Datagram { source, destination, payload, .. } = *datagram;
    let ([local, remote], segment) = quoted(payload.get(HEADER_LEN..).ok_or(DropReason::Malformed)?)?;
    let &[p0, p1, q0, q1, s0, s1, s2, s3] =
        segment.first_chunk::<QUOTED_LEN>().ok_or(DropReason::Malformed)?;
    if ethernet::is_group(&link.destination) || ![source, destination, local, remote].iter().all(ip::is_host)
    {
        return Err(DropReason::Martian);
    }
    if source == destination {
        return Err(DropReason::Land);
    }
    let (local_port, remote_port) = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([q0, q1]));
    let key = FlowKey { local, remote, local_port, remote_port };
    // A router reports to the segment's source, and no host sends a segment with such ports.
    if local != destination || tcp::check_ports(&key).is_err() {
        return Err(DropReason::Malformed);
    }
    let seq = SeqNum(u32::from_be_bytes([s0, s1, s2, s3]));
    Ok(Packet::Unreachable(Unreachable { link, key, seq }))
}

/// Reads a quoted IPv4 header, RFC 792. The datagram may be cut short, and its checksum is older than the last router's change of
/// the TTL, so neither is checked.
fn quoted_v4(bytes: &[u8]) -> Result<Quoted<'_>, DropReason> {
    let [first, second, third, source, destination] =
        words_of(bytes.first_chunk().ok_or(DropReason::Malformed)?);
    let (header_len, total_len) = ipv4::lengths(first).ok_or(DropReason::Malformed)?;
    if total_len < header_len + tcp::HEADER_LEN {
        return Err(DropReason::Malformed);
    }
    // Only the first fragment has the ports.
    if second as u16 & ipv4::FRAGMENT_OFFSET != 0 {
        return Err(DropReason::Fragment);
    }
    if (third >> 16) as u8 != TCP {
        return Err(DropReason::Protocol);
    }
    let payload = bytes.get(header_len..).ok_or(DropReason::Malformed)?;
    Ok(([source, destination].map(Address::v4_of), payload))
}

/// Reads a quoted IPv6 header, RFC 4443 section 3.1. The engine sends no extension headers, so none come back.
fn quoted_v6(bytes: &[u8]) -> Result<Quoted<'_>, DropReason> {
    let (header, payload) = ipv6::Header::read(bytes).map_err(|_| DropReason::Malformed)?;
    if header.payload_len < tcp::HEADER_LEN {
        return Err(DropReason::Malformed);
    }
    if header.protocol != TCP {
        return Err(DropReason::Protocol);
    }
    header.check_unmapped()?;
    Ok(([header.source, header.destination], payload))
}

/// Turns the request in `frame` into its reply: new headers, equal data, an updated checksum. Returns the reply's length, at most
/// the request's. Returns 0, and writes nothing, if `frame` does not hold the request.
#[must_use]
pub fn answer_echo(frame: &mut [u8], request: &EchoRequest) -> usize {
    let EchoRequest { link, source, destination, start, len } = request;
    let message = usize::from(*start)..usize::from(*start) + usize::from(*len);
    let at = ip::header_len(link, source, destination);
    if frame.len() < message.end || at > message.start || usize::from(*len) < HEADER_LEN {
        return 0;
    }
    // The reply has no IP options and no extension headers, so the message moves up.
    frame.copy_within(message, at);
    let (protocol, [from, to]) = if source.is_v4() { (ICMP, ECHO) } else { (ICMPV6, ECHO_V6) };
    let family = Family::of(source, destination);
    ip::emit(frame, &link.reversed(), family, [destination, source], protocol, HOP_LIMIT, *len);
    // The pseudo-header's sum does not depend on the direction.
    let checksum = checksum::updated([frame[at + 2], frame[at + 3]], from, to);
    frame[at..at + 2].copy_from_slice(&to.to_be_bytes());
    frame[at + 2..at + 4].copy_from_slice(&checksum);
    at + usize::from(*len)
}
