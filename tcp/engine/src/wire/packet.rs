//! Received packets as values.

use super::ethernet::{Link, Mac};
use crate::flow::{Address, FlowKey};
use crate::proto::{Segment, SeqNum};

/// A packet that the engine may answer, or a report of a segment that did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// A TCP segment.
    Tcp(TcpPacket),
    /// For [`super::answer_arp`], if the target is ours.
    ArpRequest(ArpRequest),
    /// For [`super::answer_neighbour`], if the target is ours.
    NeighbourSolicitation(NeighbourSolicitation),
    /// For [`super::answer_echo`], if the destination is ours.
    EchoRequest(EchoRequest),
    /// A segment of one of our connections did not arrive.
    Unreachable(Unreachable),
}

/// A whole, checked TCP packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpPacket {
    /// The link header, as received.
    pub link: Link,
    /// The connection as the receiver sees it: the packet's destination is local.
    pub key: FlowKey,
    /// The header, and the length of the text.
    pub segment: Segment,
    /// Where the text starts in the frame; it is `segment.text_len` bytes long.
    pub text_start: u16,
    /// Whether the checksum field held only the pseudo-header's sum: a virtual device's peer leaves the rest to hardware that does
    /// not exist.
    pub partial_checksum: bool,
}

/// An ARP request: who has an IPv4 address?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArpRequest {
    /// The link header, as received.
    pub link: Link,
    /// Where the answer goes.
    pub sender_mac: Mac,
    /// The asking address; 0.0.0.0 in a probe (RFC 5227 section 2.1.1).
    pub sender: Address,
    /// The address in question.
    pub target: Address,
}

/// A neighbour solicitation: who has an IPv6 address?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourSolicitation {
    /// The link header, as received.
    pub link: Link,
    /// Where the answer goes: the source link-layer address option, or the frame's source without such an option.
    pub source_mac: Mac,
    /// The asking address; unspecified during duplicate address detection (RFC 4862 section 5.4.2).
    pub source: Address,
    /// The address in question.
    pub target: Address,
}

/// An ICMP or ICMPv6 echo request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EchoRequest {
    /// The link header, as received.
    pub link: Link,
    /// The asking address.
    pub source: Address,
    /// The address in question.
    pub destination: Address,
    /// Where the message starts in the frame.
    pub start: u16,
    /// Bytes of the message, its header included.
    pub len: u16,
}

/// Destination unreachable, with any code but fragmentation needed: a router, or the destination itself, reports that a segment of
/// ours did not arrive. Anybody can send such a report, so it counts only if the segment is in flight (RFC 5927 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// The link header, as received.
    pub link: Link,
    /// The connection as this end sees it: the source of the lost segment is local.
    pub key: FlowKey,
    /// The lost segment's sequence number.
    pub seq: SeqNum,
}
