//! Neighbour discovery, RFC 4861: solicitations and advertisements. Knows messages; never who has an address.

use super::checksum::Sum;
use super::ip::{self, Datagram, Family};
use super::{Link, Mac, ethernet};
use crate::flow::Address;
use crate::stats::DropReason;

/// ICMPv6 type of a neighbour solicitation.
pub(super) const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Bytes of a solicitation or an advertisement before its options.
const LEN: usize = 24;
/// Bytes of a link-layer address option.
const ADDRESS_OPTION_LEN: usize = 8;
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// Only from this hop limit: a router would have lowered it, so the sender is on the link.
const HOP_LIMIT: u8 = 255;

const UNSPECIFIED: Address = Address::v6([0; 16]);
/// ff02::1
const ALL_NODES: Address = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// ff02::1 on Ethernet, RFC 2464 section 7.
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// Somebody asks who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourSolicitation {
    /// As received.
    pub link: Link,
    /// Where the answer goes: the source link-layer address option, or the frame's source where there is none.
    pub source_mac: Mac,
    /// Who asks; the unspecified address during duplicate address detection (RFC 4862 section 5.4.2).
    pub source: Address,
    /// The address asked for.
    pub target: Address,
}

/// Checks a solicitation, RFC 4861 section 7.1.1. Its checksum is right.
pub(super) fn parse(link: Link, datagram: &Datagram<'_>) -> Result<NeighbourSolicitation, DropReason> {
    let (message, mut options) = datagram.payload.split_first_chunk::<LEN>().ok_or(DropReason::Malformed)?;
    let target = Address::v6(*message.last_chunk().ok_or(DropReason::Malformed)?);
    if datagram.hop_limit != HOP_LIMIT || message[1] != 0 {
        return Err(DropReason::Malformed);
    }
    let mut source_mac = None;
    // Each step takes eight bytes at least.
    while let [kind, length, ..] = *options {
        let (option, behind) =
            options.split_at_checked(usize::from(length) * 8).ok_or(DropReason::Malformed)?;
        match *option {
            [] => return Err(DropReason::Malformed),
            [SOURCE_ADDRESS, 1, m0, m1, m2, m3, m4, m5] => source_mac = Some([m0, m1, m2, m3, m4, m5]),
            _ if kind == SOURCE_ADDRESS => return Err(DropReason::Malformed),
            _ => {}
        }
        options = behind;
    }
    if !options.is_empty() {
        return Err(DropReason::Malformed);
    }

    let source = datagram.source;
    if source == UNSPECIFIED && (source_mac.is_some() || !is_solicited_node(&datagram.destination)) {
        return Err(DropReason::Malformed);
    }
    let source_mac = source_mac.unwrap_or(link.source);
    if ethernet::is_group(&source_mac)
        || target.is_v4()
        || !ip::is_host(&target)
        || !(source == UNSPECIFIED || ip::is_host(&source))
        || !(is_solicited_node(&datagram.destination) || ip::is_host(&datagram.destination))
    {
        return Err(DropReason::Martian);
    }
    if source == target {
        return Err(DropReason::Land);
    }
    Ok(NeighbourSolicitation { link, source_mac, source, target })
}

/// Is it one of ff02::1:ff00:0/104, RFC 4291 section 2.7.1?
fn is_solicited_node(address: &Address) -> bool {
    address.octets().starts_with(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff])
}

/// Writes the advertisement that says `mac` has the address asked for; returns its length, up to eight bytes more than the
/// solicitation's. Duplicate address detection is answered to all nodes, without the solicited flag (RFC 4861 section 7.2.4).
/// Returns 0, with nothing written, if `frame` is too short: it should be all the room there is, not what was received.
#[must_use]
pub fn answer_neighbour(frame: &mut [u8], solicitation: &NeighbourSolicitation, mac: Mac) -> usize {
    let NeighbourSolicitation { link, source_mac, source, target } = solicitation;
    let (destination_mac, destination, flags) = if *source == UNSPECIFIED {
        (ALL_NODES_MAC, ALL_NODES, OVERRIDE)
    } else {
        (*source_mac, *source, SOLICITED | OVERRIDE)
    };
    let start = ip::header_len(link, target, &destination);
    let length = LEN + ADDRESS_OPTION_LEN;
    let Some(frame) = frame.get_mut(..start + length) else {
        return 0;
    };
    let link = Link { destination: destination_mac, source: mac, tags: link.tags };
    ip::emit(frame, &link, Family::V6, [target, &destination], ip::ICMPV6, HOP_LIMIT, length as u16);
    let message = &mut frame[start..];
    message[..8].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]);
    message[8..LEN].copy_from_slice(&target.octets());
    message[LEN..LEN + 2].copy_from_slice(&[TARGET_ADDRESS, 1]);
    message[LEN + 2..].copy_from_slice(&mac);
    let checksum =
        Sum::pseudo_header(target, &destination, ip::ICMPV6, length as u16).bytes(message).checksum();
    message[2..4].copy_from_slice(&checksum);
    start + length
}
