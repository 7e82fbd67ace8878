//! Builds packets that carry no TCP: ARP, ICMP and ICMPv6.

use super::*;

/// Sets the Internet checksum at `at`, over the bytes and the pseudo-header.
fn set_checksum(bytes: &mut [u8], at: usize, pseudo: &[u8]) {
    let all = [pseudo, bytes].concat();
    let mut sum: u32 =
        all.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    bytes[at..at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// Returns the frame of an ICMP or ICMPv6 message. Both addresses are of one family.
fn icmp(mac: Mac, source: Address, target: Address, hops: u8, mut message: Vec<u8>) -> Vec<u8> {
    let length = message.len() as u8;
    if let (Some(source), Some(target)) = (source.as_v4(), target.as_v4()) {
        let start = [0x45, 0, 0, 20 + length, 0, 0, 0x40, 0, hops, 1, 0, 0];
        let mut header = [&start[..], &source, &target].concat();
        set_checksum(&mut header, 10, &[]);
        set_checksum(&mut message, 2, &[]);
        [&mac[..], &THEM, &[8, 0], &header, &message].concat()
    } else {
        let addresses = [source.octets(), target.octets()].concat();
        let pseudo = [&addresses[..], &[0, 0, 0, length, 0, 0, 0, 58]].concat();
        set_checksum(&mut message, 2, &pseudo);
        let start = [0x86, 0xdd, 0x60, 0, 0, 0, 0, length, 58, hops];
        [&mac[..], &THEM, &start, &addresses, &message].concat()
    }
}

pub(super) fn arp_request(target: Address) -> Vec<u8> {
    let head = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    [&head[..], &THEM, &[198, 19, 0, 1], &[0; 6], &target.as_v4().unwrap()].concat()
}

pub(super) fn echo_request(target: Address) -> Vec<u8> {
    icmp(US, Address::v4([198, 19, 0, 1]), target, 64, vec![8, 0, 0, 0, 1, 2, 3, 4, 5, 6])
}

pub(super) fn solicitation(target: Address) -> Vec<u8> {
    let octets = target.octets();
    let [.., a, b, c] = octets;
    let group = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &octets, &[1, 1], &THEM].concat();
    icmp([0x33, 0x33, 0xff, a, b, c], v6(0x19, 1), group, 255, message)
}

/// Returns a router's destination unreachable for our segment of connection `key` with the number `seq`.
pub(super) fn unreachable(key: &FlowKey, seq: SeqNum, code: u8) -> Vec<u8> {
    let quoted = frame(&link(), key, &segment(seq, SeqNum(0), SYN, 0), &[]).split_off(14);
    let (kind, router) =
        if key.local.is_v4() { (3, Address::v4([198, 19, 0, 254])) } else { (1, v6(0x19, 0xfe)) };
    icmp(US, router, key.local, 61, [&[kind, code, 0, 0, 0, 0, 0, 0], &quoted[..]].concat())
}

/// Returns keys of connections that only synmill can have opened, of either family.
pub(super) fn our_keys() -> [FlowKey; 2] {
    let v4 = FlowKey { local: OWNED, ..reversed(&name(1)) };
    [v4, FlowKey { local: v6(0x18, 1), remote: v6(0x19, 1), ..v4 }]
}
