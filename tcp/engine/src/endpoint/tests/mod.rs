//! One endpoint, frame by frame. Knows what a peer on the wire sees; after every frame the laws of the accounts and of frames
//! are checked.

mod application;
mod bounds;
mod churn;
mod ending;
mod hostile;
mod icmp;
mod siblings;
mod text;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::device::pair::{Faults, PairDevice, pair};
use crate::device::{BURST, Burst, Device};
use crate::flow::{Address, FlowKey};
use crate::proto::{Flags, Options, Segment, SeqNum, WireWindow};
use crate::service::{BuiltIn, Pending, Then};
use crate::stats::{DropReason, Snapshot};
use crate::time::Instant;
use crate::wire::{self, Checks, Link, Mac, Packet, TcpPacket};

const US: Mac = [2, 0, 0, 0, 0, 2];
const THEM: Mac = [2, 0, 0, 0, 0, 1];
/// An address that only synmill has, and one of the kernel's.
const OWNED: Address = Address::v4([198, 18, 7, 1]);
const SHARED: Address = Address::v4([198, 18, 0, 2]);

const ACK: Flags = Flags::ACK;
const SYN: Flags = Flags::SYN;
const RST: Flags = Flags::RST;
const FIN_ACK: Flags = Flags::FIN_ACK;
const SYN_ACK: Flags = Flags::SYN_ACK;
const RST_ACK: Flags = Flags::RST_ACK;

fn config(service: &str) -> Config<Listeners<BuiltIn>> {
    let service: BuiltIn = service.parse().unwrap();
    Config {
        application: Listeners(vec![Listener { address: Address::v4([0; 4]), port: 80, service }]),
        owned: vec!["198.18.7.0/24".parse().unwrap(), "fd00:18::/64".parse().unwrap()],
        mac: US,
        mtu: 1500,
        settings: Settings { max_connections: 256, ..Settings::default() },
        max_kept_frames: 128,
        seed: [1, 2, 3, 4],
    }
}

/// An endpoint's parts, with room for so many connections.
fn with_room<A>(max_connections: usize, config: Config<A>) -> Config<A> {
    Config { settings: Settings { max_connections, ..config.settings }, ..config }
}

/// A frame that came back.
#[derive(Clone, Debug)]
struct Reply {
    packet: TcpPacket,
    text: Vec<u8>,
}

impl Reply {
    fn flags(&self) -> Flags {
        self.packet.segment.flags
    }
}

struct Bench<A = Listeners<BuiltIn>> {
    device: PairDevice,
    endpoint: Endpoint<A>,
    out: Outbox,
    now: Instant,
}

impl Bench {
    fn serving(service: &str) -> Self {
        Self::new(config(service))
    }
}

impl<A: Application> Bench<A> {
    fn new(config: Config<A>) -> Self {
        let (device, ..) = pair(1, &Faults::NONE, 2048, 2048);
        let now = Instant::from_nanos(10_000_000_000);
        let endpoint = Endpoint::new(config, now, Arc::default());
        let mut bench = Self { device, endpoint, out: Outbox::new(), now };
        bench.refill();
        bench
    }

    fn counts(&self) -> Snapshot {
        self.endpoint.counters().snapshot()
    }

    fn refill(&mut self) {
        // As many as a worker has.
        let wanted = 2 * BURST - self.out.free.len();
        self.device.alloc(&mut self.out.free, wanted);
    }

    fn check_laws(&self) {
        let counts = self.counts();
        for law in counts.laws() {
            assert!(law.holds(), "{law:?}\n{counts:#?}");
        }
        let census = self.device.census();
        assert_eq!(
            census.free + census.rings + self.out.frames() + self.endpoint.frames_kept(),
            census.total
        );
    }

    /// Gives the endpoint a frame with these bytes, and nothing else to do.
    fn inject_bytes(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.inject_burst(&[bytes.to_vec()])
    }

    /// Gives the endpoint frames that have come together; what it sends before its turn to send.
    fn inject_burst(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        assert_eq!(self.device.alloc(&mut burst, frames.len()), frames.len());
        for (frame, bytes) in burst.iter_mut().zip(frames) {
            frame.set_len(bytes.len());
            frame.copy_from_slice(bytes);
        }
        self.endpoint.on_burst(self.now, &mut burst, false, &mut self.out);
        self.collect()
    }

    /// The same, and what turns of sending it takes until it is silent.
    fn inject_all(&mut self, frames: &[Vec<u8>]) -> Vec<Reply> {
        let mut replies: Vec<Reply> = self.inject_burst(frames).iter().map(|bytes| reply(bytes)).collect();
        replies.extend(self.poll());
        replies
    }

    /// What was to be sent. All frames go home.
    fn collect(&mut self) -> Vec<Vec<u8>> {
        self.check_laws();
        let sent = self.out.transmit.iter().map(|frame| frame.to_vec()).collect();
        self.device.recycle(&mut self.out.transmit);
        self.device.recycle(&mut self.out.recycle);
        self.refill();
        self.check_laws();
        sent
    }

    /// Gives the endpoint a segment of a peer, and what turns of sending it takes until it is silent.
    fn inject_from(&mut self, link: &Link, key: &FlowKey, segment: &Segment, text: &[u8]) -> Vec<Reply> {
        self.inject_all(&[frame(link, key, segment, text)])
    }

    fn poll(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        for _ in 0..1000 {
            self.endpoint.poll_transmit(self.now, &mut self.out);
            let sent = self.collect();
            if sent.is_empty() && !self.endpoint.is_ready() {
                return replies;
            }
            replies.extend(sent.iter().map(|bytes| reply(bytes)));
        }
        panic!("it never stops sending");
    }

    /// Lets time pass, millisecond by millisecond, and returns what was sent meanwhile.
    fn wait(&mut self, millis: u64) -> Vec<Reply> {
        let end = self.now + Duration::from_millis(millis);
        let mut replies = Vec::new();
        while self.now < end {
            // The wheel knows when there is nothing to do.
            let step = self.endpoint.next_tick_ms().map_or(millis, |tick| u64::from(tick.max(1)));
            self.now = (self.now + Duration::from_millis(step)).min(end);
            self.endpoint.on_tick(self.now, &mut self.out);
            let sent = self.collect();
            replies.extend(sent.iter().map(|bytes| reply(bytes)));
            replies.extend(self.poll());
        }
        replies
    }
}

/// A peer's frame.
fn frame(link: &Link, key: &FlowKey, segment: &Segment, text: &[u8]) -> Vec<u8> {
    let segment = Segment { text_len: text.len() as u16, ..*segment };
    let start = wire::header_len(link, key, &segment.options);
    let mut bytes = vec![0; start + text.len()];
    bytes[start..].copy_from_slice(text);
    assert_eq!(wire::emit(&mut bytes, link, key, &segment), bytes.len());
    bytes
}

fn reply(bytes: &[u8]) -> Reply {
    let Ok(Packet::Tcp(packet)) = wire::parse(bytes, Checks::default()) else {
        panic!("not a segment: {bytes:?}")
    };
    let text = bytes[usize::from(packet.text_start)..][..usize::from(packet.segment.text_len)].to_vec();
    Reply { packet, text }
}

fn link() -> Link {
    Link { destination: US, source: THEM, tags: Default::default() }
}

/// The name of a peer's connection, as the peer sees it.
fn name(number: u16) -> FlowKey {
    FlowKey {
        local: Address::v4([198, 19, 0, 1]),
        remote: SHARED,
        local_port: 1024 + number,
        remote_port: 80,
    }
}

/// A peer that does what its test says.
#[derive(Clone, Debug)]
struct Peer {
    key: FlowKey,
    /// Its next number, and the next one it expects.
    nxt: SeqNum,
    expected: SeqNum,
    window: u16,
    sack_permitted: bool,
}

impl Peer {
    fn new(number: u16) -> Self {
        // The first text straddles the wrap.
        Self {
            key: name(number),
            nxt: SeqNum(u32::MAX - 5),
            expected: SeqNum(0),
            window: 60_000,
            sack_permitted: false,
        }
    }

    fn segment(&self, flags: Flags) -> Segment {
        Segment {
            seq: self.nxt,
            ack: if flags.has(ACK) { self.expected } else { SeqNum(0) },
            flags,
            window: WireWindow(self.window),
            ..Segment::default()
        }
    }

    /// SYN; the SYN,ACK that comes back.
    fn knock(&mut self, bench: &mut Bench) -> Vec<Reply> {
        let options = Options { mss: Some(1000), sack_permitted: self.sack_permitted, ..Options::NONE };
        let syn = Segment { options, ..self.segment(SYN) };
        let replies = bench.inject_from(&link(), &self.key, &syn, &[]);
        if let [answer] = &replies[..]
            && answer.flags() == SYN_ACK
        {
            assert_eq!(answer.packet.segment.ack, self.nxt + 1);
            self.expected = answer.packet.segment.seq + 1;
        }
        self.nxt += 1;
        replies
    }

    fn open(number: u16, bench: &mut Bench) -> Self {
        let mut peer = Self::new(number);
        assert_eq!(peer.knock(bench).len(), 1);
        peer.say(bench, ACK, &[]);
        peer
    }

    /// The next segment, and what comes back; everything that comes in order counts as received.
    fn say(&mut self, bench: &mut Bench, flags: Flags, text: &[u8]) -> Vec<Reply> {
        let replies = bench.inject_from(&link(), &self.key, &self.segment(flags), text);
        self.nxt += text.len() as u32 + u32::from(flags.has(Flags::FIN));
        self.take(&replies);
        replies
    }

    /// A segment `ahead` bytes ahead of the next.
    fn say_ahead(&mut self, bench: &mut Bench, ahead: u32, text: &[u8]) -> Vec<Reply> {
        let segment = Segment { seq: self.nxt + ahead, ..self.segment(ACK) };
        let replies = bench.inject_from(&link(), &self.key, &segment, text);
        self.take(&replies);
        replies
    }

    fn take(&mut self, replies: &[Reply]) {
        for reply in replies {
            if reply.packet.segment.seq == self.expected {
                self.expected = reply.packet.segment.end();
            }
        }
    }

    /// Is its connection as it should be: does it take a byte and acknowledge it?
    fn is_well(&mut self, bench: &mut Bench) -> bool {
        let mut replies = self.say(bench, ACK, b".");
        replies.extend(bench.wait(50));
        self.take(&replies);
        replies.iter().any(|reply| reply.packet.segment.ack == self.nxt)
    }
}

/// All text in a row.
fn text_of(replies: &[Reply]) -> Vec<u8> {
    replies.iter().flat_map(|reply| reply.text.clone()).collect()
}

/// The same connection, as we see it.
fn reversed(key: &FlowKey) -> FlowKey {
    FlowKey { local: key.remote, remote: key.local, local_port: key.remote_port, remote_port: key.local_port }
}
