//! Input that nobody should send: dropped or answered as the RFC says, counted, and nothing else changes.

use super::*;

/// Sends one segment beside an established connection and checks what it was counted as, and that the connection is well.
fn check(
    label: &str,
    change: impl Fn(&mut Link, &mut FlowKey, &mut Segment),
    text: &[u8],
    answer: Option<Flags>,
    reason: Option<DropReason>,
) {
    let mut bench = Bench::serving("discard");
    let mut peer = Peer::open(1, &mut bench);
    assert!(peer.is_well(&mut bench));
    let before = bench.counts();
    let (mut link, mut key, mut segment) = (link(), peer.key, peer.segment(ACK));
    change(&mut link, &mut key, &mut segment);
    let replies = bench.inject_from(&link, &key, &segment, text);
    let after = bench.counts();
    let flags: Vec<Flags> = replies.iter().map(Reply::flags).collect();
    assert_eq!(flags, answer.into_iter().collect::<Vec<_>>(), "{label}");
    for ((name, was), (_, is)) in before.drops().zip(after.drops()) {
        let expected = was + u64::from(reason.is_some_and(|reason| reason.name() == name));
        assert_eq!(is, expected, "{label}: {name}");
    }
    assert_eq!(after.frames_answered - before.frames_answered, u64::from(answer.is_some()), "{label}");
    assert_eq!((after.curr_connections, after.curr_estab), (1, 1), "{label}");
    assert!(peer.is_well(&mut bench), "{label}");
}

#[test]
fn each_segment_that_nobody_should_send() {
    let drop = |reason| Some(reason);
    check(
        "to another Ethernet address",
        |link, _, _| link.destination[5] = 9,
        b"x",
        None,
        drop(DropReason::NotOurs),
    );
    check(
        "to a port without a listener, not owned",
        |_, key, _| key.remote_port = 81,
        b"",
        None,
        drop(DropReason::NotOurs),
    );
    check(
        "RST outside the window",
        |_, _, seg| (seg.flags, seg.seq) = (RST, seg.seq - 1),
        b"",
        None,
        drop(DropReason::RstOutOfWindow),
    );
    check("no ACK", |_, _, seg| seg.flags = Flags::PSH, b"x", None, drop(DropReason::NoAck));
    check(
        "RST to a listener",
        |_, key, seg| (key.local_port, seg.flags) = (9, RST),
        b"",
        None,
        drop(DropReason::NoConnection),
    );
    check("no flags", |_, _, seg| seg.flags = Flags(0), b"x", None, drop(DropReason::FlagsNone));
    check("all flags", |_, _, seg| seg.flags = Flags(0x3f), b"x", None, drop(DropReason::FlagsInvalid));
    check("port 0", |_, key, _| key.local_port = 0, b"x", None, drop(DropReason::PortZero));
    check(
        "land",
        |_, key, _| (key.local, key.local_port) = (key.remote, 80),
        b"x",
        None,
        drop(DropReason::Land),
    );
    check(
        "from a group",
        |_, key, _| key.local = Address::v4([224, 0, 0, 1]),
        b"x",
        None,
        drop(DropReason::Martian),
    );
    check("ACK to a listener -> RST", |_, key, _| key.local_port = 9, b"", Some(RST), None);
    check(
        "SYN,ACK to a listener -> RST",
        |_, key, seg| (key.local_port, seg.flags) = (9, SYN_ACK),
        b"",
        Some(RST),
        None,
    );
    check(
        "text without ACK to a listener",
        |_, key, seg| (key.local_port, seg.flags) = (9, Flags::PSH),
        b"x",
        None,
        drop(DropReason::NoAck),
    );
    check(
        "RST in the window -> ACK",
        |_, _, seg| (seg.flags, seg.seq) = (RST, seg.seq + 1),
        b"",
        Some(ACK),
        None,
    );
    check("SYN in the window -> ACK", |_, _, seg| seg.flags = SYN, b"", Some(ACK), None);
    check("ACK of nothing sent -> ACK", |_, _, seg| seg.ack += 1, b"x", Some(ACK), None);
    check("text outside the window -> ACK", |_, _, seg| seg.seq += 70_000, b"x", Some(ACK), None);
    check("text of long ago -> ACK", |_, _, seg| seg.seq = seg.seq - 70_000, b"x", Some(ACK), None);
    check("text out of order -> ACK", |_, _, seg| seg.seq += 70, b"x", Some(ACK), None);
}

#[test]
fn bytes_that_are_no_segment_change_nothing() {
    let mut bench = Bench::serving("discard");
    let mut peer = Peer::open(1, &mut bench);
    let good = frame(&link(), &peer.key, &peer.segment(ACK), b"text");
    for len in 0..good.len() {
        assert!(bench.inject_bytes(&good[..len]).is_empty());
    }
    // Ethernet's addresses have no checksum that we see.
    for at in 12..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        bench.inject_bytes(&bad);
    }
    let counts = bench.counts();
    assert!(counts.drop_truncated > 0 && counts.drop_tcp_checksum > 0 && counts.drop_ip_checksum > 0);
    assert!(counts.in_errs >= counts.drop_tcp_checksum);
    assert!(peer.is_well(&mut bench));
}

#[test]
fn closed_ports_of_our_own_addresses_refuse() {
    let mut bench = Bench::serving("discard");
    let mut peer = Peer::new(1);
    (peer.key.remote, peer.key.remote_port) = (OWNED, 81);
    let [reset] = &peer.knock(&mut bench)[..] else { panic!("one RST") };
    assert_eq!(
        (reset.flags(), reset.packet.segment.seq, reset.packet.segment.ack),
        (RST_ACK, SeqNum(0), peer.nxt)
    );
    let [reset] = &peer.say(&mut bench, ACK, b"text")[..] else { panic!("one RST") };
    assert_eq!((reset.flags(), reset.packet.segment.seq), (RST, SeqNum(0)));
    assert!(peer.say(&mut bench, RST, &[]).is_empty());
    assert_eq!((bench.counts().out_rsts, bench.counts().passive_opens), (2, 0));
    // The kernel refuses for its own.
    peer.key.remote = SHARED;
    assert!(peer.say(&mut bench, ACK, &[]).is_empty());
}

pub(super) fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

fn arp_request(target: [u8; 4]) -> Vec<u8> {
    let head = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    [&head[..], &THEM, &[198, 19, 0, 1], &[0; 6], &target].concat()
}

fn echo_request(target: [u8; 4]) -> Vec<u8> {
    let mut message = vec![8, 0, 0, 0, 1, 2, 3, 4, 5, 6];
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    let mut header = [&[0x45, 0, 0, 30, 0, 0, 0x40, 0, 64, 1, 0, 0, 198, 19, 0, 1][..], &target].concat();
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [&US[..], &THEM, &[8, 0], &header, &message].concat()
}

fn solicitation(target: [u8; 16]) -> Vec<u8> {
    let source = [0xfd, 0, 0, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
    group[13..].copy_from_slice(&target[13..]);
    let mut message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target, &[1, 1], &THEM].concat();
    let sum = checksum(&[&source[..], &group, &[0, 0, 0, 32, 0, 0, 0, 58], &message].concat());
    message[2..4].copy_from_slice(&sum);
    let mac = [0x33, 0x33, group[12], group[13], group[14], group[15]];
    [&mac[..], &THEM, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, 58, 255], &source, &group, &message].concat()
}

#[test]
fn neighbours_and_echo_are_answered_for_our_own_addresses_only() {
    let v6 = |last| [0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let mut other = v6(2);
    other[7] = 1;
    for (label, request, answered) in [
        ("ARP for ours", arp_request([198, 18, 7, 1]), true),
        ("ARP for the kernel's", arp_request([198, 18, 0, 2]), false),
        ("echo to ours", echo_request([198, 18, 7, 1]), true),
        ("echo to the kernel's", echo_request([198, 18, 0, 2]), false),
        ("solicitation for ours", solicitation(v6(2)), true),
        ("solicitation for another's", solicitation(other), false),
    ] {
        let mut bench = Bench::serving("discard");
        let answers = bench.inject_bytes(&request);
        assert_eq!(answers.len(), usize::from(answered), "{label}");
        let counts = bench.counts();
        assert_eq!(counts.drop_not_ours, u64::from(!answered), "{label}: {counts:#?}");
        assert_eq!(counts.neighbour_answers + counts.echo_answers, u64::from(answered), "{label}");
        if let [answer] = &answers[..] {
            assert_eq!((&answer[..6], &answer[6..12]), (&THEM[..], &US[..]), "{label}");
        }
    }
}
