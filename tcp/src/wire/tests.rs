//! Whole frames, in and out: round trips, truncations, flipped bits, hostile packets.

use proptest::prelude::*;

use super::*;
use crate::flow::Address;
use crate::proto::{Flags, Options, SeqNum, Timestamps, WireWindow};

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

/// The other end's name for it.
fn reversed(key: &FlowKey) -> FlowKey {
    FlowKey { local: key.remote, remote: key.local, local_port: key.remote_port, remote_port: key.local_port }
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + 7) as u8).collect()
}

/// A frame that holds `segment` and nothing more.
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
    any::<bool>()
        .prop_flat_map(|v4| (any_address(v4), any_address(v4), 1u16.., 1u16..))
        .prop_filter("no land", |(local, remote, ..)| local != remote)
        .prop_map(|(local, remote, local_port, remote_port)| FlowKey {
            local,
            remote,
            local_port,
            remote_port,
        })
}

fn any_timestamps() -> impl Strategy<Value = Option<Timestamps>> {
    prop::option::of(any::<(u32, u32)>().prop_map(|(value, echo)| Timestamps { value, echo }))
}

fn any_segment() -> impl Strategy<Value = Segment> {
    let syn_options = (prop::option::of(1u16..), prop::option::of(0u8..=14), any::<bool>());
    let flags = (0u8..64).prop_map(Flags).prop_filter("legal", |flags| {
        let syn_and_end = flags.has(Flags::SYN) && flags.has_any(Flags(0x05));
        flags.0 != 0 && !syn_and_end && (flags.has(Flags::ACK) || !flags.has(Flags::FIN))
    });
    (any::<(u32, u32, u16, u16)>(), flags, 0u16..3000, syn_options, any_timestamps()).prop_map(
        |((seq, ack, window, urgent), flags, text_len, (mss, window_scale, sack_permitted), timestamps)| {
            let options = if flags.has(Flags::SYN) {
                Options { mss, window_scale, sack_permitted, timestamps }
            } else {
                Options { timestamps, ..Options::NONE }
            };
            let (seq, ack, window) = (SeqNum(seq), SeqNum(ack), WireWindow(window));
            Segment { seq, ack, flags, window, urgent, text_len, options }
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
                };
                for text_len in [0, 1, 2, 3, 535, 1400] {
                    let segment = Segment { flags: Flags::SYN, text_len, options, ..Segment::default() };
                    let packet = tcp(&frame(&link(tags), &key, &segment), STRICT).unwrap();
                    assert_eq!(
                        (packet.segment, packet.key, packet.link),
                        (segment, reversed(&key), link(tags))
                    );
                }
            }
        }
    }
}
