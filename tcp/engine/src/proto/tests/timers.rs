//! Timeouts, section 3.10.8 and RFC 6298, and recovery from loss, RFC 5681 and 6582.

use super::*;

/// Lets timers expire until the connection ends. Returns the waits in ms, and the event of each.
fn give_up(mut world: World) -> (Vec<u32>, Vec<Timeout>) {
    let (mut waits, mut timeouts) = (Vec::new(), Vec::new());
    loop {
        waits.push(world.timer().1);
        timeouts.push(world.expire());
        if matches!(timeouts.last(), Some(Timeout::End(_))) {
            return (waits, timeouts);
        }
        assert!(timeouts.len() < 100, "the connection never ends");
    }
}

#[test]
fn each_state_gives_up_after_its_number_of_tries() {
    for (label, role, state, out, first, tries, what) in [
        ("SYN", Role::Active, State::SynSent, 0, 1000, 6, Timeout::RepeatHandshake),
        ("SYN,ACK", Role::Passive, State::SynReceived, 0, 1000, 5, Timeout::RepeatHandshake),
        ("SYN,ACK, simultaneous", Role::Active, State::SynReceived, 0, 1000, 5, Timeout::RepeatHandshake),
        ("text", Role::Passive, State::Established, 100, 200, 15, Timeout::Retransmit),
        ("text after the peer's FIN", Role::Active, State::CloseWait, 100, 200, 15, Timeout::Retransmit),
        ("FIN", Role::Passive, State::FinWait1, 0, 200, 8, Timeout::Retransmit),
        ("FIN, simultaneous", Role::Passive, State::Closing, 0, 200, 8, Timeout::Retransmit),
        ("the second FIN", Role::Active, State::LastAck, 0, 200, 8, Timeout::Retransmit),
    ] {
        let (waits, timeouts) = give_up(World::in_state(role, u32::MAX, 0, state, out));
        assert_eq!(waits.len(), tries + 1, "{label}");
        for (number, wait) in waits.iter().enumerate() {
            assert_eq!(*wait, (first << number.min(20)).min(120_000), "{label}, wait {number}");
        }
        assert!(timeouts[..tries].iter().all(|timeout| *timeout == what), "{label}: {timeouts:?}");
        assert_eq!(timeouts[tries], Timeout::End(End::TimedOut), "{label}");
    }
}

#[test]
fn nothing_happens_before_its_time() {
    for state in State::ALL.into_iter().filter(|state| *state != State::Closed) {
        let mut world = World::in_state(Role::Active, 5, 6, state, 10);
        let (timer, wait) = world.timer();
        world.wait(wait.saturating_sub(1));
        assert_eq!(world.on_deadline(), Timeout::Nothing, "{state:?}");
        assert_eq!(world.tcb.timer().0, timer, "{state:?}");
    }
}

/// Returns the RTO after a round trip of `millis`. `again` retransmits the text, and `echo` is the age of the timestamp echo.
fn rto_after(mut world: World, millis: u32, again: bool, echo: Option<u32>) -> u32 {
    world.send(10, false);
    if again {
        assert_eq!(world.expire(), Timeout::Retransmit);
        world.send(10, false);
    }
    world.wait(millis);
    let timestamps = echo.map(|ago| Timestamps { value: 1, echo: world.now.0 - ago });
    let options = Options { timestamps, ..Options::NONE };
    assert_eq!(world.arrive(&Segment { ack: world.tcb.snd_nxt(), options, ..world.peer(ACK) }).acked, 10);
    world.send(10, false);
    world.timer().1
}

#[test]
fn round_trips_are_measured_by_the_timer_of_what_was_sent_once() {
    let plain = || World::established(Role::Passive, u32::MAX, 0, Options::NONE);
    assert_eq!(rto_after(plain(), 0, false, None), 200, "the minimum");
    assert!(rto_after(plain(), 150, false, None) >= 150);
    let slow = rto_after(plain(), 199, false, None);
    assert!((200..1000).contains(&slow), "{slow}");
    // Karn's rule: a retransmitted segment gives no sample, and the backoff stays.
    assert_eq!(rto_after(plain(), 199, true, None), 400);
}

#[test]
fn no_round_trip_is_taken_from_what_duplicates_sent_again() {
    let mut world = World::sender(0);
    let before = world.attach().rtt;
    world.send(5000, false);
    world.wait(150);
    for _ in 0..3 {
        world.duplicate_ack();
    }
    assert!(world.send(5000, false).contains(&(0, 1000, ACK, true)));
    world.wait(40);
    assert_eq!(world.acknowledge(5000).acked, 5000);
    assert_eq!(world.transfer.as_ref().unwrap().rtt, before);
}

#[test]
fn a_syn_that_comes_again_says_that_our_answer_may_be_lost() {
    for again in [false, true] {
        let mut world = World::half_open(Role::Passive, 0, 0, Options::NONE);
        world.wait(900);
        if again {
            let syn = Segment { seq: world.irs, ..world.peer(SYN) };
            assert_eq!(world.arrive(&syn).disposition, Disposition::RepeatHandshake);
        }
        world.wait(50);
        assert_eq!(world.arrive(&world.peer(ACK)).syn_was_lost, again);
        world.send(10, false);
        // Without a sample the RTO stays at its initial value.
        assert_eq!(world.timer().1 == 1000, again, "{:?}", world.timer());
    }
}

#[test]
fn round_trips_are_measured_by_timestamps_whatever_went_twice() {
    let options = Options { timestamps: Some(Timestamps { value: 1, echo: 0 }), ..Options::NONE };
    for again in [false, true] {
        let world = World::established(Role::Passive, u32::MAX, 0, options);
        let rto = rto_after(world, 5000, again, Some(4000));
        assert!((4000..6000).contains(&rto), "{rto}");
    }
}

#[test]
fn a_timeout_without_a_record_repairs_segment_by_segment() {
    for iss in BASES {
        let mut world = World::sender(iss);
        assert_eq!(world.send(3500, true).len(), 4);
        assert_eq!(world.expire(), Timeout::Retransmit);
        assert_eq!(world.send(3500, true), [(0, 1000, ACK, true)]);
        world.acknowledge(1000);
        assert_eq!(world.send(2500, true), [(0, 1000, ACK, true)]);
        world.acknowledge(2000);
        assert_eq!(world.send(500, true), [(0, 500, LAST, true)], "FIN is retransmitted on the last text");
        world.acknowledge(501);
        assert_eq!((world.tcb.state(), world.tcb.backoff()), (State::FinWait2, 0));
    }
}

#[test]
fn a_timeout_with_a_record_repairs_in_slow_start() {
    for iss in BASES {
        let mut world = World::sender(iss);
        world.attach();
        assert_eq!(world.send(6500, true).len(), 7);
        assert_eq!(world.expire(), Timeout::Retransmit);
        assert_eq!(world.send(6500, true), [(0, 1000, ACK, true)]);
        world.acknowledge(1000);
        assert_eq!(world.send(5500, true), [(0, 1000, ACK, true), (1000, 1000, ACK, true)]);
        world.acknowledge(5000);
        assert_eq!(world.send(500, true), [(0, 500, LAST, true)]);
        world.acknowledge(501);
        assert_eq!(world.tcb.state(), State::FinWait2);
        assert_eq!(world.transfer.as_ref().unwrap().recovery, Recovery::Open);
    }
}

#[test]
fn what_comes_late_is_not_sent_again() {
    let mut world = World::sender(3);
    world.attach();
    world.send(4000, false);
    world.expire();
    assert_eq!(world.send(4000, false).len(), 1);
    // All text had arrived: only the acknowledgements were lost.
    world.acknowledge(4000);
    assert_eq!(world.send(0, false), []);
    assert_eq!(world.timer().0, Timer::None);
}

#[test]
fn three_duplicates_send_the_first_again_and_partial_ones_the_next() {
    for iss in BASES {
        let mut world = World::sender(iss);
        world.attach();
        assert_eq!(world.send(8000, false).len(), 8);
        for number in 1..=3 {
            world.duplicate_ack();
            let expected = if number == 3 { &[(0, 1000, ACK, true)][..] } else { &[] };
            assert_eq!(world.send(8000, false), expected, "duplicate {number}");
        }
        assert_eq!(world.acknowledge(3000).acked, 3000);
        assert_eq!(world.send(5000, false)[0], (0, 1000, ACK, true), "a partial acknowledgement");
        world.acknowledge(5000);
        assert_eq!(world.send(0, false), []);
        assert_eq!(world.transfer.as_ref().unwrap().recovery, Recovery::Open);
    }
}

/// Returns a connection with SACK that has measured a round trip of 2 ms and has a transfer record.
fn reporter(iss: u32) -> World {
    let mut world = World::established(Role::Passive, iss, 9, Options { sack_permitted: true, ..MSS_1000 });
    world.send(100, false);
    world.wait(2);
    world.acknowledge(100);
    let una = world.tcb.snd_una();
    world.attach().attach_scoreboard(Box::new(Scoreboard::new(una)), una);
    world
}

/// The peer reports these segments beyond SND.UNA.
fn report(world: &mut World, ranges: &[(u32, u32)]) -> bool {
    let una = world.tcb.snd_una();
    let mut options = Options::NONE;
    for (start, end) in ranges {
        options.sack.push(una + start * 1000, una + end * 1000);
    }
    assert!(world.arrive(&Segment { options, ..world.peer(ACK) }).is_duplicate_ack);
    let now = world.now;
    world.tcp().on_duplicate_ack(&options.sack, now)
}

#[test]
fn every_reported_hole_is_sent_again_in_the_same_round_trip() {
    for iss in BASES {
        let mut world = reporter(iss);
        assert_eq!(world.send(8000, false).len(), 8);
        assert!(!report(&mut world, &[(1, 2)]));
        assert_eq!(world.send(8000, false), []);
        assert!(report(&mut world, &[(5, 8), (1, 3)]));
        assert_eq!(
            world.send(8000, false)[..],
            [(0, 1000, ACK, true), (3000, 1000, ACK, true), (4000, 1000, ACK, true)]
        );
        assert_eq!(world.acknowledge(8000).acked, 8000);
        let transfer = world.transfer.as_ref().unwrap();
        assert_eq!((transfer.recovery, transfer.congestion_window), (Recovery::Open, 5600));
    }
}

/// Proportional rate reduction: 7 segments for 10 that have left the network, and not a pause of half a round trip.
#[test]
fn a_recovery_sends_as_reports_come_in() {
    let mut world = reporter(1);
    world.send(1000, false);
    world.acknowledge(1000);
    world.tcb.snd_wnd = WireWindow(60_000);
    world.transfer.as_mut().unwrap().congestion_window = 20_000;
    assert_eq!(world.send(60_000, false).len(), 20);
    let options = |world: &World, end: u32| {
        let mut options = Options::NONE;
        options.sack.push(world.tcb.snd_una() + 1000, world.tcb.snd_una() + 1000 * end);
        options
    };
    let sent: Vec<usize> = (2..=20)
        .map(|end| {
            let (blocks, now) = (options(&world, end).sack, world.now);
            world.tcp().on_duplicate_ack(&blocks, now);
            world.send(60_000, false).len()
        })
        .collect();
    // Limited transmit, the retransmission, then the share.
    assert_eq!(sent[..3], [1, 1, 1]);
    assert!(sent[3..].iter().all(|count| *count <= 1), "{sent:?}");
    assert!((12..=15).contains(&sent.iter().sum::<usize>()), "{sent:?}");
}

/// The probe counts from the retransmission: reports that came for a whole round trip do not shorten its wait.
#[test]
fn a_recovery_starts_the_timer_anew() {
    let mut world = reporter(1);
    assert_eq!(world.send(8000, false).len(), 8);
    world.wait(9);
    report(&mut world, &[(1, 5)]);
    assert_eq!(world.timer(), (Timer::Retransmit, 10));
}

/// The pool of scoreboards may be used up.
#[test]
fn without_a_scoreboard_three_duplicates_recover() {
    let mut world = reporter(1);
    world.transfer.as_mut().unwrap().detach_scoreboard();
    assert_eq!(world.send(8000, false).len(), 8);
    assert_eq!([2, 3, 4].map(|end| report(&mut world, &[(1, end)])), [false, false, true]);
    assert_eq!(world.send(8000, false)[0], (0, 1000, ACK, true));
}

#[test]
fn the_last_segment_goes_again_two_round_trips_after_the_flight() {
    let mut world = reporter(1);
    assert_eq!(world.send(3500, false).len(), 4);
    assert_eq!(world.timer(), (Timer::Retransmit, 10), "the shortest wait");
    assert_eq!(world.expire(), Timeout::TailLossProbe);
    assert_eq!(world.send(3500, false), [(2500, 1000, PSH_ACK, true)]);
    // One probe, then the ordinary timeout.
    assert_eq!(world.timer(), (Timer::Retransmit, 200));
    // The probe shows a hole, which is repaired at once.
    assert!(report(&mut world, &[(2, 3)]));
    assert_eq!(world.send(3500, false)[0], (0, 1000, ACK, true));
    world.acknowledge(3500);
    assert_eq!((world.timer().0, world.transfer.as_ref().unwrap().recovery), (Timer::None, Recovery::Open));
}

/// The peer reports a probe that was not needed as a duplicate (RFC 2883), below SND.UNA.
#[test]
fn a_probe_that_repaired_a_loss_shrinks_the_window_as_any_loss_does() {
    for (duplicate, expected) in [(false, 14_000), (true, 22_000)] {
        let mut world = reporter(1);
        world.tcb.snd_wnd = WireWindow(30_000);
        world.send(1000, false);
        world.acknowledge(1000);
        world.tcb.snd_wnd = WireWindow(30_000);
        world.transfer.as_mut().unwrap().congestion_window = 20_000;
        assert_eq!(world.send(20_000, false).len(), 20);
        assert_eq!(world.expire(), Timeout::TailLossProbe);
        assert_eq!(world.send(20_000, false), [(19_000, 1000, PSH_ACK, true)]);
        let (una, nxt) = (world.tcb.snd_una(), world.tcb.snd_nxt());
        let mut options = Options::NONE;
        if duplicate {
            options.sack.push(una + 19_000, nxt);
        }
        world.accept(&Segment { ack: nxt, options, ..world.peer(ACK) });
        assert_eq!(world.transfer.as_ref().unwrap().congestion_window, expected);
    }
}

#[test]
fn a_probe_prefers_new_text() {
    let mut world = reporter(1);
    assert_eq!(world.send(2000, false).len(), 2);
    assert_eq!(world.expire(), Timeout::TailLossProbe);
    assert_eq!(world.send(2500, false), [(2000, 500, PSH_ACK, false)]);
}

#[test]
fn a_silent_recovery_repeats_its_first_hole() {
    let mut world = reporter(1);
    assert_eq!(world.send(8000, false).len(), 8);
    report(&mut world, &[(1, 5)]);
    assert_eq!(world.send(8000, false), [(0, 1000, ACK, true)]);
    world.wait(10);
    assert_eq!(world.on_deadline(), Timeout::TailLossProbe);
    assert_eq!(world.send(8000, false), [(0, 1000, ACK, true)]);
    assert_eq!(world.expire(), Timeout::Retransmit);
    assert_eq!(world.send(8000, false), [(0, 1000, ACK, true)]);
    world.acknowledge(5000);
    assert_eq!(world.send(3000, false), [(0, 1000, ACK, true), (1000, 1000, ACK, true)]);
}

#[test]
fn after_a_pause_the_first_window_is_all_that_may_go() {
    let mut world = reporter(1);
    world.send(1000, false);
    world.acknowledge(1000);
    world.transfer.as_mut().unwrap().congestion_window = 1_000_000;
    world.tcb.snd_wnd = WireWindow(60_000);
    assert_eq!(world.send(60_000, false).len(), 60);
    world.acknowledge(60_000);
    world.tcb.snd_wnd = WireWindow(60_000);
    world.wait(3000);
    assert_eq!(world.send(60_000, false).len(), 10);
}

/// A sender that pauses by itself learns nothing of the path (RFC 7661).
#[test]
fn a_window_that_is_not_used_does_not_grow() {
    let mut world = reporter(1);
    let window = |world: &World| world.transfer.as_ref().unwrap().congestion_window;
    assert_eq!(window(&world), 10_000);
    for _ in 0..100 {
        world.send(1000, false);
        world.acknowledge(1000);
    }
    assert!(window(&world) <= 11_000, "{}", window(&world));
}

/// The number that tells old duplicates from new ones must follow SND.UNA in a transfer without loss.
#[test]
fn fast_retransmit_works_after_gigabytes_without_a_loss() {
    let mut world = World::sender(5);
    let mut una = world.tcb.snd_una();
    let transfer = world.attach();
    for _ in 0..5 {
        una += 1 << 29;
        transfer.on_ack(1000, una, 10_000, 1000, false, Millis(0));
    }
    let duplicates = [(); 3].map(|()| transfer.on_duplicate_ack(&SackBlocks::NONE, una, una + 10_000, 1000));
    assert_eq!(duplicates, [false, false, true]);
}
