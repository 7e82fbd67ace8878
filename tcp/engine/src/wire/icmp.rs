//! ICMP and ICMPv6, RFC 792 and RFC 4443: echo, and destinations that cannot be reached. Knows messages; never who may be
//! answered, nor whose connection a message is about.

use super::checksum::{self, Sum};
use super::ip::{self, Datagram, Family};
use super::{Link, Packet, ethernet, ipv4, ipv6, ndp, tcp};
use crate::flow::{Address, FlowKey};
use crate::proto::SeqNum;
use crate::stats::DropReason;

/// Bytes of an echo message before its data, and of an error before the datagram it is about.
const HEADER_LEN: usize = 8;
/// What an error says of a segment at least, RFC 792: its ports and its sequence number.
const QUOTED_LEN: usize = 8;
/// ICMP's code for a datagram that does not fit the path and may not be fragmented.
const FRAGMENTATION_NEEDED: u8 = 4;
/// Type and code of ICMP's echo request and reply.
const ECHO: [u16; 2] = [0x0800, 0x0000];
/// Type and code of ICMPv6's echo request and reply.
const ECHO_V6: [u16; 2] = [0x8000, 0x8100];

/// Somebody asks whether an address is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoRequest {
    /// As received.
    pub link: Link,
    /// Who asks.
    pub source: Address,
    /// The address asked.
    pub destination: Address,
    /// Where the message starts in the frame.
    pub start: u16,
    /// Bytes of the message, its header included.
    pub len: u16,
}

/// A router, or the destination itself, says that a segment of ours did not arrive: destination unreachable, whatever the code,
/// but for fragmentation needed. Anybody may say so: it is to be believed only about a segment in flight (RFC 5927 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// As received.
    pub link: Link,
    /// The connection as we see it: the source of the segment that did not arrive is local.
    pub key: FlowKey,
    /// That segment's sequence number.
    pub seq: SeqNum,
}

/// Checks an ICMP message. By value, as its v6 twin: a reference would have every datagram written to memory first.
#[cold]
pub(super) fn parse(link: Link, datagram: Datagram<'_>) -> Result<Packet, DropReason> {
    if !Sum::ZERO.bytes(datagram.payload).is_valid() {
        return Err(DropReason::Malformed);
    }
    match datagram.payload {
        [0x08, 0x00, ..] if datagram.source.is_v4() => echo(link, &datagram),
        // The next hop's MTU is the path's business, and has no ear here yet; neither has ICMPv6's packet too big.
        [0x03, code, ..] if *code != FRAGMENTATION_NEEDED => unreachable(link, &datagram, quoted_v4),
        _ => Err(DropReason::Protocol),
    }
}

/// Checks an ICMPv6 message.
#[cold]
pub(super) fn parse_v6(link: Link, datagram: Datagram<'_>) -> Result<Packet, DropReason> {
    let length = datagram.payload.len() as u16;
    let pseudo = Sum::pseudo_header(&datagram.source, &datagram.destination, ip::ICMPV6, length);
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

/// A request to a group is not answered: many would (RFC 1122 section 3.2.2.6).
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

/// The datagram that an error quotes: its source and destination, and what of its payload is there.
type Quoted<'a> = ([Address; 2], &'a [u8]);

/// Checks an error about a segment that its destination address has sent.
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
    // It goes to whom the segment came from, and nobody sends such a segment as no one may receive.
    if local != destination || tcp::check_ports(&key).is_err() {
        return Err(DropReason::Malformed);
    }
    let seq = SeqNum(u32::from_be_bytes([s0, s1, s2, s3]));
    Ok(Packet::Unreachable(Unreachable { link, key, seq }))
}

/// A quoted IPv4 header, RFC 792. It is cut short, and its checksum is of the time before the last router: neither is a lie.
fn quoted_v4(bytes: &[u8]) -> Result<Quoted<'_>, DropReason> {
    let header = bytes.first_chunk::<{ ipv4::HEADER_LEN }>().ok_or(DropReason::Malformed)?;
    let [first, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let header_len = usize::from(first & 0x0f) * 4;
    let total_len = usize::from(u16::from_be_bytes([l0, l1]));
    if first >> 4 != 4 || header_len < ipv4::HEADER_LEN || total_len < header_len + tcp::HEADER_LEN {
        return Err(DropReason::Malformed);
    }
    // The ports stand in the first fragment only.
    if u16::from_be_bytes([f0, f1]) & ipv4::FRAGMENT_OFFSET != 0 {
        return Err(DropReason::Fragment);
    }
    if protocol != ip::TCP {
        return Err(DropReason::Protocol);
    }
    let payload = bytes.get(header_len..).ok_or(DropReason::Malformed)?;
    Ok(([Address::v4([s0, s1, s2, s3]), Address::v4([d0, d1, d2, d3])], payload))
}

/// A quoted IPv6 header, RFC 4443 section 3.1. We send no extension headers, so none come back.
fn quoted_v6(bytes: &[u8]) -> Result<Quoted<'_>, DropReason> {
    let (header, payload) = bytes.split_first_chunk::<{ ipv6::HEADER_LEN }>().ok_or(DropReason::Malformed)?;
    let (fixed, addresses) = header.split_at(8);
    let (Some(&[first, _, _, _, l0, l1, protocol, _]), Some(&source), Some(&destination)) =
        (fixed.first_chunk::<8>(), addresses.first_chunk::<16>(), addresses.last_chunk::<16>())
    else {
        return Err(DropReason::Malformed);
    };
    if first >> 4 != 6 || usize::from(u16::from_be_bytes([l0, l1])) < tcp::HEADER_LEN {
        return Err(DropReason::Malformed);
    }
    if protocol != ip::TCP {
        return Err(DropReason::Protocol);
    }
    let (source, destination) = (Address::v6(source), Address::v6(destination));
    if source.is_v4() || destination.is_v4() {
        return Err(DropReason::Martian);
    }
    Ok(([source, destination], payload))
}

/// Turns the request that stands in `frame` into its reply: fresh headers, the data kept, the checksum updated. Returns the
/// reply's length, at most the request's; 0, with nothing written, if `frame` does not hold the request.
#[must_use]
pub fn answer_echo(frame: &mut [u8], request: &EchoRequest) -> usize {
    let EchoRequest { link, source, destination, start, len } = request;
    let message = usize::from(*start)..usize::from(*start) + usize::from(*len);
    let at = ip::header_len(link, source, destination);
    if frame.len() < message.end || at > message.start || usize::from(*len) < HEADER_LEN {
        return 0;
    }
    // IP options and extension headers are not answered in kind: the message moves up.
    frame.copy_within(message, at);
    let (protocol, [from, to]) = if source.is_v4() { (ip::ICMP, ECHO) } else { (ip::ICMPV6, ECHO_V6) };
    let family = Family::of(source, destination);
    ip::emit(frame, &link.reversed(), family, [destination, source], protocol, ip::HOP_LIMIT, *len);
    // The pseudo-header's sum does not change: it is the same from either end.
    let checksum = checksum::updated([frame[at + 2], frame[at + 3]], from, to);
    frame[at..at + 2].copy_from_slice(&to.to_be_bytes());
    frame[at + 2..at + 4].copy_from_slice(&checksum);
    at + usize::from(*len)
}
