//! Bytes to values and back. Knows byte layouts and the values of `proto` and `flow`; never state, connections, devices or time.

mod arp;
mod checksum;
mod ethernet;
mod icmp;
mod ip;
mod ipv4;
mod ipv6;
mod ndp;
mod options;
mod tcp;
#[cfg(test)]
mod tests;

use self::ip::Datagram;
use crate::flow::FlowKey;
use crate::proto::Segment;
use crate::stats::DropReason;

pub use arp::{ArpRequest, answer_arp};
pub use icmp::{EchoRequest, Unreachable, answer_echo};
pub use ndp::{NeighbourSolicitation, answer_neighbour};
pub use tcp::{Layout, emit, header_len};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// What stands in front of the network layer: Ethernet II and up to two VLAN tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// Outer and inner tag, each TPID and TCI as on the wire; a TPID of 0 where there is none.
    pub tags: [Tag; 2],
}

/// A VLAN tag, IEEE 802.1Q or 802.1ad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tag {
    /// 0x8100 or 0x88a8; 0 for no tag.
    pub tpid: u16,
    /// Priority, drop eligibility and VLAN identifier.
    pub tci: u16,
}

impl Link {
    /// The way back: addresses swapped, the same tags.
    #[must_use]
    #[inline]
    pub const fn reversed(self) -> Self {
        Self { destination: self.source, source: self.destination, tags: self.tags }
    }

    /// Is this the other's way back?
    #[must_use]
    #[inline]
    pub fn is_back_of(&self, other: &Self) -> bool {
        self.destination == other.source && self.source == other.destination && self.has_tags_of(other)
    }

    /// Has it the other's tags? All are compared at once.
    #[inline]
    fn has_tags_of(&self, other: &Self) -> bool {
        let word = |Self { tags: [outer, inner], .. }: &Self| {
            u64::from(outer.tpid)
                | u64::from(outer.tci) << 16
                | u64::from(inner.tpid) << 32
                | u64::from(inner.tci) << 48
        };
        word(self) == word(other)
    }
}

/// A whole, checked TCP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpPacket {
    /// As received.
    pub link: Link,
    /// As the receiver sees it: the packet's destination is local.
    pub key: FlowKey,
    /// The header, and the length of the text.
    pub segment: Segment,
    /// Where the text starts in the frame; it is `segment.text_len` bytes long.
    pub text_start: u16,
    /// The checksum field held only the pseudo-header's sum, as a virtual device's peer leaves it for hardware that is not there.
    pub partial_checksum: bool,
}

/// What [`parse`] lets pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Accept a TCP checksum field that holds the pseudo-header's sum: what a virtual device leaves to hardware. Such a
    /// packet's text is unchecked.
    pub accept_partial_checksums: bool,
}

/// A packet that may be answered, or is news of one that will not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A TCP segment.
    Tcp(TcpPacket),
    /// For [`answer_arp`], if the target is ours.
    ArpRequest(ArpRequest),
    /// For [`answer_neighbour`], if the target is ours.
    NeighbourSolicitation(NeighbourSolicitation),
    /// For [`answer_echo`], if the destination is ours.
    EchoRequest(EchoRequest),
    /// A segment of a connection of ours did not arrive.
    Unreachable(Unreachable),
}

/// Reads a received frame and checks all of it that needs no state: lengths, checksums, addresses, ports, control bits,
/// options. Bytes beyond the IP datagram are the link's padding and ignored.
///
/// # Errors
/// Why the frame is to be dropped. Nothing of it may be used then.
pub fn parse(frame: &[u8], checks: Checks) -> Result<Packet, DropReason> {
    let mut segment = TcpPacket::default();
    let other = parse_into(frame, checks, &mut segment)?;
    Ok(other.unwrap_or(Packet::Tcp(segment)))
}

/// The same for a stream of frames most of which are TCP's: a segment is written to where it stays, in `segment`, and `None` comes
/// back. What else comes back is never [`Packet::Tcp`].
///
/// # Errors
/// As [`parse`]. What `segment` holds means nothing then.
#[inline(always)]
pub fn parse_into(
    frame: &[u8],
    checks: Checks,
    segment: &mut TcpPacket,
) -> Result<Option<Packet>, DropReason> {
    let (ether_type, rest) = ethernet::parse(frame, &mut segment.link)?;
    let start = frame.len() - rest.len();
    // Each family to its end, alike as they are: see `tcp::parse`.
    match ether_type {
        ethernet::IPV4 => {
            let mut datagram = Datagram::default();
            ipv4::parse(rest, start, &mut datagram)?;
            match datagram.protocol {
                ip::TCP => tcp::parse(&datagram, checks, segment).map(|()| None),
                ip::ICMP => icmp::parse(segment.link, datagram).map(Some),
                _ => Err(DropReason::Protocol),
            }
        }
        ethernet::IPV6 => {
            let mut datagram = Datagram::default();
            ipv6::parse(rest, start, &mut datagram)?;
            match datagram.protocol {
                ip::TCP => tcp::parse(&datagram, checks, segment).map(|()| None),
                ip::ICMPV6 => icmp::parse_v6(segment.link, datagram).map(Some),
                _ => Err(DropReason::Protocol),
            }
        }
        ethernet::ARP => arp::parse(segment.link, rest).map(|request| Some(Packet::ArpRequest(request))),
        _ => Err(DropReason::EtherType),
    }
}
