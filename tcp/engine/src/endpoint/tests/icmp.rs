//! Destination unreachable: it ends a connection that was never answered, and no other.

use super::hostile::checksum;
use super::*;

/// A router's word that a segment of `key`, as we see it, with the number `seq` did not arrive.
pub(super) fn unreachable(key: &FlowKey, seq: SeqNum, code: u8) -> Vec<u8> {
    let segment = Segment { seq, flags: SYN, ..Segment::default() };
    let quoted = frame(&link(), key, &segment, &[]).split_off(14);
    let kind = if key.local.is_v4() { 3 } else { 1 };
    let mut message = [&[kind, code, 0, 0, 0, 0, 0, 0], &quoted[..]].concat();
    if let Some(to) = key.local.as_v4() {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum);
        let length = 20 + message.len() as u8;
        let mut header = [&[0x45, 0, 0, length, 0, 0, 0, 0, 61, 1, 0, 0, 198, 19, 0, 254][..], &to].concat();
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        [&US[..], &THEM, &[8, 0], &header, &message].concat()
    } else {
        let router = [0xfd, 0, 0, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];
        let to = key.local.octets();
        let length = message.len() as u8;
        let sum = checksum(&[&router[..], &to, &[0, 0, 0, length, 0, 0, 0, 58], &message].concat());
        message[2..4].copy_from_slice(&sum);
        let header = [0x60, 0, 0, 0, 0, length, 58, 61];
        [&US[..], &THEM, &[0x86, 0xdd], &header, &router, &to, &message].concat()
    }
}

/// Connections that only synmill can have opened.
pub(super) fn our_keys() -> [FlowKey; 2] {
    let v4 = FlowKey { local: OWNED, ..reversed(&name(1)) };
    let v6 = |net, last| Address::v6([0xfd, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    [v4, FlowKey { local: v6(0x18, 1), remote: v6(0x19, 1), ..v4 }]
}

/// A connection of ours in SYN-SENT, and its SYN.
fn opening(key: &FlowKey) -> (Bench, Segment) {
    let mut bench = Bench::serving("discard");
    let open = Open { key: *key, link: link().reversed(), role: 0 };
    bench.endpoint.open(bench.now, &open, &mut bench.out).unwrap();
    let [syn] = &bench.collect()[..] else { panic!("one SYN") };
    let syn = reply(syn).packet.segment;
    assert_eq!(syn.flags, SYN);
    (bench, syn)
}

#[test]
fn every_code_ends_an_unanswered_open() {
    for key in our_keys() {
        // One that is no destination unreachable to us has a test of its own.
        for code in (0..=16).filter(|code| !(key.local.is_v4() && *code == 4)) {
            let (mut bench, syn) = opening(&key);
            assert!(bench.inject_bytes(&unreachable(&key, syn.seq, code)).is_empty());
            let counts = bench.counts();
            assert_eq!((counts.ended_unreachable, counts.attempt_fails, counts.ended()), (1, 1, 1), "{code}");
            assert_eq!((counts.curr_connections, counts.frames_absorbed), (0, 1), "{code}");
            assert_eq!((counts.out_rsts, counts.in_soft_errors), (0, 0), "{code}");
            assert!(bench.wait(200_000).is_empty(), "nothing goes to whom no one can reach");
            // The name is free again.
            let open = Open { key, link: link().reversed(), role: 0 };
            bench.endpoint.open(bench.now, &open, &mut bench.out).unwrap();
            assert_eq!(bench.collect().len(), 1);
        }
    }
}

#[test]
fn the_syn_may_have_gone_more_than_once() {
    let [key, _] = our_keys();
    let (mut bench, syn) = opening(&key);
    assert!(!bench.wait(5000).is_empty());
    bench.inject_bytes(&unreachable(&key, syn.seq, 1));
    assert_eq!(bench.counts().ended_unreachable, 1);
}

#[test]
fn an_open_survives_what_is_not_about_its_syn() {
    for key in our_keys() {
        let (mut bench, syn) = opening(&key);
        let other = FlowKey { local_port: key.local_port + 1, ..key };
        let mut elsewhere = unreachable(&key, syn.seq, 1);
        elsewhere[5] ^= 9;
        let kind = if key.local.is_v4() { 3 } else { 1 };
        for (label, bytes, reason) in [
            ("the number before", unreachable(&key, syn.seq - 1, 1), DropReason::IcmpOutOfWindow),
            ("the number after", unreachable(&key, syn.seq + 1, 1), DropReason::IcmpOutOfWindow),
            ("a number far off", unreachable(&key, syn.seq + 0x8000_0000, 1), DropReason::IcmpOutOfWindow),
            ("another port", unreachable(&other, syn.seq, 1), DropReason::NoConnection),
            ("the other way round", unreachable(&reversed(&key), syn.seq, 1), DropReason::NoConnection),
            ("to another Ethernet address", elsewhere, DropReason::NotOurs),
            // Of ICMP only: for ICMPv6 code 4 is a closed port.
            ("fragmentation needed", unreachable(&our_keys()[0], syn.seq, 4), DropReason::Protocol),
        ] {
            let before = bench.counts();
            assert!(bench.inject_bytes(&bytes).is_empty(), "{label}, type {kind}");
            let after = bench.counts();
            for ((name, was), (_, is)) in before.drops().zip(after.drops()) {
                assert_eq!(is - was, u64::from(name == reason.name()), "{label}, type {kind}: {name}");
            }
            assert_eq!((after.curr_half_open, after.in_soft_errors), (1, 0), "{label}, type {kind}");
        }
        let answer = Segment { flags: SYN_ACK, ack: syn.seq + 1, ..Segment::default() };
        bench.inject_from(&link(), &reversed(&key), &answer, &[]);
        assert_eq!(bench.counts().curr_estab, 1);
    }
}

/// Once a peer has answered, a router's word is a soft error in every state, and only about what is in flight.
#[test]
fn an_answered_connection_goes_on() {
    let soft = |bench: &mut Bench, peer: &Peer, seq: SeqNum, state: &str| {
        let before = bench.counts();
        for code in [0, 1, 2, 3, 5, 13] {
            assert!(bench.inject_bytes(&unreachable(&reversed(&peer.key), seq, code)).is_empty(), "{state}");
        }
        let after = bench.counts();
        assert_eq!(after.in_soft_errors - before.in_soft_errors, 6, "{state}");
        assert_eq!(after.frames_absorbed - before.frames_absorbed, 6, "{state}");
        assert_eq!((after.ended(), after.curr_connections), (0, 1), "{state}");
    };
    let stale = |bench: &mut Bench, peer: &Peer, seq: SeqNum, state: &str| {
        let before = bench.counts().drop_icmp_out_of_window;
        bench.inject_bytes(&unreachable(&reversed(&peer.key), seq, 1));
        assert_eq!(bench.counts().drop_icmp_out_of_window, before + 1, "{state}");
    };
    let mut bench = Bench::serving("echo");
    let mut peer = Peer::new(1);
    peer.knock(&mut bench);
    soft(&mut bench, &peer, peer.expected - 1, "SYN-RECEIVED");
    peer.say(&mut bench, ACK, &[]);
    stale(&mut bench, &peer, peer.expected - 1, "ESTABLISHED, the handshake's number");
    stale(&mut bench, &peer, peer.expected, "ESTABLISHED, nothing in flight");
    let first = peer.expected;
    peer.say(&mut bench, ACK, b"four");
    assert_eq!(peer.expected, first + 4);
    soft(&mut bench, &peer, first, "ESTABLISHED");
    soft(&mut bench, &peer, first + 3, "ESTABLISHED, the last in flight");
    stale(&mut bench, &peer, first + 4, "ESTABLISHED, not sent yet");
    stale(&mut bench, &peer, first - 1, "ESTABLISHED, acknowledged long ago");
    assert!(peer.is_well(&mut bench));
    peer.say(&mut bench, ACK, &[]);
    // The FIN comes back at once, with its own number.
    let fin = peer.expected;
    peer.say(&mut bench, FIN_ACK, &[]);
    assert_eq!(peer.expected, fin + 1);
    soft(&mut bench, &peer, fin, "LAST-ACK");
    peer.say(&mut bench, ACK, &[]);
    assert_eq!((bench.counts().ended_closed, bench.counts().curr_connections), (1, 0));
    let before = bench.counts().drop_no_connection;
    bench.inject_bytes(&unreachable(&reversed(&peer.key), fin, 1));
    assert_eq!(bench.counts().drop_no_connection, before + 1);
}
