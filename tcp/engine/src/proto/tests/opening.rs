//! The handshake: the options that each side offers, and the values that both agree on.

use super::*;

const PEER: Options = Options {
    mss: Some(1400),
    window_scale: Some(3),
    sack_permitted: true,
    timestamps: Some(Timestamps { value: 900, echo: 0 }),
    ..Options::NONE
};

/// Returns the options of our SYN, or of our SYN,ACK for a peer that offers all of them.
fn ours(echo: u32) -> Options {
    let timestamps = Some(Timestamps { value: NOW.0, echo });
    Options { mss: Some(1460), window_scale: Some(7), timestamps, ..PEER }
}

fn header(world: &World, outgoing: &Outgoing) -> Segment {
    let now = world.now;
    world.clone().tcp().segment(outgoing, || ENVIRONMENT.local_mss, || SackBlocks::NONE, now)
}

#[test]
fn a_syn_offers_everything() {
    let world = World::half_open(Role::Active, 7, 0, Options::NONE);
    let syn = header(&world, &world.tcb.handshake());
    let expected = Segment { options: ours(0), ..segment(SeqNum(7), SeqNum(0), SYN, 65535) };
    assert_eq!(syn, expected);
    assert_eq!(world.timer(), (Timer::Retransmit, 1000));
}

#[test]
fn a_syn_ack_agrees_to_what_is_offered() {
    let ours = ours(900);
    for (label, offered, expected) in [
        ("all", PEER, ours),
        ("nothing", Options::NONE, Options { mss: Some(1460), ..Options::NONE }),
        ("no scale", Options { window_scale: None, ..PEER }, Options { window_scale: None, ..ours }),
        ("scale of 0", Options { window_scale: Some(0), ..PEER }, ours),
        ("no SACK", Options { sack_permitted: false, ..PEER }, Options { sack_permitted: false, ..ours }),
        ("no timestamps", Options { timestamps: None, ..PEER }, Options { timestamps: None, ..ours }),
        ("no MSS", Options { mss: None, ..PEER }, ours),
    ] {
        let world = World::half_open(Role::Passive, 7, u32::MAX, offered);
        let syn_ack = header(&world, &world.tcb.handshake());
        let expected = Segment { options: expected, ..segment(SeqNum(7), SeqNum(0), SYN_ACK, 65535) };
        assert_eq!(syn_ack, expected, "{label}");
    }
}

#[test]
fn segments_are_as_large_as_both_sides_allow() {
    let stamped = PEER.timestamps;
    for role in [Role::Passive, Role::Active] {
        for (mss, timestamps, expected) in [
            (None, None, 536),
            (Some(1400), None, 1400),
            (Some(1400), stamped, 1388),
            (Some(1460), stamped, 1448),
            (Some(9000), None, 1460),
            (Some(1), None, 48),
            (Some(1), stamped, 36),
            (Some(u16::MAX), stamped, 1448),
        ] {
            let world = World::established(role, 1, 2, Options { mss, timestamps, ..Options::NONE });
            assert_eq!(world.tcb.mss(), expected, "{role:?}: {mss:?} {timestamps:?}");
        }
    }
}

#[test]
fn windows_are_scaled_after_the_handshake_only() {
    for role in [Role::Passive, Role::Active] {
        for (label, shift, in_syn, later, ours) in [
            ("no scale", None, 8000, 9, 65535),
            ("scale of 0", Some(0), 8000, 9, 512),
            ("scale of 3", Some(3), 8000, 72, 512),
            ("the largest scale", Some(14), 1 << 14, 9 << 14, 512),
            ("a scale of 15 counts as the largest", Some(15), 1 << 14, 9 << 14, 512),
            ("a scale of 255 counts as the largest", Some(255), 1 << 14, 9 << 14, 512),
        ] {
            let options = Options { window_scale: shift, ..PEER };
            let mut world = World::half_open(role, 1, 2, options);
            if role == Role::Active {
                world.arrive(&Segment { options, ..world.peer(SYN_ACK) });
            }
            assert_eq!(world.tcb.snd_wnd(), in_syn, "{role:?}, {label}");
            world.offer(9);
            assert_eq!(world.tcb.snd_wnd(), later, "{role:?}, {label}");
            assert_eq!(header(&world, &world.tcb.bare_ack()).window, WireWindow(ours), "{role:?}, {label}");
        }
    }
}

#[test]
fn every_segment_echoes_the_latest_timestamp_in_order() {
    let mut world = World::established(Role::Passive, 1, u32::MAX - 2, PEER);
    let arrive = |world: &mut World, value, text_len, seq: u32| {
        let options = Options { timestamps: Some(Timestamps { value, echo: NOW.0 }), ..Options::NONE };
        world.arrive(&Segment { seq: world.tcb.rcv_nxt() + seq, text_len, options, ..world.peer(ACK) });
    };
    let echo = |world: &World| header(world, &world.tcb.bare_ack()).options.timestamps.unwrap();
    for (label, value, seq, expected) in [
        ("in order", 1000, 0, 1000),
        ("out of order: not echoed", 1010, 5, 1000),
        ("older: not echoed", 999, 0, 1000),
        ("equal", 1000, 0, 1000),
        ("far later", 1000 + (1 << 31) - 1, 0, 1000 + (1 << 31) - 1),
        ("behind the wrap", 12, 0, 12),
    ] {
        arrive(&mut world, value, 0, seq);
        assert_eq!(echo(&world), Timestamps { value: world.now.0, echo: expected }, "{label}");
    }
    // An acknowledgement of several segments echoes the first of them (RFC 7323 section 4.3, A).
    arrive(&mut world, 100, 10, 0);
    assert!(!world.receive(10), "the first acknowledgement may wait");
    arrive(&mut world, 200, 10, 0);
    assert!(world.receive(10), "the second is sent at once");
    assert_eq!(echo(&world).echo, 100);
    world.tcb.ack_sent();
    arrive(&mut world, 300, 0, 0);
    assert_eq!(echo(&world).echo, 300);
}

#[test]
fn without_timestamps_none_are_sent_and_none_believed() {
    let mut world = World::established(Role::Passive, 1, 2, Options::NONE);
    let stamped = Options { timestamps: Some(Timestamps { value: 1, echo: 1 }), ..Options::NONE };
    world.accept(&Segment { options: stamped, ..world.peer(ACK) });
    assert_eq!(header(&world, &world.tcb.bare_ack()).options, Options::NONE);
}

/// Each side sends SYN, then SYN,ACK, and answers the SYN,ACK with the ACK that the other needs (RFC 9293 figure 7).
#[test]
fn simultaneous_open_ends_established_on_both_sides() {
    for iss in BASES {
        for irs in BASES {
            let mut ends = [(iss, irs), (irs, iss)]
                .map(|(iss, irs)| World::half_open(Role::Active, iss, irs, Options::NONE));
            for (syn, expected) in [
                (true, Disposition::RepeatHandshake),
                (true, Disposition::Acknowledge),
                (false, Disposition::Accepted),
            ] {
                let segments = ends.each_ref().map(|end| {
                    let outgoing = if syn { end.tcb.handshake() } else { end.tcb.bare_ack() };
                    header(end, &outgoing)
                });
                for end in [0, 1] {
                    assert_eq!(ends[end].arrive(&segments[1 - end]).disposition, expected);
                }
            }
            for end in [0, 1] {
                assert_eq!(ends[end].tcb.state(), State::Established);
                assert_eq!(ends[end].tcb.flight(), 0);
            }
        }
    }
}
