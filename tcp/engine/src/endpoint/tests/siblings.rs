//! Two workers that serve the same address: a flow stays where it began, wherever its segments arrive.

use super::icmp::{our_keys, unreachable};
use super::*;
use crate::device::pair::Link as Wire;
use crate::worker::{Worker, join};

struct Crew {
    workers: Vec<Worker<PairDevice, Listeners<BuiltIn>>>,
    /// The peer's ends of the two links.
    devices: Vec<PairDevice>,
    _wires: Vec<Wire>,
    now: Instant,
}

impl Crew {
    fn new(service: &str) -> Self {
        let now = Instant::from_nanos(10_000_000_000);
        let mut endpoints: Vec<_> =
            (0..2).map(|_| Endpoint::new(config(service), now, Arc::default())).collect();
        let seats = join(&mut endpoints);
        let (mut workers, mut devices, mut wires) = (Vec::new(), Vec::new(), Vec::new());
        for (endpoint, seat) in endpoints.into_iter().zip(seats) {
            let (near, far, wire) = pair(1, &Faults::NONE, 2048, 2048);
            workers.push(Worker::new(near, endpoint, seat));
            devices.push(far);
            wires.push(wire);
        }
        Self { workers, devices, _wires: wires, now }
    }

    fn send(&mut self, to: usize, key: &FlowKey, segment: &Segment, text: &[u8]) {
        self.send_bytes(to, &frame(&link(), key, segment, text));
    }

    fn send_bytes(&mut self, to: usize, bytes: &[u8]) {
        let mut burst = Burst::new();
        assert_eq!(self.devices[to].alloc(&mut burst, 1), 1);
        burst[0].set_len(bytes.len());
        burst[0].copy_from_slice(bytes);
        self.devices[to].transmit(&mut burst);
    }

    /// Turns both workers until nothing moves; what came back on either link.
    fn turn(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        for _ in 0..1000 {
            let moved = self.workers.iter_mut().fold(false, |moved, worker| worker.turn(self.now) | moved);
            for device in &mut self.devices {
                let mut burst = Burst::new();
                device.receive(&mut burst, BURST);
                replies.extend(burst.iter().map(|frame| reply(frame)));
                device.recycle(&mut burst);
            }
            if !moved {
                return replies;
            }
        }
        panic!("it never comes to rest");
    }

    /// The counters of each, after the laws were checked.
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
    let mut peer = Peer::new(1);
    crew.send(0, &peer.key, &peer.segment(SYN), &[]);
    peer.expected = crew.turn()[0].packet.segment.seq + 1;
    peer.nxt += 1;
    crew.send(1, &peer.key, &peer.segment(ACK), &[]);
    crew.turn();
    let mut echoed = Vec::new();
    for number in 0..20 {
        crew.send(number % 2, &peer.key, &peer.segment(ACK), &[number as u8; 30]);
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
    let mut peer = Peer::new(1);
    crew.send(0, &peer.key, &peer.segment(SYN), &[]);
    peer.expected = crew.turn()[0].packet.segment.seq + 1;
    peer.nxt += 1;
    crew.send(0, &peer.key, &peer.segment(ACK), &[]);
    crew.turn();
    // The owner has no turn while the other sees 600 of its segments.
    for _ in 0..600 {
        crew.send(1, &peer.key, &peer.segment(ACK), &[]);
        crew.workers[1].turn(crew.now);
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
        let now = crew.now;
        let (endpoint, outbox) = crew.workers[0].endpoint_mut();
        endpoint.open(now, &Open { key, link: link().reversed(), role: 0 }, outbox).unwrap();
        let syn = crew.turn()[0].packet.segment;
        // Nobody's: it stays where it arrived.
        let other = FlowKey { local_port: key.local_port + 1, ..key };
        crew.send_bytes(1, &unreachable(&other, syn.seq, 0));
        crew.send_bytes(1, &unreachable(&key, syn.seq, 0));
        assert!(crew.turn().is_empty());
        let [first, second] = crew.counts();
        assert_eq!((first.ended_unreachable, first.frames_handed_in, first.curr_connections), (1, 1, 0));
        assert_eq!((second.frames_handed_out, second.drop_no_connection), (1, 1));
    }
}

/// The owner may have forgotten the connection meanwhile, or never had it: that is the end of the error's way.
#[test]
fn an_icmp_error_is_handed_over_once() {
    let [key, _] = our_keys();
    let [mut owner, mut other] = [(); 2].map(|()| Bench::serving("discard"));
    let open = Open { key, link: link().reversed(), role: 0 };
    owner.endpoint.open(owner.now, &open, &mut owner.out).unwrap();
    let syn = reply(&owner.collect()[0]).packet.segment;
    other.endpoint.set_siblings(vec![(0, owner.endpoint.lookup())]);
    let bytes = unreachable(&key, syn.seq, 0);
    for (handed, passed_on) in [(false, 1), (true, 0)] {
        let mut burst = Burst::new();
        assert_eq!(other.device.alloc(&mut burst, 1), 1);
        burst[0].set_len(bytes.len());
        burst[0].copy_from_slice(&bytes);
        other.endpoint.on_burst(other.now, &mut burst, handed, &mut other.out);
        assert_eq!(other.out.hand_over.len(), passed_on);
        // As the worker does once the owner's inbox has taken it.
        other.endpoint.counters().frames_handed_out.add(passed_on as u64);
        other.out.recycle.extend(other.out.hand_over.drain(..).map(|(_, frame)| frame));
        assert!(other.collect().is_empty());
    }
    let counts = other.counts();
    assert_eq!((counts.frames_handed_out, counts.frames_handed_in, counts.drop_no_connection), (1, 1, 1));
}

/// Two endpoints open the same connection at once: their SYNs cross, and one connection comes of it (RFC 9293 figure 7).
#[test]
fn a_simultaneous_open_is_one_connection() {
    let now = Instant::from_nanos(10_000_000_000);
    let macs = [US, THEM];
    let mut ends = macs.map(|mac| {
        let mut bench = Bench::new(Config { mac, application: config("echo").application, ..config("echo") });
        bench.now = now;
        bench
    });
    let key = reversed(&name(1));
    let link = Link { destination: THEM, source: US, tags: Default::default() };
    let mut wire: [Vec<Vec<u8>>; 2] = Default::default();
    for (end, key, link) in [(0, key, link), (1, reversed(&key), link.reversed())] {
        let bench = &mut ends[end];
        bench.endpoint.open(now, &Open { key, link, role: 0 }, &mut bench.out).unwrap();
        wire[end] = bench.collect();
    }
    for round in 0.. {
        assert!(round < 10, "they never come to rest");
        let arriving = std::mem::take(&mut wire);
        if arriving.iter().all(Vec::is_empty) {
            break;
        }
        for (from, frames) in arriving.iter().enumerate() {
            for bytes in frames {
                let answers = ends[1 - from].inject_bytes(bytes);
                wire[1 - from].extend(answers);
            }
        }
    }
    for end in &ends {
        let counts = end.counts();
        assert_eq!((counts.active_opens, counts.passive_opens), (1, 0));
        assert_eq!((counts.established, counts.curr_estab, counts.retrans_segs), (1, 1, 0));
    }
}
