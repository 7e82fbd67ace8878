//! Destination unreachable: the reports that the parser accepts, and those that it drops.

use super::*;

#[test]
fn every_code_names_the_segment() {
    for key in [v4_key(), v6_key()] {
        for code in (0..=255).filter(|code| !(key.local.is_v4() && *code == 4)) {
            for tags in 0..3 {
                let expected = Unreachable { link: link(tags), key, seq: syn().seq };
                assert_eq!(
                    parse(&unreachable_about(&key, tags, code), STRICT),
                    Ok(Packet::Unreachable(expected)),
                    "{code}"
                );
            }
        }
    }
}

/// Routers quote from eight bytes of the segment (RFC 792) to all of it that fits (RFC 1812 section 4.3.2.3), and may add padding and
/// extensions (RFC 4884).
#[test]
fn however_much_is_quoted() {
    for (key, header) in [(v4_key(), 20), (v6_key(), 40)] {
        let whole = sent(&key, &ack(100));
        let expected = Packet::Unreachable(Unreachable { link: link(0), key, seq: ack(100).seq });
        for len in 0..=whole.len() {
            let got = parse(&error(0, key.local, 1, &whole[..len]), STRICT);
            if len < header + 8 {
                assert_eq!(got, Err(DropReason::Malformed), "{len}");
            } else {
                assert_eq!(got, Ok(expected), "{len}");
            }
        }
        let extended = [&whole[..], &[0; 60], &[0x20, 0, 0xdf, 0xff]].concat();
        assert_eq!(parse(&error(0, key.local, 1, &extended), STRICT), Ok(expected));
    }
    let with_options = with_ip_options(frame(&link(0), &v4_key(), &syn()), &[1; 40]).split_off(IP);
    let expected = Packet::Unreachable(Unreachable { link: link(0), key: v4_key(), seq: syn().seq });
    assert_eq!(parse(&error(0, v4_key().local, 1, &with_options), STRICT), Ok(expected));
    assert_eq!(parse(&error(0, v4_key().local, 1, &with_options[..68]), STRICT), Ok(expected));
    assert_eq!(parse(&error(0, v4_key().local, 1, &with_options[..67]), STRICT), Err(DropReason::Malformed));
}

#[test]
fn lies_about_a_segment_are_dropped_for_their_reason() {
    use DropReason as R;
    let (v4, v6) = (v4_key(), v6_key());
    // An error whose quoted datagram has `bytes` at `at`.
    let about = |key: FlowKey, at: usize, bytes: &[u8]| {
        let mut quoted = sent(&key, &syn());
        quoted[at..at + bytes.len()].copy_from_slice(bytes);
        error(0, key.local, 1, &quoted)
    };
    let v4_about = |at, bytes: &[u8]| about(v4_key(), at, bytes);
    let v6_about = |at, bytes: &[u8]| about(v6_key(), at, bytes);
    let damaged = |key: FlowKey, at: usize| {
        let mut frame = unreachable_about(&key, 0, 1);
        frame[at] ^= 1;
        frame
    };
    let source = v4.local.as_v4().unwrap();
    let port = v4.local_port.to_be_bytes();
    let group = Address::v4([224, 0, 0, 1]);
    let table: Vec<(&str, Result<(), R>, Vec<u8>)> = vec![
        ("checksum", Err(R::Malformed), damaged(v4, V4 + ERROR + 30)),
        ("ICMPv6 checksum", Err(R::Malformed), damaged(v6, V6 + ERROR + 50)),
        ("to a group's MAC", Err(R::Martian), damaged(v4, 0)),
        ("nothing quoted", Err(R::Malformed), error(0, v4.local, 1, &[])),
        ("nothing quoted, IPv6", Err(R::Malformed), error(0, v6.local, 0, &[])),
        ("IPv6 quoted by ICMP", Err(R::Malformed), error(0, v4.local, 1, &sent(&v6, &syn()))),
        ("IPv4 quoted by ICMPv6", Err(R::Malformed), error(0, v6.local, 1, &sent(&v4, &ack(40)))),
        ("version", Err(R::Malformed), v4_about(0, &[0x65])),
        ("header of 16", Err(R::Malformed), v4_about(0, &[0x44])),
        ("header as long as its datagram", Err(R::Malformed), v4_about(0, &[0x4f])),
        ("total length below a segment's", Err(R::Malformed), v4_about(3, &[39])),
        ("total length of the shortest segment", Ok(()), v4_about(3, &[40])),
        ("total length beyond what is quoted", Ok(()), v4_about(2, &[5])),
        ("header checksum of another router", Ok(()), v4_about(10, &[0, 0])),
        ("TTL used up", Ok(()), v4_about(8, &[0])),
        ("first fragment", Ok(()), v4_about(6, &[0x20])),
        ("second fragment", Err(R::Fragment), v4_about(7, &[1])),
        ("fragment at the far end", Err(R::Fragment), v4_about(6, &[0x10])),
        ("UDP", Err(R::Protocol), v4_about(9, &[17])),
        ("ICMP", Err(R::Protocol), v4_about(9, &[1])),
        ("another's segment", Err(R::Malformed), v4_about(15, &[9])),
        ("a segment to a group", Err(R::Martian), v4_about(16, &[224])),
        ("a segment to loopback", Err(R::Martian), v4_about(16, &[127])),
        ("from port 0", Err(R::Malformed), v4_about(20, &[0; 2])),
        ("to port 0", Err(R::Malformed), v4_about(22, &[0; 2])),
        ("land", Err(R::Malformed), v4_about(16, &[source.as_slice(), &port, &port].concat())),
        ("a segment to its own host", Ok(()), v4_about(16, &source)),
        ("from a group", Err(R::Martian), {
            let message = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &sent(&v4, &syn())].concat();
            let mut frame = datagram(&link(0), group, v4.local, ICMP, 64, &message);
            repair(&mut frame, V4);
            frame
        }),
        ("to a group", Err(R::Martian), error(0, group, 1, &sent(&FlowKey { local: group, ..v4 }, &syn()))),
        ("from its own destination", Err(R::Land), {
            unreachable_about(&FlowKey { local: router(true), ..v4 }, 0, 1)
        }),
        ("IPv6 version", Err(R::Malformed), v6_about(0, &[0x40])),
        ("payload length below a segment's", Err(R::Malformed), v6_about(5, &[19])),
        ("payload length beyond what is quoted", Ok(()), v6_about(4, &[5])),
        ("IPv6 fragment", Err(R::Protocol), v6_about(6, &[44])),
        ("hop-by-hop options", Err(R::Protocol), v6_about(6, &[0])),
        ("destination options", Err(R::Protocol), v6_about(6, &[60])),
        ("UDP over IPv6", Err(R::Protocol), v6_about(6, &[17])),
        ("another's segment, IPv6", Err(R::Malformed), v6_about(23, &[9])),
        ("a segment to ff02::1", Err(R::Martian), v6_about(24, &[0xff])),
        ("a segment to ::ffff:0:0/96", Err(R::Martian), {
            v6_about(24, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
        }),
    ];
    for (name, expected, frame) in table {
        assert_eq!(parse(&frame, STRICT).map(|_| ()), expected, "{name}");
        assert_eq!(parse(&frame, LENIENT).map(|_| ()), expected, "{name}");
    }
}
