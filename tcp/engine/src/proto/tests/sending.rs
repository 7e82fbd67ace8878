//! SEND and CLOSE: the segments that leave, and the reasons to wait.

use super::*;

/// Returns a connection in ESTABLISHED with segments of 1000 bytes and this send window.
fn sender(iss: u32, window: u16) -> World {
    let mut world = World::sender(iss);
    world.offer(window);
    world
}

/// A stream's start: label, window, bytes, FIN, and the segments that may go at once.
type Start<'a> = (&'a str, u16, u64, bool, &'a [(u32, u16, Flags, bool)]);

fn check(starts: &[Start<'_>]) {
    for iss in BASES {
        for (label, window, bytes, fin, expected) in starts {
            assert_eq!(sender(iss, *window).send(*bytes, *fin), *expected, "{label}, ISS {iss}");
        }
    }
}

#[test]
fn a_stream_is_cut_into_segments() {
    check(&[
        ("nothing", 60_000, 0, false, &[]),
        ("one byte", 60_000, 1, false, &[(0, 1, PSH_ACK, false)]),
        ("one segment", 60_000, 1000, false, &[(0, 1000, PSH_ACK, false)]),
        ("PSH on the last", 60_000, 1001, false, &[(0, 1000, ACK, false), (1000, 1, PSH_ACK, false)]),
        ("FIN alone", 60_000, 0, true, &[(0, 0, FIN_ACK, false)]),
        ("FIN rides on the last", 60_000, 1001, true, &[(0, 1000, ACK, false), (1000, 1, LAST, false)]),
    ]);
}

#[test]
fn the_initial_window_is_ten_segments() {
    for iss in BASES {
        let mut world = sender(iss, 60_000);
        assert_eq!(world.send(1 << 40, true).len(), 10);
        assert_eq!(world.tcb.flight(), 10_000);
        assert!(world.tcp().wants_transfer(Stream { bytes: 10_001, fin: false }));
        assert!(!world.tcp().wants_transfer(Stream { bytes: 10_000, fin: false }));
        // Without a transfer record the congestion window stays.
        let ack = world.tcb.snd_una() + 2000;
        world.accept(&Segment { ack, window: WireWindow(60_000), ..world.peer(ACK) });
        let next: Vec<_> = world.send((1 << 40) - 2000, true).iter().map(|sent| sent.0).collect();
        assert_eq!(next, [8000, 9000]);
    }
}

#[test]
fn with_a_record_the_window_grows() {
    for iss in BASES {
        let mut world = sender(iss, 60_000);
        world.attach();
        assert_eq!(world.send(1 << 40, false).len(), 10);
        let ack = world.tcb.snd_una() + 2000;
        world.accept(&Segment { ack, window: WireWindow(60_000), ..world.peer(ACK) });
        assert_eq!(world.send(1 << 40, false).len(), 4, "two were acknowledged, and slow start adds two");
    }
}

#[test]
fn the_peers_window_is_kept() {
    check(&[
        ("a window of one segment", 1000, 3000, true, &[(0, 1000, ACK, false)]),
        ("a part of a segment waits while text is in flight", 1500, 3000, true, &[(0, 1000, ACK, false)]),
        ("a part of a segment goes when nothing is in flight", 300, 3000, true, &[(0, 300, ACK, false)]),
        ("a last part that fits goes", 1500, 1400, true, &[(0, 1000, ACK, false), (1000, 400, LAST, false)]),
        ("FIN waits behind text", 1000, 1001, true, &[(0, 1000, ACK, false)]),
        ("FIN waits behind all text of a shut window", 0, 1, true, &[]),
    ]);
}

#[test]
fn a_shut_window_is_probed_until_nobody_answers() {
    for iss in BASES {
        let mut world = sender(iss, 0);
        assert_eq!(world.send(5000, true), []);
        assert_eq!(world.timer(), (Timer::Persist, 200));
        // While the peer answers, probes go on: here for an hour, at growing intervals.
        let (mut probes, mut last) = (0, 0);
        let start = world.now;
        while world.now.since(start) < 3_600_000 {
            assert_eq!(world.expire(), Timeout::Probe);
            let probe = world.tcb.probe();
            assert_eq!((probe.seq, probe.flags, probe.text_len), (world.tcb.snd_una() - 1, ACK, 0));
            world.offer(0);
            assert!(world.timer().1 >= last, "no interval is shorter than the one before");
            last = world.timer().1;
            probes += 1;
        }
        assert!(last > 60_000 && probes < 100, "{last} ms, {probes} probes");
        // Without an answer, the connection ends after some probes.
        let mut unanswered = 0;
        while world.expire() == Timeout::Probe {
            unanswered += 1;
        }
        assert!((5..=15).contains(&unanswered), "{unanswered}");
        world.now = world.tcb.timer().1;
        assert_eq!(world.on_deadline(), Timeout::End(End::TimedOut));
    }
}

#[test]
fn an_opened_window_ends_the_probes() {
    for iss in BASES {
        let mut world = sender(iss, 0);
        world.send(5000, true);
        world.expire();
        world.offer(2000);
        assert_eq!(world.timer().0, Timer::None);
        assert_eq!(world.send(5000, true), [(0, 1000, ACK, false), (1000, 1000, ACK, false)]);
        assert_eq!(world.timer(), (Timer::Retransmit, 200));
    }
}

/// A peer that shrinks its window below the text in flight, and still answers, is alive (RFC 9293 section 3.8.6.1).
#[test]
fn a_window_taken_back_is_outlasted() {
    for (with_record, fin) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = sender(u32::MAX - 3, 8000);
        if with_record {
            world.attach();
        }
        world.send(3000, fin);
        for _ in 0..50 {
            assert_eq!(world.expire(), Timeout::Retransmit);
            assert_eq!(world.send(3000, fin).len(), 1, "one at a time");
            world.offer(0);
        }
        assert_eq!(world.acknowledge(3000 + u32::from(fin)).acked, 3000);
    }
}

#[test]
fn an_acknowledgement_waits_for_company() {
    let mut world = sender(0, 8000);
    assert!(!world.receive(10), "the first waits");
    assert_eq!(world.timer(), (Timer::DelayedAck, 40));
    assert!(world.receive(10), "the second does not");
    world.tcb.ack_sent();
    assert_eq!((world.timer().0, world.tcb.ack_is_pending()), (Timer::None, false));

    assert!(!world.receive(10));
    assert_eq!(world.expire(), Timeout::Acknowledge);
    world.tcb.ack_sent();

    // A segment with text carries the acknowledgement.
    assert!(!world.receive(10));
    assert_eq!(world.send(5, false).len(), 1);
    assert_eq!((world.timer().0, world.tcb.ack_is_pending()), (Timer::Retransmit, false));
    // While text is in flight it never waits: the one timer is the retransmission timer.
    assert!(world.receive(10));
    assert_eq!(world.timer().0, Timer::Retransmit);
}

/// The probes need the one timer, so an acknowledgement that waits becomes urgent.
#[test]
fn an_acknowledgement_does_not_wait_for_a_probe() {
    let mut world = sender(0, 0);
    assert!(!world.receive(10));
    assert!(!world.tcb.owes_ack(), "the acknowledgement may wait");
    assert_eq!(world.send(5000, false), []);
    assert_eq!(world.timer().0, Timer::Persist);
    assert!(world.tcb.owes_ack(), "now it is urgent");
    world.tcb.ack_sent();
    assert!(!world.tcb.owes_ack());
    assert_eq!(world.timer().0, Timer::Persist);
}

#[test]
fn the_window_told_is_what_is_free() {
    let options = Options { window_scale: Some(0), ..MSS_1000 };
    let mut world = World::established(Role::Passive, 1, 2, options);
    world.attach();
    for (held, told, wire) in [(0, 65536, 512), (128, 65408, 511), (65536, 0, 0), (65536 - 127, 127, 0)] {
        world.transfer.as_mut().unwrap().held_bytes = held;
        let (ack, now) = (world.tcb.bare_ack(), world.now);
        let segment = world.tcp().segment(&ack, || 1460, || SackBlocks::NONE, now);
        assert_eq!((world.transfer.as_ref().unwrap().advertised, segment.window.0), (told, wire));
    }
    // The shut window opens: a window update is due once there is room for a segment.
    for (held, owes) in [(65536, false), (65536 - 999, false), (65536 - 1127, true)] {
        world.transfer.as_mut().unwrap().held_bytes = held;
        assert_eq!(world.tcp().owes_window_update(), owes, "{held}");
    }
}
