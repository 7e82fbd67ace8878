//! ARP, RFC 826, for IPv4 over Ethernet: requests and replies.

use super::ethernet::{self, Link, Mac, is_group};
use super::ip;
use super::packet::ArpRequest;
use crate::flow::Address;
use crate::stats::DropReason;

/// Bytes of a message.
const LEN: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, addresses of six and four bytes.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// Checks a request. Replies, and announcements (sender and target are equal), get no answer.
pub(super) fn parse(link: Link, bytes: &[u8]) -> Result<ArpRequest, DropReason> {
    let message = bytes.first_chunk::<LEN>().ok_or(DropReason::Truncated)?;
    let (&hardware, message) = message.split_first_chunk::<6>().ok_or(DropReason::Truncated)?;
    let &[o0, o1, m0, m1, m2, m3, m4, m5, s0, s1, s2, s3, _, _, _, _, _, _, t0, t1, t2, t3] =
        message.first_chunk::<22>().ok_or(DropReason::Truncated)?;
    if hardware != ETHERNET_IPV4 {
        return Err(DropReason::Malformed);
    }
    let sender_mac = [m0, m1, m2, m3, m4, m5];
    let (sender, target) = (Address::v4([s0, s1, s2, s3]), Address::v4([t0, t1, t2, t3]));
    if [o0, o1] != REQUEST || sender == target {
        return Err(DropReason::Protocol);
    }
    let is_probe = sender == Address::v4([0; 4]);
    if is_group(&sender_mac) || !ip::is_host(&target) || !(is_probe || ip::is_host(&sender)) {
        return Err(DropReason::Martian);
    }
    Ok(ArpRequest { link, sender_mac, sender, target })
}

/// Writes the reply that `mac` has the target. Returns its length, which is the length of the request without padding. Returns 0,
/// and writes nothing, if `frame` is shorter.
#[must_use]
pub fn answer_arp(frame: &mut [u8], request: &ArpRequest, mac: Mac) -> usize {
    let (Some(sender), Some(target)) = (request.sender.as_v4(), request.target.as_v4()) else {
        return 0;
    };
    let end = ethernet::header_len(&request.link) + LEN;
    let Some(frame) = frame.get_mut(..end) else {
        return 0;
    };
    let link = Link { destination: request.sender_mac, source: mac, tags: request.link.tags };
    let mut rest = ethernet::emit(frame, &link, ethernet::ARP);
    for field in [&ETHERNET_IPV4[..], &REPLY, &mac, &target, &request.sender_mac, &sender] {
        let into;
        (into, rest) = rest.split_at_mut(field.len());
        into.copy_from_slice(field);
    }
    end
}
