//! Drain and abort: how an endpoint takes its leave.

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
    assert!(
        closing
            .iter()
            .any(|reply| reply.flags() == FIN_ACK && reply.packet.key.local_port == idle.key.local_port)
    );
    assert_eq!(Peer::new(3).knock(&mut bench)[0].flags(), RST_ACK);
    // One that was half-open completes its handshake and is closed.
    let replies = half_open.say(&mut bench, ACK, &[]);
    assert!(replies.iter().any(|reply| reply.flags().has(Flags::FIN)));
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
    let ours = reversed(&name(3));
    let open = Open { key: ours, link: link().reversed(), role: 0 };
    bench.endpoint.open(bench.now, &open, &mut bench.out).unwrap();
    bench.collect();

    assert!(bench.endpoint.abort(bench.now, &mut bench.out));
    let mut resets: Vec<(u16, Flags)> = bench
        .collect()
        .iter()
        .map(|bytes| reply(bytes))
        .inspect(|reset| {
            let expected = if reset.packet.key.local_port == established.key.local_port {
                &established
            } else {
                &half_open
            };
            if reset.packet.key.local_port != closed.key.local_port {
                assert_eq!(
                    (reset.packet.segment.seq, reset.packet.segment.ack),
                    (expected.expected, expected.nxt)
                );
            }
        })
        .map(|reset| (reset.packet.key.local_port - 1024, reset.flags()))
        .collect();
    resets.sort_by_key(|(number, _)| *number);
    // The third is in LAST-ACK and the fourth in SYN-SENT: no RST for those (section 3.10.5).
    assert_eq!(resets, [(0, RST_ACK), (1, RST_ACK)]);
    assert_eq!((bench.endpoint.len(), bench.counts().ended_reset_by_us), (0, 4));
    assert_eq!((bench.endpoint.records_in_use(), bench.endpoint.frames_kept()), (0, 0));
}

#[test]
fn a_peers_rst_leaves_nothing() {
    let mut bench = Bench::serving("echo");
    for (number, half_open) in [(0, true), (1, false)] {
        let mut peer = if half_open { Peer::new(number) } else { Peer::open(number, &mut bench) };
        if half_open {
            peer.knock(&mut bench);
        } else {
            peer.say_ahead(&mut bench, 5, b"kept");
            assert_eq!(bench.endpoint.frames_kept(), 1);
        }
        assert!(peer.say(&mut bench, RST, &[]).is_empty());
        assert_eq!(
            (bench.endpoint.len(), bench.endpoint.records_in_use(), bench.endpoint.frames_kept()),
            (0, 0, 0)
        );
    }
    let counts = bench.counts();
    assert_eq!((counts.ended_reset_by_peer, counts.attempt_fails, counts.estab_resets), (2, 1, 1));
}

#[test]
fn the_service_aborts() {
    let mut bench = Bench::serving("reset");
    let mut peer = Peer::new(0);
    peer.knock(&mut bench);
    let [reset] = &peer.say(&mut bench, ACK, &[])[..] else { panic!("one RST") };
    assert_eq!((reset.flags(), reset.packet.segment.ack), (RST_ACK, peer.nxt));
    assert_eq!((bench.endpoint.len(), bench.counts().ended_reset_by_us), (0, 1));
}

/// The ready queue has one entry a slot, whoever its owners were.
#[test]
fn connections_that_end_while_ready_leave_no_trail() {
    let mut bench = Bench::new(with_room(4, config("source:100000")));
    let mut held = std::mem::take(&mut bench.out.free);
    for number in 0..100 {
        let mut peer = Peer::new(number);
        for flags in [SYN, ACK, RST] {
            let options = Options { mss: Some(1000), ..Options::NONE };
            let segment = Segment {
                options: if flags == SYN { options } else { Options::NONE },
                ..peer.segment(flags)
            };
            let mut burst = Burst::new();
            bench.device.alloc(&mut burst, 1);
            let bytes = frame(&link(), &peer.key, &segment, &[]);
            burst[0].set_len(bytes.len());
            burst[0].copy_from_slice(&bytes);
            bench.endpoint.on_burst(bench.now, &mut burst, false, &mut bench.out);
            if flags == SYN {
                peer.expected = reply(&bench.out.transmit[0]).packet.segment.seq + 1;
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
    assert!(bench.poll().is_empty(), "nothing goes to who is not there");
}
