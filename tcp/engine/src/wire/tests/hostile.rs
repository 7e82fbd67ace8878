//! Packets that no peer may send, each with the reason why the parser drops it.

use super::*;

/// Returns an ACK with `bytes` at `at`, and its checksums right again unless `at` is in one.
fn with(key: &FlowKey, at: usize, bytes: &[u8]) -> Vec<u8> {
    let payload = if key.local.is_v4() { V4 } else { V6 };
    let mut frame = frame(&link(0), key, &ack(0));
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    if ![IP + 10, payload + 16].contains(&at) {
        repair(&mut frame, payload);
    }
    frame
}

fn flags(bits: u8) -> Vec<u8> {
    frame(&link(0), &v4_key(), &Segment { flags: Flags(bits), ..ack(0) })
}

fn from_to(local: Address, remote: Address) -> Vec<u8> {
    frame(&link(0), &FlowKey { local, remote, ..v4_key() }, &ack(0))
}

#[test]
fn hosts_have_all_addresses_but_these() {
    let number = |first: u8, rest: u8| u32::from_be_bytes([first, rest, rest, rest]);
    for address in
        [1, number(126, 255), number(128, 0), number(223, 255), number(240, 0), u32::MAX - 1, number(10, 0)]
    {
        assert!(ipv4::is_host(address), "{address:#x}");
    }
    for address in [0, number(127, 0), number(127, 255), number(224, 0), number(239, 255), u32::MAX] {
        assert!(!ipv4::is_host(address), "{address:#x}");
    }
}

#[test]
fn hostile_packets_are_dropped_for_their_reason() {
    use DropReason as R;
    let (v4, v6) = (v4_key(), v6_key());
    let ack = ack(0);
    let v4_with = |at, bytes: &[u8]| with(&v4_key(), at, bytes);
    let v6_with = |at: usize, bytes: &[u8]| with(&v6_key(), IP + at, bytes);
    let header = |protocol, headers: &[u8]| with_extension_headers(protocol, headers);
    let link_to = |destination| frame(&Link { destination, ..link(0) }, &v4_key(), &self::ack(0));
    let echo_to = |key: FlowKey| echo_request(&key, 0, b"data");
    let damaged = |mut frame: Vec<u8>, at: usize| {
        frame[at] ^= 1;
        frame
    };
    let multicast = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let loopback = Address::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let arp = |at: usize, bytes: &[u8]| {
        let mut frame = arp_request(0);
        frame[IP + at..IP + at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let icmp = |message: &[u8]| datagram(&link(0), v4_key().local, v4_key().remote, ICMP, 64, message);
    let target = v6.remote.octets();
    let solicit_for = |kind, code, target: &[u8]| [&[kind, code, 0, 0, 0, 0, 0, 0], target].concat();
    let solicit = |message: Vec<u8>| solicitation_with(v6_key().local, SOLICITED_NODE, 255, &message);
    let whole = solicit_for(135, 0, &target);

    let table: Vec<(&str, R, Vec<u8>)> = vec![
        ("nothing", R::Truncated, vec![]),
        ("13 bytes", R::Truncated, vec![0; 13]),
        ("802.3 length", R::EtherType, vec![0; 60]),
        ("a third tag", R::EtherType, {
            let mut frame = frame(&link(2), &v4, &ack);
            frame.splice(12..12, [0x81, 0, 0, 1]);
            frame
        }),
        ("multicast MAC source", R::Martian, v4_with(6, &[3])),
        ("broadcast MAC destination", R::Martian, link_to([0xff; 6])),
        ("multicast MAC destination", R::Martian, link_to([1, 0, 0x5e, 0, 0, 1])),
        // IPv4
        ("version 6 in IPv4", R::IpHeader, v4_with(IP, &[0x65])),
        ("version 0", R::IpHeader, v4_with(IP, &[0x05])),
        ("header of 16", R::IpHeader, v4_with(IP, &[0x44])),
        ("header of 0", R::IpHeader, v4_with(IP, &[0x40])),
        ("header beyond the datagram", R::IpHeader, v4_with(IP, &[0x4b, 0, 0, 40])),
        ("total length 0", R::IpHeader, v4_with(IP + 3, &[0])),
        ("total length 19", R::IpHeader, v4_with(IP + 3, &[19])),
        ("total length beyond the frame", R::Truncated, v4_with(IP + 3, &[53])),
        ("total length 65535", R::Truncated, v4_with(IP + 2, &[0xff; 2])),
        ("no TCP header", R::Truncated, v4_with(IP + 3, &[39])),
        ("IP checksum", R::IpChecksum, damaged(frame(&link(0), &v4, &ack), IP + 10)),
        ("IP checksum of 0", R::IpChecksum, v4_with(IP + 10, &[0; 2])),
        ("first fragment", R::Fragment, v4_with(IP + 6, &[0x20])),
        ("last fragment", R::Fragment, v4_with(IP + 7, &[1])),
        ("fragment at the far end", R::Fragment, v4_with(IP + 6, &[0x1f, 0xff])),
        ("UDP", R::Protocol, v4_with(IP + 9, &[17])),
        ("ICMPv6 over IPv4", R::Protocol, v4_with(IP + 9, &[58])),
        ("hop-by-hop options over IPv4", R::Protocol, v4_with(IP + 9, &[0])),
        // IPv6
        ("version 4 in IPv6", R::IpHeader, v6_with(0, &[0x40])),
        ("payload length beyond the frame", R::Truncated, v6_with(5, &[33])),
        ("payload length 0", R::Truncated, v6_with(4, &[0; 2])),
        ("payload length one short", R::TcpChecksum, {
            let mut frame = frame(&link(0), &v6, &ack);
            frame[V6 + 12] = 0x50;
            frame[IP + 5] -= 1;
            frame
        }),
        ("no next header", R::Protocol, v6_with(6, &[59])),
        ("authentication header", R::Protocol, v6_with(6, &[51])),
        ("ICMP over IPv6", R::Protocol, v6_with(6, &[1])),
        ("IPv6 fragment", R::Fragment, header(44, &[6, 0, 0, 1, 0, 0, 0, 1])),
        ("atomic fragment", R::Fragment, header(44, &[6, 0, 0, 0, 0, 0, 0, 1])),
        ("nine extension headers", R::ExtensionHeaders, header(60, &destination_options(9))),
        ("hop-by-hop options not first", R::ExtensionHeaders, {
            header(60, &[0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0])
        }),
        ("routing with a stop left", R::ExtensionHeaders, header(43, &[6, 0, 0, 1, 0, 0, 0, 0])),
        ("extension header beyond the packet", R::ExtensionHeaders, header(60, &[6, 255, 0, 0, 0, 0, 0, 0])),
        ("half an extension header", R::Truncated, {
            let mut frame = with_extension_headers(60, &[]);
            frame.truncate(V6 + 7);
            frame[IP + 4..IP + 6].copy_from_slice(&[0, 7]);
            frame
        }),
        // Addresses
        ("from multicast", R::Martian, from_to(Address::v4([224, 0, 0, 1]), v4.remote)),
        ("to multicast", R::Martian, from_to(v4.local, Address::v4([239, 255, 255, 255]))),
        ("from broadcast", R::Martian, from_to(Address::v4([255; 4]), v4.remote)),
        ("to broadcast", R::Martian, from_to(v4.local, Address::v4([255; 4]))),
        ("from loopback", R::Martian, from_to(Address::v4([127, 0, 0, 1]), v4.remote)),
        ("to loopback", R::Martian, from_to(v4.local, Address::v4([127, 255, 255, 254]))),
        ("from unspecified", R::Martian, from_to(Address::v4([0; 4]), v4.remote)),
        ("to unspecified", R::Martian, from_to(v4.local, Address::v4([0; 4]))),
        ("from ff02::1", R::Martian, from_to(multicast, v6.remote)),
        ("to ff02::1", R::Martian, from_to(v6.local, multicast)),
        ("from ::1", R::Martian, from_to(loopback, v6.remote)),
        ("to ::1", R::Martian, from_to(v6.local, loopback)),
        ("from ::", R::Martian, from_to(UNSPECIFIED, v6.remote)),
        ("to ::", R::Martian, from_to(v6.local, UNSPECIFIED)),
        ("from ::ffff:198.18.0.1", R::Martian, from_to(v4.local, v6.remote)),
        ("to ::ffff:198.18.0.2", R::Martian, from_to(v6.local, v4.remote)),
        ("land", R::Land, {
            frame(&link(0), &FlowKey { remote: v4.local, remote_port: v4.local_port, ..v4 }, &syn())
        }),
        ("land over IPv6", R::Land, {
            frame(&link(0), &FlowKey { remote: v6.local, remote_port: v6.local_port, ..v6 }, &syn())
        }),
        // TCP
        ("header of 16 words", R::TcpHeader, v4_with(V4 + 12, &[0xf0])),
        ("header of 4 words", R::TcpHeader, v4_with(V4 + 12, &[0x40])),
        ("header of 0 words", R::TcpHeader, v4_with(V4 + 12, &[0])),
        ("checksum", R::TcpChecksum, damaged(frame(&link(0), &v4, &ack), V4 + 16)),
        ("checksum of 0", R::TcpChecksum, v4_with(V4 + 16, &[0; 2])),
        ("from port 0", R::PortZero, frame(&link(0), &FlowKey { local_port: 0, ..v4 }, &ack)),
        ("to port 0", R::PortZero, frame(&link(0), &FlowKey { remote_port: 0, ..v6 }, &ack)),
        ("no flags", R::FlagsNone, flags(0)),
        ("SYN FIN", R::FlagsInvalid, flags(0x03)),
        ("SYN FIN ACK", R::FlagsInvalid, flags(0x13)),
        ("SYN RST", R::FlagsInvalid, flags(0x06)),
        ("SYN RST ACK", R::FlagsInvalid, flags(0x16)),
        ("FIN", R::FlagsInvalid, flags(0x01)),
        ("FIN RST", R::FlagsInvalid, flags(0x05)),
        ("FIN PSH URG", R::FlagsInvalid, flags(0x29)),
        ("all six", R::FlagsInvalid, flags(0x3f)),
        ("option length", R::TcpOptions, v4_with(V4 + 23, &[0])),
        // The parser returns the first of several reasons: if the checksum is wrong, the others mean nothing.
        ("checksum and option length", R::TcpChecksum, damaged(v4_with(V4 + 23, &[0]), V4 + 16)),
        ("port 0 and option length", R::PortZero, {
            let mut frame = v4_with(V4 + 23, &[0]);
            frame[V4..V4 + 2].fill(0);
            repair(&mut frame, V4);
            frame
        }),
        ("no flags and option length", R::FlagsNone, {
            let mut frame = v4_with(V4 + 23, &[0]);
            frame[V4 + 13] = 0;
            repair(&mut frame, V4);
            frame
        }),
        // ARP
        ("ARP for another hardware", R::Malformed, arp(1, &[6])),
        ("ARP for another protocol", R::Malformed, arp(2, &[0x86, 0xdd])),
        ("ARP address lengths", R::Malformed, arp(4, &[4, 6])),
        ("ARP reply", R::Protocol, arp(7, &[2])),
        ("ARP announcement", R::Protocol, arp(24, &[198, 18, 0, 1])),
        ("ARP from a multicast MAC", R::Martian, arp(8, &[3])),
        ("ARP from multicast", R::Martian, arp(14, &[224])),
        ("ARP for broadcast", R::Martian, arp(24, &[255; 4])),
        ("ARP for 0.0.0.0", R::Martian, arp(24, &[0; 4])),
        // ICMP
        ("echo checksum", R::Malformed, damaged(echo_to(v4), V4 + 9)),
        ("ICMPv6 echo checksum", R::Malformed, damaged(echo_to(v6), V6 + 9)),
        ("empty ICMP", R::Malformed, icmp(&[])),
        ("short echo", R::Malformed, icmp(&[8, 0, 0xf7, 0xff])),
        ("unreachable without its header", R::Malformed, icmp(&[3, 0, 0xfc, 0xff])),
        ("fragmentation needed", R::Protocol, icmp(&[3, 4, 0xfc, 0xfb])),
        ("source quench", R::Protocol, icmp(&[4, 0, 0xfb, 0xff])),
        ("ICMPv6's echo over IPv4", R::Protocol, icmp(&[128, 0, 0x7f, 0xff, 0, 0, 0, 0])),
        ("echo to broadcast", R::Martian, echo_to(FlowKey { remote: Address::v4([255; 4]), ..v4 })),
        ("echo from multicast", R::Martian, echo_to(FlowKey { local: Address::v4([224, 0, 0, 9]), ..v4 })),
        ("echo to ff02::1", R::Martian, echo_to(FlowKey { remote: multicast, ..v6 })),
        ("echo to itself", R::Land, echo_to(FlowKey { remote: v4.local, ..v4 })),
        // Neighbour discovery
        ("solicitation from afar", R::Malformed, {
            solicitation_with(v6.local, SOLICITED_NODE, 254, &whole)
        }),
        ("solicitation with a code", R::Malformed, solicit(solicit_for(135, 1, &target))),
        ("short solicitation", R::Malformed, solicit(solicit_for(135, 0, &target[..15]))),
        ("solicitation option of 0", R::Malformed, solicitation(v6.local, &[1, 0, 2, 0, 0, 0, 0, 1])),
        ("solicitation option of 16", R::Malformed, solicitation(v6.local, &[14, 2, 0, 0, 0, 0, 0, 0])),
        ("solicitation option of 1 byte", R::Malformed, solicitation(v6.local, &[14])),
        ("address option of 16", R::Malformed, {
            solicitation(v6.local, &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }),
        ("detection with an address option", R::Malformed, solicitation(UNSPECIFIED, &SOURCE_OPTION)),
        ("detection to one host", R::Malformed, solicitation_with(UNSPECIFIED, v6.remote, 255, &whole)),
        ("solicitation for multicast", R::Martian, solicit(solicit_for(135, 0, &multicast.octets()))),
        ("solicitation from multicast", R::Martian, solicitation(multicast, &[])),
        ("solicitation answered to a group", R::Martian, solicitation(v6.local, &[1, 1, 3, 0, 0, 0, 0, 1])),
        ("solicitation by the target", R::Land, solicitation(v6.remote, &[])),
        ("advertisement", R::Protocol, solicit(solicit_for(136, 0, &target))),
    ];
    for (name, reason, frame) in table {
        assert_eq!(parse(&frame, STRICT), Err(reason), "{name}");
        assert_eq!(parse(&frame, LENIENT), Err(reason), "{name}");
    }
}
