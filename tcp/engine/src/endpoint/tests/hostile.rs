//! Input that nobody should send: dropped or answered as the RFC says, and counted. The connections stay unchanged.

use super::packets::{arp_request, echo_request, solicitation};
use super::*;

/// A label, a change to the next segment of an established connection, its text, and the answer or the drop.
type Case =
    (&'static str, fn(&mut Link, &mut FlowKey, &mut Segment), &'static [u8], Result<Flags, DropReason>);

/// Sends one segment beside an established connection, and checks the answer or the drop.
fn check((label, change, text, expected): Case) {
    let mut bench = Bench::serving("discard");
    let mut peer = Peer::open(1, &mut bench);
    assert!(peer.is_well(&mut bench));
    let before = bench.counts();
    let (mut link, mut key, mut segment) = (link(), peer.key, peer.segment(ACK));
    change(&mut link, &mut key, &mut segment);
    let flags = flags_of(&bench.inject_from(&link, &key, &segment, text));
    let after = bench.counts();
    assert_eq!(flags, expected.into_iter().collect::<Vec<_>>(), "{label}");
    check_drops(label, &before, &after, expected.err());
    assert_eq!(after.frames_answered - before.frames_answered, u64::from(expected.is_ok()), "{label}");
    assert_eq!((after.curr_connections, after.curr_estab), (1, 1), "{label}");
    assert!(peer.is_well(&mut bench), "{label}");
}

#[test]
fn each_segment_that_nobody_should_send() {
    use DropReason::{
        FlagsInvalid, FlagsNone, Land, Martian, NoAck, NoConnection, NotOurs, PortZero, RstOutOfWindow,
    };
    let cases: [Case; 19] = [
        ("another Ethernet address", |link, _, _| link.destination[5] = 9, b"x", Err(NotOurs)),
        ("port without a listener, not owned", |_, key, _| key.remote_port = 81, b"", Err(NotOurs)),
        (
            "RST outside the window",
            |_, _, seg| (seg.flags, seg.seq) = (RST, seg.seq - 1),
            b"",
            Err(RstOutOfWindow),
        ),
        ("no ACK", |_, _, seg| seg.flags = Flags::PSH, b"x", Err(NoAck)),
        ("RST to a listener", |_, key, seg| (key.local_port, seg.flags) = (9, RST), b"", Err(NoConnection)),
        ("no flags", |_, _, seg| seg.flags = Flags(0), b"x", Err(FlagsNone)),
        ("all flags", |_, _, seg| seg.flags = Flags(0x3f), b"x", Err(FlagsInvalid)),
        ("port 0", |_, key, _| key.local_port = 0, b"x", Err(PortZero)),
        ("land", |_, key, _| (key.local, key.local_port) = (key.remote, 80), b"x", Err(Land)),
        ("from a group", |_, key, _| key.local = Address::v4([224, 0, 0, 1]), b"x", Err(Martian)),
        ("ACK to a listener", |_, key, _| key.local_port = 9, b"", Ok(RST)),
        ("SYN,ACK to a listener", |_, key, seg| (key.local_port, seg.flags) = (9, SYN_ACK), b"", Ok(RST)),
        (
            "text without ACK to a listener",
            |_, key, seg| (key.local_port, seg.flags) = (9, Flags::PSH),
            b"x",
            Err(NoAck),
        ),
        ("RST in the window", |_, _, seg| (seg.flags, seg.seq) = (RST, seg.seq + 1), b"", Ok(ACK)),
        ("SYN in the window", |_, _, seg| seg.flags = SYN, b"", Ok(ACK)),
        ("ACK of nothing sent", |_, _, seg| seg.ack += 1, b"x", Ok(ACK)),
        ("text outside the window", |_, _, seg| seg.seq += 70_000, b"x", Ok(ACK)),
        ("text of long ago", |_, _, seg| seg.seq = seg.seq - 70_000, b"x", Ok(ACK)),
        ("text out of order", |_, _, seg| seg.seq += 70, b"x", Ok(ACK)),
    ];
    cases.into_iter().for_each(check);
}

#[test]
fn bytes_that_are_no_segment_change_nothing() {
    let mut bench = Bench::serving("discard");
    let mut peer = Peer::open(1, &mut bench);
    let good = peer.frame(ACK, b"text");
    for len in 0..good.len() {
        assert!(bench.inject_bytes(&good[..len]).is_empty());
    }
    // The Ethernet header has no checksum in the frame, so its addresses stay as they are.
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
    let mut peer = Peer::named(FlowKey { remote: OWNED, remote_port: 81, ..name(1) });
    let reset = one(peer.knock(&mut bench)).segment;
    assert_eq!((reset.flags, reset.seq, reset.ack), (RST_ACK, SeqNum(0), peer.nxt));
    let reset = one(peer.say(&mut bench, ACK, b"text")).segment;
    assert_eq!((reset.flags, reset.seq), (RST, SeqNum(0)));
    assert!(peer.say(&mut bench, RST, &[]).is_empty());
    assert_eq!((bench.counts().out_rsts, bench.counts().passive_opens), (2, 0));
    // The kernel refuses the closed ports of its own addresses.
    peer.key.remote = SHARED;
    assert!(peer.say(&mut bench, ACK, &[]).is_empty());
}

#[test]
fn neighbours_and_echo_are_answered_for_our_own_addresses_only() {
    let mut other = v6(0x18, 2).octets();
    other[7] = 1;
    for (label, request, answered) in [
        ("ARP for ours", arp_request(OWNED), true),
        ("ARP for the kernel's", arp_request(SHARED), false),
        ("echo to ours", echo_request(OWNED), true),
        ("echo to the kernel's", echo_request(SHARED), false),
        ("solicitation for ours", solicitation(v6(0x18, 2)), true),
        ("solicitation for another's", solicitation(Address::v6(other)), false),
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
