//! The link header: Ethernet II and up to two VLAN tags.

use std::hint::cold_path;

use super::bytes::room;
use crate::hint::{mostly, seldom};
use crate::stats::DropReason;

/// EtherType of IPv4.
pub(super) const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub(super) const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub(super) const IPV6: u16 = 0x86dd;
/// TPID of IEEE 802.1Q.
const C_TAG: u16 = 0x8100;
/// TPID of IEEE 802.1ad.
const S_TAG: u16 = 0x88a8;

/// Bytes of two addresses.
const ADDRESSES_LEN: usize = 12;
/// Bytes of a header without tags: the addresses and an EtherType.
pub const HEADER_LEN: usize = ADDRESSES_LEN + 2;
/// Bytes of a header with two tags.
pub const LONGEST_HEADER: usize = HEADER_LEN + 2 * TAG_LEN;
/// Bytes of a tag: a TPID and a TCI.
const TAG_LEN: usize = 4;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The bytes before the network layer, as values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Link {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// Outer and inner tag. An absent tag has a TPID of 0.
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
    /// Returns the header of an answer: addresses swapped, equal tags.
    #[must_use]
    #[inline]
    pub const fn reversed(self) -> Self {
        Self { destination: self.source, source: self.destination, tags: self.tags }
    }

    /// Returns whether this is the header of an answer to `other`.
    #[must_use]
    #[inline]
    pub fn is_back_of(&self, other: &Self) -> bool {
        self.destination == other.source && self.source == other.destination && self.has_tags_of(other)
    }

    /// Compares all tags at once.
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

/// Returns whether the address has its group bit set: multicast or broadcast.
#[inline]
pub(super) const fn is_group(address: &Mac) -> bool {
    address[0] & 1 != 0
}

/// Parses the link header into `link`. Returns the EtherType behind up to two tags, and the rest. A third tag's TPID counts as
/// EtherType.
#[inline]
pub(super) fn parse<'a>(frame: &'a [u8], link: &mut Link) -> Result<(u16, &'a [u8]), DropReason> {
    let Some((header, rest)) = frame.split_first_chunk::<HEADER_LEN>() else {
        cold_path();
        return Err(DropReason::Truncated);
    };
    let &[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = header;
    link.destination = [d0, d1, d2, d3, d4, d5];
    link.source = [s0, s1, s2, s3, s4, s5];
    link.tags = [Tag::default(); 2];
    // An answer would go to the whole group.
    if seldom(is_group(&link.source)) {
        return Err(DropReason::Martian);
    }
    let ether_type = u16::from_be_bytes([t0, t1]);
    if seldom(is_tag(ether_type)) { parse_tags(ether_type, rest, link) } else { Ok((ether_type, rest)) }
}

#[inline]
const fn is_tag(ether_type: u16) -> bool {
    matches!(ether_type, C_TAG | S_TAG)
}

#[cold]
fn parse_tags<'a>(
    mut ether_type: u16,
    mut rest: &'a [u8],
    link: &mut Link,
) -> Result<(u16, &'a [u8]), DropReason> {
    for tag in &mut link.tags {
        if !is_tag(ether_type) {
            break;
        }
        let (&[c0, c1, t0, t1], behind) = rest.split_first_chunk::<TAG_LEN>().ok_or(DropReason::Truncated)?;
        *tag = Tag { tpid: ether_type, tci: u16::from_be_bytes([c0, c1]) };
        ether_type = u16::from_be_bytes([t0, t1]);
        rest = behind;
    }
    Ok((ether_type, rest))
}

#[inline]
const fn is_tagged(link: &Link) -> bool {
    link.tags[0].tpid | link.tags[1].tpid != 0
}

/// Returns the bytes of the link header, tags included.
#[inline]
pub(super) const fn header_len(link: &Link) -> usize {
    if mostly(!is_tagged(link)) {
        return HEADER_LEN;
    }
    HEADER_LEN + TAG_LEN * ((link.tags[0].tpid != 0) as usize + (link.tags[1].tpid != 0) as usize)
}

/// Writes the link header, and returns the bytes behind it.
///
/// # Panics
/// If `frame` is shorter than the header.
#[inline]
pub(super) fn emit<'a>(frame: &'a mut [u8], link: &Link, ether_type: u16) -> &'a mut [u8] {
    let (addresses, rest) = room::<ADDRESSES_LEN>(frame);
    addresses[..6].copy_from_slice(&link.destination);
    addresses[6..].copy_from_slice(&link.source);
    let rest = if is_tagged(link) { emit_tags(rest, link) } else { rest };
    let (into, rest) = room::<2>(rest);
    *into = ether_type.to_be_bytes();
    rest
}

#[cold]
fn emit_tags<'a>(mut rest: &'a mut [u8], link: &Link) -> &'a mut [u8] {
    for tag in link.tags.iter().filter(|tag| tag.tpid != 0) {
        let into;
        (into, rest) = room::<TAG_LEN>(rest);
        into[..2].copy_from_slice(&tag.tpid.to_be_bytes());
        into[2..].copy_from_slice(&tag.tci.to_be_bytes());
    }
    rest
}
