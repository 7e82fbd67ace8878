//! An application that opens connections itself, frame by frame: its orders, and the events that it hears of each connection.

use std::collections::{HashSet, VecDeque};

use super::packets::unreachable;
use super::*;
use crate::proto::End;
use crate::service::{Memo, Taken};

/// An event that an application hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Opened,
    NotOpened(OpenError),
    Established,
    Text(usize),
    Acked(u64),
    PeerClosed,
    FinSent,
    FinAcked,
    End(End),
}
use Heard::{Acked, Established, FinAcked, FinSent, NotOpened, Opened, PeerClosed, Text};

const CLOSED: Heard = Heard::End(End::Closed);
const TIMED_OUT: Heard = Heard::End(End::TimedOut);

/// Gives a list of orders, sends one text over every connection, and writes down the events that it hears.
struct Diary {
    orders: VecDeque<Order>,
    heard: Vec<(u32, Heard)>,
    says: &'static [u8],
    acked: u64,
    then: Then,
    /// Does it accept connections?
    listens: bool,
}

impl Diary {
    fn note(&mut self, id: Id, heard: Heard) {
        assert_eq!(id.role, 7, "the role of the order");
        self.heard.push((id.slot, heard));
    }
}

impl Application for Diary {
    const VARIES: Varies = Varies::Local;

    fn listener(&self, _key: &FlowKey) -> Option<u16> {
        self.listens.then_some(7)
    }

    fn on_open(&mut self, id: Id, _memo: &mut Memo, _now: Instant) {
        self.note(id, Established);
    }

    fn on_data(&mut self, id: Id, _memo: &mut Memo, text: &[u8], _now: Instant) -> Taken {
        self.note(id, Text(text.len()));
        Taken::Bytes(text.len())
    }

    fn on_acked(&mut self, id: Id, _memo: &mut Memo, bytes: u64, _now: Instant) {
        self.note(id, Acked(bytes));
        self.acked += bytes;
    }

    fn on_peer_closed(&mut self, id: Id, _memo: &mut Memo, _now: Instant) {
        self.note(id, PeerClosed);
    }

    fn pending(&self, _id: Id, _memo: &Memo) -> Pending {
        Pending { bytes: self.says.len() as u64 - self.acked, then: self.then }
    }

    fn write(&self, _id: Id, _memo: &Memo, at: u64, into: &mut [u8]) {
        into.copy_from_slice(&self.says[(self.acked + at) as usize..][..into.len()]);
    }

    fn poll(&mut self, _now: Instant, has_frame: bool) -> Option<Order> {
        if has_frame { self.orders.pop_front() } else { None }
    }

    fn on_opened(&mut self, id: Id, _now: Instant) {
        self.note(id, Opened);
    }

    fn on_not_opened(&mut self, error: OpenError, _now: Instant) {
        self.heard.push((u32::MAX, NotOpened(error)));
    }

    fn on_fin_sent(&mut self, id: Id, _now: Instant) {
        self.note(id, FinSent);
    }

    fn on_fin_acked(&mut self, id: Id, _now: Instant) {
        self.note(id, FinAcked);
    }

    fn on_end(&mut self, id: Id, end: End, _now: Instant) {
        self.note(id, Heard::End(end));
    }
}

fn diary(says: &'static [u8], then: Then) -> Config<Diary> {
    let (orders, heard) = (VecDeque::new(), Vec::new());
    config_for(Diary { orders, heard, says, acked: 0, then, listens: false })
}

/// Returns the key of our connection, as we see it.
fn ours(number: u16) -> FlowKey {
    FlowKey { local: OWNED, ..reversed(&name(number)) }
}

fn order(key: FlowKey) -> Order {
    Order::Open(opening(key, 7))
}

/// A connection of ours, and the peer that it goes to.
struct Dialogue {
    bench: Bench<Diary>,
    peer: Peer,
}

impl Dialogue {
    /// Returns a connection in SYN-SENT.
    fn opening(config: Config<Diary>) -> Self {
        let mut dialogue = Self { bench: Bench::new(config), peer: Peer::named(reversed(&ours(0))) };
        let syn = one(dialogue.order(order(ours(0)))).segment;
        assert_eq!(syn.flags, SYN);
        dialogue.peer.expected = syn.seq + 1;
        assert_eq!(dialogue.heard(), [Opened]);
        dialogue
    }

    /// Completes the handshake. Returns the replies to SYN,ACK.
    fn open(config: Config<Diary>) -> (Self, Vec<Reply>) {
        let mut dialogue = Self::opening(config);
        let Self { bench, peer } = &mut dialogue;
        let replies = peer.send(bench, &Segment { options: MSS_1000, ..peer.segment(SYN_ACK) }, &[]);
        peer.nxt += 1;
        peer.take(&replies);
        (dialogue, replies)
    }

    /// Opens a connection that sends no text, on which the peer has sent segments with these flags.
    fn after(then: Then, steps: &[Flags]) -> Self {
        let (mut dialogue, _) = Self::open(diary(b"", then));
        steps.iter().for_each(|flags| drop(dialogue.say(*flags, &[])));
        dialogue
    }

    fn order(&mut self, order: Order) -> Vec<Reply> {
        let bench = &mut self.bench;
        bench.endpoint.application_mut().orders.push_back(order);
        bench.endpoint.poll_application(bench.now, &mut bench.out);
        let mut replies = bench.replies();
        replies.extend(bench.poll());
        self.peer.take(&replies);
        replies
    }

    fn say(&mut self, flags: Flags, text: &[u8]) -> Vec<Reply> {
        self.peer.say(&mut self.bench, flags, text)
    }

    /// Returns the events since the last call. All are of one connection.
    fn heard(&mut self) -> Vec<Heard> {
        let heard = std::mem::take(&mut self.bench.endpoint.application_mut().heard);
        assert!(heard.iter().all(|(slot, _)| *slot == heard[0].0), "{heard:?}");
        heard.into_iter().map(|(_, heard)| heard).collect()
    }

    /// Changes when the application closes, and wakes the connection.
    fn close(&mut self, then: Then) -> Vec<Reply> {
        self.bench.endpoint.application_mut().then = then;
        self.order(Order::Wake(0))
    }

    /// Checks that the connection ended in this way, and that no event follows.
    fn check_over(mut self, end: End) {
        self.bench.wait(400_000);
        assert_eq!(self.heard(), [], "the end is heard once");
        let counts = self.bench.counts();
        assert_eq!((counts.ended(), counts.curr_connections), (1, 0));
        let counted = match end {
            End::Closed => counts.ended_closed,
            End::ResetByPeer => counts.ended_reset_by_peer,
            End::ResetByUs => counts.ended_reset_by_us,
            End::TimedOut => counts.ended_timed_out,
            End::Unreachable => counts.ended_unreachable,
        };
        assert_eq!(counted, 1, "{end:?}");
    }

    fn check_over_after(mut self, heard: &[Heard]) {
        assert_eq!(self.heard(), heard);
        self.check_over(End::Closed);
    }
}

#[test]
fn we_close_first() {
    let (mut dialogue, replies) = Dialogue::open(diary(b"hello", Then::Close));
    // The handshake's acknowledgement carries the text and FIN.
    assert_eq!(flags_of(&replies), [LAST]);
    assert_eq!(replies[0].text, b"hello");
    assert_eq!(dialogue.heard(), [Established, FinSent]);
    dialogue.say(ACK, &[]);
    assert_eq!(dialogue.heard(), [Acked(5), FinAcked]);
    dialogue.say(ACK, b"world");
    assert_eq!(dialogue.heard(), [Text(5)]);
    dialogue.say(FIN_ACK, &[]);
    dialogue.check_over_after(&[PeerClosed, CLOSED]);
}

#[test]
fn the_peer_closes_first() {
    let (mut dialogue, replies) = Dialogue::open(diary(b"hello", Then::CloseAfterPeer));
    assert_eq!(flags_of(&replies), [PSH_ACK]);
    assert_eq!(dialogue.heard(), [Established]);
    let replies = dialogue.say(FIN_ACK, b"world");
    assert_eq!(flags_of(&replies), [FIN_ACK]);
    assert_eq!(dialogue.heard(), [Acked(5), Text(5), PeerClosed, FinSent]);
    dialogue.say(ACK, &[]);
    dialogue.check_over_after(&[FinAcked, CLOSED]);
}

#[test]
fn both_close_at_once() {
    let (mut dialogue, _) = Dialogue::open(diary(b"", Then::Close));
    assert_eq!(dialogue.heard(), [Established, FinSent]);
    // The peer's FIN crosses ours, and does not acknowledge it.
    let fin = Segment { ack: dialogue.peer.expected - 1, ..dialogue.peer.segment(FIN_ACK) };
    let replies = dialogue.peer.send(&mut dialogue.bench, &fin, &[]);
    dialogue.peer.nxt += 1;
    assert_eq!(flags_of(&replies), [ACK]);
    assert_eq!(dialogue.heard(), [PeerClosed]);
    dialogue.say(ACK, &[]);
    dialogue.check_over_after(&[FinAcked, CLOSED]);
}

#[test]
fn a_reset_by_the_peer_is_heard_in_every_state() {
    let reset = End::ResetByPeer;
    for (then, steps, heard, end) in [
        (Then::Wait, &[][..], &[Established][..], Some(reset)),
        (Then::Wait, &[FIN_ACK], &[Established, PeerClosed], Some(reset)),
        (Then::CloseAfterPeer, &[FIN_ACK], &[Established, PeerClosed, FinSent], Some(reset)),
        (Then::Close, &[], &[Established, FinSent], Some(reset)),
        (Then::Close, &[ACK], &[Established, FinSent, FinAcked], Some(reset)),
        (Then::Close, &[ACK, FIN_ACK], &[Established, FinSent, FinAcked, PeerClosed, CLOSED], None),
    ] {
        let mut dialogue = Dialogue::after(then, steps);
        assert_eq!(dialogue.heard(), heard);
        assert!(dialogue.say(RST, &[]).is_empty());
        assert_eq!(dialogue.heard(), end.map(Heard::End).into_iter().collect::<Vec<_>>(), "after {heard:?}");
        // The application has heard of the end when TIME-WAIT began.
        dialogue.check_over(end.unwrap_or(End::Closed));
    }
    let mut refused = Dialogue::opening(diary(b"", Then::Wait));
    refused.say(RST_ACK, &[]);
    assert_eq!(refused.heard(), [Heard::End(End::ResetByPeer)]);
    assert_eq!(refused.bench.counts().attempt_fails, 1);
    refused.check_over(End::ResetByPeer);
}

#[test]
fn an_abort_is_heard_in_every_state() {
    // No RST in LAST-ACK, because the peer has closed, and none in SYN-SENT, because it knows of no connection.
    for (then, steps, rst) in [
        (Then::Wait, &[][..], &[RST_ACK][..]),
        (Then::Wait, &[FIN_ACK], &[RST_ACK]),
        (Then::Close, &[], &[RST_ACK]),
        (Then::Close, &[ACK], &[RST_ACK]),
        (Then::CloseAfterPeer, &[FIN_ACK], &[]),
    ] {
        for end in [End::TimedOut, End::ResetByUs] {
            let mut dialogue = Dialogue::after(then, steps);
            dialogue.heard();
            assert_eq!(flags_of(&dialogue.order(Order::Abort(0, end))), rst);
            assert_eq!(dialogue.heard(), [Heard::End(end)]);
            // A second order finds no connection.
            assert!(dialogue.order(Order::Abort(0, end)).is_empty());
            assert!(dialogue.order(Order::Wake(0)).is_empty());
            dialogue.check_over(end);
        }
    }
    let mut opening = Dialogue::opening(diary(b"", Then::Wait));
    assert!(opening.order(Order::Abort(0, End::TimedOut)).is_empty());
    assert_eq!(opening.heard(), [TIMED_OUT]);
    opening.check_over(End::TimedOut);
    // For the application the connection ends with TIME-WAIT: an abort leaves TIME-WAIT alone.
    let mut waiting = Dialogue::after(Then::Close, &[FIN_ACK]);
    waiting.heard();
    assert!(waiting.order(Order::Abort(0, End::TimedOut)).is_empty());
    assert_eq!(waiting.bench.counts().curr_time_wait, 1);
    waiting.check_over(End::Closed);
}

#[test]
fn a_reset_of_ours_comes_after_the_handshake() {
    let (mut dialogue, replies) = Dialogue::open(diary(b"", Then::Reset));
    assert_eq!(flags_of(&replies), [ACK, RST_ACK]);
    assert_eq!(dialogue.heard(), [Established, Heard::End(End::ResetByUs)]);
    dialogue.check_over(End::ResetByUs);
}

#[test]
fn silence_is_heard() {
    let mut opening = Dialogue::opening(diary(b"", Then::Wait));
    assert_eq!(opening.bench.wait(130_000).len(), 6, "SYN is retransmitted");
    assert_eq!(opening.heard(), [TIMED_OUT]);
    opening.check_over(End::TimedOut);
    let (mut closing, _) = Dialogue::open(diary(b"", Then::Close));
    assert_eq!(closing.heard(), [Established, FinSent]);
    assert!(closing.bench.wait(400_000).iter().all(|again| again.segment.flags == FIN_ACK));
    assert_eq!(closing.heard(), [TIMED_OUT], "no FinSent for retransmissions");
    closing.check_over(End::TimedOut);
}

#[test]
fn unreachable_is_heard() {
    let mut dialogue = Dialogue::opening(diary(b"", Then::Wait));
    let message = unreachable(&ours(0), dialogue.peer.expected - 1, 1);
    assert!(dialogue.bench.inject_bytes(&message).is_empty());
    assert_eq!(dialogue.heard(), [Heard::End(End::Unreachable)]);
    dialogue.check_over(End::Unreachable);
}

/// The application hears of a half-open connection that is evicted. It has heard of the end of one in TIME-WAIT before.
#[test]
fn eviction_is_heard() {
    let mut config = diary(b"", Then::Wait);
    config.settings.max_connections = 1;
    config.application.listens = true;
    let mut bench = Bench::new(config);
    for number in 0..3 {
        let peer = Peer::named(reversed(&ours(number)));
        assert_eq!(flags_of(&peer.send(&mut bench, &peer.segment(SYN), &[])), [SYN_ACK]);
    }
    let heard = std::mem::take(&mut bench.endpoint.application_mut().heard);
    assert_eq!(heard, [(0, TIMED_OUT); 2]);
    assert_eq!(bench.counts().ended_evicted_half_open, 2);

    let (mut dialogue, _) = Dialogue::open(with_room(1, diary(b"", Then::Close)));
    dialogue.say(FIN_ACK, &[]);
    assert_eq!(dialogue.heard().last(), Some(&CLOSED));
    assert_eq!(flags_of(&dialogue.order(order(ours(1)))), [SYN]);
    assert_eq!(dialogue.heard(), [Opened]);
    assert_eq!(dialogue.bench.counts().ended_evicted_time_wait, 1);
    // A connection in ESTABLISHED or SYN-SENT is never evicted.
    assert!(dialogue.order(order(ours(2))).is_empty());
    assert_eq!(dialogue.heard(), [NotOpened(OpenError::TableFull)]);
    assert!(dialogue.order(order(ours(1))).is_empty());
    assert_eq!(dialogue.heard(), [NotOpened(OpenError::Exists)]);
}

#[test]
fn a_wake_makes_it_look_again() {
    let (mut dialogue, replies) = Dialogue::open(diary(b"", Then::Wait));
    assert_eq!(flags_of(&replies), [ACK]);
    assert!(dialogue.bench.wait(100_000).is_empty());
    assert!(dialogue.order(Order::Wake(0)).is_empty(), "the application still waits");
    assert_eq!(dialogue.heard(), [Established]);
    assert_eq!(flags_of(&dialogue.close(Then::Close)), [FIN_ACK]);
    assert_eq!(dialogue.heard(), [FinSent]);
    assert!(dialogue.order(Order::Wake(0)).is_empty(), "FIN is sent once");
    dialogue.say(FIN_ACK, &[]);
    assert_eq!(dialogue.heard(), [PeerClosed, FinAcked, CLOSED], "one segment brings both");
    dialogue.check_over(End::Closed);
}

#[test]
fn without_piggyback_each_goes_alone() {
    let settings = Settings { piggyback: false, ..config("close").settings };
    let apart = |says, then| Config { settings, ..diary(says, then) };
    let (mut dialogue, replies) = Dialogue::open(apart(b"hello", Then::Close));
    assert_eq!(flags_of(&replies), [ACK, PSH_ACK, FIN_ACK]);
    assert_eq!(replies.iter().map(|reply| reply.text.len()).collect::<Vec<_>>(), [0, 5, 0]);
    assert_eq!(dialogue.heard(), [Established, FinSent]);
    // One acknowledgement of text and FIN still brings both events.
    dialogue.say(ACK, &[]);
    assert_eq!(dialogue.heard(), [Acked(5), FinAcked]);
    assert_eq!(flags_of(&dialogue.say(FIN_ACK, &[])), [ACK]);
    dialogue.check_over_after(&[PeerClosed, CLOSED]);

    let (mut dialogue, replies) = Dialogue::open(apart(b"hello", Then::CloseAfterPeer));
    assert_eq!(flags_of(&replies), [ACK, PSH_ACK]);
    // The acknowledgement of the peer's FIN goes first, and our FIN follows.
    assert_eq!(flags_of(&dialogue.say(FIN_ACK, b"world")), [ACK, FIN_ACK]);
    dialogue.say(ACK, &[]);
    dialogue.check_over_after(&[Established, Acked(5), Text(5), PeerClosed, FinSent, FinAcked, CLOSED]);
}

/// Each connection's line holds our address: there may be more addresses at once than numbers of 16 bits.
#[test]
fn each_connection_may_have_an_address_of_its_own() {
    const CONNECTIONS: u32 = 70_000;
    let mut bench = Bench::new(with_room(70_000, diary(b"", Then::Wait)));
    let key = |number: u32| {
        let [_, high, middle, low] = number.to_be_bytes();
        FlowKey { local: Address::v4([10, high, middle, low]), ..ours(0) }
    };
    let mut numbers = Vec::new();
    for number in 0..CONNECTIONS {
        bench.endpoint.application_mut().orders.push_back(order(key(number)));
        bench.endpoint.poll_application(bench.now, &mut bench.out);
        let syn = one(bench.replies());
        assert_eq!(syn.key.remote, key(number).local);
        numbers.push(syn.segment.seq);
    }
    let heard = std::mem::take(&mut bench.endpoint.application_mut().heard);
    assert!(heard.iter().all(|(_, heard)| *heard == Opened));
    assert_eq!(heard.iter().map(|(slot, _)| slot).collect::<HashSet<_>>().len(), 70_000);
    // The endpoint finds each by its key: the peer refuses all of them.
    for number in 0..CONNECTIONS {
        let mut peer = Peer::named(reversed(&key(number)));
        peer.expected = numbers[number as usize] + 1;
        assert!(bench.inject_bytes(&peer.frame(RST_ACK, &[])).is_empty());
    }
    assert_eq!((bench.endpoint.len(), bench.counts().ended_reset_by_peer), (0, u64::from(CONNECTIONS)));
    let ends = &bench.endpoint.application().heard;
    assert_eq!(ends.iter().map(|(slot, _)| slot).collect::<HashSet<_>>().len(), 70_000);
    assert!(ends.iter().all(|(_, heard)| *heard == Heard::End(End::ResetByPeer)));
}

/// A generator behind its schedule opens connections while there are free frames. Acknowledgements still go.
#[test]
fn what_is_owed_goes_although_there_is_more_to_open_than_frames() {
    let (mut dialogue, _) = Dialogue::open(diary(b"", Then::Wait));
    let Dialogue { bench, peer } = &mut dialogue;
    let frames = [b"one", b"two"].map(|text| {
        let bytes = peer.frame(ACK, text);
        peer.nxt += text.len() as u32;
        bytes
    });
    assert!(bench.inject_burst(&frames).is_empty(), "the acknowledgement waits for the turn of sending");
    bench.endpoint.application_mut().orders.extend((1..400).map(|number| order(ours(number))));
    bench.endpoint.poll_application(bench.now, &mut bench.out);
    bench.endpoint.poll_transmit(bench.now, &mut bench.out);
    let sent = bench.replies();
    assert!(sent.iter().any(|reply| reply.segment.flags == SYN), "the application opens others");
    assert!(sent.iter().any(|Reply { segment, .. }| segment.flags == ACK && segment.ack == peer.nxt));
}
