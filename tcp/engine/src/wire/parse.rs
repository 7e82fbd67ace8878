//! Parses a received frame of any kind.

use super::datagram::{Datagram, ICMP, ICMPV6, TCP};
use super::packet::{Packet, TcpPacket};
use super::tcp::Checks;
use super::{arp, ethernet, icmp, ipv4, ipv6, tcp};
use crate::stats::DropReason;

/// Parses a received frame, and checks all that needs no state: lengths, checksums, addresses, ports, control bits, options. Bytes
/// beyond the IP datagram are the link's padding and ignored.
///
/// # Errors
/// The reason to drop the frame. Nothing in it may be used then.
pub fn parse(frame: &[u8], checks: Checks) -> Result<Packet, DropReason> {
    let mut segment = TcpPacket::default();
    let other = parse_into(frame, checks, &mut segment)?;
    Ok(other.unwrap_or(Packet::Tcp(segment)))
}

/// Parses a received frame as [`parse`] does, for streams of frames that mostly carry TCP: it writes a segment to its final place,
/// `segment`, and returns `None`. It returns any other packet, never [`Packet::Tcp`].
///
/// # Errors
/// The reason to drop the frame. The value of `segment` is then meaningless.
#[inline(always)]
pub fn parse_into(
    frame: &[u8],
    checks: Checks,
    segment: &mut TcpPacket,
) -> Result<Option<Packet>, DropReason> {
    let (ether_type, rest) = ethernet::parse(frame, &mut segment.link)?;
    let start = frame.len() - rest.len();
    // The families are alike, and each is parsed to its end: see `tcp::parse`.
    match ether_type {
        ethernet::IPV4 => {
            let mut datagram = Datagram::default();
            ipv4::parse(rest, start, &mut datagram)?;
            match datagram.protocol {
                TCP => tcp::parse(&datagram, checks, segment).map(|()| None),
                ICMP => icmp::parse(segment.link, datagram).map(Some),
                _ => Err(DropReason::Protocol),
            }
        }
        ethernet::IPV6 => {
            let mut datagram = Datagram::default();
            ipv6::parse(rest, start, &mut datagram)?;
            match datagram.protocol {
                TCP => tcp::parse(&datagram, checks, segment).map(|()| None),
                ICMPV6 => icmp::parse_v6(segment.link, datagram).map(Some),
                _ => Err(DropReason::Protocol),
            }
        }
        ethernet::ARP => arp::parse(segment.link, rest).map(|request| Some(Packet::ArpRequest(request))),
        _ => Err(DropReason::EtherType),
    }
}
