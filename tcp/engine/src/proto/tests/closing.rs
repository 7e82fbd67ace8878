//! The close in both roles, and the segments that each side still takes and sends meanwhile.

use super::*;

const LINGER: (Timer, u32) = (Timer::Linger, 60_000);

#[test]
fn four_way_close_from_either_side() {
    for (role, iss, irs) in everywhere() {
        let mut first = World::established(role, iss, irs, Options::NONE);
        assert_eq!(first.send(0, true), [(0, 0, FIN_ACK, false)]);
        assert_eq!(first.tcb.state(), State::FinWait1);
        assert_eq!(first.acknowledge(1).acked, 0, "a FIN is no byte of the stream");
        assert_eq!((first.tcb.state(), first.timer()), (State::FinWait2, LINGER));
        first.peer_closes();
        assert_eq!((first.tcb.state(), first.timer()), (State::TimeWait, LINGER));
        assert_eq!(first.expire(), Timeout::End(End::Closed));

        let mut second = World::established(role, iss, irs, Options::NONE);
        second.peer_closes();
        assert_eq!((second.tcb.state(), second.timer().0), (State::CloseWait, Timer::None));
        assert_eq!(second.send(0, true), [(0, 0, FIN_ACK, false)]);
        assert_eq!((second.tcb.state(), second.timer().0), (State::LastAck, Timer::Retransmit));
        assert_eq!(second.acknowledge(1).disposition, Disposition::End(End::Closed));
    }
}

#[test]
fn simultaneous_close() {
    for (role, iss, irs) in everywhere() {
        let mut world = World::in_state(role, iss, irs, State::Closing, 10);
        assert_eq!(world.timer().0, Timer::Retransmit, "our FIN is in flight");
        assert_eq!(world.acknowledge(10).acked, 10);
        assert_eq!(world.tcb.state(), State::Closing);
        assert_eq!(world.acknowledge(1).acked, 0);
        assert_eq!((world.tcb.state(), world.timer()), (State::TimeWait, LINGER));
    }
}

#[test]
fn a_fin_that_acknowledges_ours_skips_fin_wait_2() {
    for (role, iss, irs) in everywhere() {
        let mut world = World::in_state(role, iss, irs, State::FinWait1, 10);
        let fin = Segment { ack: world.tcb.snd_nxt(), ..world.peer(FIN_ACK) };
        let arrival = world.accept(&fin);
        assert_eq!((arrival.acked, arrival.fin), (10, Some(fin.seq)));
        world.receive_fin(fin.seq);
        assert_eq!((world.tcb.state(), world.timer()), (State::TimeWait, LINGER));
        assert!(world.tcb.ack_is_pending());
    }
}

#[test]
fn text_goes_on_after_the_peer_has_closed() {
    for (role, iss, irs) in everywhere() {
        let mut world = World::in_state(role, iss, irs, State::CloseWait, 0);
        assert_eq!(world.send(5, false).len(), 1);
        assert_eq!(world.acknowledge(5).acked, 5);
        assert_eq!(world.tcb.state(), State::CloseWait);
        // The acknowledgement of the peer's FIN was lost: the peer retransmits the FIN.
        let fin = Segment { seq: world.tcb.rcv_nxt() - 1, ..world.peer(FIN_ACK) };
        assert_eq!(world.arrive(&fin).disposition, Disposition::Acknowledge);
        // Text after the peer's FIN is ignored.
        assert_eq!(world.accept(&Segment { text_len: 5, ..world.peer(ACK) }).text, None);
    }
}

#[test]
fn text_and_fin_are_received_until_the_peer_closes() {
    for (role, iss, irs) in everywhere() {
        for state in [State::FinWait1, State::FinWait2] {
            let mut world = World::in_state(role, iss, irs, state, 0);
            let text = Segment { text_len: 5, ..world.peer(FIN_ACK) };
            let arrival = world.arrive(&text);
            assert_eq!(arrival.text, Some(Text { seq: text.seq, skip: 0, len: 5 }), "{state:?}");
            assert_eq!(arrival.fin, Some(text.seq + 5), "{state:?}");
            assert!(world.receive(5), "{state:?}: acknowledged at once");
        }
    }
}

/// Text shows that the peer is alive: FIN-WAIT-2 ends after 60 s of silence.
#[test]
fn fin_wait_2_ends_after_silence_only() {
    for (role, iss, irs) in everywhere() {
        let mut world = World::in_state(role, iss, irs, State::FinWait2, 0);
        for _ in 0..5 {
            world.wait(50_000);
            world.accept(&Segment { text_len: 5, ..world.peer(ACK) });
            assert!(world.receive(5));
            world.tcb.ack_sent();
            assert_eq!(world.timer(), LINGER);
        }
        assert_eq!(world.expire(), Timeout::End(End::TimedOut));
    }
}

#[test]
fn time_wait_answers_a_repeated_fin_and_starts_again() {
    for (role, iss, irs) in everywhere() {
        let mut world = World::in_state(role, iss, irs, State::TimeWait, 0);
        for (label, waited, back, text_len, left) in [
            ("FIN alone", 40_000, 1, 0, 60_000),
            ("FIN behind text", 40_000, 11, 10, 60_000),
            ("a FIN with another number does not prolong TIME-WAIT", 1000, 2, 0, 59_000),
        ] {
            world.wait(waited);
            let fin = Segment { seq: world.tcb.rcv_nxt() - back, text_len, ..world.peer(FIN_ACK) };
            assert_eq!(world.arrive(&fin).disposition, Disposition::Acknowledge, "{label}");
            assert_eq!(world.timer(), (Timer::Linger, left), "{label}");
        }
    }
}

#[test]
fn time_wait_gives_way_to_a_new_syn_only() {
    let at = |value| Some(Timestamps { value, echo: 0 });
    for (role, iss, irs) in everywhere() {
        let plain = World::in_state(role, iss, irs, State::TimeWait, 0);
        let mut stamped =
            World::established(role, iss, irs, Options { timestamps: at(5000), ..Options::NONE });
        stamped.send(0, true);
        stamped.acknowledge(1);
        stamped.peer_closes();
        for (label, world, seq, flags, timestamps, reopens) in [
            ("a later number", &plain, 1, SYN, None, true),
            ("a number far later", &plain, 0x7fff_0000, SYN, None, true),
            ("the next number", &plain, 0, SYN, None, false),
            ("an old number", &plain, 0x8000_0001, SYN, None, false),
            ("an old number, a timestamp that was not negotiated", &plain, -9_i32 as u32, SYN, at(1), false),
            ("an old number, a later timestamp", &stamped, -9_i32 as u32, SYN, at(5001), true),
            ("an old number, an equal timestamp", &stamped, -9_i32 as u32, SYN, at(5000), false),
            ("a new number, an old timestamp", &stamped, 9, SYN, at(4999), false),
            ("an old number, an old timestamp", &stamped, -9_i32 as u32, SYN, at(4999), false),
            ("SYN,ACK", &plain, 1, SYN_ACK, None, false),
        ] {
            let mut world = world.clone();
            let segment = Segment {
                seq: world.tcb.rcv_nxt() + seq,
                options: Options { timestamps, ..Options::NONE },
                ..world.peer(flags)
            };
            let expected = if reopens { Disposition::Reopen } else { Disposition::Acknowledge };
            assert_eq!(world.arrive(&segment).disposition, expected, "{label}, {role:?}, {iss}, {irs}");
            assert_eq!(world.timer().1, 60_000, "{label}");
        }
    }
}
