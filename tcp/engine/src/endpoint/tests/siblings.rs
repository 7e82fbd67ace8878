//! Two workers that serve one address: a flow stays with the worker that saw its SYN, on whichever queue its segments arrive.

use super::packets::{our_keys, unreachable};
use super::*;
use crate::device::pair::Link as Wire;
use crate::worker::{Worker, join};

struct Crew {
    workers: Vec<Worker<PairDevice, Listeners<BuiltIn>>>,
    /// The peer's ends of the two links.
    devices: Vec<PairDevice>,
    _wires: Vec<Wire>,
}

impl Crew {
    fn new(service: &str) -> Self {
        let mut endpoints = [(); 2].map(|()| Endpoint::new(config(service), START, Arc::default()));
        let seats = join(&mut endpoints);
        let mut crew = Self { workers: Vec::new(), devices: Vec::new(), _wires: Vec::new() };
        for (endpoint, seat) in endpoints.into_iter().zip(seats) {
            let (near, far, wire) = pair(1, &Faults::NONE, 2048, 2048);
            crew.workers.push(Worker::new(near, endpoint, seat));
            crew.devices.push(far);
            crew._wires.push(wire);
        }
        crew
    }

    fn send(&mut self, to: usize, bytes: Vec<u8>) {
        let device = &mut self.devices[to];
        let mut burst = load(device, &[bytes]);
        device.transmit(&mut burst);
    }

    /// Turns both workers until nothing moves. Returns the replies on both links.
    fn turn(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        for _ in 0..1000 {
            let moved = self.workers.iter_mut().fold(false, |moved, worker| worker.turn(START) | moved);
            for device in &mut self.devices {
                let mut burst = Burst::new();
                device.receive(&mut burst, BURST);
                replies.extend(burst.iter().map(|frame| Reply::parse(frame)));
                device.recycle(&mut burst);
            }
            if !moved {
                return replies;
            }
        }
        panic!("the workers never come to rest");
    }

    /// Opens a connection: SYN arrives at the first worker, and the handshake's ACK at worker `ack_to`.
    fn open(&mut self, ack_to: usize) -> Peer {
        let mut peer = Peer::new(1);
        self.send(0, peer.frame(SYN, &[]));
        peer.expected = self.turn()[0].segment.seq + 1;
        peer.nxt += 1;
        self.send(ack_to, peer.frame(ACK, &[]));
        self.turn();
        peer
    }

    /// Checks the laws. Returns the counters of each worker.
    fn counts(&self) -> [Snapshot; 2] {
        [0, 1].map(|number| {
            let (census, held) = self.workers[number].census();
            assert_eq!(census.free + census.rings + held, census.total);
            let counts = self.workers[number].endpoint().counters().snapshot();
            for law in counts.laws() {
                assert!(law.holds(), "worker {number}: {law:?}\n{counts:#?}");
            }
            counts
        })
    }
}

#[test]
fn a_flow_that_hops_queues_stays_with_its_worker() {
    let mut crew = Crew::new("echo");
    let mut peer = crew.open(1);
    let mut echoed = Vec::new();
    for number in 0..20 {
        crew.send(number % 2, peer.frame(ACK, &[number as u8; 30]));
        peer.nxt += 30;
        let replies = crew.turn();
        peer.take(&replies);
        echoed.extend(text_of(&replies));
    }
    assert_eq!(echoed, (0..20).flat_map(|number| [number; 30]).collect::<Vec<u8>>());
    let [first, second] = crew.counts();
    assert_eq!((first.passive_opens, second.passive_opens), (1, 0));
    assert_eq!((first.frames_handed_in, second.frames_handed_out), (11, 11));
}

#[test]
fn a_full_inbox_is_a_counted_drop() {
    let mut crew = Crew::new("discard");
    let peer = crew.open(0);
    // The owner has no turn while its sibling sees 600 of its segments.
    for _ in 0..600 {
        crew.send(1, peer.frame(ACK, &[]));
        crew.workers[1].turn(START);
    }
    let [_, second] = crew.counts();
    assert_eq!((second.frames_handed_out, second.drop_hand_over_full), (512, 88));
    crew.turn();
    let [first, _] = crew.counts();
    assert_eq!((first.frames_handed_in, first.curr_estab), (512, 1));
}

#[test]
fn an_icmp_error_finds_the_worker_that_opened() {
    for key in our_keys() {
        let mut crew = Crew::new("discard");
        crew.turn();
        let (endpoint, outbox) = crew.workers[0].endpoint_mut();
        endpoint.open(START, &opening(key, 0), outbox).unwrap();
        let syn = crew.turn()[0].segment;
        // No worker has this connection: the error stays where it arrived.
        let other = FlowKey { local_port: key.local_port + 1, ..key };
        crew.send(1, unreachable(&other, syn.seq, 0));
        crew.send(1, unreachable(&key, syn.seq, 0));
        assert!(crew.turn().is_empty());
        let [first, second] = crew.counts();
        assert_eq!((first.ended_unreachable, first.frames_handed_in, first.curr_connections), (1, 1, 0));
        assert_eq!((second.frames_handed_out, second.drop_no_connection), (1, 1));
    }
}

/// The owner may have ended the connection meanwhile. It does not hand the error over again.
#[test]
fn an_icmp_error_is_handed_over_once() {
    let [key, _] = our_keys();
    let [mut owner, mut other] = [(); 2].map(|()| Bench::serving("discard"));
    let syn = owner.open(key);
    other.endpoint.set_siblings(vec![(0, owner.endpoint.lookup())]);
    let bytes = unreachable(&key, syn.seq, 0);
    for (handed, passed_on) in [(false, 1), (true, 0)] {
        let mut burst = load(&mut other.device, std::slice::from_ref(&bytes));
        other.endpoint.on_burst(other.now, &mut burst, handed, &mut other.out);
        assert_eq!(other.out.hand_over.len(), passed_on);
        // The worker does this after the owner's inbox has taken the frame.
        other.endpoint.counters().frames_handed_out.add(passed_on as u64);
        other.out.recycle.extend(other.out.hand_over.drain(..).map(|(_, frame)| frame));
        assert!(other.collect().is_empty());
    }
    let counts = other.counts();
    assert_eq!((counts.frames_handed_out, counts.frames_handed_in, counts.drop_no_connection), (1, 1, 1));
}

/// Two endpoints open one connection at once: their SYNs cross, and one connection results (RFC 9293 figure 7).
#[test]
fn a_simultaneous_open_is_one_connection() {
    let mut ends = [US, THEM].map(|mac| Bench::new(Config { mac, ..config("echo") }));
    let ours = opening(reversed(&name(1)), 0);
    let theirs = Open { key: reversed(&ours.key), link: link(), role: 0 };
    let mut wire: [Vec<Vec<u8>>; 2] = Default::default();
    for (end, open) in [ours, theirs].iter().enumerate() {
        let bench = &mut ends[end];
        bench.endpoint.open(START, open, &mut bench.out).unwrap();
        wire[end] = bench.collect();
    }
    for round in 0.. {
        assert!(round < 10, "the ends never come to rest");
        let arriving = std::mem::take(&mut wire);
        if arriving.iter().all(Vec::is_empty) {
            break;
        }
        for (from, frames) in arriving.iter().enumerate() {
            for bytes in frames {
                wire[1 - from].extend(ends[1 - from].inject_bytes(bytes));
            }
        }
    }
    for end in &ends {
        let counts = end.counts();
        assert_eq!((counts.active_opens, counts.passive_opens), (1, 0));
        assert_eq!((counts.established, counts.curr_estab, counts.retrans_segs), (1, 1, 0));
    }
}
