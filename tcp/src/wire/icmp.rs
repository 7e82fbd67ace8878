//! ICMP and ICMPv6 echo, RFC 792 and RFC 4443. Knows messages; never who may be answered.

use super::checksum::{self, Sum};
use super::ip::{self, Datagram};
use super::{Link, Packet, ethernet, ndp};
use crate::flow::Address;
use crate::stats::DropReason;

/// Bytes of an echo message before its data.
const ECHO_LEN: usize = 8;
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

/// Checks an ICMP message.
pub(super) fn parse(link: Link, datagram: &Datagram<'_>) -> Result<Packet, DropReason> {
    if !Sum::ZERO.bytes(datagram.payload).is_valid() {
        return Err(DropReason::Malformed);
    }
    match datagram.payload {
        [0x08, 0x00, ..] if datagram.source.is_v4() => echo(link, datagram),
        _ => Err(DropReason::Protocol),
    }
}

/// Checks an ICMPv6 message.
pub(super) fn parse_v6(link: Link, datagram: &Datagram<'_>) -> Result<Packet, DropReason> {
    let length = datagram.payload.len() as u16;
    let pseudo = Sum::pseudo_header(&datagram.source, &datagram.destination, ip::ICMPV6, length);
    if !pseudo.bytes(datagram.payload).is_valid() {
        return Err(DropReason::Malformed);
    }
    match datagram.payload {
        [0x80, 0x00, ..] => echo(link, datagram),
        [ndp::SOLICITATION, ..] => ndp::parse(link, datagram).map(Packet::NeighbourSolicitation),
        _ => Err(DropReason::Protocol),
    }
}

/// A request to a group is not answered: many would (RFC 1122 section 3.2.2.6).
fn echo(link: Link, datagram: &Datagram<'_>) -> Result<Packet, DropReason> {
    let Datagram { source, destination, payload_start, payload, .. } = *datagram;
    if payload.len() < ECHO_LEN {
        return Err(DropReason::Malformed);
    }
    if ethernet::is_group(&link.destination) || !ip::is_host(&source) || !ip::is_host(&destination) {
        return Err(DropReason::Martian);
    }
    if source == destination {
        return Err(DropReason::Land);
    }
    let (start, len) = (payload_start as u16, payload.len() as u16);
    Ok(Packet::EchoRequest(EchoRequest { link, source, destination, start, len }))
}

/// Turns the request that stands in `frame` into its reply: fresh headers, the data kept, the checksum updated. Returns the
/// reply's length, at most the request's; 0, with nothing written, if `frame` does not hold the request.
#[must_use]
pub fn answer_echo(frame: &mut [u8], request: &EchoRequest) -> usize {
    let EchoRequest { link, source, destination, start, len } = request;
    let message = usize::from(*start)..usize::from(*start) + usize::from(*len);
    let at = ip::header_len(link, source, destination);
    if frame.len() < message.end || at > message.start || usize::from(*len) < ECHO_LEN {
        return 0;
    }
    // IP options and extension headers are not answered in kind: the message moves up.
    frame.copy_within(message, at);
    let (protocol, [from, to]) = if source.is_v4() { (ip::ICMP, ECHO) } else { (ip::ICMPV6, ECHO_V6) };
    ip::emit(frame, &link.reversed(), [destination, source], protocol, ip::HOP_LIMIT, *len);
    // The pseudo-header's sum does not change: it is the same from either end.
    let checksum = checksum::updated([frame[at + 2], frame[at + 3]], from, to);
    frame[at..at + 2].copy_from_slice(&to.to_be_bytes());
    frame[at + 2..at + 4].copy_from_slice(&checksum);
    at + usize::from(*len)
}
