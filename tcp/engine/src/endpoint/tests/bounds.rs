//! Every resource used up in turn: connections in ESTABLISHED never pay for it.

use super::*;

fn small(connections: usize) -> Bench {
    Bench::new(with_room(connections, config("discard")))
}

fn all_well(peers: &mut [Peer], bench: &mut Bench) -> bool {
    peers.iter_mut().all(|peer| peer.is_well(bench))
}

#[test]
fn the_memory_that_is_needed_is_known_before() {
    for max_connections in [0, 1, 2, 63, 64, 65, 256, 1000, 4097, 70_000, 1_500_000] {
        for max_kept_frames in [0, 1, 4096] {
            let config = with_room(max_connections, Config { max_kept_frames, ..config("discard") });
            let endpoint = Endpoint::new(config, Instant::ZERO, Arc::default());
            let needed = memory_needed(max_connections, max_kept_frames);
            assert_eq!(needed, endpoint.memory_bytes(), "{max_connections}, {max_kept_frames} frames");
        }
    }
}

#[test]
fn a_flood_of_syns_pushes_out_its_own_oldest() {
    let mut bench = small(4096);
    let mut good = Peer::open_all(0..10, &mut bench);
    for number in 0..2000 {
        assert_eq!(Peer::new(100 + number).knock(&mut bench).len(), 1, "SYN {number}");
    }
    let counts = bench.counts();
    assert_eq!((counts.curr_half_open, counts.ended_evicted_half_open), (1024, 2000 - 1024));
    assert_eq!(counts.curr_estab, 10);
    assert!(all_well(&mut good, &mut bench));
    // A client that answers at once gets through during the flood.
    good.push(Peer::open(4000, &mut bench));
    assert!(all_well(&mut good, &mut bench));
    // The flood's handshakes time out, and there is room again.
    bench.wait(70_000);
    assert_eq!((bench.counts().curr_half_open, bench.counts().attempt_fails), (0, 2000));
    assert!(Peer::open(5000, &mut bench).is_well(&mut bench));
}

/// Sends SYN, and RST for the SYN,ACK: the handshake ends at once.
fn knock_and_reset(number: u16, bench: &mut Bench) {
    let mut peer = Peer::new(number);
    assert_eq!(peer.knock(bench).len(), 1);
    peer.say(bench, RST, &[]);
}

#[test]
fn those_half_open_are_remembered_however_many_handshakes_end_beside_them() {
    let mut bench = small(8);
    Peer::new(0).knock(&mut bench);
    for number in 1..1000 {
        knock_and_reset(number, &mut bench);
    }
    let mut established = Peer::open_all(1000..1007, &mut bench);
    assert_eq!((bench.endpoint.len(), bench.counts().curr_half_open), (8, 1));
    established.push(Peer::open(2000, &mut bench));
    assert_eq!((bench.counts().ended_evicted_half_open, bench.counts().drop_table_full), (1, 0));
    assert!(all_well(&mut established, &mut bench));
}

#[test]
fn the_oldest_of_many_half_open_gives_way_and_never_the_youngest() {
    let mut bench = small(4096);
    for number in 0..1023 {
        Peer::new(number).knock(&mut bench);
    }
    Peer::open_all(2000..4000, &mut bench);
    let mut slow = Peer::new(5000);
    slow.knock(&mut bench);
    // The share of half-open connections is used up: each of these SYNs evicts one.
    for number in 5001..5500 {
        assert_eq!(Peer::new(number).knock(&mut bench).len(), 1);
    }
    assert_eq!((bench.counts().curr_half_open, bench.counts().ended_evicted_half_open), (1024, 499));
    slow.say(&mut bench, ACK, &[]);
    assert!(slow.is_well(&mut bench));
}

#[test]
fn who_takes_the_slot_of_one_that_ended_is_the_youngest() {
    let mut bench = small(8);
    let mut established = Peer::open_all(0..4, &mut bench);
    let mut gone = Peer::open(4, &mut bench);
    let mut half_open: Vec<Peer> = (5..8).map(Peer::new).collect();
    half_open.iter_mut().for_each(|peer| assert_eq!(peer.knock(&mut bench).len(), 1));
    gone.say(&mut bench, RST, &[]);
    let mut young = Peer::new(8);
    young.knock(&mut bench);
    Peer::new(9).knock(&mut bench);
    assert_eq!(bench.counts().ended_evicted_half_open, 1);
    young.say(&mut bench, ACK, &[]);
    established.push(young);
    assert!(all_well(&mut established, &mut bench));
}

#[test]
fn a_full_table_gives_up_what_peers_left_half_open_and_nothing_else() {
    let mut bench = small(8);
    let mut established = Peer::open_all(0..4, &mut bench);
    // Nobody else can evict the connections that we open.
    for number in 10..12 {
        bench.open(reversed(&name(number)));
    }
    for number in 20..22 {
        assert_eq!(Peer::new(number).knock(&mut bench).len(), 1);
    }
    assert_eq!(bench.endpoint.len(), 8);
    // The table holds 4 established, 2 of ours and 2 half-open. New ones evict the half-open, the oldest first.
    established.extend(Peer::open_all(30..32, &mut bench));
    assert_eq!(bench.counts().ended_evicted_half_open, 2);
    // No connection is left that may be evicted.
    assert!(Peer::new(40).knock(&mut bench).is_empty());
    assert_eq!(bench.counts().drop_table_full, 1);
    assert!(all_well(&mut established, &mut bench));
}

#[test]
fn time_wait_gives_way_before_half_open() {
    let mut bench = Bench::new(with_room(4, config("close")));
    // `close` sends FIN at once. The peer acknowledges it and closes: TIME-WAIT here.
    let mut peer = Peer::open(0, &mut bench);
    peer.say(&mut bench, FIN_ACK, &[]);
    assert_eq!(bench.counts().curr_time_wait, 1);
    Peer::new(1).knock(&mut bench);
    Peer::open_all(2..4, &mut bench);
    assert_eq!(bench.endpoint.len(), 4);
    Peer::open(5, &mut bench);
    let counts = bench.counts();
    assert_eq!((counts.ended_evicted_time_wait, counts.ended_evicted_half_open), (1, 0));
    Peer::open(6, &mut bench);
    assert_eq!(bench.counts().ended_evicted_half_open, 1);
    assert!(Peer::new(7).knock(&mut bench).is_empty());
}

/// In a small table, peers reset connections in TIME-WAIT in any order, others take their slots, and new ones evict the oldest.
#[test]
fn who_leaves_time_wait_early_leaves_no_trail() {
    let mut bench = Bench::new(with_room(12, config("http:0")));
    let (mut waiting, mut speaking) = (Vec::<Peer>::new(), Vec::<Peer>::new());
    let mut random = 1_u64;
    for number in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let which = (random >> 40) as usize;
        match random >> 62 {
            0 if !waiting.is_empty() => {
                waiting.swap_remove(which % waiting.len()).say(&mut bench, RST, &[]);
            }
            1 => {
                if speaking.len() == 3 {
                    speaking.swap_remove(which % 3).say(&mut bench, RST, &[]);
                }
                let mut peer = Peer::open(number, &mut bench);
                peer.say(&mut bench, ACK, b"GET / HTTP/1.1\r\nHost: x\r\n");
                speaking.push(peer);
            }
            2 if which.is_multiple_of(8) && !waiting.is_empty() => {
                // The peer retransmits its FIN: 2 MSL restart, if the connection is still there.
                let peer = &waiting[which % waiting.len()];
                let fin = Segment { seq: peer.nxt - 1, ..peer.segment(FIN_ACK) };
                peer.send(&mut bench, &fin, &[]);
            }
            _ => {
                let mut peer = Peer::open(number, &mut bench);
                peer.say(&mut bench, ACK, b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
                peer.say(&mut bench, FIN_ACK, &[]);
                if waiting.len() == 12 {
                    waiting.remove(0);
                }
                waiting.push(peer);
            }
        }
    }
    let counts = bench.counts();
    assert!(counts.ended_evicted_time_wait > 1000 && counts.ended_reset_by_peer > 1000, "{counts:?}");
    assert!(speaking.iter_mut().all(|peer| !peer.say(&mut bench, ACK, b"\r\n").is_empty()));
}

#[test]
fn time_wait_reopens_with_numbers_beyond() {
    let mut bench = Bench::serving("close");
    let mut peer = Peer::open(0, &mut bench);
    peer.say(&mut bench, FIN_ACK, &[]);
    let old = peer.expected;
    // The next number may be an old segment's. The number after it is new.
    assert_eq!(flags_of(&peer.send(&mut bench, &peer.segment(SYN), &[])), [ACK]);
    peer.nxt += 1;
    let syn_ack = one(peer.knock(&mut bench)).segment;
    assert_eq!(syn_ack.flags, SYN_ACK);
    assert!(syn_ack.seq.after(old));
    assert_eq!((bench.counts().time_wait_reopened, bench.counts().ended_closed), (1, 1));
}

#[test]
fn time_wait_stays_if_nobody_takes_the_new_connection() {
    let mut bench = Bench::serving("close");
    let mut peer = Peer::open(0, &mut bench);
    peer.say(&mut bench, FIN_ACK, &[]);
    bench.endpoint.drain();
    peer.nxt += 1;
    assert_eq!(flags_of(&peer.send(&mut bench, &peer.segment(SYN), &[])), [ACK]);
    let counts = bench.counts();
    assert_eq!((counts.curr_time_wait, counts.time_wait_reopened, counts.ended_closed), (1, 0, 0));
}

#[test]
fn next_hops_of_connections_that_ended_make_room() {
    let mut bench = small(16);
    let mut peer = Peer::open(0, &mut bench);
    // More next hops in a row than there are numbers for them.
    let passing = Peer::new(100);
    let reset = segment(passing.nxt + 1, SeqNum(0), RST, 0);
    for number in 0..=u32::from(u16::MAX) {
        let [_, a, b, c] = number.to_be_bytes();
        let link = Link { source: [6, 0, 0, a, b, c], ..link() };
        for segment in [&passing.segment(SYN), &reset] {
            bench.inject_bytes(&frame(&link, &passing.key, segment, &[]));
        }
    }
    assert_eq!(bench.counts().drop_too_many_paths, 0);
    assert!(peer.is_well(&mut bench));
}

#[test]
fn without_free_frames_received_ones_are_answered() {
    let mut bench = Bench::serving("source:20000");
    let mut held = std::mem::take(&mut bench.out.free);
    let mut peer = Peer::new(0);
    let mut burst = load(&mut bench.device, &[peer.frame(SYN, &[])]);
    bench.endpoint.on_burst(bench.now, &mut burst, false, &mut bench.out);
    assert_eq!(bench.out.transmit.len(), 1);
    peer.expected = Reply::parse(&bench.out.transmit[0]).segment.seq + 1;
    peer.nxt += 1;
    // Text waits for free frames.
    bench.device.recycle(&mut held);
    bench.collect();
    let replies = peer.say(&mut bench, ACK, &[]);
    assert!(text_of(&replies).len() > 500);
}

#[test]
fn without_records_transfers_are_slow_and_whole() {
    let mut bench = Bench::serving("source:50000");
    let records: Vec<u32> = std::iter::from_fn(|| bench.endpoint.records.take()).collect();
    let mut peer = Peer::new(0);
    peer.knock(&mut bench);
    let mut text = Vec::new();
    for _ in 0..=100 {
        let replies = peer.say(&mut bench, ACK, &[]);
        text.extend(text_of(&replies));
        if replies.iter().any(|reply| reply.segment.flags.has(Flags::FIN)) {
            break;
        }
    }
    let mut whole = vec![0; 50_000];
    crate::service::pattern::fill(0, &mut whole);
    assert!(text == whole, "{} bytes", text.len());
    assert!(bench.counts().no_transfer_record > 0);
    for number in records {
        bench.endpoint.records.put(number, &mut bench.out.recycle);
    }
    assert_eq!(bench.endpoint.records_in_use(), 0);
}

#[test]
fn without_records_text_out_of_order_is_dropped_and_counted() {
    let mut bench = Bench::serving("discard");
    let _records: Vec<u32> = std::iter::from_fn(|| bench.endpoint.records.take()).collect();
    let mut peer = Peer::open(0, &mut bench);
    assert_eq!(one(peer.say_ahead(&mut bench, 10, b"later")).segment.ack, peer.nxt);
    assert_eq!(bench.counts().drop_text_no_room, 1);
    assert!(peer.is_well(&mut bench));
}
