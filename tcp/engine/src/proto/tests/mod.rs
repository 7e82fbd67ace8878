//! RFC 9293 section by section, as tables. Knows how to bring a connection into each state by what a user and a peer may do.
//!
//! Every rule runs in both roles and with initial numbers around every place where 2^32 may be passed.

mod arrivals;
mod closing;
mod hostile;
mod opening;
mod sending;
mod timers;

use super::*;
use crate::time::Millis;

const NOW: Millis = Millis(10_000);
const ENVIRONMENT: Environment = Environment { local_mss: 1460, time_wait_ms: 60_000 };
/// The peer's window in the handshake and in every segment that names no other.
const WINDOW: u16 = 8000;
/// Initial numbers such that SYN, text and FIN each come to lie before, on and behind the wrap.
const BASES: [u32; 8] =
    [0, 1 << 31, u32::MAX, u32::MAX - 1, u32::MAX - 2, u32::MAX - 500, u32::MAX - 1000, u32::MAX - 1001];

const ACK: Flags = Flags::ACK;
const SYN: Flags = Flags::SYN;
const RST: Flags = Flags::RST;
const FIN_ACK: Flags = Flags::FIN_ACK;
const SYN_ACK: Flags = Flags::SYN_ACK;
const RST_ACK: Flags = Flags::RST_ACK;

/// Who sent the first SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Passive,
    Active,
}

/// A connection, and what the other end knows.
#[derive(Clone, Debug)]
struct World {
    tcb: Tcb,
    transfer: Option<Transfer>,
    irs: SeqNum,
    now: Millis,
}

impl World {
    /// SYN-SENT, or SYN-RECEIVED in answer to a SYN with these options.
    fn half_open(role: Role, iss: u32, irs: u32, options: Options) -> Self {
        let (iss, irs) = (SeqNum(iss), SeqNum(irs));
        let syn = Segment { seq: irs, flags: SYN, window: WireWindow(WINDOW), options, ..Segment::default() };
        let tcb = match role {
            Role::Passive => Tcb::accept(&syn, iss, ENVIRONMENT.local_mss, NOW),
            Role::Active => Tcb::open(iss, NOW),
        };
        Self { tcb, transfer: None, irs, now: NOW }
    }

    /// ESTABLISHED, nothing out, nothing owed.
    fn established(role: Role, iss: u32, irs: u32, options: Options) -> Self {
        let mut world = Self::half_open(role, iss, irs, options);
        let last = match role {
            Role::Passive => Segment {
                options: Options { timestamps: options.timestamps, ..Options::NONE },
                ..world.peer(ACK)
            },
            Role::Active => {
                Segment { seq: world.irs, ack: world.tcb.snd_nxt(), options, ..world.peer(SYN_ACK) }
            }
        };
        let arrival = world.arrive(&last);
        assert_eq!(arrival.disposition, Disposition::Accepted);
        world.tcb.ack_sent();
        assert_eq!((world.tcb.state(), world.tcb.timer().0), (State::Established, Timer::None));
        world
    }

    /// The given state, with `out` bytes of text (and FIN, where the state says so) sent and not acknowledged.
    fn in_state(role: Role, iss: u32, irs: u32, state: State, out: u64) -> Self {
        let options = Options::NONE;
        match state {
            State::Closed => panic!("no connection"),
            State::SynSent => return Self::half_open(Role::Active, iss, irs, options),
            State::SynReceived if role == Role::Passive => return Self::half_open(role, iss, irs, options),
            State::SynReceived => {
                // Simultaneous open.
                let mut world = Self::half_open(role, iss, irs, options);
                let syn = Segment { seq: world.irs, ack: SeqNum(0), ..world.peer(SYN) };
                assert_eq!(world.arrive(&syn).disposition, Disposition::RepeatHandshake);
                return world;
            }
            _ => {}
        }
        let mut world = Self::established(role, iss, irs, options);
        if matches!(state, State::CloseWait | State::LastAck) {
            world.peer_closes();
        }
        let closes = !matches!(state, State::Established | State::CloseWait);
        world.send(out, closes);
        match state {
            State::FinWait2 | State::TimeWait => {
                let all = Segment { ack: world.tcb.snd_nxt(), ..world.peer(ACK) };
                assert_eq!(world.arrive(&all).disposition, Disposition::Accepted);
                if state == State::TimeWait {
                    world.peer_closes();
                }
            }
            State::Closing => world.peer_closes(),
            _ => {}
        }
        assert_eq!(world.tcb.state(), state, "{role:?}");
        world
    }

    /// What the peer would say next: the next number, acknowledging nothing new.
    fn peer(&self, flags: Flags) -> Segment {
        let ack = if self.tcb.state().is_half_open() { self.tcb.snd_nxt() } else { self.tcb.snd_una() };
        Segment { seq: self.tcb.rcv_nxt(), ack, flags, window: WireWindow(WINDOW), ..Segment::default() }
    }

    /// The connection, with what TCP borrows of it.
    fn tcp(&mut self) -> Tcp<'_> {
        Tcp::new(&mut self.tcb, self.transfer.as_mut())
    }

    fn arrive(&mut self, seg: &Segment) -> Arrival {
        let now = self.now;
        self.tcp().segment_arrives(seg, &ENVIRONMENT, now)
    }

    fn peer_closes(&mut self) {
        let fin = self.peer(FIN_ACK);
        let arrival = self.arrive(&fin);
        assert_eq!((arrival.disposition, arrival.fin), (Disposition::Accepted, Some(fin.seq)));
        self.receive_fin(fin.seq);
        self.tcb.ack_sent();
    }

    fn poll(&mut self, bytes: u64, fin: bool) -> Option<Outgoing> {
        let now = self.now;
        self.tcp().poll_segment(Stream { bytes, fin }, now)
    }

    /// All that may be sent of a stream now, as (offset from SND.UNA, bytes, flags, sent before?).
    fn send(&mut self, bytes: u64, fin: bool) -> Vec<(u32, u16, Flags, bool)> {
        let mut sent = Vec::new();
        while let Some(outgoing) = self.poll(bytes, fin) {
            assert_eq!(outgoing.seq, self.tcb.snd_una() + outgoing.text_at);
            sent.push((outgoing.text_at, outgoing.text_len, outgoing.flags, outgoing.again));
            assert!(sent.len() < 1000, "no end");
        }
        if !sent.is_empty() {
            self.tcb.ack_sent();
        }
        sent
    }

    /// The peer acknowledges `numbers` more.
    fn acknowledge(&mut self, numbers: u32) -> Arrival {
        let ack = Segment { ack: self.tcb.snd_una() + numbers, ..self.peer(ACK) };
        self.arrive(&ack)
    }

    /// The running timer, and in how many milliseconds it is due.
    fn timer(&self) -> (Timer, u32) {
        let (timer, deadline) = self.tcb.timer();
        (timer, if timer == Timer::None { 0 } else { deadline.since(self.now) })
    }

    fn wait(&mut self, millis: u32) {
        self.now = self.now + millis;
    }

    /// Text in order has found a place; whether its acknowledgement may not wait for more.
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

    /// Waits for the running timer.
    fn expire(&mut self) -> Timeout {
        self.wait(self.timer().1);
        self.on_deadline()
    }

    fn attach(&mut self) {
        self.transfer = Some(self.tcb.attach_transfer(0));
    }
}
