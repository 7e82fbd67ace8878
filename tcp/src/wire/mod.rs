//! Bytes to values and back. Knows byte layouts and the values of `proto` and `flow`; never state, connections, devices or time.

use crate::flow::FlowKey;
use crate::proto::Segment;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// What stands in front of the network layer: Ethernet II and up to two VLAN tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

/// A whole, checked TCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
