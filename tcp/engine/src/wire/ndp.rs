//! Neighbour discovery, RFC 4861: solicitations and advertisements.

use super::datagram::{Datagram, ICMPV6};
use super::ethernet::{self, Link, Mac};
use super::ip::{self, Family};
use super::packet::NeighbourSolicitation;
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

/// The hop limit of every message. A router would have lowered it, so the sender is on the link.
const HOP_LIMIT: u8 = 255;

const UNSPECIFIED: Address = Address::v6([0; 16]);
/// ff02::1
const ALL_NODES: Address = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// ff02::1 on Ethernet, RFC 2464 section 7.
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];

/// Checks a solicitation whose checksum is right, RFC 4861 section 7.1.1.
pub(super) fn parse(link: Link, datagram: &Datagram<'_>) -> Result<NeighbourSolicitation, DropReason> {
    let (message, mut options) = datagram.payload.split_first_chunk::<LEN>().ok_or(DropReason::Malformed)?;
    let target = Address::v6(*message.last_chunk().ok_or(DropReason::Malformed)?);
    if datagram.hop_limit != HOP_LIMIT || message[1] != 0 {
        return Err(DropReason::Malformed);
    }
    let mut source_mac = None;
    // Each step takes at least eight bytes.
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

/// Returns whether the address is one of ff02::1:ff00:0/104, RFC 4291 section 2.7.1.
fn is_solicited_node(address: &Address) -> bool {
    address.octets().starts_with(&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff])
}

/// Writes the advertisement that `mac` has the target. Returns its length, up to eight bytes more than the solicitation's: pass the
/// whole frame, not only the received bytes. Returns 0, and writes nothing, if `frame` is too short.
///
/// The answer to duplicate address detection goes to all nodes, without the solicited flag (RFC 4861 section 7.2.4).
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
    let ends = [target, &destination];
    let (pseudo, message) = ip::emit(frame, &link, Family::V6, ends, ICMPV6, HOP_LIMIT, length as u16);
    message[..8].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]);
    message[8..LEN].copy_from_slice(&target.octets());
    message[LEN..LEN + 2].copy_from_slice(&[TARGET_ADDRESS, 1]);
    message[LEN + 2..].copy_from_slice(&mac);
    let checksum = pseudo.bytes(message).checksum();
    message[2..4].copy_from_slice(&checksum);
    start + length
}
