//! Destination unreachable: it ends a connection that no peer has answered, and no other.

use super::packets::{our_keys, unreachable};
use super::*;

/// Returns a connection of ours in SYN-SENT, and its SYN.
fn opened(key: FlowKey) -> (Bench, Segment) {
    let mut bench = Bench::serving("discard");
    let syn = bench.open(key);
    (bench, syn)
}

#[test]
fn every_code_ends_an_unanswered_open() {
    for key in our_keys() {
        // ICMP code 4 is fragmentation needed, and has a case of its own below.
        for code in (0..=16).filter(|code| !(key.local.is_v4() && *code == 4)) {
            let (mut bench, syn) = opened(key);
            assert!(bench.inject_bytes(&unreachable(&key, syn.seq, code)).is_empty());
            let counts = bench.counts();
            assert_eq!((counts.ended_unreachable, counts.attempt_fails, counts.ended()), (1, 1, 1), "{code}");
            assert_eq!((counts.curr_connections, counts.frames_absorbed), (0, 1), "{code}");
            assert_eq!((counts.out_rsts, counts.in_soft_errors), (0, 0), "{code}");
            assert!(bench.wait(200_000).is_empty(), "the ended connection sends nothing");
            // The key is free for a new connection.
            bench.open(key);
        }
    }
}

#[test]
fn the_syn_may_have_gone_more_than_once() {
    let [key, _] = our_keys();
    let (mut bench, syn) = opened(key);
    assert!(!bench.wait(5000).is_empty());
    bench.inject_bytes(&unreachable(&key, syn.seq, 1));
    assert_eq!(bench.counts().ended_unreachable, 1);
}

#[test]
fn an_open_survives_what_is_not_about_its_syn() {
    for key in our_keys() {
        let (mut bench, syn) = opened(key);
        let other = FlowKey { local_port: key.local_port + 1, ..key };
        let mut elsewhere = unreachable(&key, syn.seq, 1);
        elsewhere[5] ^= 9;
        for (label, bytes, reason) in [
            ("the number before", unreachable(&key, syn.seq - 1, 1), DropReason::IcmpOutOfWindow),
            ("the number after", unreachable(&key, syn.seq + 1, 1), DropReason::IcmpOutOfWindow),
            ("a number far off", unreachable(&key, syn.seq + 0x8000_0000, 1), DropReason::IcmpOutOfWindow),
            ("another port", unreachable(&other, syn.seq, 1), DropReason::NoConnection),
            ("the other direction", unreachable(&reversed(&key), syn.seq, 1), DropReason::NoConnection),
            ("another Ethernet address", elsewhere, DropReason::NotOurs),
            // In ICMP only: code 4 of ICMPv6 is a closed port.
            ("fragmentation needed", unreachable(&our_keys()[0], syn.seq, 4), DropReason::Protocol),
        ] {
            let label = format!("{label}, {:?}", key.local);
            let before = bench.counts();
            assert!(bench.inject_bytes(&bytes).is_empty(), "{label}");
            let after = bench.counts();
            check_drops(&label, &before, &after, Some(reason));
            assert_eq!((after.curr_half_open, after.in_soft_errors), (1, 0), "{label}");
        }
        let answer = segment(SeqNum(0), syn.seq + 1, SYN_ACK, 0);
        bench.inject_from(&link(), &reversed(&key), &answer, &[]);
        assert_eq!(bench.counts().curr_estab, 1);
    }
}

/// Once a peer has answered, the error is soft in every state, and must quote a segment in flight.
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
    // The service closes at once, with a FIN of its own number.
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
