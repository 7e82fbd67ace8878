//! Tests RFC 9293 section by section, as tables. A user's and a peer's actions bring a connection into each state.
//!
//! Most rules run in both roles, and with initial numbers around every place where sequence numbers may wrap.

mod arrivals;
mod closing;
mod hostile;
mod opening;
mod sending;
mod timers;

use super::*;
use crate::time::Millis;

pub(crate) const ACK: Flags = Flags::ACK;
pub(crate) const SYN: Flags = Flags::SYN;
pub(crate) const RST: Flags = Flags::RST;
pub(crate) const FIN_ACK: Flags = Flags::FIN_ACK;
pub(crate) const SYN_ACK: Flags = Flags::SYN_ACK;
pub(crate) const RST_ACK: Flags = Flags::RST_ACK;
pub(crate) const PSH_ACK: Flags = Flags::PSH_ACK;
/// The flags of a stream's last segment.
pub(crate) const LAST: Flags = PSH_ACK.with(Flags::FIN);
/// The SYN options of a peer that takes segments of 1000 bytes.
pub(crate) const MSS_1000: Options = Options { mss: Some(1000), ..Options::NONE };

const NOW: Millis = Millis(10_000);
const ENVIRONMENT: Environment = Environment { local_mss: 1460, time_wait_ms: 60_000 };
/// The peer's window in the handshake and in every segment that names no other.
const WINDOW: u16 = 8000;
/// Initial numbers that put SYN, text and FIN before, on and behind the wrap.
const BASES: [u32; 8] =
    [0, 1 << 31, u32::MAX, u32::MAX - 1, u32::MAX - 2, u32::MAX - 500, u32::MAX - 1000, u32::MAX - 1001];

/// Returns a segment without options and text. A segment without ACK acknowledges nothing.
pub(crate) fn segment(seq: SeqNum, ack: SeqNum, flags: Flags, window: u16) -> Segment {
    let ack = if flags.has(ACK) { ack } else { SeqNum(0) };
    Segment { seq, ack, flags, window: WireWindow(window), ..Segment::default() }
}

/// The side of the handshake: the active one sends the first SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Passive,
    Active,
}

/// Returns both roles with every pair of initial numbers, ISS and IRS.
fn everywhere() -> impl Iterator<Item = (Role, u32, u32)> {
    let numbers = BASES.into_iter().flat_map(|iss| BASES.map(|irs| (iss, irs)));
    numbers.flat_map(|(iss, irs)| [Role::Passive, Role::Active].map(|role| (role, iss, irs)))
}

/// A connection, and the numbers that the other end knows.
#[derive(Clone, Debug)]
struct World {
    tcb: Tcb,
    transfer: Option<Transfer>,
    irs: SeqNum,
    now: Millis,
}

impl World {
    /// Returns a connection in SYN-SENT, or in SYN-RECEIVED after a SYN with these options.
    fn half_open(role: Role, iss: u32, irs: u32, options: Options) -> Self {
        let (iss, irs) = (SeqNum(iss), SeqNum(irs));
        let syn = Segment { options, ..segment(irs, SeqNum(0), SYN, WINDOW) };
        let tcb = match role {
            Role::Passive => Tcb::accept(&syn, iss, ENVIRONMENT.local_mss, NOW),
            Role::Active => Tcb::open(iss, NOW),
        };
        Self { tcb, transfer: None, irs, now: NOW }
    }

    /// Returns a connection in ESTABLISHED, with nothing in flight and no acknowledgement owed.
    fn established(role: Role, iss: u32, irs: u32, options: Options) -> Self {
        let mut world = Self::half_open(role, iss, irs, options);
        let (flags, options) = match role {
            Role::Passive => (ACK, Options { timestamps: options.timestamps, ..Options::NONE }),
            Role::Active => (SYN_ACK, options),
        };
        world.accept(&Segment { options, ..world.peer(flags) });
        world.tcb.ack_sent();
        assert_eq!((world.tcb.state(), world.tcb.timer().0), (State::Established, Timer::None));
        world
    }

    /// Returns a connection in ESTABLISHED that sends segments of 1000 bytes.
    fn sender(iss: u32) -> Self {
        Self::established(Role::Passive, iss, 9, MSS_1000)
    }

    /// Returns a connection in `state`, with `out` bytes of text (and FIN, where the state has sent it) in flight.
    fn in_state(role: Role, iss: u32, irs: u32, state: State, out: u64) -> Self {
        if state == State::SynSent {
            return Self::half_open(Role::Active, iss, irs, Options::NONE);
        } else if state == State::SynReceived {
            let mut world = Self::half_open(role, iss, irs, Options::NONE);
            if role == Role::Active {
                // Simultaneous open.
                assert_eq!(world.arrive(&world.peer(SYN)).disposition, Disposition::RepeatHandshake);
            }
            return world;
        }
        let mut world = Self::established(role, iss, irs, Options::NONE);
        if matches!(state, State::CloseWait | State::LastAck) {
            world.peer_closes();
        }
        let closes = !matches!(state, State::Established | State::CloseWait);
        world.send(out, closes);
        if matches!(state, State::FinWait2 | State::TimeWait) {
            assert_eq!(world.acknowledge(world.tcb.flight()).disposition, Disposition::Accepted);
        }
        if matches!(state, State::Closing | State::TimeWait) {
            world.peer_closes();
        }
        assert_eq!(world.tcb.state(), state, "{role:?}");
        world
    }

    /// Returns the peer's next sequence number.
    fn peer_nxt(&self) -> SeqNum {
        if self.tcb.state() == State::SynSent { self.irs } else { self.tcb.rcv_nxt() }
    }

    /// Returns the peer's next segment. It acknowledges our SYN, and nothing new after the handshake.
    fn peer(&self, flags: Flags) -> Segment {
        let ack = if self.tcb.state().is_half_open() { self.tcb.snd_nxt() } else { self.tcb.snd_una() };
        segment(self.peer_nxt(), ack, flags, WINDOW)
    }

    fn tcp(&mut self) -> Tcp<'_> {
        Tcp::new(&mut self.tcb, self.transfer.as_mut())
    }

    fn arrive(&mut self, seg: &Segment) -> Arrival {
        let now = self.now;
        self.tcp().segment_arrives(seg, &ENVIRONMENT, now)
    }

    /// Gives the connection a segment that must be acceptable.
    fn accept(&mut self, seg: &Segment) -> Arrival {
        let arrival = self.arrive(seg);
        assert_eq!(arrival.disposition, Disposition::Accepted);
        arrival
    }

    fn peer_closes(&mut self) {
        let fin = self.peer(FIN_ACK);
        assert_eq!(self.accept(&fin).fin, Some(fin.seq));
        self.receive_fin(fin.seq);
        self.tcb.ack_sent();
    }

    fn poll(&mut self, bytes: u64, fin: bool) -> Option<Outgoing> {
        let now = self.now;
        self.tcp().poll_segment(Stream { bytes, fin }, now)
    }

    /// Sends as much of a stream as may go now. Returns (offset from SND.UNA, bytes, flags, retransmission?) for each segment.
    fn send(&mut self, bytes: u64, fin: bool) -> Vec<(u32, u16, Flags, bool)> {
        let mut sent = Vec::new();
        while let Some(outgoing) = self.poll(bytes, fin) {
            assert_eq!(outgoing.seq, self.tcb.snd_una() + outgoing.text_at);
            sent.push((outgoing.text_at, outgoing.text_len, outgoing.flags, outgoing.again));
            assert!(sent.len() < 1000, "the connection never stops sending");
        }
        if !sent.is_empty() {
            self.tcb.ack_sent();
        }
        sent
    }

    /// The peer acknowledges `numbers` more.
    fn acknowledge(&mut self, numbers: u32) -> Arrival {
        self.arrive(&Segment { ack: self.tcb.snd_una() + numbers, ..self.peer(ACK) })
    }

    /// The peer acknowledges nothing new and offers this window.
    fn offer(&mut self, window: u16) {
        self.accept(&Segment { window: WireWindow(window), ..self.peer(ACK) });
    }

    /// The peer acknowledges nothing new, and the acknowledgement counts as a duplicate.
    fn duplicate_ack(&mut self) {
        assert!(self.acknowledge(0).is_duplicate_ack);
        let now = self.now;
        self.tcp().on_duplicate_ack(&SackBlocks::NONE, now);
    }

    /// Returns the running timer, and the milliseconds until its deadline.
    fn timer(&self) -> (Timer, u32) {
        let (timer, deadline) = self.tcb.timer();
        (timer, if timer == Timer::None { 0 } else { deadline.since(self.now) })
    }

    fn wait(&mut self, millis: u32) {
        self.now = self.now + millis;
    }

    /// Receives text in order. Returns true if its acknowledgement is urgent.
    fn receive(&mut self, bytes: u32) -> bool {
        self.tcb.receive(bytes, self.now);
        self.tcb.owes_ack()
    }

    fn receive_fin(&mut self, fin: SeqNum) {
        let now = self.now;
        let received = self.tcp().receive_fin(fin, ENVIRONMENT.time_wait_ms, now);
        assert_eq!(received, FinArrival::Received);
    }

    fn on_deadline(&mut self) -> Timeout {
        let now = self.now;
        self.tcp().on_deadline(now)
    }

    /// Lets time pass until the running timer expires.
    fn expire(&mut self) -> Timeout {
        self.wait(self.timer().1);
        self.on_deadline()
    }

    fn attach(&mut self) -> &mut Transfer {
        self.transfer.insert(self.tcb.attach_transfer(0))
    }
}
