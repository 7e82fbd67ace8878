//! SEGMENT ARRIVES, section 3.10.7: one label for each rule.

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

/// The expected judgement, whose numbers are distances from RCV.NXT, and the connection afterwards. `None` means unchanged.
#[derive(Clone, Copy)]
struct Expect {
    arrival: Arrival,
    state: Option<State>,
    /// The timer, and the milliseconds until its deadline.
    timer: Option<(Timer, u32)>,
    /// SND.WND.
    window: Option<u32>,
}

const fn expect(disposition: Disposition) -> Expect {
    let arrival = Arrival {
        disposition,
        acked: 0,
        is_duplicate_ack: false,
        syn_was_lost: false,
        must_acknowledge: false,
        text: None,
        fin: None,
    };
    Expect { arrival, state: None, timer: None, window: None }
}

impl Expect {
    /// A FIN `at` numbers from RCV.NXT is to be received.
    const fn fin(self, at: u32) -> Self {
        Self { arrival: Arrival { fin: Some(SeqNum(at)), ..self.arrival }, ..self }
    }
    /// `len` bytes of text `at` numbers from RCV.NXT are to be received, after `skip` old ones.
    const fn text(self, at: u32, skip: u16, len: u16) -> Self {
        let text = Some(Text { seq: SeqNum(at), skip, len });
        Self { arrival: Arrival { text, ..self.arrival }, ..self }
    }
    const fn acked(self, acked: u32) -> Self {
        Self { arrival: Arrival { acked, ..self.arrival }, ..self }
    }
    const fn state(self, state: State) -> Self {
        Self { state: Some(state), ..self }
    }
    const fn timer(self, timer: Timer, millis: u32) -> Self {
        Self { timer: Some((timer, millis)), ..self }
    }
    const fn window(self, window: u32) -> Self {
        Self { window: Some(window), ..self }
    }
}

const OK: Expect = expect(Disposition::Accepted);
const CHALLENGE: Expect = expect(Disposition::Acknowledge);
/// The answer is the RST of section 3.10.7.1.
const REFUSED: Expect = expect(Disposition::Refuse);
const REPEAT: Expect = expect(Disposition::RepeatHandshake);
const RESET: Expect = expect(Disposition::End(End::ResetByPeer));
const CLOSED: Expect = expect(Disposition::End(End::Closed));
const STRAY_RST: Expect = expect(Disposition::Drop(DropReason::RstOutOfWindow));
const NO_ACK: Expect = expect(Disposition::Drop(DropReason::NoAck));
const DUPLICATE: Expect = Expect { arrival: Arrival { is_duplicate_ack: true, ..OK.arrival }, ..OK };
const MUST_ACK: Expect = Expect { arrival: Arrival { must_acknowledge: true, ..OK.arrival }, ..OK };
const RTO: Timer = Timer::Retransmit;

/// The start of a table: the state, bytes of text in flight, and bytes that the service has not taken (65,536 shut the window).
#[derive(Clone, Copy)]
struct Start {
    state: State,
    out: u64,
    held: u32,
}

const fn start(state: State, out: u64) -> Start {
    Start { state, out, held: 0 }
}

fn distant(from: SeqNum, distance: i64) -> SeqNum {
    SeqNum(from.0.wrapping_add(distance as u32))
}

impl Start {
    /// Runs each rule from a new start, in both roles and with all bases.
    fn check(self, rules: &[(&str, Seg, Expect)]) {
        for (role, iss, irs) in everywhere() {
            for (label, given, expected) in rules {
                let label = format!("{}: {label} ({role:?}, ISS {iss}, IRS {irs})", self.state.name());
                let world = World::in_state(role, iss, irs, self.state, self.out);
                self.check_one(&label, world, *given, expected);
            }
        }
    }

    /// The segment arrives after 100 ms.
    fn check_one(self, label: &str, mut world: World, given: Seg, expected: &Expect) {
        world.wait(100);
        if self.held > 0 {
            world.attach().held_bytes = self.held;
        }
        let start = world.peer_nxt();
        let (seq, ack) = (distant(start, given.seq), distant(world.tcb.snd_una(), given.ack));
        let segment = Segment { text_len: given.text, ..segment(seq, ack, given.flags, given.window) };
        let before = world.clone();
        let arrival = world.arrive(&segment);
        let mut judged = expected.arrival;
        judged.text = judged.text.map(|text| Text { seq: start + text.seq.0, ..text });
        judged.fin = judged.fin.map(|at| start + at.0);
        assert_eq!(arrival, judged, "{label}");
        if arrival.disposition == Disposition::Refuse {
            let reset = if given.flags.has(ACK) {
                Segment { seq: segment.ack, flags: RST, ..Segment::default() }
            } else {
                Segment { ack: segment.end(), flags: RST_ACK, ..Segment::default() }
            };
            assert_eq!(refusal(&segment), Some(reset), "{label}");
        }
        assert_eq!(world.tcb.state(), expected.state.unwrap_or(self.state), "{label}");
        assert_eq!(world.timer(), expected.timer.unwrap_or(before.timer()), "{label}");
        assert_eq!(world.tcb.snd_wnd(), expected.window.unwrap_or(before.tcb.snd_wnd()), "{label}");
        assert_eq!(world.tcb.snd_nxt(), before.tcb.snd_nxt(), "{label}");
        if self.state != State::SynSent {
            assert_eq!(world.tcb.rcv_nxt(), before.tcb.rcv_nxt(), "{label}: judging receives nothing");
        }
        let untouched = expected.state.is_none() && expected.timer.is_none();
        if untouched && !matches!(arrival.disposition, Disposition::Accepted | Disposition::RepeatHandshake) {
            let [after, before] = [&world, &before].map(|world| format!("{:?}", world.tcb));
            assert_eq!(after, before, "{label}: the connection is unchanged");
        }
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
        ("SYN and FIN -> RST that acknowledges both", SYN.with(Flags::FIN), rst(0, 7, RST_ACK)),
    ] {
        assert_eq!(refusal(&Segment { flags, ..seg }), expected, "{label}");
    }
}

#[test]
fn syn_sent() {
    let dropped = expect(Disposition::Drop(DropReason::NoConnection));
    let opened = OK.state(State::Established).timer(Timer::None, 0).window(8000);
    let crossed = REPEAT.state(State::SynReceived).timer(RTO, 1000).window(8000);
    start(State::SynSent, 0).check(&[
        ("ACK of nothing sent -> RST with its number", seg(ACK).ack(0), REFUSED),
        ("ACK beyond SND.NXT -> RST with its number", seg(ACK).ack(2), REFUSED),
        ("SYN,ACK of nothing sent -> RST with its number", seg(SYN_ACK).ack(0), REFUSED),
        ("SYN,ACK of an old connection -> RST with its number", seg(SYN_ACK).ack(-5000), REFUSED),
        ("RST with a bad ACK -> dropped", seg(RST_ACK).ack(0), dropped),
        ("RST with our ACK -> the connection is refused", seg(RST_ACK).ack(1), RESET),
        ("RST without ACK -> dropped", seg(RST), STRAY_RST),
        ("ACK of our SYN without SYN -> dropped", seg(ACK).ack(1), NO_ACK),
        ("FIN,ACK of our SYN without SYN -> dropped", seg(FIN_ACK).ack(1), NO_ACK),
        ("text without SYN and ACK -> dropped", seg(Flags::PSH).text(5), NO_ACK),
        ("SYN,ACK -> ESTABLISHED", seg(SYN_ACK).ack(1), opened),
        ("SYN,ACK with text: the peer retransmits the text", seg(SYN_ACK).ack(1).text(9), opened),
        ("SYN -> SYN-RECEIVED, SYN,ACK (simultaneous open)", seg(SYN), crossed),
    ]);
}

#[test]
fn syn_received() {
    let opened = OK.state(State::Established).timer(Timer::None, 0);
    start(State::SynReceived, 0).check(&[
        ("old duplicate SYN -> SYN,ACK retransmitted", seg(SYN).seq(-1), REPEAT),
        ("SYN,ACK of a simultaneous open -> ACK, no second SYN,ACK", seg(SYN_ACK).seq(-1).ack(1), CHALLENGE),
        ("another SYN in the window -> ACK", seg(SYN).seq(100), CHALLENGE),
        ("another SYN before the window -> ACK", seg(SYN).seq(-100), CHALLENGE),
        ("RST with the next number -> back to LISTEN", seg(RST), RESET),
        ("RST in the window -> ACK", seg(RST).seq(1), CHALLENGE),
        ("RST outside the window -> dropped", seg(RST).seq(-1), STRAY_RST),
        ("no ACK -> dropped", seg(Flags::PSH).text(1), NO_ACK),
        ("ACK of nothing sent -> RST with its number", seg(ACK).ack(0), REFUSED),
        ("ACK beyond SND.NXT -> RST with its number", seg(ACK).ack(2), REFUSED),
        ("ACK outside the window -> ACK", seg(ACK).seq(65536).ack(1), CHALLENGE),
        ("ACK before the window -> ACK", seg(ACK).seq(-1).ack(1), CHALLENGE),
        ("ACK -> ESTABLISHED", seg(ACK).ack(1), opened),
        ("ACK updates SND.WND", seg(ACK).ack(1).window(77), opened.window(77)),
        ("ACK with text", seg(ACK).ack(1).text(10), opened.text(0, 0, 10)),
        ("ACK with text and FIN", seg(FIN_ACK).ack(1).text(10), opened.text(0, 0, 10).fin(10)),
        ("ACK with FIN", seg(FIN_ACK).ack(1), opened.fin(0)),
    ]);
}

/// Checks the rules that all states from ESTABLISHED on have in common.
fn synchronized(state: State) {
    let reset = if state == State::TimeWait { CLOSED } else { RESET };
    start(state, 0).check(&[
        ("RST with the next number ends the connection", seg(RST), reset),
        ("RST in the window -> ACK", seg(RST).seq(1), CHALLENGE),
        ("RST with the window's last number -> ACK", seg(RST).seq(65535), CHALLENGE),
        ("RST behind the window -> dropped", seg(RST).seq(65536), STRAY_RST),
        ("RST before the window -> dropped", seg(RST).seq(-1), STRAY_RST),
        ("RST far away -> dropped", seg(RST).seq(1 << 31), STRAY_RST),
        ("SYN,ACK in the window -> ACK", seg(SYN_ACK).seq(5), CHALLENGE),
        ("old SYN -> ACK", seg(SYN).seq(-1), CHALLENGE),
        ("no ACK -> dropped", seg(Flags::PSH).text(5), NO_ACK),
        ("ACK beyond SND.NXT -> ACK", seg(ACK).ack(5000), CHALLENGE),
        ("text beyond the window -> ACK", seg(ACK).seq(65536).text(10), CHALLENGE),
        ("text before the window -> ACK", seg(ACK).seq(-10).text(10), CHALLENGE),
        ("an empty segment before the window (keep-alive) -> ACK", seg(ACK).seq(-1), CHALLENGE),
        ("an empty segment behind the window -> ACK", seg(ACK).seq(65536), CHALLENGE),
        ("an empty segment far away -> ACK", seg(ACK).seq(-(1 << 31)), CHALLENGE),
    ]);
    if state != State::TimeWait {
        start(state, 0).check(&[("SYN in the window -> ACK", seg(SYN).seq(5), CHALLENGE)]);
    }
}

#[test]
fn established() {
    synchronized(State::Established);
    start(State::Established, 0).check(&[
        ("an empty segment with the next number", seg(ACK), OK),
        ("an empty segment with the window's last number", seg(ACK).seq(65535), OK),
        ("text in order", seg(ACK).text(100), OK.text(0, 0, 100)),
        ("text out of order", seg(ACK).seq(50).text(100), OK.text(50, 0, 100)),
        ("text received in part before", seg(ACK).seq(-40).text(100), OK.text(0, 40, 60)),
        ("text with one new byte", seg(ACK).seq(-99).text(100), OK.text(0, 99, 1)),
        ("text partly beyond the window", seg(ACK).seq(65500).text(100), OK.text(65500, 0, 36)),
        ("text with the window's last number", seg(ACK).seq(65535).text(100), OK.text(65535, 0, 1)),
        ("urgent text is text", seg(ACK.with(Flags::URG)).text(10), OK.text(0, 0, 10)),
        ("pushed text is text", seg(PSH_ACK).text(10), OK.text(0, 0, 10)),
        ("FIN in order", seg(FIN_ACK), OK.fin(0)),
        ("FIN behind text in order", seg(FIN_ACK).text(9), OK.text(0, 0, 9).fin(9)),
        ("FIN out of order", seg(FIN_ACK).seq(20), OK.fin(20)),
        ("FIN behind text received in part before", seg(FIN_ACK).seq(-4).text(9), OK.text(0, 4, 5).fin(5)),
        ("FIN behind text all received before", seg(FIN_ACK).seq(-9).text(9), MUST_ACK.fin(0)),
        ("FIN behind text that does not fit", seg(FIN_ACK).seq(65500).text(37), OK.text(65500, 0, 36)),
        ("old ACK with text: the text counts", seg(ACK).ack(-1).text(5), OK.text(0, 0, 5)),
        ("ACK of nothing new updates SND.WND", seg(ACK).window(9), OK.window(9)),
        ("old ACK leaves SND.WND unchanged", seg(ACK).ack(-1).window(9), OK),
    ]);
}

#[test]
fn established_with_text_out() {
    let all = OK.acked(1000).timer(Timer::None, 0);
    start(State::Established, 1000).check(&[
        ("old ACK", seg(ACK).ack(-1), OK),
        ("duplicate ACK", seg(ACK), DUPLICATE),
        ("a repeated ACK with another window is no duplicate", seg(ACK).window(9), OK.window(9)),
        ("a repeated ACK with text is no duplicate", seg(ACK).text(1), OK.text(0, 0, 1)),
        ("a repeated ACK with FIN is no duplicate", seg(FIN_ACK), OK.fin(0)),
        ("ACK of a part: the timer restarts", seg(ACK).ack(400), OK.acked(400).timer(RTO, 200)),
        ("ACK of all: no timer", seg(ACK).ack(1000), all),
        ("ACK of one more", seg(ACK).ack(1001), CHALLENGE),
        ("ACK of all with text and FIN", seg(FIN_ACK).ack(1000).text(3), all.text(0, 0, 3).fin(3)),
        ("new ACK updates SND.WND", seg(ACK).ack(1000).window(3), all.window(3)),
    ]);
}

#[test]
fn established_with_the_window_shut() {
    let shut = Start { held: RECEIVE_WINDOW, ..start(State::Established, 0) };
    shut.check(&[
        ("an empty segment with the next number", seg(ACK), OK),
        ("an empty segment's ACK counts", seg(ACK).window(9), OK.window(9)),
        ("an empty segment with the number after", seg(ACK).seq(1), CHALLENGE),
        ("an empty segment with the number before", seg(ACK).seq(-1), CHALLENGE),
        ("one byte with the next number: a probe, answered", seg(ACK).text(1), MUST_ACK),
        ("100 bytes with the next number", seg(ACK).text(100), MUST_ACK),
        ("text before and beyond", seg(ACK).seq(-1).text(2), CHALLENGE),
        ("FIN behind text that does not fit", seg(FIN_ACK).text(1), MUST_ACK),
        ("RST with the next number", seg(RST), RESET),
        ("RST with the number after", seg(RST).seq(1), STRAY_RST),
    ]);
    let narrow = Start { held: RECEIVE_WINDOW - 10, ..shut };
    narrow.check(&[
        ("text that fits", seg(ACK).text(10), OK.text(0, 0, 10)),
        ("text that fits in part", seg(ACK).text(11), OK.text(0, 0, 10)),
        ("text with the first number outside", seg(ACK).seq(10).text(1), CHALLENGE),
    ]);
}

#[test]
fn fin_wait_1() {
    synchronized(State::FinWait1);
    let acked = OK.acked(100).state(State::FinWait2).timer(Timer::Linger, 60_000);
    start(State::FinWait1, 100).check(&[
        ("ACK of text", seg(ACK).ack(100), OK.acked(100).timer(RTO, 200)),
        ("ACK of text and FIN -> FIN-WAIT-2", seg(ACK).ack(101), acked),
        ("ACK of one more", seg(ACK).ack(102), CHALLENGE),
        ("text", seg(ACK).text(5), OK.text(0, 0, 5)),
        ("FIN", seg(FIN_ACK), OK.fin(0)),
        ("ACK of FIN with FIN", seg(FIN_ACK).ack(101), acked.fin(0)),
    ]);
}

#[test]
fn fin_wait_2() {
    synchronized(State::FinWait2);
    start(State::FinWait2, 0).check(&[
        ("an empty segment", seg(ACK), OK),
        ("text", seg(ACK).text(5), OK.text(0, 0, 5)),
        ("FIN", seg(FIN_ACK), OK.fin(0)),
        ("FIN out of order", seg(FIN_ACK).seq(3), OK.fin(3)),
    ]);
}

#[test]
fn close_wait() {
    synchronized(State::CloseWait);
    start(State::CloseWait, 100).check(&[
        ("ACK of all", seg(ACK).ack(100), OK.acked(100).timer(Timer::None, 0)),
        ("duplicate ACK", seg(ACK), DUPLICATE),
        ("text after FIN is ignored", seg(ACK).text(5), OK),
        ("FIN after FIN is ignored", seg(FIN_ACK), OK),
        ("FIN retransmitted -> ACK", seg(FIN_ACK).seq(-1), CHALLENGE),
    ]);
}

/// Checks a state in which both sides have sent FIN, and `after` for the ACK of ours.
fn both_have_closed(state: State, after: Expect) {
    synchronized(state);
    start(state, 100).check(&[
        ("ACK of text", seg(ACK).ack(100), OK.acked(100).timer(RTO, 200)),
        ("ACK of text and FIN", seg(ACK).ack(101), after.acked(100)),
        ("text after FIN is ignored", seg(ACK).text(5), OK),
        ("FIN retransmitted -> ACK", seg(FIN_ACK).seq(-1), CHALLENGE),
    ]);
}

#[test]
fn closing() {
    both_have_closed(State::Closing, OK.state(State::TimeWait).timer(Timer::Linger, 60_000));
}

#[test]
fn last_ack() {
    both_have_closed(State::LastAck, CLOSED.timer(Timer::None, 0));
}

#[test]
fn time_wait() {
    synchronized(State::TimeWait);
    let restarted = CHALLENGE.timer(Timer::Linger, 60_000);
    start(State::TimeWait, 0).check(&[
        ("an empty segment", seg(ACK), OK),
        ("text is ignored", seg(ACK).text(5), OK),
        ("a new SYN", seg(SYN).seq(1), expect(Disposition::Reopen)),
        ("FIN retransmitted -> ACK, and 2 MSL restart", seg(FIN_ACK).seq(-1), restarted),
    ]);
}
