//! SEGMENT ARRIVES, section 3.10.7: one label a rule.

use super::*;
use crate::proto::segment_arrives::refusal;
use crate::stats::DropReason;

/// A segment by its distances: `seq` from RCV.NXT (from IRS in SYN-SENT), `ack` from SND.UNA.
#[derive(Clone, Copy)]
struct Seg {
    flags: Flags,
    seq: i64,
    ack: i64,
    text: u16,
    window: u16,
}

const fn seg(flags: Flags) -> Seg {
    Seg { flags, seq: 0, ack: 0, text: 0, window: WINDOW }
}

impl Seg {
    const fn seq(self, seq: i64) -> Self {
        Self { seq, ..self }
    }
    const fn ack(self, ack: i64) -> Self {
        Self { ack, ..self }
    }
    const fn text(self, text: u16) -> Self {
        Self { text, ..self }
    }
    const fn window(self, window: u16) -> Self {
        Self { window, ..self }
    }
}

/// What is to become of it. `Refused` is the RST of section 3.10.7.1.
#[derive(Clone, Copy)]
enum Verdict {
    Accepted,
    Acknowledge,
    RepeatHandshake,
    Refused,
    End(End),
    Reopen,
    Drop(DropReason),
}

#[derive(Clone, Copy)]
struct Expect {
    verdict: Verdict,
    /// The state afterwards; none for the same.
    state: Option<State>,
    acked: u32,
    duplicate: bool,
    must_acknowledge: bool,
    /// Distance of its first byte from RCV.NXT, bytes skipped, bytes taken.
    text: Option<(u32, u16, u16)>,
    /// Distance of FIN from RCV.NXT.
    fin: Option<u32>,
    /// The timer afterwards, and in how many ms it is due; none for the same.
    timer: Option<(Timer, u32)>,
    /// SND.WND afterwards; none for the same.
    window: Option<u32>,
}

const fn expect(verdict: Verdict) -> Expect {
    Expect {
        verdict,
        state: None,
        acked: 0,
        duplicate: false,
        must_acknowledge: false,
        text: None,
        fin: None,
        timer: None,
        window: None,
    }
}

const OK: Expect = expect(Verdict::Accepted);
const CHALLENGE: Expect = expect(Verdict::Acknowledge);
const REFUSED: Expect = expect(Verdict::Refused);
const RESET: Expect = expect(Verdict::End(End::ResetByPeer));
const STRAY_RST: Expect = expect(Verdict::Drop(DropReason::RstOutOfWindow));
const NO_ACK: Expect = expect(Verdict::Drop(DropReason::NoAck));
const RTO: Timer = Timer::Retransmit;

/// Where a table starts: the state, text that is out, bytes that the service has not taken (65,536 shut the window).
#[derive(Clone, Copy)]
struct From {
    state: State,
    out: u64,
    held: u32,
}

const fn from(state: State) -> From {
    From { state, out: 0, held: 0 }
}

fn distant(from: SeqNum, distance: i64) -> SeqNum {
    SeqNum(from.0.wrapping_add(distance as u32))
}

/// Runs each rule from its own start, in both roles and all bases. The segment arrives 100 ms after the rest.
fn check(from: From, rules: &[(&str, Seg, Expect)]) {
    for role in [Role::Passive, Role::Active] {
        for iss in BASES {
            for irs in BASES {
                for (label, given, expected) in rules {
                    let label = format!("{}: {label} ({role:?}, ISS {iss}, IRS {irs})", from.state.name());
                    check_one(&label, role, iss, irs, from, *given, expected);
                }
            }
        }
    }
}

fn check_one(label: &str, role: Role, iss: u32, irs: u32, from: From, given: Seg, expected: &Expect) {
    let mut world = World::in_state(role, iss, irs, from.state, from.out);
    world.wait(100);
    if from.held > 0 {
        world.attach();
        world.transfer.as_mut().unwrap().held_bytes = from.held;
    }
    let start = if from.state == State::SynSent { world.irs } else { world.tcb.rcv_nxt() };
    let segment = Segment {
        seq: distant(start, given.seq),
        ack: if given.flags.has(ACK) { distant(world.tcb.snd_una(), given.ack) } else { SeqNum(0) },
        flags: given.flags,
        window: WireWindow(given.window),
        text_len: given.text,
        ..Segment::default()
    };
    let before = world.clone();
    let arrival = world.arrive(&segment);
    let disposition = match expected.verdict {
        Verdict::Accepted => Disposition::Accepted,
        Verdict::Acknowledge => Disposition::Acknowledge,
        Verdict::RepeatHandshake => Disposition::RepeatHandshake,
        Verdict::Refused => Disposition::Refuse,
        Verdict::End(end) => Disposition::End(end),
        Verdict::Reopen => Disposition::Reopen,
        Verdict::Drop(reason) => Disposition::Drop(reason),
    };
    if disposition == Disposition::Refuse {
        let reset = if given.flags.has(ACK) {
            Segment { seq: segment.ack, flags: RST, ..Segment::default() }
        } else {
            Segment { ack: segment.end(), flags: RST_ACK, ..Segment::default() }
        };
        assert_eq!(refusal(&segment), Some(reset));
    }
    let expected_arrival = Arrival {
        syn_was_lost: false,
        disposition,
        acked: expected.acked,
        is_duplicate_ack: expected.duplicate,
        must_acknowledge: expected.must_acknowledge,
        text: expected.text.map(|(at, skip, len)| Text { seq: start + at, skip, len }),
        fin: expected.fin.map(|at| start + at),
    };
    assert_eq!(arrival, expected_arrival, "{label}");
    assert_eq!(world.tcb.state(), expected.state.unwrap_or(from.state), "{label}");
    assert_eq!(world.timer(), expected.timer.unwrap_or(before.timer()), "{label}");
    assert_eq!(world.tcb.snd_wnd(), expected.window.unwrap_or(before.tcb.snd_wnd()), "{label}");
    assert_eq!(world.tcb.snd_nxt(), before.tcb.snd_nxt(), "{label}");
    if from.state != State::SynSent {
        assert_eq!(world.tcb.rcv_nxt(), before.tcb.rcv_nxt(), "{label}: nothing is received by judging");
    }
    let untouched = expected.state.is_none() && expected.timer.is_none();
    if untouched && !matches!(expected.verdict, Verdict::Accepted | Verdict::RepeatHandshake) {
        assert_eq!(
            format!("{:?}", world.tcb),
            format!("{:?}", before.tcb),
            "{label}: the connection is as before"
        );
    }
}

#[test]
fn closed() {
    let seg = Segment { seq: SeqNum(u32::MAX - 4), ack: SeqNum(77), text_len: 10, ..Segment::default() };
    let rst =
        |seq, ack, flags| Some(Segment { seq: SeqNum(seq), ack: SeqNum(ack), flags, ..Segment::default() });
    for (label, flags, expected) in [
        ("RST -> nothing", RST, None),
        ("RST with ACK -> nothing", RST_ACK, None),
        ("ACK -> RST with its number", ACK, rst(77, 0, RST)),
        ("SYN,ACK -> RST with its number", SYN_ACK, rst(77, 0, RST)),
        ("FIN,ACK -> RST with its number", FIN_ACK, rst(77, 0, RST)),
        ("SYN -> RST that acknowledges SYN and text", SYN, rst(0, 6, RST_ACK)),
        ("text alone -> RST that acknowledges it", Flags::PSH, rst(0, 5, RST_ACK)),
        ("SYN and FIN -> both are counted", SYN.with(Flags::FIN), rst(0, 7, RST_ACK)),
    ] {
        assert_eq!(refusal(&Segment { flags, ..seg }), expected, "{label}");
    }
}

#[test]
fn syn_sent() {
    let opened =
        Expect { state: Some(State::Established), timer: Some((Timer::None, 0)), window: Some(8000), ..OK };
    check(
        from(State::SynSent),
        &[
            ("ACK of nothing sent -> RST with its number", seg(ACK).ack(0), REFUSED),
            ("ACK beyond what was sent -> RST with its number", seg(ACK).ack(2), REFUSED),
            ("SYN,ACK of nothing sent -> RST with its number", seg(SYN_ACK).ack(0), REFUSED),
            ("SYN,ACK of an old connection -> RST with its number", seg(SYN_ACK).ack(-5000), REFUSED),
            (
                "RST with a bad ACK -> dropped",
                seg(RST_ACK).ack(0),
                expect(Verdict::Drop(DropReason::NoConnection)),
            ),
            ("RST with our ACK -> the connection is refused", seg(RST_ACK).ack(1), RESET),
            ("RST without ACK -> dropped", seg(RST), STRAY_RST),
            ("ACK of our SYN without SYN -> dropped", seg(ACK).ack(1), NO_ACK),
            ("FIN,ACK of our SYN without SYN -> dropped", seg(FIN_ACK).ack(1), NO_ACK),
            ("text without SYN and ACK -> dropped", seg(Flags::PSH).text(5), NO_ACK),
            ("SYN,ACK -> ESTABLISHED", seg(SYN_ACK).ack(1), opened),
            ("SYN,ACK with text: the text is sent again later", seg(SYN_ACK).ack(1).text(9), opened),
            (
                "SYN -> SYN-RECEIVED, SYN,ACK (simultaneous open)",
                seg(SYN),
                Expect {
                    state: Some(State::SynReceived),
                    timer: Some((RTO, 1000)),
                    window: Some(8000),
                    ..expect(Verdict::RepeatHandshake)
                },
            ),
        ],
    );
}

#[test]
fn syn_received() {
    let opened = Expect { state: Some(State::Established), timer: Some((Timer::None, 0)), ..OK };
    check(
        from(State::SynReceived),
        &[
            ("old duplicate SYN -> SYN,ACK again", seg(SYN).seq(-1), expect(Verdict::RepeatHandshake)),
            (
                "SYN,ACK of a simultaneous open -> ACK, never SYN,ACK again",
                seg(SYN_ACK).seq(-1).ack(1),
                CHALLENGE,
            ),
            ("another SYN in the window -> ACK", seg(SYN).seq(100), CHALLENGE),
            ("another SYN before the window -> ACK", seg(SYN).seq(-100), CHALLENGE),
            ("RST with the next number -> back to LISTEN", seg(RST), RESET),
            ("RST in the window -> ACK", seg(RST).seq(1), CHALLENGE),
            ("RST outside the window -> dropped", seg(RST).seq(-1), STRAY_RST),
            ("no ACK -> dropped", seg(Flags::PSH).text(1), NO_ACK),
            ("ACK of nothing sent -> RST with its number", seg(ACK).ack(0), REFUSED),
            ("ACK beyond what was sent -> RST with its number", seg(ACK).ack(2), REFUSED),
            ("ACK outside the window -> ACK", seg(ACK).seq(65536).ack(1), CHALLENGE),
            ("ACK before the window -> ACK", seg(ACK).seq(-1).ack(1), CHALLENGE),
            ("ACK -> ESTABLISHED", seg(ACK).ack(1), opened),
            ("ACK takes the window", seg(ACK).ack(1).window(77), Expect { window: Some(77), ..opened }),
            ("ACK with text", seg(ACK).ack(1).text(10), Expect { text: Some((0, 0, 10)), ..opened }),
            (
                "ACK with text and FIN",
                seg(FIN_ACK).ack(1).text(10),
                Expect { text: Some((0, 0, 10)), fin: Some(10), ..opened },
            ),
            ("ACK with FIN", seg(FIN_ACK).ack(1), Expect { fin: Some(0), ..opened }),
        ],
    );
}

/// The checks that all states from ESTABLISHED on have in common.
fn synchronized(state: State) {
    check(
        from(state),
        &[
            (
                "RST with the next number resets",
                seg(RST),
                if state == State::TimeWait { expect(Verdict::End(End::Closed)) } else { RESET },
            ),
            ("RST in the window -> ACK", seg(RST).seq(1), CHALLENGE),
            ("RST with the window's last number -> ACK", seg(RST).seq(65535), CHALLENGE),
            ("RST behind the window -> dropped", seg(RST).seq(65536), STRAY_RST),
            ("RST before the window -> dropped", seg(RST).seq(-1), STRAY_RST),
            ("RST far away -> dropped", seg(RST).seq(1 << 31), STRAY_RST),
            ("SYN,ACK in the window -> ACK", seg(SYN_ACK).seq(5), CHALLENGE),
            ("old SYN -> ACK", seg(SYN).seq(-1), CHALLENGE),
            ("no ACK -> dropped", seg(Flags::PSH).text(5), NO_ACK),
            ("ACK beyond what was sent -> ACK", seg(ACK).ack(5000), CHALLENGE),
            ("text beyond the window -> ACK", seg(ACK).seq(65536).text(10), CHALLENGE),
            ("text before the window -> ACK", seg(ACK).seq(-10).text(10), CHALLENGE),
            ("an empty segment before the window (keep-alive) -> ACK", seg(ACK).seq(-1), CHALLENGE),
            ("an empty segment behind the window -> ACK", seg(ACK).seq(65536), CHALLENGE),
            ("an empty segment far away -> ACK", seg(ACK).seq(-(1 << 31)), CHALLENGE),
        ],
    );
    if state != State::TimeWait {
        check(from(state), &[("SYN in the window -> ACK", seg(SYN).seq(5), CHALLENGE)]);
    }
}

#[test]
fn established() {
    synchronized(State::Established);
    let text = |at, skip, len| Expect { text: Some((at, skip, len)), ..OK };
    check(
        from(State::Established),
        &[
            ("an empty segment with the next number", seg(ACK), OK),
            ("an empty segment with the window's last number", seg(ACK).seq(65535), OK),
            ("text in order", seg(ACK).text(100), text(0, 0, 100)),
            ("text out of order", seg(ACK).seq(50).text(100), text(50, 0, 100)),
            ("text that was received in part", seg(ACK).seq(-40).text(100), text(0, 40, 60)),
            ("text with one new byte", seg(ACK).seq(-99).text(100), text(0, 99, 1)),
            ("text partly beyond the window", seg(ACK).seq(65500).text(100), text(65500, 0, 36)),
            ("text with the window's last number", seg(ACK).seq(65535).text(100), text(65535, 0, 1)),
            ("urgent text is text", seg(ACK.with(Flags::URG)).text(10), text(0, 0, 10)),
            ("pushed text is text", seg(ACK.with(Flags::PSH)).text(10), text(0, 0, 10)),
            ("FIN in order", seg(FIN_ACK), Expect { fin: Some(0), ..OK }),
            ("FIN behind text in order", seg(FIN_ACK).text(9), Expect { fin: Some(9), ..text(0, 0, 9) }),
            ("FIN out of order", seg(FIN_ACK).seq(20), Expect { fin: Some(20), ..OK }),
            (
                "FIN behind text received in part",
                seg(FIN_ACK).seq(-4).text(9),
                Expect { fin: Some(5), ..text(0, 4, 5) },
            ),
            (
                "FIN behind text that was all received",
                seg(FIN_ACK).seq(-9).text(9),
                Expect { fin: Some(0), must_acknowledge: true, ..OK },
            ),
            ("FIN behind text that does not fit", seg(FIN_ACK).seq(65500).text(37), text(65500, 0, 36)),
            ("old ACK with text: the text counts", seg(ACK).ack(-1).text(5), text(0, 0, 5)),
            ("a window of the same number", seg(ACK).window(9), Expect { window: Some(9), ..OK }),
            ("an old ACK's window is not believed", seg(ACK).ack(-1).window(9), OK),
        ],
    );
}

#[test]
fn established_with_text_out() {
    check(
        From { out: 1000, ..from(State::Established) },
        &[
            ("old ACK", seg(ACK).ack(-1), OK),
            ("duplicate ACK", seg(ACK), Expect { duplicate: true, ..OK }),
            (
                "the same ACK with another window is no duplicate",
                seg(ACK).window(9),
                Expect { window: Some(9), ..OK },
            ),
            (
                "the same ACK with text is no duplicate",
                seg(ACK).text(1),
                Expect { text: Some((0, 0, 1)), ..OK },
            ),
            ("the same ACK with FIN is no duplicate", seg(FIN_ACK), Expect { fin: Some(0), ..OK }),
            (
                "ACK of a part: the timer starts again",
                seg(ACK).ack(400),
                Expect { acked: 400, timer: Some((RTO, 200)), ..OK },
            ),
            (
                "ACK of all: no timer",
                seg(ACK).ack(1000),
                Expect { acked: 1000, timer: Some((Timer::None, 0)), ..OK },
            ),
            ("ACK of one more", seg(ACK).ack(1001), CHALLENGE),
            (
                "ACK of all with text and FIN",
                seg(FIN_ACK).ack(1000).text(3),
                Expect {
                    acked: 1000,
                    timer: Some((Timer::None, 0)),
                    text: Some((0, 0, 3)),
                    fin: Some(3),
                    ..OK
                },
            ),
            (
                "new ACK takes the window",
                seg(ACK).ack(1000).window(3),
                Expect { acked: 1000, timer: Some((Timer::None, 0)), window: Some(3), ..OK },
            ),
        ],
    );
}

#[test]
fn established_with_the_window_shut() {
    let shut = From { held: RECEIVE_WINDOW, ..from(State::Established) };
    let probed = Expect { must_acknowledge: true, ..OK };
    check(
        shut,
        &[
            ("an empty segment with the next number", seg(ACK), OK),
            ("its ACK counts", seg(ACK).window(9), Expect { window: Some(9), ..OK }),
            ("an empty segment with the number after", seg(ACK).seq(1), CHALLENGE),
            ("an empty segment with the number before", seg(ACK).seq(-1), CHALLENGE),
            ("text with the next number: a probe, answered", seg(ACK).text(1), probed),
            ("text with the next number, more of it", seg(ACK).text(100), probed),
            ("text before and beyond", seg(ACK).seq(-1).text(2), CHALLENGE),
            ("FIN behind text that does not fit", seg(FIN_ACK).text(1), probed),
            ("RST with the next number", seg(RST), RESET),
            ("RST with the number after", seg(RST).seq(1), STRAY_RST),
        ],
    );
    let narrow = From { held: RECEIVE_WINDOW - 10, ..from(State::Established) };
    check(
        narrow,
        &[
            ("text that fits", seg(ACK).text(10), Expect { text: Some((0, 0, 10)), ..OK }),
            ("text that fits in part", seg(ACK).text(11), Expect { text: Some((0, 0, 10)), ..OK }),
            ("text with the first number outside", seg(ACK).seq(10).text(1), CHALLENGE),
        ],
    );
}

#[test]
fn fin_wait_1() {
    synchronized(State::FinWait1);
    let acked = Expect { state: Some(State::FinWait2), timer: Some((Timer::Linger, 60_000)), ..OK };
    check(
        From { out: 100, ..from(State::FinWait1) },
        &[
            ("ACK of text", seg(ACK).ack(100), Expect { acked: 100, timer: Some((RTO, 200)), ..OK }),
            ("ACK of text and FIN -> FIN-WAIT-2", seg(ACK).ack(101), Expect { acked: 100, ..acked }),
            ("ACK of one more", seg(ACK).ack(102), CHALLENGE),
            ("text", seg(ACK).text(5), Expect { text: Some((0, 0, 5)), ..OK }),
            ("FIN", seg(FIN_ACK), Expect { fin: Some(0), ..OK }),
            ("ACK of FIN with FIN", seg(FIN_ACK).ack(101), Expect { acked: 100, fin: Some(0), ..acked }),
        ],
    );
}

#[test]
fn fin_wait_2() {
    synchronized(State::FinWait2);
    check(
        from(State::FinWait2),
        &[
            ("an empty segment", seg(ACK), OK),
            ("text", seg(ACK).text(5), Expect { text: Some((0, 0, 5)), ..OK }),
            ("FIN", seg(FIN_ACK), Expect { fin: Some(0), ..OK }),
            ("FIN out of order", seg(FIN_ACK).seq(3), Expect { fin: Some(3), ..OK }),
        ],
    );
}

#[test]
fn close_wait() {
    synchronized(State::CloseWait);
    check(
        From { out: 100, ..from(State::CloseWait) },
        &[
            ("ACK of all", seg(ACK).ack(100), Expect { acked: 100, timer: Some((Timer::None, 0)), ..OK }),
            ("duplicate ACK", seg(ACK), Expect { duplicate: true, ..OK }),
            ("text after FIN is ignored", seg(ACK).text(5), OK),
            ("FIN after FIN is ignored", seg(FIN_ACK), OK),
            ("the FIN again -> ACK", seg(FIN_ACK).seq(-1), CHALLENGE),
        ],
    );
}

#[test]
fn closing() {
    synchronized(State::Closing);
    check(
        From { out: 100, ..from(State::Closing) },
        &[
            ("ACK of text", seg(ACK).ack(100), Expect { acked: 100, timer: Some((RTO, 200)), ..OK }),
            (
                "ACK of FIN -> TIME-WAIT",
                seg(ACK).ack(101),
                Expect {
                    acked: 100,
                    state: Some(State::TimeWait),
                    timer: Some((Timer::Linger, 60_000)),
                    ..OK
                },
            ),
            ("text after FIN is ignored", seg(ACK).text(5), OK),
            ("the FIN again -> ACK", seg(FIN_ACK).seq(-1), CHALLENGE),
        ],
    );
}

#[test]
fn last_ack() {
    synchronized(State::LastAck);
    check(
        From { out: 100, ..from(State::LastAck) },
        &[
            ("ACK of text", seg(ACK).ack(100), Expect { acked: 100, timer: Some((RTO, 200)), ..OK }),
            (
                "ACK of FIN -> the connection is over",
                seg(ACK).ack(101),
                Expect { acked: 100, timer: Some((Timer::None, 0)), ..expect(Verdict::End(End::Closed)) },
            ),
            ("text after FIN is ignored", seg(ACK).text(5), OK),
            ("the FIN again -> ACK", seg(FIN_ACK).seq(-1), CHALLENGE),
        ],
    );
}

#[test]
fn time_wait() {
    synchronized(State::TimeWait);
    check(
        from(State::TimeWait),
        &[
            ("an empty segment", seg(ACK), OK),
            ("text is ignored", seg(ACK).text(5), OK),
            ("a new SYN", seg(SYN).seq(1), expect(Verdict::Reopen)),
            (
                "the FIN again -> ACK, and 2 MSL start again",
                seg(FIN_ACK).seq(-1),
                Expect { timer: Some((Timer::Linger, 60_000)), ..CHALLENGE },
            ),
        ],
    );
}
