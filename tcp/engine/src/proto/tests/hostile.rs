//! Arbitrary segments around the window: none causes a panic, and no byte is received twice or out of order.

use proptest::prelude::*;

use super::*;

/// Draws distances near the edges of the window more often than others.
fn distance() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => -3_i32..4,
        2 => -2000_i32..2000,
        1 => 65_533_i32..65_540,
        1 => any::<i32>(),
    ]
    .prop_map(|distance| distance as u32)
}

#[derive(Clone, Debug)]
enum Event {
    Segment { flags: u8, seq: u32, ack: u32, text_len: u16, window: u16, stamp: Option<(u32, u32)> },
    Send { bytes: u64, fin: bool },
    Deadline,
    Wait(u32),
}

fn event() -> impl Strategy<Value = Event> {
    let text = prop_oneof![Just(0_u16), 1_u16..2000, Just(u16::MAX)];
    let window = prop_oneof![Just(0_u16), any::<u16>()];
    let stamp = prop::option::of((any::<u32>(), any::<u32>()));
    // Most segments have ACK: the connection drops those without.
    let flags = prop_oneof![Just(Flags::ACK.0), (0_u8..64).prop_map(|flags| flags | Flags::ACK.0), 0_u8..64];
    prop_oneof![
        8 => (flags, distance(), distance(), text, window, stamp).prop_map(
            |(flags, seq, ack, text_len, window, stamp)| Event::Segment { flags, seq, ack, text_len, window, stamp }
        ),
        2 => (0_u64..20_000, any::<bool>()).prop_map(|(bytes, fin)| Event::Send { bytes, fin }),
        1 => Just(Event::Deadline),
        1 => (0_u32..100_000).prop_map(Event::Wait),
    ]
}

fn state() -> impl Strategy<Value = State> {
    prop::sample::select(&State::ALL[1..])
}

fn run(mut world: World, with_record: bool, events: Vec<Event>) -> Result<(), TestCaseError> {
    if with_record && !world.tcb.state().is_half_open() {
        world.attach();
    }
    // Bytes of our stream from SND.UNA on.
    let mut stream = u64::from(world.tcb.flight());
    for event in events {
        let before = world.clone();
        match event {
            Event::Segment { flags, seq, ack, text_len, window, stamp } => {
                let segment = Segment {
                    seq: before.tcb.rcv_nxt() + seq,
                    ack: before.tcb.snd_una() + ack,
                    flags: Flags(flags),
                    window: WireWindow(window),
                    text_len,
                    options: Options {
                        timestamps: stamp.map(|(value, echo)| Timestamps { value, echo }),
                        ..Options::NONE
                    },
                };
                let arrival = world.arrive(&segment);
                if before.tcb.state() != State::SynSent {
                    prop_assert_eq!(world.tcb.rcv_nxt(), before.tcb.rcv_nxt());
                }
                prop_assert_eq!(world.tcb.snd_nxt(), before.tcb.snd_nxt());
                prop_assert!(arrival.acked <= before.tcb.flight());
                prop_assert!(world.tcb.flight() <= before.tcb.flight(), "SND.UNA only goes forward");
                stream = stream.saturating_sub(u64::from(arrival.acked));
                match arrival.disposition {
                    Disposition::End(_) | Disposition::Reopen => return Ok(()),
                    Disposition::Accepted => {}
                    _ => prop_assert!(arrival.text.is_none() && arrival.fin.is_none() && arrival.acked == 0),
                }
                if let Some(text) = arrival.text {
                    let window = before.clone().tcp().rcv_wnd();
                    prop_assert_eq!(segment.seq + u32::from(text.skip), text.seq);
                    prop_assert!(text.len > 0 && text.skip + text.len <= text_len);
                    // All of it lies between RCV.NXT and the window's right edge.
                    let at = text.seq - world.tcb.rcv_nxt();
                    prop_assert!(at < window && at + u32::from(text.len) <= window);
                    if at == 0 && world.receive(u32::from(text.len)) {
                        world.tcb.ack_sent();
                    }
                }
                if let Some(fin) = arrival.fin
                    && fin == world.tcb.rcv_nxt()
                {
                    world.receive_fin(fin);
                    world.tcb.ack_sent();
                    prop_assert!(world.tcb.state().peer_has_closed());
                }
                if arrival.is_duplicate_ack {
                    let now = world.now;
                    world.tcp().on_duplicate_ack(&SackBlocks::NONE, now);
                }
            }
            Event::Send { bytes, fin } => {
                stream = stream.max(u64::from(world.tcb.flight())).max(bytes);
                let fin = fin || world.tcb.state().fin_is_out();
                if world.tcb.state().fin_is_out() {
                    stream = u64::from(world.tcb.flight().saturating_sub(1));
                }
                let limit = world.tcb.snd_wnd().max(before.tcb.flight()).max(1);
                let sent = world.send(stream, fin);
                prop_assert!(world.tcb.flight() <= limit + u32::from(fin));
                prop_assert!(sent.iter().all(|(_, len, ..)| *len <= world.tcb.mss()));
            }
            Event::Deadline => {
                if matches!(world.expire(), Timeout::End(_)) {
                    return Ok(());
                }
            }
            Event::Wait(millis) => world.wait(millis),
        }
        if world.tcb.flight() > 0 {
            prop_assert_eq!(world.tcb.timer().0, Timer::Retransmit, "data in flight has a timer");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn nothing_a_peer_sends_breaks_the_connection(
        iss: u32,
        irs: u32,
        active: bool,
        state in state(),
        out in 0_u64..3000,
        with_record: bool,
        events in prop::collection::vec(event(), 0..40),
    ) {
        let role = if active { Role::Active } else { Role::Passive };
        run(World::in_state(role, iss, irs, state, out), with_record, events)?;
    }
}
