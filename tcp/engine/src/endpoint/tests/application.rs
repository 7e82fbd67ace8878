//! An application that opens connections itself, frame by frame: what it orders, and what it hears of each connection, once and in
//! order, however that ends.

use std::collections::{HashSet, VecDeque};

use super::icmp::unreachable;
use super::*;
use crate::proto::End;
use crate::service::{Memo, Taken};

/// What an application hears.
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

/// Carries out a list of orders, says one thing over every connection, and writes down what it hears.
struct Diary {
    orders: VecDeque<Order>,
    heard: Vec<(u32, Heard)>,
    says: &'static [u8],
    acked: u64,
    then: Then,
    /// Whether it accepts connections.
    listens: bool,
}

impl Diary {
    fn note(&mut self, id: Id, heard: Heard) {
        assert_eq!(id.role, 7, "the role that was given");
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
    let application =
        Diary { orders: VecDeque::new(), heard: Vec::new(), says, acked: 0, then, listens: false };
    let Config { settings, owned, mac, mtu, max_kept_frames, seed, .. } = config("close");
    Config { application, settings, owned, mac, mtu, max_kept_frames, seed }
}

/// The name of our connection, as we see it.
fn ours(number: u16) -> FlowKey {
    FlowKey { local: OWNED, ..reversed(&name(number)) }
}

fn order(key: FlowKey) -> Order {
    Order::Open(Open { key, link: link().reversed(), role: 7 })
}

/// A connection of ours, and the peer that it goes to.
struct Dialogue {
    bench: Bench<Diary>,
    peer: Peer,
}

impl Dialogue {
    /// SYN is out.
    fn opening(config: Config<Diary>) -> Self {
        let mut dialogue =
            Self { bench: Bench::new(config), peer: Peer { key: reversed(&ours(0)), ..Peer::new(0) } };
        let [syn] = &dialogue.order(order(ours(0)))[..] else { panic!("one SYN") };
        assert_eq!(syn.flags(), SYN);
        dialogue.peer.expected = syn.packet.segment.seq + 1;
        assert_eq!(dialogue.heard(), [Opened]);
        dialogue
    }

    /// The handshake is complete: what came back on SYN,ACK.
    fn open(config: Config<Diary>) -> (Self, Vec<Reply>) {
        let mut dialogue = Self::opening(config);
        let replies = dialogue.answer();
        (dialogue, replies)
    }

    /// SYN,ACK, and what comes back.
    fn answer(&mut self) -> Vec<Reply> {
        let options = Options { mss: Some(1000), ..Options::NONE };
        let segment = Segment { options, ..self.peer.segment(SYN_ACK) };
        let replies = self.bench.inject_from(&link(), &self.peer.key, &segment, &[]);
        self.peer.nxt += 1;
        self.peer.take(&replies);
        replies
    }

    fn order(&mut self, order: Order) -> Vec<Reply> {
        let bench = &mut self.bench;
        bench.endpoint.application_mut().orders.push_back(order);
        bench.endpoint.poll_application(bench.now, &mut bench.out);
        let sent = bench.collect();
        let mut replies: Vec<Reply> = sent.iter().map(|bytes| reply(bytes)).collect();
        replies.extend(bench.poll());
        self.peer.take(&replies);
        replies
    }

    fn say(&mut self, flags: Flags, text: &[u8]) -> Vec<Reply> {
        let segment = self.peer.segment(flags);
        let replies = self.bench.inject_from(&link(), &self.peer.key, &segment, text);
        self.peer.nxt += text.len() as u32 + u32::from(flags.has(Flags::FIN));
        self.peer.take(&replies);
        replies
    }

    /// Everything that was heard since the last time, of the one connection.
    fn heard(&mut self) -> Vec<Heard> {
        let heard = std::mem::take(&mut self.bench.endpoint.application_mut().heard);
        assert!(heard.iter().all(|(slot, _)| *slot == heard[0].0), "{heard:?}");
        heard.into_iter().map(|(_, heard)| heard).collect()
    }

    /// The connection changes its mind about closing, and is told to look.
    fn close(&mut self, then: Then) -> Vec<Reply> {
        self.bench.endpoint.application_mut().then = then;
        self.order(Order::Wake(0))
    }

    /// Nothing more is ever heard, whatever time brings.
    fn check_over(mut self, end: End) {
        self.bench.wait(400_000);
        assert_eq!(self.heard(), [], "the end is told once");
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
}

fn flags(replies: &[Reply]) -> Vec<Flags> {
    replies.iter().map(Reply::flags).collect()
}

#[test]
fn we_close_first() {
    let (mut dialogue, replies) = Dialogue::open(diary(b"hello", Then::Close));
    // The handshake's acknowledgement carries the text, and FIN rides with it.
    assert_eq!(flags(&replies), [FIN_ACK.with(Flags::PSH)]);
    assert_eq!(replies[0].text, b"hello");
    assert_eq!(dialogue.heard(), [Established, FinSent]);
    dialogue.say(ACK, &[]);
    assert_eq!(dialogue.heard(), [Acked(5), FinAcked]);
    dialogue.say(ACK, b"world");
    assert_eq!(dialogue.heard(), [Text(5)]);
    dialogue.say(FIN_ACK, &[]);
    assert_eq!(dialogue.heard(), [PeerClosed, Heard::End(End::Closed)]);
    dialogue.check_over(End::Closed);
}

#[test]
fn the_peer_closes_first() {
    let (mut dialogue, replies) = Dialogue::open(diary(b"hello", Then::CloseAfterPeer));
    assert_eq!(flags(&replies), [ACK.with(Flags::PSH)]);
    assert_eq!(dialogue.heard(), [Established]);
    let replies = dialogue.say(FIN_ACK, b"world");
    assert_eq!(flags(&replies), [FIN_ACK]);
    assert_eq!(dialogue.heard(), [Acked(5), Text(5), PeerClosed, FinSent]);
    dialogue.say(ACK, &[]);
    assert_eq!(dialogue.heard(), [FinAcked, Heard::End(End::Closed)]);
    dialogue.check_over(End::Closed);
}

#[test]
fn both_close_at_once() {
    let (mut dialogue, _) = Dialogue::open(diary(b"", Then::Close));
    assert_eq!(dialogue.heard(), [Established, FinSent]);
    // The peer's FIN has crossed ours: it acknowledges nothing of it.
    let fin = Segment { ack: dialogue.peer.expected - 1, ..dialogue.peer.segment(FIN_ACK) };
    let replies = dialogue.bench.inject_from(&link(), &dialogue.peer.key, &fin, &[]);
    dialogue.peer.nxt += 1;
    assert_eq!(flags(&replies), [ACK]);
    assert_eq!(dialogue.heard(), [PeerClosed]);
    dialogue.say(ACK, &[]);
    assert_eq!(dialogue.heard(), [FinAcked, Heard::End(End::Closed)]);
    dialogue.check_over(End::Closed);
}

#[test]
fn a_reset_by_the_peer_is_heard_in_every_state() {
    // What the peer has done before, and what was heard of it.
    let check = |then, steps: &[Flags], heard: &[Heard], end: Option<End>| {
        let (mut dialogue, _) = Dialogue::open(diary(b"", then));
        steps.iter().for_each(|flags| drop(dialogue.say(*flags, &[])));
        assert_eq!(dialogue.heard(), heard);
        assert!(dialogue.say(RST, &[]).is_empty());
        assert_eq!(dialogue.heard(), end.map(Heard::End).into_iter().collect::<Vec<_>>(), "after {heard:?}");
        // TIME-WAIT was no news any more.
        dialogue.check_over(end.unwrap_or(End::Closed));
    };
    let reset = Some(End::ResetByPeer);
    let closed = Heard::End(End::Closed);
    check(Then::Wait, &[], &[Established], reset);
    check(Then::Wait, &[FIN_ACK], &[Established, PeerClosed], reset);
    check(Then::CloseAfterPeer, &[FIN_ACK], &[Established, PeerClosed, FinSent], reset);
    check(Then::Close, &[], &[Established, FinSent], reset);
    check(Then::Close, &[ACK], &[Established, FinSent, FinAcked], reset);
    check(Then::Close, &[ACK, FIN_ACK], &[Established, FinSent, FinAcked, PeerClosed, closed], None);
    let mut refused = Dialogue::opening(diary(b"", Then::Wait));
    refused.say(RST_ACK, &[]);
    assert_eq!(refused.heard(), [Heard::End(End::ResetByPeer)]);
    assert_eq!(refused.bench.counts().attempt_fails, 1);
    refused.check_over(End::ResetByPeer);
}

#[test]
fn an_abort_is_heard_in_every_state() {
    // In LAST-ACK the peer has closed, and before the handshake it knows of nothing: no RST then.
    let check = |then, steps: &[Flags], rst: bool| {
        for end in [End::TimedOut, End::ResetByUs] {
            let (mut dialogue, _) = Dialogue::open(diary(b"", then));
            steps.iter().for_each(|flags| drop(dialogue.say(*flags, &[])));
            dialogue.heard();
            let replies = dialogue.order(Order::Abort(0, end));
            assert_eq!(flags(&replies), if rst { vec![RST_ACK] } else { vec![] });
            assert_eq!(dialogue.heard(), [Heard::End(end)]);
            // A second one finds nothing.
            assert!(dialogue.order(Order::Abort(0, end)).is_empty());
            assert!(dialogue.order(Order::Wake(0)).is_empty());
            dialogue.check_over(end);
        }
    };
    check(Then::Wait, &[], true);
    check(Then::Wait, &[FIN_ACK], true);
    check(Then::Close, &[], true);
    check(Then::Close, &[ACK], true);
    check(Then::CloseAfterPeer, &[FIN_ACK], false);
    let mut opening = Dialogue::opening(diary(b"", Then::Wait));
    assert!(opening.order(Order::Abort(0, End::TimedOut)).is_empty());
    assert_eq!(opening.heard(), [Heard::End(End::TimedOut)]);
    opening.check_over(End::TimedOut);
    // TIME-WAIT is over for the application: an abort leaves it alone.
    let (mut waiting, _) = Dialogue::open(diary(b"", Then::Close));
    waiting.say(FIN_ACK, &[]);
    waiting.heard();
    assert!(waiting.order(Order::Abort(0, End::TimedOut)).is_empty());
    assert_eq!(waiting.bench.counts().curr_time_wait, 1);
    waiting.check_over(End::Closed);
}

#[test]
fn a_reset_of_ours_comes_after_the_handshake() {
    let (mut dialogue, replies) = Dialogue::open(diary(b"", Then::Reset));
    assert_eq!(flags(&replies), [ACK, RST_ACK]);
    assert_eq!(dialogue.heard(), [Established, Heard::End(End::ResetByUs)]);
    dialogue.check_over(End::ResetByUs);
}

#[test]
fn silence_is_heard() {
    let mut opening = Dialogue::opening(diary(b"", Then::Wait));
    assert_eq!(opening.bench.wait(130_000).len(), 6, "SYN goes again");
    assert_eq!(opening.heard(), [Heard::End(End::TimedOut)]);
    opening.check_over(End::TimedOut);
    let (mut closing, _) = Dialogue::open(diary(b"", Then::Close));
    assert_eq!(closing.heard(), [Established, FinSent]);
    assert!(closing.bench.wait(400_000).iter().all(|again| again.flags() == FIN_ACK));
    assert_eq!(closing.heard(), [Heard::End(End::TimedOut)], "FIN was sent for the first time once");
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

/// Who gives way hears so: half-open connections do, TIME-WAIT has nobody left to tell.
#[test]
fn eviction_is_heard() {
    let mut config = diary(b"", Then::Wait);
    config.settings.max_connections = 1;
    config.application.listens = true;
    let mut bench = Bench::new(config);
    for number in 0..3 {
        let peer = Peer { key: reversed(&ours(number)), ..Peer::new(number) };
        let replies = bench.inject_from(&link(), &peer.key, &peer.segment(SYN), &[]);
        assert_eq!(flags(&replies), [SYN_ACK]);
    }
    let heard = std::mem::take(&mut bench.endpoint.application_mut().heard);
    assert_eq!(heard, [(0, Heard::End(End::TimedOut)); 2]);
    assert_eq!(bench.counts().ended_evicted_half_open, 2);

    let (mut dialogue, _) = Dialogue::open(with_room(1, diary(b"", Then::Close)));
    dialogue.say(FIN_ACK, &[]);
    assert_eq!(dialogue.heard().last(), Some(&Heard::End(End::Closed)));
    assert_eq!(flags(&dialogue.order(order(ours(1)))), [SYN]);
    assert_eq!(dialogue.heard(), [Opened]);
    assert_eq!(dialogue.bench.counts().ended_evicted_time_wait, 1);
    // An established one, or our own SYN, never gives way.
    assert!(dialogue.order(order(ours(2))).is_empty());
    assert_eq!(dialogue.heard(), [NotOpened(OpenError::TableFull)]);
    assert!(dialogue.order(order(ours(1))).is_empty());
    assert_eq!(dialogue.heard(), [NotOpened(OpenError::Exists)]);
}

#[test]
fn a_wake_makes_it_look_again() {
    let (mut dialogue, replies) = Dialogue::open(diary(b"", Then::Wait));
    assert_eq!(flags(&replies), [ACK]);
    assert!(dialogue.bench.wait(100_000).is_empty());
    assert!(dialogue.order(Order::Wake(0)).is_empty(), "it has not changed its mind");
    assert_eq!(dialogue.heard(), [Established]);
    assert_eq!(flags(&dialogue.close(Then::Close)), [FIN_ACK]);
    assert_eq!(dialogue.heard(), [FinSent]);
    assert!(dialogue.order(Order::Wake(0)).is_empty(), "once");
    dialogue.say(FIN_ACK, &[]);
    assert_eq!(dialogue.heard(), [PeerClosed, FinAcked, Heard::End(End::Closed)], "one segment told both");
    dialogue.check_over(End::Closed);
}

#[test]
fn without_piggyback_each_goes_alone() {
    let settings = Settings { piggyback: false, ..config("close").settings };
    let apart = |says, then| Config { settings, ..diary(says, then) };
    let (mut dialogue, replies) = Dialogue::open(apart(b"hello", Then::Close));
    assert_eq!(flags(&replies), [ACK, ACK.with(Flags::PSH), FIN_ACK]);
    assert_eq!(replies.iter().map(|reply| reply.text.len()).collect::<Vec<_>>(), [0, 5, 0]);
    assert_eq!(dialogue.heard(), [Established, FinSent]);
    // Two in one acknowledgement all the same.
    dialogue.say(ACK, &[]);
    assert_eq!(dialogue.heard(), [Acked(5), FinAcked]);
    assert_eq!(flags(&dialogue.say(FIN_ACK, &[])), [ACK]);
    dialogue.check_over_after(&[PeerClosed, Heard::End(End::Closed)]);

    let (mut dialogue, replies) = Dialogue::open(apart(b"hello", Then::CloseAfterPeer));
    assert_eq!(flags(&replies), [ACK, ACK.with(Flags::PSH)]);
    // The peer's FIN is acknowledged, and ours follows.
    assert_eq!(flags(&dialogue.say(FIN_ACK, b"world")), [ACK, FIN_ACK]);
    dialogue.say(ACK, &[]);
    dialogue.check_over_after(&[
        Established,
        Acked(5),
        Text(5),
        PeerClosed,
        FinSent,
        FinAcked,
        Heard::End(End::Closed),
    ]);
}

impl Dialogue {
    fn check_over_after(mut self, heard: &[Heard]) {
        assert_eq!(self.heard(), heard);
        self.check_over(End::Closed);
    }
}

/// Our addresses stand in the connections' own lines: there may be more of them at once than numbers of 16 bits.
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
        let orders = &mut bench.endpoint.application_mut().orders;
        orders.push_back(order(key(number)));
        bench.endpoint.poll_application(bench.now, &mut bench.out);
        let [syn] = &bench.collect()[..] else { panic!("a SYN") };
        let syn = reply(syn).packet;
        assert_eq!(syn.key.remote, key(number).local);
        numbers.push(syn.segment.seq);
    }
    let heard = std::mem::take(&mut bench.endpoint.application_mut().heard);
    assert!(heard.iter().all(|(_, heard)| *heard == Opened));
    assert_eq!(heard.iter().map(|(slot, _)| slot).collect::<HashSet<_>>().len(), 70_000);
    // Each is found by its name: the peer refuses all of them.
    for number in 0..CONNECTIONS {
        let peer =
            Peer { key: reversed(&key(number)), expected: numbers[number as usize] + 1, ..Peer::new(0) };
        let bytes = frame(&link(), &peer.key, &peer.segment(RST_ACK), &[]);
        assert!(bench.inject_bytes(&bytes).is_empty());
    }
    assert_eq!((bench.endpoint.len(), bench.counts().ended_reset_by_peer), (0, u64::from(CONNECTIONS)));
    let ends = &bench.endpoint.application().heard;
    assert_eq!(ends.iter().map(|(slot, _)| slot).collect::<HashSet<_>>().len(), 70_000);
    assert!(ends.iter().all(|(_, heard)| *heard == Heard::End(End::ResetByPeer)));
}

/// A generator that is behind opens for as long as there are frames.
#[test]
fn what_is_owed_goes_although_there_is_more_to_open_than_frames() {
    let (mut dialogue, _) = Dialogue::open(diary(b"", Then::Wait));
    let Dialogue { bench, peer } = &mut dialogue;
    let frames = [b"one", b"two"].map(|text| {
        let bytes = frame(&link(), &peer.key, &peer.segment(ACK), text);
        peer.nxt += text.len() as u32;
        bytes
    });
    assert!(bench.inject_burst(&frames).is_empty(), "its turn comes");
    bench.endpoint.application_mut().orders.extend((1..400).map(|number| order(ours(number))));
    bench.endpoint.poll_application(bench.now, &mut bench.out);
    bench.endpoint.poll_transmit(bench.now, &mut bench.out);
    let sent: Vec<Reply> = bench.collect().iter().map(|bytes| reply(bytes)).collect();
    assert!(sent.iter().any(|reply| reply.flags() == SYN), "others are opened");
    assert!(sent.iter().any(|reply| reply.flags() == ACK && reply.packet.segment.ack == peer.nxt));
}
