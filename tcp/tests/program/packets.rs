//! The packets of the tests.

/// The interface's Ethernet address, and another station's.
pub(crate) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

// Of each family: an address with a listener, and addresses that only synmill has.
pub(crate) const HOST_V4: [u8; 4] = [198, 18, 0, 2];
pub(crate) const OTHER_V4: [u8; 4] = [198, 18, 0, 3];
pub(crate) const OWNED_V4: [u8; 4] = [198, 19, 7, 9];
pub(crate) const NOT_OWNED_V4: [u8; 4] = [198, 20, 0, 0];
pub(crate) const HOST_V6: [u8; 16] = [0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub(crate) const OTHER_V6: [u8; 16] = [0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3];
pub(crate) const OWNED_V6: [u8; 16] = [0xfd, 0, 0, 0x19, 0, 0, 0, 0, 0xaa, 0, 0, 0, 0, 0, 0, 9];
pub(crate) const NOT_OWNED_V6: [u8; 16] = [0xfd, 0, 0, 0x19, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
/// The solicited-node address that a solicitation for `OWNED_V6` is sent to (RFC 4291 section 2.7.1).
pub(crate) const SOLICITED_NODE: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 9];

/// The port of listeners on `HOST_V4` and `HOST_V6` only.
pub(crate) const EXACT: u16 = 8080;
/// The ports of listeners on every IPv4 address, and on every IPv6 address.
pub(crate) const WILDCARD_V4: u16 = 80;
pub(crate) const WILDCARD_V6: u16 = 81;
pub(crate) const NOBODY: u16 = 82;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const NO_NEXT_HEADER: u8 = 59;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;

/// Ethernet to us, with `tags` (their TPIDs) in front of `payload`.
pub(crate) fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [MAC, [2, 0, 0, 0, 0, 1]].concat();
    for (tpid, identifier) in tags.iter().zip(100_u16..) {
        frame.extend(tpid.to_be_bytes());
        frame.extend(identifier.to_be_bytes());
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// An IPv4 packet with `options` octets of options and the given flags and fragment offset.
pub(crate) fn ipv4(to: [u8; 4], protocol: u8, options: usize, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let header = 20 + options;
    let total = (header + payload.len()) as u16;
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 198, 18, 0, 1]);
    packet.extend(to);
    packet.resize(header, 1);
    packet.extend(payload);
    packet
}

/// An IPv6 packet with extension headers, each by its kind and octets. The first octet becomes the next kind.
pub(crate) fn ipv6(to: [u8; 16], headers: &[(u8, Vec<u8>)], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let kinds: Vec<u8> = headers.iter().map(|(kind, _)| *kind).chain([protocol]).collect();
    let mut body = Vec::new();
    for ((_, octets), next) in headers.iter().zip(&kinds[1..]) {
        body.push(*next);
        body.extend(&octets[1..]);
    }
    body.extend(payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([kinds[0], 64]);
    packet.extend(OTHER_V6);
    packet.extend(to);
    packet.extend(body);
    packet
}

/// An extension header without options, of eight octets and `units` times eight more.
pub(crate) fn extension(units: u8) -> Vec<u8> {
    let mut octets = vec![0, units];
    octets.resize(8 + usize::from(units) * 8, 0);
    octets
}

pub(crate) fn routing(segments_left: u8) -> Vec<u8> {
    vec![0, 0, 4, segments_left, 0, 0, 0, 0]
}

/// A fragment header: the offset in units of eight octets, and whether more fragments follow.
pub(crate) fn fragment(offset: u16, more: bool) -> Vec<u8> {
    let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
    vec![0, 0, high, low, 0, 0, 0, 1]
}

/// A TCP header, and two octets of text.
pub(crate) fn tcp(port: u16) -> Vec<u8> {
    let mut segment = vec![0x9c, 0x40];
    segment.extend(port.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0, b'h', b'i']);
    segment
}

pub(crate) fn udp(port: u16) -> Vec<u8> {
    let mut datagram = vec![0x9c, 0x40];
    datagram.extend(port.to_be_bytes());
    datagram.extend([0, 20, 0, 0]);
    datagram.resize(20, 0);
    datagram
}

pub(crate) fn arp(operation: u16, target: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4];
    packet.extend(operation.to_be_bytes());
    packet.extend([2, 0, 0, 0, 0, 1, 198, 18, 0, 1, 0, 0, 0, 0, 0, 0]);
    packet.extend(target);
    packet
}

/// An ICMP message with four octets behind the identifier and the sequence number.
pub(crate) fn icmp(kind: u8, code: u8) -> Vec<u8> {
    vec![kind, code, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4]
}

/// A neighbour solicitation with the source link-layer address option.
pub(crate) fn solicitation(target: [u8; 16]) -> Vec<u8> {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target);
    message.extend([1, 1, 2, 0, 0, 0, 0, 1]);
    message
}

pub(crate) fn v4(to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[], 0x0800, &ipv4(to, protocol, 0, 0x4000, payload))
}

pub(crate) fn v6(to: [u8; 16], headers: &[(u8, Vec<u8>)], protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[], 0x86dd, &ipv6(to, headers, protocol, payload))
}

/// A frame with another destination: a station or a group.
pub(crate) fn to_station(station: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&station);
    frame
}
