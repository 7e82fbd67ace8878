//! Whole frames, parsed and emitted: round trips, truncations, flipped bits, any bytes at all.

mod answers;
mod hostile;
mod unreachable;

use proptest::prelude::*;

use super::checksum::Sum;
use super::datagram::{Datagram, ICMP, ICMPV6, TCP};
use super::ip::Family;
use super::*;
use crate::flow::{Address, FlowKey};
use crate::proto::{Flags, Options, SackBlocks, Segment, SeqNum, Timestamps, WireWindow};
use crate::stats::DropReason;

const STRICT: Checks = Checks { accept_partial_checksums: false };
const LENIENT: Checks = Checks { accept_partial_checksums: true };

const CLIENT: Mac = [0x02, 0, 0, 0, 0, 0x01];
const SERVER: Mac = [0x02, 0, 0, 0, 0, 0x02];

const OUTER: Tag = Tag { tpid: 0x88a8, tci: 0x0064 };
const INNER: Tag = Tag { tpid: 0x8100, tci: 0xe00a };

fn link(tags: usize) -> Link {
    let tags = [[Tag::default(); 2], [INNER, Tag::default()], [OUTER, INNER]][tags];
    Link { destination: SERVER, source: CLIENT, tags }
}

fn v4_key() -> FlowKey {
    FlowKey {
        local: Address::v4([198, 18, 0, 1]),
        remote: Address::v4([198, 18, 0, 2]),
        local_port: 40_000,
        remote_port: 80,
    }
}

fn v6_key() -> FlowKey {
    let address = |last| Address::v6([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    FlowKey { local: address(1), remote: address(2), ..v4_key() }
}

/// Returns the connection as the other end sees it.
fn reversed(key: &FlowKey) -> FlowKey {
    FlowKey { local: key.remote, remote: key.local, local_port: key.remote_port, remote_port: key.local_port }
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + 7) as u8).collect()
}

/// Returns a frame that holds only `segment`.
fn frame(link: &Link, key: &FlowKey, segment: &Segment) -> Vec<u8> {
    let start = header_len(link, key, &segment.options);
    let mut frame = vec![0xa5; start];
    frame.extend(text(segment.text_len.into()));
    assert_eq!(emit(&mut frame, link, key, segment), frame.len());
    frame
}

fn tcp(frame: &[u8], checks: Checks) -> Result<TcpPacket, DropReason> {
    match parse(frame, checks)? {
        Packet::Tcp(packet) => Ok(packet),
        other => panic!("{other:?}"),
    }
}

fn any_address(v4: bool) -> impl Strategy<Value = Address> {
    any::<[u8; 16]>()
        .prop_map(
            move |octets| if v4 { Address::v4(*octets.first_chunk().unwrap()) } else { Address::v6(octets) },
        )
        .prop_filter("a host's", move |address| ip::is_host(address) && address.is_v4() == v4)
}

fn any_key() -> impl Strategy<Value = FlowKey> {
    let key = |(local, remote, local_port, remote_port)| FlowKey { local, remote, local_port, remote_port };
    any::<bool>()
        .prop_flat_map(|v4| (any_address(v4), any_address(v4), 1u16.., 1u16..))
        .prop_filter("no land", |(local, remote, ..)| local != remote)
        .prop_map(key)
}

fn any_timestamps() -> impl Strategy<Value = Option<Timestamps>> {
    prop::option::of(any::<(u32, u32)>().prop_map(|(value, echo)| Timestamps { value, echo }))
}

fn any_segment() -> impl Strategy<Value = Segment> {
    let syn_options = (prop::option::of(1u16..), prop::option::of(0u8..=14), any::<bool>());
    let flags = (0u8..64).prop_map(Flags).prop_filter("legal", |flags| {
        let syn_and_end = flags.has(Flags::SYN) && flags.has_any(Flags::FIN.with(Flags::RST));
        flags.0 != 0 && !syn_and_end && (flags.has(Flags::ACK) || !flags.has(Flags::FIN))
    });
    (any::<(u32, u32, u16)>(), flags, 0u16..3000, syn_options, any_timestamps()).prop_map(
        |((seq, ack, window), flags, text_len, (mss, window_scale, sack_permitted), timestamps)| {
            let options = if flags.has(Flags::SYN) {
                Options { mss, window_scale, sack_permitted, timestamps, sack: SackBlocks::NONE }
            } else {
                Options { timestamps, ..Options::NONE }
            };
            let (seq, ack, window) = (SeqNum(seq), SeqNum(ack), WireWindow(window));
            Segment { seq, ack, flags, window, text_len, options }
        },
    )
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed(key in any_key(), segment in any_segment(), tags in 0usize..3, padding in 0usize..50) {
        let link = link(tags);
        let mut frame = frame(&link, &key, &segment);
        let text_start = header_len(&link, &key, &segment.options);
        frame.extend(vec![0x5a; padding]);
        let expected =
            TcpPacket { link, key: reversed(&key), segment, text_start: text_start as u16, partial_checksum: false };
        prop_assert_eq!(parse(&frame, STRICT), Ok(Packet::Tcp(expected)));
        prop_assert_eq!(parse(&frame, LENIENT), Ok(Packet::Tcp(expected)));
        prop_assert_eq!(&frame[text_start..frame.len() - padding], &text(segment.text_len.into())[..]);
    }
}

#[test]
fn links_are_equal_in_all_their_parts() {
    for tags in 0..3 {
        let link = link(tags);
        assert!(link == link && link.is_back_of(&link.reversed()));
        let mut others = [link; 6];
        others[0].destination[5] ^= 1;
        others[1].source[0] ^= 2;
        others[2].tags[0].tpid ^= 1;
        others[3].tags[0].tci ^= 0x8000;
        others[4].tags[1].tpid ^= 0x100;
        others[5].tags[1].tci ^= 1;
        for other in others {
            assert!(link != other && !link.is_back_of(&other.reversed()), "{other:?}");
        }
    }
}

#[test]
fn every_layout_of_options() {
    let timestamps = Some(Timestamps { value: 0x0102_0304, echo: 0xfffe_fdfc });
    for key in [v4_key(), v6_key()] {
        for tags in 0..3 {
            for bits in 0..16 {
                let options = Options {
                    mss: (bits & 1 != 0).then_some(1460),
                    window_scale: (bits & 2 != 0).then_some(7),
                    sack_permitted: bits & 4 != 0,
                    timestamps: timestamps.filter(|_| bits & 8 != 0),
                    ..Options::NONE
                };
                for text_len in [0, 1, 2, 3, 535, 1400] {
                    let segment = Segment { flags: Flags::SYN, text_len, options, ..Segment::default() };
                    let packet = tcp(&frame(&link(tags), &key, &segment), STRICT).unwrap();
                    let emitted = (segment, reversed(&key), link(tags));
                    assert_eq!((packet.segment, packet.key, packet.link), emitted);
                }
            }
        }
    }
}

/// A SYN,ACK whose checksums another program computed. tcpdump shows it as
/// `Flags [S.], cksum 0x0efa (correct), options [mss 1460,sackOK,TS val 287454020 ecr 1432778632,nop,wscale 7]`.
#[test]
fn golden_syn_ack() {
    let timestamps = Some(Timestamps { value: 0x1122_3344, echo: 0x5566_7788 });
    let segment = Segment {
        seq: SeqNum(0x0102_0304),
        ack: SeqNum(0xffff_fff1),
        flags: Flags::SYN_ACK,
        window: WireWindow(64240),
        options: Options { timestamps, ..syn().options },
        ..Segment::default()
    };
    #[rustfmt::skip]
    let v4 = [
        0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02, 0x08, 0x00,
        0x45, 0x00, 0x00, 0x3c, 0x00, 0x00, 0x40, 0x00, 0x40, 0x06, 0xae, 0x94,
        0xc6, 0x12, 0x00, 0x02, 0xc6, 0x12, 0x00, 0x01,
        0x00, 0x50, 0x9c, 0x40, 0x01, 0x02, 0x03, 0x04, 0xff, 0xff, 0xff, 0xf1,
        0xa0, 0x12, 0xfa, 0xf0, 0x0e, 0xfa, 0x00, 0x00,
        0x02, 0x04, 0x05, 0xb4, 0x04, 0x02, 0x08, 0x0a,
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x01, 0x03, 0x03, 0x07,
    ];
    #[rustfmt::skip]
    let v6_tagged = [
        0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x00, 0x00, 0x00, 0x02,
        0x88, 0xa8, 0x00, 0x64, 0x81, 0x00, 0xe0, 0x0a, 0x86, 0xdd,
        0x60, 0x00, 0x00, 0x00, 0x00, 0x28, 0x06, 0x40,
        0xfd, 0x00, 0x00, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02,
        0xfd, 0x00, 0x00, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01,
        0x00, 0x50, 0x9c, 0x40, 0x01, 0x02, 0x03, 0x04, 0xff, 0xff, 0xff, 0xf1,
        0xa0, 0x12, 0xfa, 0xf0, 0xa0, 0xed, 0x00, 0x00,
        0x02, 0x04, 0x05, 0xb4, 0x04, 0x02, 0x08, 0x0a,
        0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x01, 0x03, 0x03, 0x07,
    ];
    assert_eq!(frame(&link(0).reversed(), &reversed(&v4_key()), &segment), v4);
    assert_eq!(frame(&link(2).reversed(), &reversed(&v6_key()), &segment), v6_tagged);
    for (bytes, key, tags) in [(&v4[..], v4_key(), 0), (&v6_tagged, v6_key(), 2)] {
        let packet = tcp(bytes, STRICT).unwrap();
        assert_eq!((packet.segment, packet.key, packet.link), (segment, key, link(tags).reversed()));
    }
}

/// Returns an ACK with timestamps and `text_len` bytes of text.
fn ack(text_len: u16) -> Segment {
    Segment {
        seq: SeqNum(0xffff_ff00),
        ack: SeqNum(77),
        flags: Flags::ACK.with(Flags::PSH),
        window: WireWindow(501),
        text_len,
        options: Options { timestamps: Some(Timestamps { value: 5, echo: 6 }), ..Options::NONE },
    }
}

fn syn() -> Segment {
    let options = Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..ack(0).options };
    Segment { seq: SeqNum(1000), flags: Flags::SYN, window: WireWindow(64240), options, ..Segment::default() }
}

/// Where IP starts in an untagged frame, and where the payload of a header without options starts.
const IP: usize = ETHERNET_HEADER;
const V4: usize = IP + ipv4::HEADER_LEN;
const V6: usize = IP + ipv6::HEADER_LEN;

/// Makes the checksums of an untagged, whole frame right again. The payload starts at `at`, behind all options of IPv4.
fn repair(frame: &mut [u8], at: usize) {
    let is_v4 = frame[IP] >> 4 == 4;
    let (pseudo, protocol) = if is_v4 {
        frame[IP + 10..IP + 12].fill(0);
        let checksum = Sum::ZERO.bytes(&frame[IP..at]).checksum();
        frame[IP + 10..IP + 12].copy_from_slice(&checksum);
        (Sum::ZERO.bytes(&frame[IP + 12..IP + 20]), frame[IP + 9])
    } else {
        let protocol = if frame[IP + 6] == ICMPV6 { ICMPV6 } else { TCP };
        (Sum::ZERO.bytes(&frame[IP + 8..IP + 40]), protocol)
    };
    let length = (frame.len() - at) as u16;
    let (pseudo, field) = match protocol {
        ICMP => (Sum::ZERO, at + 2),
        ICMPV6 => (pseudo.number(u64::from(length) + u64::from(ICMPV6)), at + 2),
        _ => (pseudo.number(u64::from(length) + u64::from(TCP)), at + 16),
    };
    frame[field..field + 2].fill(0);
    let checksum = pseudo.bytes(&frame[at..]).checksum();
    frame[field..field + 2].copy_from_slice(&checksum);
}

/// Returns an IPv6 frame with `headers` between the IPv6 header, whose next header is `first`, and an ACK.
fn with_extension_headers(first: u8, headers: &[u8]) -> Vec<u8> {
    let mut frame = frame(&link(0), &v6_key(), &ack(5));
    frame.splice(V6..V6, headers.iter().copied());
    frame[IP + 6] = first;
    let length = (frame.len() - V6) as u16;
    frame[IP + 4..IP + 6].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Returns the IPv4 frame with `options` in its IP header.
fn with_ip_options(mut frame: Vec<u8>, options: &[u8]) -> Vec<u8> {
    frame.splice(V4..V4, options.iter().copied());
    frame[IP] = 0x45 + (options.len() / 4) as u8;
    let length = (frame.len() - IP) as u16;
    frame[IP + 2..IP + 4].copy_from_slice(&length.to_be_bytes());
    repair(&mut frame, V4 + options.len());
    frame
}

/// Returns an IP frame with any payload.
fn datagram(
    link: &Link,
    source: Address,
    destination: Address,
    protocol: u8,
    hops: u8,
    payload: &[u8],
) -> Vec<u8> {
    let start = ip::header_len(link, &source, &destination);
    let mut frame = vec![0; start];
    let family = Family::of(&source, &destination);
    ip::emit(&mut frame, link, family, [&source, &destination], protocol, hops, payload.len() as u16);
    frame.extend_from_slice(payload);
    frame
}

/// Bytes of an error before the quoted datagram.
const ERROR: usize = 8;

fn router(is_v4: bool) -> Address {
    if is_v4 {
        Address::v4([198, 18, 0, 254])
    } else {
        Address::v6([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe])
    }
}

/// Returns an ICMP or ICMPv6 message with its checksum.
fn icmp_message(tags: usize, [from, to]: [Address; 2], mut message: Vec<u8>) -> Vec<u8> {
    let (protocol, sum) = if to.is_v4() {
        (ICMP, Sum::ZERO)
    } else {
        (ICMPV6, Sum::pseudo_header(&from, &to, ICMPV6, message.len() as u16))
    };
    let checksum = sum.bytes(&message).checksum();
    message[2..4].copy_from_slice(&checksum);
    datagram(&link(tags), from, to, protocol, 61, &message)
}

/// Returns an error with `code` to `to` about the datagram `quoted`.
fn error(tags: usize, to: Address, code: u8, quoted: &[u8]) -> Vec<u8> {
    let kind = if to.is_v4() { 3 } else { 1 };
    icmp_message(tags, [router(to.is_v4()), to], [&[kind, code, 0, 0, 0, 0, 0, 0], quoted].concat())
}

/// Returns a segment of this end as an error quotes it: without the link header.
fn sent(key: &FlowKey, segment: &Segment) -> Vec<u8> {
    frame(&link(0), key, segment).split_off(IP)
}

/// Returns a router's report that the SYN of `key` did not arrive.
fn unreachable_about(key: &FlowKey, tags: usize, code: u8) -> Vec<u8> {
    error(tags, key.local, code, &sent(key, &syn()))
}

fn echo_request(key: &FlowKey, tags: usize, data: &[u8]) -> Vec<u8> {
    let kind = if key.local.is_v4() { 8 } else { 128 };
    icmp_message(tags, [key.local, key.remote], [&[kind, 0, 0, 0, 0x12, 0x34, 0, 9], data].concat())
}

fn arp_request(tags: usize) -> Vec<u8> {
    let mut frame = vec![0; ethernet::header_len(&link(tags))];
    ethernet::emit(&mut frame, &Link { destination: [0xff; 6], ..link(tags) }, ethernet::ARP);
    frame.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 198, 18, 0, 1, 0, 0, 0, 0, 0, 0, 198, 18, 0, 2]);
    frame
}

/// ff02::1:ff00:2
const SOLICITED_NODE: Address = Address::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 2]);
const SOURCE_OPTION: [u8; 8] = [1, 1, 2, 0, 0, 0, 0, 1];

fn solicitation_with(source: Address, destination: Address, hops: u8, message: &[u8]) -> Vec<u8> {
    let link = Link { destination: [0x33, 0x33, 0xff, 0, 0, 2], ..link(0) };
    let mut frame = datagram(&link, source, destination, ICMPV6, hops, message);
    repair(&mut frame, V6);
    frame
}

fn solicitation(source: Address, options: &[u8]) -> Vec<u8> {
    let target = v6_key().remote.octets();
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0], &target[..], options].concat();
    solicitation_with(source, SOLICITED_NODE, 255, &message)
}

const UNSPECIFIED: Address = Address::v6([0; 16]);

/// Returns so many extension headers with empty destination options, the last of them before TCP.
fn destination_options(count: usize) -> Vec<u8> {
    let mut headers = [60, 0, 0, 0, 0, 0, 0, 0].repeat(count);
    headers[8 * (count - 1)] = TCP;
    headers
}

/// Extension headers that the parser skips, 40 bytes in all.
const EXTENSION_HEADERS: [u8; 40] = [
    43, 0, 1, 4, 0, 0, 0, 0, // hop-by-hop options
    60, 0, 0, 0, 0, 0, 0, 0, // routing, at its last stop
    6, 2, 1, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // destination options
];

/// Returns one whole packet of each kind, without padding.
fn good_packets() -> Vec<Vec<u8>> {
    let mut packets = vec![
        with_extension_headers(0, &EXTENSION_HEADERS),
        with_ip_options(frame(&link(0), &v4_key(), &ack(9)), &[1; 40]),
        with_ip_options(echo_request(&v4_key(), 0, b"abc"), &[1; 4]),
        solicitation(v6_key().local, &SOURCE_OPTION),
        solicitation(v6_key().local, &[]),
        solicitation(UNSPECIFIED, &[]),
    ];
    for tags in 0..3 {
        packets.push(arp_request(tags));
        for key in [v4_key(), v6_key()] {
            packets.push(frame(&link(tags), &key, &syn()));
            packets.push(frame(&link(tags), &key, &ack(0)));
            packets.push(frame(&link(tags), &key, &ack(101)));
            packets.push(frame(&link(tags), &key, &Segment { options: Options::NONE, ..ack(0) }));
            packets.push(echo_request(&key, tags, b"sixteen bytes ok"));
            packets.push(unreachable_about(&key, tags, 1));
        }
    }
    packets
}

#[test]
fn every_truncation_is_dropped() {
    for packet in good_packets() {
        assert!(parse(&packet, STRICT).is_ok(), "{packet:02x?}");
        for len in 0..packet.len() {
            assert_eq!(parse(&packet[..len], STRICT), Err(DropReason::Truncated), "{len} of {packet:02x?}");
            assert_eq!(parse(&packet[..len], LENIENT), Err(DropReason::Truncated), "{len} of {packet:02x?}");
        }
    }
}

/// Returns the packet with a fixed link header, which no checksum covers.
fn without_link(packet: Packet) -> Packet {
    let link = link(0);
    match packet {
        Packet::Tcp(packet) => Packet::Tcp(TcpPacket { link, ..packet }),
        Packet::ArpRequest(request) => Packet::ArpRequest(ArpRequest { link, ..request }),
        Packet::NeighbourSolicitation(packet) => {
            Packet::NeighbourSolicitation(NeighbourSolicitation { link, source_mac: CLIENT, ..packet })
        }
        Packet::EchoRequest(request) => Packet::EchoRequest(EchoRequest { link, ..request }),
        Packet::Unreachable(unreachable) => Packet::Unreachable(Unreachable { link, ..unreachable }),
    }
}

/// No checksum covers MAC addresses and TCIs, IPv6's traffic class, flow label and hop limit, and the content of extension headers.
/// The engine reads none of these but to address its answer.
#[test]
fn every_flipped_bit_is_seen_or_harmless() {
    for packet in good_packets() {
        let good = parse(&packet, STRICT).unwrap();
        if matches!(good, Packet::ArpRequest(_)) {
            continue; // ARP has no checksum.
        }
        let mut flipped = packet.clone();
        for bit in 0..packet.len() * 8 {
            let (byte, mask) = (bit / 8, 1 << (bit % 8));
            flipped[byte] ^= mask;
            if let Ok(got) = parse(&flipped, STRICT) {
                assert_eq!(without_link(got), without_link(good), "bit {bit} of {packet:02x?}");
                if let Packet::Tcp(got) = got {
                    let text = usize::from(got.text_start)..;
                    assert_eq!(flipped[text.clone()], packet[text], "bit {bit} of {packet:02x?}");
                }
            }
            flipped[byte] ^= mask;
        }
    }
}

#[test]
fn a_partial_checksum_is_accepted_on_request_only() {
    for (key, at) in [(v4_key(), V4), (v6_key(), V6)] {
        let mut frame = frame(&link(0), &key, &ack(11));
        let whole = tcp(&frame, LENIENT).unwrap();
        let length = (frame.len() - at) as u16;
        let partial = Sum::pseudo_header(&key.local, &key.remote, TCP, length).folded();
        frame[at + 16..at + 18].copy_from_slice(&partial);
        assert_eq!(tcp(&frame, STRICT), Err(DropReason::TcpChecksum));
        assert_eq!(tcp(&frame, LENIENT), Ok(TcpPacket { partial_checksum: true, ..whole }));
        frame[at + 17] ^= 1;
        assert_eq!(tcp(&frame, LENIENT), Err(DropReason::TcpChecksum));
    }
}

#[test]
fn legal_rarities_pass() {
    // An urgent pointer.
    let urgent = Segment { flags: Flags::ACK.with(Flags::URG), ..ack(4) };
    let mut pointed = frame(&link(0), &v4_key(), &urgent);
    pointed[V4 + 19] = 3;
    repair(&mut pointed, V4);
    assert_eq!(tcp(&pointed, STRICT).map(|packet| packet.segment), Ok(urgent));
    // ECN set-up (RFC 3168 section 6.1.1) and reserved bits.
    let mut ecn = frame(&link(0), &v4_key(), &syn());
    ecn[V4 + 12] |= 0x0f;
    ecn[V4 + 13] |= 0xc0;
    repair(&mut ecn, V4);
    assert_eq!(tcp(&ecn, STRICT).map(|packet| packet.segment), Ok(syn()));
    // Equal ports of two hosts, and two ports of one host.
    for key in [
        FlowKey { remote_port: v4_key().local_port, ..v4_key() },
        FlowKey { remote: v4_key().local, ..v4_key() },
        FlowKey { local: Address::v4([240, 0, 0, 1]), ..v4_key() },
    ] {
        assert_eq!(tcp(&frame(&link(0), &key, &syn()), STRICT).map(|packet| packet.key), Ok(reversed(&key)));
    }
    for packet in [
        with_extension_headers(0, &EXTENSION_HEADERS),
        with_extension_headers(60, &destination_options(8)),
        with_ip_options(frame(&link(0), &v4_key(), &ack(5)), &[7, 4, 0, 0]),
    ] {
        let got = tcp(&packet, STRICT).unwrap();
        assert_eq!(got.segment, ack(5));
        assert_eq!(packet[got.text_start.into()..], text(5));
    }
}

/// Checks the invariants that hold for any bytes at all.
fn check_any(bytes: &[u8]) {
    for checks in [STRICT, LENIENT] {
        let Ok(packet) = parse(bytes, checks) else { continue };
        let mut frame = bytes.to_vec();
        match packet {
            Packet::Tcp(packet) => {
                let end = usize::from(packet.text_start) + usize::from(packet.segment.text_len);
                assert!(end <= bytes.len());
                assert!(packet.segment.options.window_scale.is_none_or(|shift| shift <= 14));
                assert_eq!(packet.key.local.is_v4(), packet.key.remote.is_v4());
            }
            Packet::ArpRequest(request) => assert!(answer_arp(&mut frame, &request, SERVER) <= bytes.len()),
            Packet::NeighbourSolicitation(request) => {
                assert!(answer_neighbour(&mut frame, &request, SERVER) <= bytes.len());
            }
            Packet::EchoRequest(request) => {
                assert!((1..=bytes.len()).contains(&answer_echo(&mut frame, &request)));
            }
            Packet::Unreachable(Unreachable { key, .. }) => {
                assert_eq!(key.local.is_v4(), key.remote.is_v4());
                assert!(key.local_port != 0 && key.remote_port != 0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn any_bytes_at_all(bytes in prop::collection::vec(any::<u8>(), 0..200), ether_type in 0usize..6) {
        let mut bytes = bytes;
        let types = [0x0800u16, 0x86dd, 0x0806, 0x8100, 0x88a8];
        if let (Some(value), true) = (types.get(ether_type), bytes.len() >= 16) {
            bytes[12..14].copy_from_slice(&value.to_be_bytes());
            bytes[14] = if *value == 0x0800 { 0x45 } else { 0x60 };
            bytes[6] &= 0xfe;
        }
        check_any(&bytes);
    }

    /// Good packets with a few bytes changed and repaired checksums, so that they get past the checksums.
    #[test]
    fn any_change_to_a_good_packet(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let packets: Vec<_> = good_packets().into_iter().filter(|packet| packet[12] == 8 || packet[12] == 0x86).collect();
        let mut packet = packets[pick.index(packets.len())].clone();
        let is_v4 = packet[12] == 8 && packet[13] == 0;
        for (at, value) in changes {
            let at = IP + at.index(packet.len() - IP);
            packet[at] = value;
        }
        let at = if is_v4 { IP + usize::from(packet[IP] & 15) * 4 } else { V6 };
        if packet[13] != 6 && (V4..=packet.len().saturating_sub(20)).contains(&at) {
            repair(&mut packet, at);
        }
        check_any(&packet);
    }
}
