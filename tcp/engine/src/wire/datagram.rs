//! An IP datagram of either family, as a value.

use crate::flow::Address;

/// Protocol number of ICMP.
pub(super) const ICMP: u8 = 1;
/// Protocol number of TCP.
pub(super) const TCP: u8 = 6;
/// Protocol number of ICMPv6.
pub(super) const ICMPV6: u8 = 58;

/// TTL and hop limit of the datagrams that the engine sends.
pub(super) const HOP_LIMIT: u8 = 64;

/// A checked datagram.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Datagram<'a> {
    /// Source address.
    pub(super) source: Address,
    /// Destination address.
    pub(super) destination: Address,
    /// Whether hosts may have both addresses: see [`super::ip::is_host`].
    pub(super) is_between_hosts: bool,
    /// Protocol of the payload, behind all extension headers.
    pub(super) protocol: u8,
    /// TTL or hop limit, as received.
    pub(super) hop_limit: u8,
    /// Where the payload starts in the frame.
    pub(super) payload_start: usize,
    /// The payload, without the link's padding. At most 65,535 bytes.
    pub(super) payload: &'a [u8],
}
