//! A table of packets that no peer may send, each with the reason it is dropped for.

use super::*;

/// A good frame after `change`, its checksums right again.
fn changed(key: &FlowKey, segment: &Segment, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut frame = frame(&link(0), key, segment);
    change(&mut frame);
    repair(&mut frame, if key.local.is_v4() { V4 } else { V6 });
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
    let v4_frame = |change: fn(&mut Vec<u8>)| changed(&v4_key(), &self::ack(0), change);
    let v6_frame = |change: fn(&mut Vec<u8>)| {
        let mut frame = frame(&link(0), &v6_key(), &self::ack(0));
        change(&mut frame);
        frame
    };
    let with_link = |link: Link| frame(&link, &v4_key(), &self::ack(0));
    let echo_to = |key: FlowKey| echo_request(&key, 0, b"data");
    let v6_host = |octets: [u8; 4]| {
        Address::v6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, octets[0], octets[1], octets[2], octets[3]])
    };
    let v6_multicast = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    let arp = |at: usize, bytes: &[u8]| {
        let mut frame = arp_request(0);
        frame[IP + at..IP + at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let target = v6.remote.octets();
    let solicit = |message: &[u8]| solicitation_with(v6_key().local, SOLICITED_NODE, 255, message);

    let table: Vec<(&str, R, Vec<u8>)> = vec![
        ("nothing", R::Truncated, vec![]),
        ("13 bytes", R::Truncated, vec![0; 13]),
        ("802.3 length", R::EtherType, vec![0; 60]),
        ("a third tag", R::EtherType, {
            let mut frame = with_link(link(2));
            frame.splice(12..12, [0x81, 0, 0, 1]);
            frame
        }),
        ("multicast MAC source", R::Martian, with_link(Link { source: [3, 0, 0, 0, 0, 1], ..link(0) })),
        ("broadcast MAC destination", R::Martian, with_link(Link { destination: [0xff; 6], ..link(0) })),
        (
            "multicast MAC destination",
            R::Martian,
            with_link(Link { destination: [1, 0, 0x5e, 0, 0, 1], ..link(0) }),
        ),
        // IPv4
        ("version 6 in IPv4", R::IpHeader, v4_frame(|frame| frame[IP] = 0x65)),
        ("version 0", R::IpHeader, v4_frame(|frame| frame[IP] = 0x05)),
        ("header of 16", R::IpHeader, v4_frame(|frame| frame[IP] = 0x44)),
        ("header of 0", R::IpHeader, v4_frame(|frame| frame[IP] = 0x40)),
        ("header beyond the datagram", R::IpHeader, {
            let mut frame = v4_frame(|_| ());
            frame[IP + 3] = 40;
            frame[IP] = 0x4b;
            frame
        }),
        ("total length 0", R::IpHeader, v4_frame(|frame| frame[IP + 3] = 0)),
        ("total length 19", R::IpHeader, v4_frame(|frame| frame[IP + 3] = 19)),
        ("total length beyond the frame", R::Truncated, v4_frame(|frame| frame[IP + 3] += 1)),
        ("total length 65535", R::Truncated, v4_frame(|frame| frame[IP + 2..IP + 4].fill(0xff))),
        ("no TCP header", R::Truncated, v4_frame(|frame| frame[IP + 3] = 39)),
        ("IP checksum", R::IpChecksum, {
            let mut frame = v4_frame(|_| ());
            frame[IP + 10] ^= 0x10;
            frame
        }),
        ("IP checksum of 0", R::IpChecksum, {
            let mut frame = v4_frame(|_| ());
            frame[IP + 10..IP + 12].fill(0);
            frame
        }),
        ("first fragment", R::Fragment, v4_frame(|frame| frame[IP + 6] = 0x20)),
        ("last fragment", R::Fragment, v4_frame(|frame| frame[IP + 7] = 1)),
        (
            "fragment at the far end",
            R::Fragment,
            v4_frame(|frame| frame[IP + 6..IP + 8].copy_from_slice(&[0x1f, 0xff])),
        ),
        ("UDP", R::Protocol, v4_frame(|frame| frame[IP + 9] = 17)),
        ("ICMPv6 over IPv4", R::Protocol, v4_frame(|frame| frame[IP + 9] = 58)),
        ("hop-by-hop options over IPv4", R::Protocol, v4_frame(|frame| frame[IP + 9] = 0)),
        // IPv6
        ("version 4 in IPv6", R::IpHeader, v6_frame(|frame| frame[IP] = 0x40)),
        ("payload length beyond the frame", R::Truncated, v6_frame(|frame| frame[IP + 5] += 1)),
        ("payload length 0", R::Truncated, v6_frame(|frame| frame[IP + 4..IP + 6].fill(0))),
        (
            "payload length one short",
            R::TcpChecksum,
            v6_frame(|frame| {
                frame[V6 + 12] = 0x50;
                frame[IP + 5] -= 1;
            }),
        ),
        ("no next header", R::Protocol, v6_frame(|frame| frame[IP + 6] = 59)),
        ("authentication header", R::Protocol, v6_frame(|frame| frame[IP + 6] = 51)),
        ("ICMP over IPv6", R::Protocol, v6_frame(|frame| frame[IP + 6] = 1)),
        ("IPv6 fragment", R::Fragment, with_extension_headers(44, &[6, 0, 0, 1, 0, 0, 0, 1])),
        ("atomic fragment", R::Fragment, with_extension_headers(44, &[6, 0, 0, 0, 0, 0, 0, 1])),
        ("nine extension headers", R::ExtensionHeaders, {
            with_extension_headers(
                60,
                &[[60, 0, 0, 0, 0, 0, 0, 0].repeat(8), vec![6, 0, 0, 0, 0, 0, 0, 0]].concat(),
            )
        }),
        ("hop-by-hop options not first", R::ExtensionHeaders, {
            with_extension_headers(60, &[0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0])
        }),
        (
            "routing with a stop left",
            R::ExtensionHeaders,
            with_extension_headers(43, &[6, 0, 0, 1, 0, 0, 0, 0]),
        ),
        ("extension header beyond the packet", R::ExtensionHeaders, {
            with_extension_headers(60, &[6, 255, 0, 0, 0, 0, 0, 0])
        }),
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
        ("from ff02::1", R::Martian, from_to(v6_multicast, v6.remote)),
        ("to ff02::1", R::Martian, from_to(v6.local, v6_multicast)),
        ("from ::1", R::Martian, from_to(v6_host([0, 0, 0, 1]), v6.remote)),
        ("to ::1", R::Martian, from_to(v6.local, v6_host([0, 0, 0, 1]))),
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
        ("header of 16 words", R::TcpHeader, v4_frame(|frame| frame[V4 + 12] = 0xf0)),
        ("header of 4 words", R::TcpHeader, v4_frame(|frame| frame[V4 + 12] = 0x40)),
        ("header of 0 words", R::TcpHeader, v4_frame(|frame| frame[V4 + 12] = 0)),
        ("checksum", R::TcpChecksum, {
            let mut frame = v4_frame(|_| ());
            frame[V4 + 16] ^= 1;
            frame
        }),
        ("checksum of 0", R::TcpChecksum, {
            let mut frame = v4_frame(|_| ());
            frame[V4 + 16..V4 + 18].fill(0);
            frame
        }),
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
        ("option length", R::TcpOptions, v4_frame(|frame| frame[V4 + 23] = 0)),
        // Of several reasons the first: the sum tells whether the others mean anything.
        ("checksum and option length", R::TcpChecksum, {
            let mut frame = v4_frame(|_| ());
            frame[V4 + 23] = 0;
            frame
        }),
        ("port 0 and option length", R::PortZero, {
            v4_frame(|frame| {
                frame[V4..V4 + 2].fill(0);
                frame[V4 + 23] = 0;
            })
        }),
        ("no flags and option length", R::FlagsNone, {
            v4_frame(|frame| {
                frame[V4 + 13] = 0;
                frame[V4 + 23] = 0;
            })
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
        ("echo checksum", R::Malformed, {
            let mut frame = echo_to(v4);
            frame[V4 + 9] ^= 1;
            frame
        }),
        ("ICMPv6 echo checksum", R::Malformed, {
            let mut frame = echo_to(v6);
            frame[V6 + 9] ^= 1;
            frame
        }),
        ("empty ICMP", R::Malformed, datagram(&link(0), v4.local, v4.remote, ip::ICMP, 64, &[])),
        (
            "short echo",
            R::Malformed,
            datagram(&link(0), v4.local, v4.remote, ip::ICMP, 64, &[8, 0, 0xf7, 0xff]),
        ),
        (
            "unreachable without its header",
            R::Malformed,
            datagram(&link(0), v4.local, v4.remote, ip::ICMP, 64, &[3, 0, 0xfc, 0xff]),
        ),
        (
            "fragmentation needed",
            R::Protocol,
            datagram(&link(0), v4.local, v4.remote, ip::ICMP, 64, &[3, 4, 0xfc, 0xfb]),
        ),
        (
            "source quench",
            R::Protocol,
            datagram(&link(0), v4.local, v4.remote, ip::ICMP, 64, &[4, 0, 0xfb, 0xff]),
        ),
        ("ICMPv6's echo over IPv4", R::Protocol, {
            datagram(&link(0), v4.local, v4.remote, ip::ICMP, 64, &[128, 0, 0x7f, 0xff, 0, 0, 0, 0])
        }),
        ("echo to broadcast", R::Martian, echo_to(FlowKey { remote: Address::v4([255; 4]), ..v4 })),
        ("echo from multicast", R::Martian, echo_to(FlowKey { local: Address::v4([224, 0, 0, 9]), ..v4 })),
        ("echo to ff02::1", R::Martian, echo_to(FlowKey { remote: v6_multicast, ..v6 })),
        ("echo to itself", R::Land, echo_to(FlowKey { remote: v4.local, ..v4 })),
        // Neighbour discovery
        ("solicitation from afar", R::Malformed, {
            solicitation_with(
                v6.local,
                SOLICITED_NODE,
                254,
                &[&[135, 0, 0, 0, 0, 0, 0, 0], &target[..]].concat(),
            )
        }),
        (
            "solicitation with a code",
            R::Malformed,
            solicit(&[&[135, 1, 0, 0, 0, 0, 0, 0], &target[..]].concat()),
        ),
        ("short solicitation", R::Malformed, solicit(&[&[135, 0, 0, 0, 0, 0, 0, 0], &target[..15]].concat())),
        ("solicitation option of 0", R::Malformed, solicitation(v6.local, &[1, 0, 2, 0, 0, 0, 0, 1])),
        ("solicitation option of 16", R::Malformed, solicitation(v6.local, &[14, 2, 0, 0, 0, 0, 0, 0])),
        ("solicitation option of 1 byte", R::Malformed, solicitation(v6.local, &[14])),
        ("address option of 16", R::Malformed, {
            solicitation(v6.local, &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }),
        ("detection with an address option", R::Malformed, solicitation(UNSPECIFIED, &SOURCE_OPTION)),
        ("detection to one host", R::Malformed, {
            solicitation_with(
                UNSPECIFIED,
                v6.remote,
                255,
                &[&[135, 0, 0, 0, 0, 0, 0, 0], &target[..]].concat(),
            )
        }),
        ("solicitation for multicast", R::Martian, {
            solicit(&[&[135, 0, 0, 0, 0, 0, 0, 0], &v6_multicast.octets()[..]].concat())
        }),
        ("solicitation from multicast", R::Martian, solicitation(v6_multicast, &[])),
        ("solicitation answered to a group", R::Martian, solicitation(v6.local, &[1, 1, 3, 0, 0, 0, 0, 1])),
        ("solicitation by the target", R::Land, solicitation(v6.remote, &[])),
        ("advertisement", R::Protocol, solicit(&[&[136, 0, 0, 0, 0, 0, 0, 0], &target[..]].concat())),
    ];
    for (name, reason, frame) in table {
        assert_eq!(parse(&frame, STRICT), Err(reason), "{name}");
        assert_eq!(parse(&frame, LENIENT), Err(reason), "{name}");
    }
}
