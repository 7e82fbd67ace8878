//! Answers to ARP requests, neighbour solicitations and echo requests.

use super::*;

#[test]
fn arp_requests_are_answered() {
    for tags in 0..3 {
        for probe in [false, true] {
            let mut frame = arp_request(tags);
            let at = frame.len() - 28;
            if probe {
                frame[at + 14..at + 18].fill(0);
            }
            frame.extend([0; 18]);
            let Ok(Packet::ArpRequest(request)) = parse(&frame, STRICT) else { panic!("not a request") };
            assert_eq!(request.target, v4_key().remote);
            assert_eq!(answer_arp(&mut frame, &request, SERVER), at + 28);
            assert_eq!((&frame[..6], &frame[6..12]), (&CLIENT[..], &SERVER[..]));
            let sender = if probe { [0; 4] } else { [198, 18, 0, 1] };
            let expected =
                [&[0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 2, 198, 18, 0, 2, 2, 0, 0, 0, 0, 1][..], &sender]
                    .concat();
            assert_eq!(frame[at..at + 28], expected);
            let (link, ether_type, _) = link_layer(&frame);
            assert_eq!((link, ether_type), (self::link(tags).reversed(), ethernet::ARP));
            assert_eq!(answer_arp(&mut frame[..at + 27], &request, SERVER), 0);
        }
    }
}

#[test]
fn solicitations_are_answered() {
    let key = v6_key();
    let all_nodes = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    for (source, options, mac, destination, flags) in [
        (key.local, &SOURCE_OPTION[..], CLIENT, key.local, 0x60),
        (key.local, &[1, 1, 2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 9], key.local, 0x60),
        (key.local, &[], CLIENT, key.local, 0x60),
        (UNSPECIFIED, &[], [0x33, 0x33, 0, 0, 0, 1], all_nodes, 0x20),
    ] {
        let mut frame = solicitation(source, options);
        let Ok(Packet::NeighbourSolicitation(request)) = parse(&frame, STRICT) else {
            panic!("not a solicitation")
        };
        assert_eq!((request.source, request.target), (source, key.remote));
        frame.resize(128, 0x77);
        let len = answer_neighbour(&mut frame, &request, SERVER);
        assert_eq!(len, V6 + 32);
        assert_eq!((&frame[..6], &frame[6..12]), (&mac[..], &SERVER[..]));
        let (_, _, rest) = link_layer(&frame[..len]);
        let mut answer = Datagram::default();
        ipv6::parse(rest, IP, &mut answer).unwrap();
        assert_eq!((answer.source, answer.destination, answer.hop_limit), (key.remote, destination, 255));
        assert_eq!(answer.payload[..2], [136, 0]);
        assert_eq!(answer.payload[4..8], [flags, 0, 0, 0]);
        assert_eq!(answer.payload[8..24], key.remote.octets());
        assert_eq!(answer.payload[24..], [2, 1, 2, 0, 0, 0, 0, 2]);
        // `Protocol` means that the checksum is right.
        assert_eq!(parse(&frame[..len], STRICT), Err(DropReason::Protocol));
        assert_eq!(answer_neighbour(&mut frame[..len - 1], &request, SERVER), 0);
    }
}

#[test]
fn echo_requests_are_answered() {
    for data_len in [0, 1, 2, 56, 1400] {
        let data = text(data_len);
        let mut requests = vec![(with_ip_options(echo_request(&v4_key(), 0, &data), &[1; 8]), v4_key(), 0)];
        for tags in 0..3 {
            requests.push((echo_request(&v4_key(), tags, &data), v4_key(), tags));
            requests.push((echo_request(&v6_key(), tags, &data), v6_key(), tags));
        }
        for (mut frame, key, tags) in requests {
            let received = frame.len();
            frame.extend([0x77; 9]);
            let Ok(Packet::EchoRequest(request)) = parse(&frame, STRICT) else { panic!("not a request") };
            assert_eq!((request.source, request.destination), (key.local, key.remote));
            assert_eq!(answer_echo(&mut frame[..received - 1], &request), 0);
            let len = answer_echo(&mut frame, &request);
            assert!(len <= received);
            let frame = &frame[..len];
            let (link, _, rest) = link_layer(frame);
            assert_eq!(link, self::link(tags).reversed());
            let v4 = key.local.is_v4();
            let mut answer = Datagram::default();
            if v4 { ipv4::parse(rest, 0, &mut answer) } else { ipv6::parse(rest, 0, &mut answer) }.unwrap();
            assert_eq!((answer.source, answer.destination, answer.hop_limit), (key.remote, key.local, 64));
            assert_eq!(answer.payload[..2], [if v4 { 0 } else { 129 }, 0]);
            assert_eq!(answer.payload[4..8], [0x12, 0x34, 0, 9]);
            assert_eq!(answer.payload[8..], data);
            // `Protocol` means that the checksum is right.
            assert_eq!(parse(frame, STRICT), Err(DropReason::Protocol));
        }
    }
}

/// Returns the link header, the EtherType and the rest.
fn link_layer(frame: &[u8]) -> (Link, u16, &[u8]) {
    let mut link = Link::default();
    let (ether_type, rest) = ethernet::parse(frame, &mut link).unwrap();
    (link, ether_type, rest)
}
