//! Tests one endpoint frame by frame, as a peer on the wire sees it. After every frame the bench checks the laws of the accounts and
//! of frames.

mod application;
mod bounds;
mod churn;
mod ending;
mod hostile;
mod icmp;
mod packets;
mod siblings;
mod text;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::device::pair::{Faults, PairDevice, pair};
use crate::device::{BURST, Burst, Device};
use crate::flow::{Address, FlowKey};
use crate::proto::tests::{ACK, FIN_ACK, LAST, MSS_1000, PSH_ACK, RST, RST_ACK, SYN, SYN_ACK, segment};
use crate::proto::{Flags, Options, Segment, SeqNum};
use crate::service::{BuiltIn, Pending, Then};
use crate::stats::{DropReason, Snapshot};
use crate::time::Instant;
use crate::wire::{self, Checks, Link, Mac, Packet};

const US: Mac = [2, 0, 0, 0, 0, 2];
const THEM: Mac = [2, 0, 0, 0, 0, 1];
/// An address that only synmill has.
const OWNED: Address = Address::v4([198, 18, 7, 1]);
/// An address of the kernel's.
const SHARED: Address = Address::v4([198, 18, 0, 2]);
/// The time at which every test starts.
const START: Instant = Instant::from_nanos(10_000_000_000);

/// Returns the address fd00:`net`::`last`.
const fn v6(net: u8, last: u8) -> Address {
    Address::v6([0xfd, 0, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last])
}

/// Returns the configuration of an endpoint that works for `application`.
fn config_for<A>(application: A) -> Config<A> {
    Config {
        application,
        owned: vec!["198.18.7.0/24".parse().unwrap(), "fd00:18::/64".parse().unwrap()],
        mac: US,
        mtu: 1500,
        settings: Settings { max_connections: 256, ..Settings::default() },
        max_kept_frames: 128,
        seed: [1, 2, 3, 4],
    }
}

/// Returns the configuration with room for so many connections.
fn with_room<A>(max_connections: usize, config: Config<A>) -> Config<A> {
    Config { settings: Settings { max_connections, ..config.settings }, ..config }
}

/// Returns the configuration of an endpoint with this service at port 80.
fn config(service: &str) -> Config<Listeners<BuiltIn>> {
    let service = service.parse().unwrap();
    config_for(Listeners(vec![Listener { address: Address::v4([0; 4]), port: 80, service }]))
}

/// A segment that the endpoint sent, and its connection as the peer sees it.
#[derive(Clone, Debug)]
struct Reply {
    key: FlowKey,
    segment: Segment,
    text: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Self {
        let Ok(Packet::Tcp(packet)) = wire::parse(bytes, Checks::default()) else {
            panic!("not a segment: {bytes:?}")
        };
        let text = bytes[usize::from(packet.text_start)..][..usize::from(packet.segment.text_len)].to_vec();
        Self { key: packet.key, segment: packet.segment, text }
    }
}

fn flags_of(replies: &[Reply]) -> Vec<Flags> {
    replies.iter().map(|reply| reply.segment.flags).collect()
}

/// Returns the text of all replies in a row.
fn text_of(replies: &[Reply]) -> Vec<u8> {
    replies.iter().flat_map(|reply| reply.text.clone()).collect()
}

/// Returns the only reply.
fn one(replies: Vec<Reply>) -> Reply {
    <[Reply; 1]>::try_from(replies).map(|[reply]| reply).expect("one segment")
}

/// Allocates a burst of frames with these bytes.
fn load(device: &mut PairDevice, frames: &[Vec<u8>]) -> Burst {
    let mut burst = Burst::new();
    assert_eq!(device.alloc(&mut burst, frames.len()), frames.len());
    for (frame, bytes) in burst.iter_mut().zip(frames) {
        frame.set_len(bytes.len());
        frame.copy_from_slice(bytes);
    }
    burst
}

/// Checks that `reason` was counted once, or that nothing was dropped, and that no other drop was counted.
fn check_drops(label: &str, before: &Snapshot, after: &Snapshot, reason: Option<DropReason>) {
    for ((name, was), (_, is)) in before.drops().zip(after.drops()) {
        let expected = was + u64::from(reason.is_some_and(|reason| reason.name() == name));
        assert_eq!(is, expected, "{label}: {name}");
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
        let endpoint = Endpoint::new(config, START, Arc::default());
        let mut bench = Self { device, endpoint, out: Outbox::new(), now: START };
        bench.refill();
        bench
    }

    fn counts(&self) -> Snapshot {
        self.endpoint.counters().snapshot()
    }

    fn refill(&mut self) {
        // As many free frames as a worker has.
        let wanted = 2 * BURST - self.out.free.len();
        self.device.alloc(&mut self.out.free, wanted);
    }

    fn check_laws(&self) {
        let counts = self.counts();
        for law in counts.laws() {
            assert!(law.holds(), "{law:?}\n{counts:#?}");
        }
        let census = self.device.census();
        let held = self.out.frames() + self.endpoint.frames_kept();
        assert_eq!(census.free + census.rings + held, census.total);
    }

    /// Gives the endpoint one frame. Returns the frames that it sends at once.
    fn inject_bytes(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.inject_burst(&[bytes.to_vec()])
    }

    /// Gives the endpoint a burst. Returns the frames that it sends at once.
    fn inject_burst(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut burst = load(&mut self.device, frames);
        self.endpoint.on_burst(self.now, &mut burst, false, &mut self.out);
        self.collect()
    }

    /// Gives the endpoint a burst, and turns of sending until it is silent.
    fn inject_all(&mut self, frames: &[Vec<u8>]) -> Vec<Reply> {
        let mut replies: Vec<Reply> =
            self.inject_burst(frames).iter().map(|bytes| Reply::parse(bytes)).collect();
        replies.extend(self.poll());
        replies
    }

    /// Gives the endpoint a segment, and turns of sending until it is silent.
    fn inject_from(&mut self, link: &Link, key: &FlowKey, segment: &Segment, text: &[u8]) -> Vec<Reply> {
        self.inject_all(&[frame(link, key, segment, text)])
    }

    /// Takes the frames to be sent out of the outbox, and gives all frames back to the device.
    fn collect(&mut self) -> Vec<Vec<u8>> {
        self.check_laws();
        let sent = self.out.transmit.iter().map(|frame| frame.to_vec()).collect();
        self.device.recycle(&mut self.out.transmit);
        self.device.recycle(&mut self.out.recycle);
        self.refill();
        self.check_laws();
        sent
    }

    /// Takes the segments to be sent out of the outbox.
    fn replies(&mut self) -> Vec<Reply> {
        self.collect().iter().map(|bytes| Reply::parse(bytes)).collect()
    }

    /// Opens a connection. Returns its SYN.
    fn open(&mut self, key: FlowKey) -> Segment {
        self.endpoint.open(self.now, &opening(key, 0), &mut self.out).unwrap();
        let syn = one(self.replies()).segment;
        assert_eq!(syn.flags, SYN);
        syn
    }

    fn poll(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        for _ in 0..1000 {
            self.endpoint.poll_transmit(self.now, &mut self.out);
            let sent = self.replies();
            if sent.is_empty() && !self.endpoint.is_ready() {
                return replies;
            }
            replies.extend(sent);
        }
        panic!("the endpoint never stops sending");
    }

    /// Lets time pass. Returns the segments sent meanwhile.
    fn wait(&mut self, millis: u64) -> Vec<Reply> {
        let end = self.now + Duration::from_millis(millis);
        let mut replies = Vec::new();
        while self.now < end {
            // The wheel knows the next millisecond with a deadline.
            let step = self.endpoint.next_tick_ms().map_or(millis, |tick| u64::from(tick.max(1)));
            self.now = (self.now + Duration::from_millis(step)).min(end);
            self.endpoint.on_tick(self.now, &mut self.out);
            replies.extend(self.replies());
            replies.extend(self.poll());
        }
        replies
    }
}

/// Returns a peer's frame.
fn frame(link: &Link, key: &FlowKey, segment: &Segment, text: &[u8]) -> Vec<u8> {
    let segment = Segment { text_len: text.len() as u16, ..*segment };
    let start = wire::header_len(link, key, &segment.options);
    let mut bytes = vec![0; start + text.len()];
    bytes[start..].copy_from_slice(text);
    assert_eq!(wire::emit(&mut bytes, link, key, &segment), bytes.len());
    bytes
}

/// Returns the link from the peer to us.
fn link() -> Link {
    Link { destination: US, source: THEM, tags: Default::default() }
}

/// Returns the key of a peer's connection, as the peer sees it.
fn name(number: u16) -> FlowKey {
    FlowKey {
        local: Address::v4([198, 19, 0, 1]),
        remote: SHARED,
        local_port: 1024 + number,
        remote_port: 80,
    }
}

/// Returns the key as the other end sees it.
fn reversed(key: &FlowKey) -> FlowKey {
    FlowKey { local: key.remote, remote: key.local, local_port: key.remote_port, remote_port: key.local_port }
}

/// Returns an OPEN of ours.
fn opening(key: FlowKey, role: u16) -> Open {
    Open { key, link: link().reversed(), role }
}

/// A peer that its test controls.
#[derive(Clone, Debug)]
struct Peer {
    key: FlowKey,
    /// The peer's SND.NXT.
    nxt: SeqNum,
    /// The peer's RCV.NXT.
    expected: SeqNum,
    window: u16,
    sack_permitted: bool,
}

impl Peer {
    fn new(number: u16) -> Self {
        Self::named(name(number))
    }

    fn named(key: FlowKey) -> Self {
        // The first text straddles the wrap.
        let nxt = SeqNum(u32::MAX - 5);
        Self { key, nxt, expected: SeqNum(0), window: 60_000, sack_permitted: false }
    }

    fn segment(&self, flags: Flags) -> Segment {
        segment(self.nxt, self.expected, flags, self.window)
    }

    /// Returns the frame of the next segment.
    fn frame(&self, flags: Flags, text: &[u8]) -> Vec<u8> {
        frame(&link(), &self.key, &self.segment(flags), text)
    }

    /// Sends a segment with any numbers. The peer takes no note of it, nor of the replies.
    fn send<A: Application>(&self, bench: &mut Bench<A>, segment: &Segment, text: &[u8]) -> Vec<Reply> {
        bench.inject_from(&link(), &self.key, segment, text)
    }

    /// Sends SYN. Returns the reply, which is SYN,ACK where the endpoint accepts.
    fn knock(&mut self, bench: &mut Bench) -> Vec<Reply> {
        let options = Options { sack_permitted: self.sack_permitted, ..MSS_1000 };
        let replies = self.send(bench, &Segment { options, ..self.segment(SYN) }, &[]);
        self.nxt += 1;
        if let [Reply { segment, .. }] = &replies[..]
            && segment.flags == SYN_ACK
        {
            assert_eq!(segment.ack, self.nxt);
            self.expected = segment.seq + 1;
        }
        replies
    }

    /// Completes the handshake.
    fn establish(mut self, bench: &mut Bench) -> Self {
        assert_eq!(self.knock(bench).len(), 1);
        self.say(bench, ACK, &[]);
        self
    }

    fn open(number: u16, bench: &mut Bench) -> Self {
        Self::new(number).establish(bench)
    }

    fn open_all(numbers: std::ops::Range<u16>, bench: &mut Bench) -> Vec<Self> {
        numbers.map(|number| Self::open(number, bench)).collect()
    }

    /// Sends the next segment. Returns the replies, and takes note of those in order.
    fn say<A: Application>(&mut self, bench: &mut Bench<A>, flags: Flags, text: &[u8]) -> Vec<Reply> {
        let replies = self.send(bench, &self.segment(flags), text);
        self.nxt += text.len() as u32 + u32::from(flags.has(Flags::FIN));
        self.take(&replies);
        replies
    }

    /// Sends text that starts `ahead` bytes behind the next number.
    fn say_ahead(&mut self, bench: &mut Bench, ahead: u32, text: &[u8]) -> Vec<Reply> {
        let replies = self.send(bench, &Segment { seq: self.nxt + ahead, ..self.segment(ACK) }, text);
        self.take(&replies);
        replies
    }

    fn take(&mut self, replies: &[Reply]) {
        for Reply { segment, .. } in replies {
            if segment.seq == self.expected {
                self.expected = segment.end();
            }
        }
    }

    /// Sends a byte. Returns true if the endpoint acknowledges it, so that the connection works.
    fn is_well(&mut self, bench: &mut Bench) -> bool {
        let mut replies = self.say(bench, ACK, b".");
        replies.extend(bench.wait(50));
        self.take(&replies);
        replies.iter().any(|reply| reply.segment.ack == self.nxt)
    }
}
