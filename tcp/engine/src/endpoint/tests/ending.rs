//! Drain and abort of an endpoint, and resets of single connections.

use super::*;

#[test]
fn a_draining_endpoint_refuses_and_finishes() {
    let mut bench = Bench::serving("http:10");
    let mut idle = Peer::open(0, &mut bench);
    let mut busy = Peer::open(1, &mut bench);
    let replies = idle.say(&mut bench, ACK, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(text_of(&replies).starts_with(b"HTTP/1.1 200 OK\r\n"));
    idle.say(&mut bench, ACK, &[]);
    busy.say(&mut bench, ACK, b"GET / HTTP/1.1\r\nHost");
    let mut half_open = Peer::new(2);
    half_open.knock(&mut bench);

    bench.endpoint.drain();
    let closing = bench.wait(10);
    assert!(closing.iter().any(|reply| reply.segment.flags == FIN_ACK && reply.key == idle.key));
    assert_eq!(Peer::new(3).knock(&mut bench)[0].segment.flags, RST_ACK);
    // The half-open connection completes its handshake, and the endpoint closes it.
    let replies = half_open.say(&mut bench, ACK, &[]);
    assert!(replies.iter().any(|reply| reply.segment.flags.has(Flags::FIN)));
    idle.take(&closing);
    idle.say(&mut bench, FIN_ACK, &[]);
    assert_eq!(bench.counts().curr_time_wait, 1);
}

#[test]
fn an_abort_resets_what_the_peer_knows_of() {
    let mut bench = Bench::serving("discard");
    let established = Peer::open(0, &mut bench);
    let mut half_open = Peer::new(1);
    half_open.knock(&mut bench);
    let mut closed = Peer::open(2, &mut bench);
    closed.say(&mut bench, FIN_ACK, &[]);
    bench.open(reversed(&name(3)));

    assert!(bench.endpoint.abort(bench.now, &mut bench.out));
    let reset = |Reply { key, segment, .. }| (key, segment.flags, segment.seq, segment.ack);
    let mut resets: Vec<_> = bench.replies().into_iter().map(reset).collect();
    resets.sort_by_key(|(key, ..)| key.local_port);
    // The third is in LAST-ACK and the fourth in SYN-SENT: no RST for those (section 3.10.5).
    assert_eq!(resets, [established, half_open].map(|peer| (peer.key, RST_ACK, peer.expected, peer.nxt)));
    assert_eq!((bench.endpoint.len(), bench.counts().ended_reset_by_us), (0, 4));
    assert_eq!((bench.endpoint.records_in_use(), bench.endpoint.frames_kept()), (0, 0));
}

#[test]
fn a_peers_rst_leaves_nothing() {
    let mut bench = Bench::serving("echo");
    for half_open in [true, false] {
        let mut peer = Peer::new(0);
        if half_open {
            peer.knock(&mut bench);
        } else {
            peer = peer.establish(&mut bench);
            peer.say_ahead(&mut bench, 5, b"kept");
            assert_eq!(bench.endpoint.frames_kept(), 1);
        }
        assert!(peer.say(&mut bench, RST, &[]).is_empty());
        let endpoint = &bench.endpoint;
        assert_eq!((endpoint.len(), endpoint.records_in_use(), endpoint.frames_kept()), (0, 0, 0));
    }
    let counts = bench.counts();
    assert_eq!((counts.ended_reset_by_peer, counts.attempt_fails, counts.estab_resets), (2, 1, 1));
}

#[test]
fn the_service_aborts() {
    let mut bench = Bench::serving("reset");
    let mut peer = Peer::new(0);
    peer.knock(&mut bench);
    let reset = one(peer.say(&mut bench, ACK, &[])).segment;
    assert_eq!((reset.flags, reset.ack), (RST_ACK, peer.nxt));
    assert_eq!((bench.endpoint.len(), bench.counts().ended_reset_by_us), (0, 1));
}

/// The set of ready connections has one entry for each slot, whichever connections use the slot.
#[test]
fn connections_that_end_while_ready_leave_no_trail() {
    let mut bench = Bench::new(with_room(4, config("source:100000")));
    let mut held = std::mem::take(&mut bench.out.free);
    for number in 0..100 {
        let mut peer = Peer::new(number);
        for flags in [SYN, ACK, RST] {
            let options = if flags == SYN { MSS_1000 } else { Options::NONE };
            let bytes = frame(&link(), &peer.key, &Segment { options, ..peer.segment(flags) }, &[]);
            let mut burst = load(&mut bench.device, &[bytes]);
            bench.endpoint.on_burst(bench.now, &mut burst, false, &mut bench.out);
            if flags == SYN {
                peer.expected = Reply::parse(&bench.out.transmit[0]).segment.seq + 1;
                peer.nxt += 1;
            }
            bench.device.recycle(&mut bench.out.transmit);
            bench.device.recycle(&mut bench.out.recycle);
        }
    }
    assert_eq!((bench.endpoint.len(), bench.counts().ended_reset_by_peer), (0, 100));
    let mut ready = bench.endpoint.ready.clone();
    let ready = std::iter::from_fn(|| ready.take()).count();
    assert!(ready <= 4, "{ready}");
    bench.device.recycle(&mut held);
    bench.refill();
    assert!(bench.poll().is_empty(), "ended connections send nothing");
}
