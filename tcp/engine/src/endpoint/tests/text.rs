//! Text in and out of order: the service receives each byte once, in the order of the stream.

use proptest::prelude::*;

use super::*;

fn pattern(at: u64, len: usize) -> Vec<u8> {
    let mut text = vec![0; len];
    crate::service::pattern::fill(at, &mut text);
    text
}

#[test]
fn pieces_in_any_order_are_delivered_once() {
    let mut bench = Bench::serving("echo");
    let mut peer = Peer::open(0, &mut bench);
    let text = pattern(0, 100);
    // Overlapping and repeated pieces, mostly from the back to the front.
    for (from, to) in [(60, 100), (60, 100), (40, 70), (10, 30), (25, 45), (30, 40)] {
        let replies = peer.say_ahead(&mut bench, from as u32, &text[from..to]);
        assert!(replies.iter().all(|reply| reply.segment.ack == peer.nxt), "{from}..{to}");
        assert!(text_of(&replies).is_empty());
    }
    let replies = peer.say(&mut bench, ACK, &text[..15]);
    assert_eq!(text_of(&replies), text);
    assert_eq!(replies.last().unwrap().segment.ack, peer.nxt + 85);
    assert_eq!(bench.counts().in_bytes, 100);
    peer.nxt += 85;
    peer.say(&mut bench, ACK, &[]);
    assert_eq!(bench.endpoint.frames_kept(), 0);
}

/// RFC 2018 section 4: the first SACK block holds the latest text. Without the peer's permission there are no blocks.
#[test]
fn acknowledgements_tell_what_came_out_of_order() {
    for sack_permitted in [true, false] {
        let mut bench = Bench::serving("discard");
        let mut peer = Peer { sack_permitted, ..Peer::new(0) }.establish(&mut bench);
        let base = peer.nxt;
        for (at, blocks) in [
            (100, &[(100, 200)][..]),
            (300, &[(300, 400), (100, 200)]),
            (200, &[(100, 400)]),
            (700, &[(700, 800), (100, 400)]),
            (500, &[(500, 600), (100, 400), (700, 800)]),
            (150, &[(100, 400), (500, 600), (700, 800)]),
        ] {
            let ack = one(peer.say_ahead(&mut bench, at, &pattern(u64::from(at), 100))).segment;
            let blocks: &[(u32, u32)] = if sack_permitted { blocks } else { &[] };
            let expected: Vec<_> = blocks.iter().map(|(start, end)| (base + *start, base + *end)).collect();
            assert_eq!(ack.options.sack.as_slice(), expected, "{at}");
        }
        let ack = peer.say(&mut bench, ACK, &pattern(0, 100))[0].segment;
        assert_eq!(ack.ack, base + 400);
        assert_eq!(ack.options.sack.as_slice().len(), if sack_permitted { 2 } else { 0 });
    }
}

/// The segment that fills the hole must find room, however many segments wait behind it.
#[test]
fn a_hole_is_filled_when_the_queue_behind_it_is_full() {
    for (service, kept) in [("discard", 128), ("echo", 128), ("echo", 20), ("discard", 20)] {
        let mut bench = Bench::new(Config { max_kept_frames: kept, ..config(service) });
        let mut peer = Peer::open(0, &mut bench);
        for number in 1..100 {
            peer.say_ahead(&mut bench, number * 10, &pattern(u64::from(number) * 10, 10));
        }
        assert!(bench.counts().drop_text_no_room > 0, "{service}, {kept}");
        let text = pattern(0, 1000);
        let mut echoed = Vec::new();
        for start in (0..1000).step_by(10) {
            echoed.extend(text_of(&peer.say(&mut bench, ACK, &text[start..start + 10])));
            // Text that found no free frame follows the acknowledgement.
            echoed.extend(text_of(&peer.say(&mut bench, ACK, &[])));
        }
        bench.wait(50);
        assert_eq!(bench.counts().in_bytes, 1000, "{service}, {kept}");
        if service == "echo" {
            assert!(echoed == text, "{kept}: {} bytes", echoed.len());
        }
        assert!(peer.is_well(&mut bench));
    }
}

#[test]
fn an_echo_with_a_full_pool_goes_on() {
    let mut bench = Bench::new(Config { max_kept_frames: 4, ..config("echo") });
    let mut peers = Peer::open_all(0..3, &mut bench);
    // Two peers that acknowledge nothing take the whole pool.
    for peer in &mut peers[..2] {
        for _ in 0..2 {
            peer.send(&mut bench, &peer.segment(ACK), b"kept");
            peer.nxt += 4;
        }
    }
    assert_eq!(bench.endpoint.frames_kept(), 4);
    // The third finds no room, and its acknowledgement says so.
    let replies = peers[2].send(&mut bench, &peers[2].segment(ACK), b"here");
    assert!(text_of(&replies).is_empty());
    assert_eq!(replies[0].segment.ack, peers[2].nxt);
    assert_eq!(bench.counts().drop_text_no_room, 1);
    // Once one of them acknowledges, there is room.
    peers[0].expected += 8;
    peers[0].say(&mut bench, ACK, &[]);
    assert_eq!(bench.endpoint.frames_kept(), 2);
    assert_eq!(text_of(&peers[2].say(&mut bench, ACK, b"here")), b"here");
}

#[test]
fn a_fin_waits_for_the_text_before_it() {
    let mut bench = Bench::serving("echo");
    let mut peer = Peer::open(0, &mut bench);
    let fin = Segment { seq: peer.nxt + 8, ..peer.segment(FIN_ACK) };
    peer.say_ahead(&mut bench, 4, b"late");
    assert_eq!(peer.send(&mut bench, &fin, &[]).len(), 1, "a FIN out of order is answered");
    // An ACK of nothing new is not answered: two ends would answer each other for ever.
    assert!(peer.say(&mut bench, ACK, &[]).is_empty());
    let replies = peer.say(&mut bench, ACK, b"soon");
    assert_eq!(text_of(&replies), b"soonlate");
    let last = replies.last().unwrap().segment;
    assert_eq!(last.ack, fin.seq + 1);
    assert!(last.flags.has(Flags::FIN), "the echo closes too");
}

/// A FIN whose number lies inside the stream is false. The connection stays in FIN-WAIT-2 until the true FIN.
#[test]
fn a_fin_that_the_stream_has_passed_is_forgotten() {
    let mut bench = Bench::serving("close");
    let mut peer = Peer::open(0, &mut bench);
    peer.say(&mut bench, ACK, &[]);
    let lie = Segment { seq: peer.nxt + 100, ..peer.segment(FIN_ACK) };
    peer.send(&mut bench, &lie, &[]);
    assert_eq!(bench.endpoint.records_in_use(), 1);
    peer.say(&mut bench, ACK, &[1; 150]);
    assert_eq!((bench.endpoint.records_in_use(), bench.counts().curr_time_wait), (0, 0));
    peer.say(&mut bench, FIN_ACK, &[]);
    assert_eq!(bench.counts().curr_time_wait, 1);
}

/// In FIN-WAIT-2 no later segment would carry the acknowledgement of the FIN. TIME-WAIT begins with it.
#[test]
fn a_fin_that_came_before_its_text_is_acknowledged_with_it() {
    let mut bench = Bench::serving("close");
    let mut peer = Peer::open(0, &mut bench);
    peer.say(&mut bench, ACK, &[]);
    let fin = Segment { seq: peer.nxt + 4, ..peer.segment(FIN_ACK) };
    peer.send(&mut bench, &fin, &[]);
    let replies = peer.say(&mut bench, ACK, b"text");
    assert_eq!(replies.last().map(|reply| reply.segment.ack), Some(fin.seq + 1));
    assert_eq!(bench.counts().curr_time_wait, 1);
}

/// A frame that is too small for a packet of the MTU carries no text: the text waits for a free frame.
#[test]
fn nothing_is_sent_into_a_frame_that_is_too_small() {
    // A frame here has 1792 bytes, and a packet may be ten bytes longer.
    let mut bench = Bench::new(Config { mtu: 1780, ..config("source:100000") });
    let mut peer = Peer::open(0, &mut bench);
    peer.say(&mut bench, ACK, &[]);
    bench.device.recycle(&mut bench.out.free);
    assert!(bench.inject_bytes(&peer.frame(ACK, &[])).is_empty());
    // With free frames the text goes on.
    assert!(!bench.poll().is_empty());
    assert_eq!(bench.counts().no_free_frame, 0);
}

#[test]
fn text_is_acknowledged_in_time_although_the_peers_window_is_shut() {
    let mut bench = Bench::serving("http:10");
    let mut peer = Peer { window: 0, ..Peer::new(0) }.establish(&mut bench);
    // The response does not fit the window, and its probes need the connection's one timer.
    let mut replies = peer.say(&mut bench, ACK, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    replies.extend(bench.wait(100));
    assert_eq!(replies[0].segment.ack, peer.nxt);
    // Probes go on. The response goes once the window opens.
    assert!(bench.wait(5000).len() > 2);
    assert!(bench.counts().window_probes > 2);
    peer.window = 1000;
    assert!(text_of(&peer.say(&mut bench, ACK, &[])).starts_with(b"HTTP/1.1 200 OK\r\n"));
}

#[test]
fn acknowledgements_wait_for_company() {
    let mut bench = Bench::serving("discard");
    let mut peer = Peer::open(0, &mut bench);
    assert!(peer.say(&mut bench, ACK, b"one").is_empty());
    assert_eq!(peer.say(&mut bench, ACK, b"two").len(), 1);
    assert!(peer.say(&mut bench, ACK, b"three").is_empty());
    assert_eq!(one(bench.wait(60)).segment.ack, peer.nxt);
    assert_eq!(bench.counts().delayed_acks, 1);
}

/// RFC 9293 MUST-59: the endpoint processes all segments that have arrived before it sends one acknowledgement.
#[test]
fn a_burst_has_one_acknowledgement() {
    let mut bench = Bench::serving("discard");
    let mut peer = Peer::open(0, &mut bench);
    for (count, at_once) in [(2, 0), (5, 0), (5, 1)] {
        let mut frames: Vec<_> = (0..count)
            .map(|_| {
                let bytes = peer.frame(ACK, b"some text");
                peer.nxt += 9;
                bytes
            })
            .collect();
        // A duplicate is answered at once (RFC 5681 section 4.2). No other acknowledgement is owed then.
        frames.extend(vec![frames[0].clone(); at_once]);
        assert_eq!(bench.inject_burst(&frames).len(), at_once);
        let replies = bench.poll();
        assert_eq!(replies.len(), 1 - at_once, "{count} segments");
        assert!(replies.iter().all(|reply| reply.segment.ack == peer.nxt));
        assert!(bench.wait(60).is_empty(), "no acknowledgement is owed any more");
    }
    assert_eq!(bench.counts().delayed_acks, 0);
}

/// A timeout shrinks the congestion window to one segment, also where the connection had no transfer record.
#[test]
fn a_timeout_goes_back_to_one_segment() {
    let mut bench = Bench::serving("source:8000");
    let mut peer = Peer::new(0);
    peer.knock(&mut bench);
    let una = peer.expected;
    assert_eq!(peer.say(&mut bench, ACK, &[]).len(), 8);
    assert_eq!(one(bench.wait(250)).segment.seq, una);
    // The first arrives, and two go: slow start, not the whole window.
    peer.expected = una + 1000;
    let replies = peer.send(&mut bench, &peer.segment(ACK), &[]);
    let numbers: Vec<u32> = replies.iter().map(|reply| reply.segment.seq - una).collect();
    assert_eq!(numbers, [1000, 2000]);
    assert_eq!(bench.counts().out_bytes, 8000);
}

/// A piece of the stream, or a segment around the window that is no part of it.
#[derive(Clone, Debug)]
enum Sent {
    Piece { from: usize, len: usize },
    Stray { flags: u8, seq: i32, ack: i32, len: usize },
    Wait(u64),
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        6 => (0_usize..4000, 1_usize..700).prop_map(|(from, len)| Sent::Piece { from, len }),
        // No RST and no FIN here. Text that is not the peer's lies outside the window.
        2 => (prop::sample::select(&[0x02_u8, 0x12, 0x10, 0x18, 0x30][..]), -3000_i32..-1000, -5_i32..5, 0_usize..1000)
            .prop_map(|(flags, seq, ack, len)| Sent::Stray { flags, seq, ack, len }),
        1 => (any::<u8>().prop_map(|flags| flags & 0x3f | 0x04), 1_i32..60_000, any::<i32>(), Just(0_usize))
            .prop_map(|(flags, seq, ack, len)| Sent::Stray { flags, seq, ack, len }),
        1 => (1_u64..300).prop_map(Sent::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// In whatever order the pieces arrive, the echo is the stream itself, each byte once.
    #[test]
    fn a_stream_survives_what_happens_around_it(kept in 4_usize..64, steps in prop::collection::vec(sent(), 1..60)) {
        let mut bench = Bench::new(Config { max_kept_frames: kept, ..config("echo") });
        let mut peer = Peer::open(0, &mut bench);
        let (text, start, first) = (pattern(0, 5000), peer.nxt, peer.expected);
        let mut echoed: Vec<u8> = Vec::new();
        let mut acknowledged = start;
        let mut hear = |peer: &mut Peer, replies: Vec<Reply>| {
            for reply in replies {
                let segment = reply.segment;
                assert!(segment.ack.at_or_after(acknowledged), "RCV.NXT only goes forward");
                acknowledged = segment.ack;
                if segment.seq.at_or_before(peer.expected) && segment.end().after(peer.expected) {
                    echoed.extend(&reply.text[(peer.expected - segment.seq) as usize..]);
                    peer.expected = segment.end();
                }
            }
            acknowledged
        };
        let steps = steps.into_iter().chain((0..50).map(|number| Sent::Piece { from: number * 100, len: 100 }));
        for step in steps {
            let replies = match step {
                Sent::Piece { from, len } => {
                    let segment = Segment { seq: start + from as u32, ..peer.segment(ACK) };
                    peer.send(&mut bench, &segment, &text[from..(from + len).min(5000)])
                }
                Sent::Stray { flags, seq, ack, len } => {
                    let nxt = hear(&mut peer, Vec::new());
                    let segment = Segment {
                        seq: SeqNum(nxt.0.wrapping_add(seq as u32)),
                        ack: SeqNum(peer.expected.0.wrapping_add(ack as u32)),
                        ..peer.segment(Flags(flags))
                    };
                    peer.send(&mut bench, &segment, &vec![b'!'; len.min(seq.unsigned_abs() as usize)])
                }
                Sent::Wait(millis) => bench.wait(millis),
            };
            hear(&mut peer, replies);
            let seq = hear(&mut peer, Vec::new());
            let ack = Segment { seq, ..peer.segment(ACK) };
            let replies = peer.send(&mut bench, &ack, &[]);
            hear(&mut peer, replies);
        }
        let end = hear(&mut peer, Vec::new());
        prop_assert_eq!(end - start, 5000);
        prop_assert_eq!(peer.expected - first, 5000);
        prop_assert!(echoed == text);
        prop_assert_eq!(bench.counts().in_bytes, 5000);
        prop_assert_eq!(bench.endpoint.frames_kept(), 0);
    }
}
