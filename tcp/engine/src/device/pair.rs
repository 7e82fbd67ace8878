//! Two devices in memory, joined by a link in virtual time. The link loses, duplicates, reorders, corrupts and delays packets; its
//! seed decides which.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::pool::{Packet, Pool};
use super::queue::{Burst, Census, Device, SHORTEST, refill_quota};
use super::umem::HEADROOM;
use crate::random::Random;
use crate::stats::RingCounts;
use crate::time::Instant;

/// The places of a device's TX ring and of its RX ring.
const RING: usize = 2048;

/// The most packets on the wire in one direction. Packets beyond that are lost and counted.
const WIRE: usize = 1 << 16;

/// The faults of a link. The seed draws each fault of a packet by itself; probabilities are in `0.0..=1.0`.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// The packet never arrives.
    pub loss: f64,
    /// The packet arrives twice.
    pub duplication: f64,
    /// The packet is held back, so that later ones overtake it.
    pub reordering: f64,
    /// One bit of the packet is flipped, behind the Ethernet header: the frame check sequence hides damage to that header from a
    /// station.
    pub corruption: f64,
    /// How long the packet travels, drawn evenly. Packets stay in order nevertheless: only `reordering` breaks it.
    pub delay: RangeInclusive<Duration>,
}

impl Faults {
    /// A perfect link without delay.
    pub const NONE: Self = Self {
        loss: 0.0,
        duplication: 0.0,
        reordering: 0.0,
        corruption: 0.0,
        delay: Duration::ZERO..=Duration::ZERO,
    };
}

/// The counts of one direction of the link, in packets. `sent + duplicated = lost + overflowed + delivered + in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Packets given to the link.
    pub sent: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Second copies made.
    pub duplicated: u64,
    /// Copies held back.
    pub reordered: u64,
    /// Copies with a flipped bit.
    pub corrupted: u64,
    /// Copies lost because the wire was full.
    pub overflowed: u64,
    /// Copies that came to the other end, whether or not a frame was free there.
    pub delivered: u64,
    /// Copies on the wire now.
    pub in_flight: u64,
}

/// The link between two [`PairDevice`]s: its time, its faults and its counts.
#[derive(Clone)]
pub struct Link(Arc<Mutex<State>>);

/// Returns two joined devices of `frames` frames of `frame_size` bytes each (2048 as on a NIC; 256 of them are headroom), and the
/// link between them. Equal seeds and equal calls give equal packets. The link's time starts at zero and stands still until
/// [`Link::set_now`].
///
/// # Panics
/// If `frames` is 0 or `frame_size` not in `257..=65535`.
#[must_use]
pub fn pair(seed: u64, faults: &Faults, frames: usize, frame_size: usize) -> (PairDevice, PairDevice, Link) {
    let mut seeds = Random(seed);
    let room = frame_size.saturating_sub(HEADROOM);
    // A generator for each direction, so that the faults of one do not depend on the traffic of the other.
    let directions = [seeds.next(), seeds.next()].map(|seed| Direction::new(seed, faults.clone(), room));
    let link = Link(Arc::new(Mutex::new(State { now: Instant::ZERO, directions })));
    (PairDevice::new(&link, 0, frames, frame_size), PairDevice::new(&link, 1, frames, frame_size), link)
}

impl Link {
    /// Sets the time. Packets that have arrived by `now` can be received.
    pub fn set_now(&self, now: Instant) {
        self.lock().now = now;
    }

    /// Returns when the next packet on the wire arrives, at either end; `None` when the wire is empty.
    #[must_use]
    pub fn next_arrival(&self) -> Option<Instant> {
        self.lock().directions.iter().filter_map(Direction::next_arrival).min()
    }

    /// Sets the faults of packets sent from now on, in both directions.
    pub fn set_faults(&self, faults: &Faults) {
        for direction in &mut self.lock().directions {
            direction.faults = faults.clone();
        }
    }

    /// Returns the counts of each direction: from the first device to the second, and back.
    #[must_use]
    pub fn counts(&self) -> [LinkCounts; 2] {
        self.lock().directions.each_ref().map(Direction::counts)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves counts and queues whole: each changes in one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct State {
    now: Instant,
    directions: [Direction; 2],
}

/// A copy of a packet on the wire. Ordered by arrival, then by sending.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    arrival: Instant,
    order: u64,
    slot: u32,
    len: u16,
}

/// One direction of the link. The copies on the wire live in slots of the link's own memory, which it reuses.
struct Direction {
    random: Random,
    faults: Faults,
    /// The bytes of a slot.
    room: usize,
    slots: Vec<u8>,
    free_slots: Vec<u32>,
    /// Copies that keep their order: arrivals never fall from front to back.
    in_order: VecDeque<InFlight>,
    /// Copies that are held back.
    held_back: BinaryHeap<Reverse<InFlight>>,
    latest: Instant,
    counts: LinkCounts,
}

impl Direction {
    fn new(seed: u64, faults: Faults, room: usize) -> Self {
        Self {
            random: Random(seed),
            faults,
            room,
            slots: Vec::new(),
            free_slots: Vec::new(),
            in_order: VecDeque::new(),
            held_back: BinaryHeap::new(),
            latest: Instant::ZERO,
            counts: LinkCounts::default(),
        }
    }

    fn counts(&self) -> LinkCounts {
        LinkCounts { in_flight: (self.in_order.len() + self.held_back.len()) as u64, ..self.counts }
    }

    fn send(&mut self, packet: &[u8], now: Instant) {
        self.counts.sent += 1;
        if self.random.happens(self.faults.loss) {
            self.counts.lost += 1;
            return;
        }
        self.launch(packet, now);
        if self.random.happens(self.faults.duplication) {
            self.counts.duplicated += 1;
            self.launch(packet, now);
        }
    }

    /// Puts one copy on the wire.
    fn launch(&mut self, packet: &[u8], now: Instant) {
        let Some(slot) = self.free_slot() else {
            self.counts.overflowed += 1;
            return;
        };
        let copy = &mut self.slots[slot as usize * self.room..][..packet.len()];
        copy.copy_from_slice(packet);
        if self.random.happens(self.faults.corruption) {
            let spared = if packet.len() > SHORTEST { SHORTEST as u64 * 8 } else { 0 };
            let bit = spared + self.random.below(packet.len() as u64 * 8 - spared);
            copy[bit as usize / 8] ^= 1 << (bit % 8);
            self.counts.corrupted += 1;
        }

        let (least, most) =
            (self.faults.delay.start().as_nanos() as u64, self.faults.delay.end().as_nanos() as u64);
        let jitter = if most > least { self.random.below(most - least + 1) } else { 0 };
        let arrival = now + Duration::from_nanos(least + jitter);
        let order = self.counts.sent + self.counts.duplicated;
        let mut copy = InFlight { arrival, order, slot, len: packet.len() as u16 };
        if self.random.happens(self.faults.reordering) {
            // Late by at most the longest travel once more; on a link without delay by some microseconds.
            let late = 1_000 + self.random.below(most.max(100_000));
            copy.arrival = copy.arrival.max(self.latest) + Duration::from_nanos(late);
            self.held_back.push(Reverse(copy));
            self.counts.reordered += 1;
        } else {
            copy.arrival = copy.arrival.max(self.latest);
            self.latest = copy.arrival;
            self.in_order.push_back(copy);
        }
    }

    fn free_slot(&mut self) -> Option<u32> {
        if let Some(slot) = self.free_slots.pop() {
            return Some(slot);
        }
        let slot = self.slots.len() / self.room;
        (slot < WIRE).then(|| {
            self.slots.resize(self.slots.len() + self.room, 0);
            slot as u32
        })
    }

    fn next_arrival(&self) -> Option<Instant> {
        let first = self.in_order.front().map(|copy| copy.arrival);
        let second = self.held_back.peek().map(|copy| copy.0.arrival);
        first.into_iter().chain(second).min()
    }

    /// Takes the next copy that has arrived by `now` off the wire. The caller frees its slot.
    #[inline]
    fn arrived(&mut self, now: Instant) -> Option<InFlight> {
        let copy = match (self.in_order.front(), self.held_back.peek()) {
            (Some(first), Some(Reverse(second))) if second < first => *second,
            (Some(first), _) => *first,
            (None, Some(Reverse(second))) => *second,
            (None, None) => return None,
        };
        if copy.arrival > now {
            return None;
        }
        if self.in_order.front() == Some(&copy) {
            self.in_order.pop_front();
        } else {
            self.held_back.pop();
        }
        self.counts.delivered += 1;
        Some(copy)
    }
}

/// One end of a link.
///
/// Sending copies the packet onto the wire and frees the frame at once. As on a NIC, a packet that arrives while the fill ring is
/// empty is lost.
pub struct PairDevice {
    pool: Pool,
    fill: Vec<u32>,
    rx: VecDeque<Packet>,
    link: Link,
    side: usize,
    counts: RingCounts,
}

impl PairDevice {
    fn new(link: &Link, side: usize, frames: usize, frame_size: usize) -> Self {
        let mut device = Self {
            pool: Pool::new(frames, frame_size),
            fill: Vec::with_capacity(frames),
            rx: VecDeque::with_capacity(RING),
            link: link.clone(),
            side,
            counts: RingCounts::default(),
        };
        device.refill();
        device
    }

    /// Sets the [`super::umem::Frame::home`] of the frames, for a device that becomes one of several.
    ///
    /// # Panics
    /// If frames are out.
    pub fn set_home(&mut self, home: u8) {
        self.pool.set_home(home);
    }

    fn refill(&mut self) {
        let (total, free) = (self.pool.total(), &mut self.pool.free);
        let quota = refill_quota(total, free.len(), self.fill.len(), total);
        self.fill.extend(free.drain(free.len() - quota..));
    }

    /// Moves the packets that have arrived into the RX ring.
    fn arrive(&mut self) {
        let mut state = self.link.lock();
        let now = state.now;
        let wire = &mut state.directions[1 - self.side];
        while let Some(copy) = wire.arrived(now) {
            if self.rx.len() == RING {
                self.counts.rx_ring_full += 1;
            } else if let Some(number) = self.fill.pop() {
                let mut frame = self.pool.take((number, copy.len));
                frame.copy_from_slice(&wire.slots[copy.slot as usize * wire.room..][..copy.len as usize]);
                self.rx.push_back(self.pool.put(frame));
            } else {
                self.counts.fill_ring_empty += 1;
            }
            wire.free_slots.push(copy.slot);
        }
    }
}

impl Device for PairDevice {
    fn receive(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.refill();
        self.arrive();
        self.pool.receive(&mut self.rx, into, limit)
    }

    fn recycle(&mut self, frames: &mut Burst) {
        self.pool.recycle(frames);
        self.refill();
    }

    fn alloc(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.pool.alloc(into, limit)
    }

    fn transmit(&mut self, frames: &mut Burst) -> usize {
        if frames.is_empty() {
            return 0;
        }
        let mut state = self.link.lock();
        let now = state.now;
        let wire = &mut state.directions[self.side];
        let mut submitted = 0;
        for frame in &mut *frames {
            if frame.len() < SHORTEST {
                self.counts.tx_invalid += 1;
            } else if submitted == RING {
                self.counts.tx_ring_full += 1;
            } else {
                wire.send(frame, now);
                submitted += 1;
            }
        }
        self.pool.recycle(frames);
        submitted
    }

    fn ring_counts(&mut self) -> RingCounts {
        self.counts
    }

    fn census(&self) -> Census {
        let census = Census {
            total: self.pool.total(),
            free: self.pool.free.len(),
            rings: self.fill.len() + self.rx.len(),
        };
        debug_assert_eq!(census.free + census.rings + self.pool.held(), census.total);
        census
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::queue::BURST;
    use crate::device::testing;
    use proptest::prelude::*;

    /// Sends packets of 20 bytes that carry these numbers.
    fn send(device: &mut PairDevice, numbers: impl IntoIterator<Item = u64>) {
        let packet = |number: u64| [&[0; 12][..], &number.to_be_bytes()].concat();
        testing::send(device, numbers.into_iter().map(packet));
    }

    /// Receives all packets that have arrived, and returns their numbers.
    fn drain(device: &mut PairDevice) -> Vec<u64> {
        let number = |(_, packet): (u8, Vec<u8>)| u64::from_be_bytes(packet[12..].try_into().unwrap());
        testing::drain(device).into_iter().map(number).collect()
    }

    /// Sends `count` packets one by one over a faulty link, and waits until the wire is empty after each `batch`. Returns the numbers
    /// that arrived, in order.
    fn exchange(seed: u64, faults: &Faults, count: u64, batch: u64) -> (Vec<u64>, LinkCounts) {
        let (mut left, mut right, link) = pair(seed, faults, 512, 2048);
        let mut came = Vec::new();
        for start in (0..count).step_by(batch as usize) {
            send(&mut left, start..(start + batch).min(count));
            while let Some(next) = link.next_arrival() {
                link.set_now(next);
                came.extend(drain(&mut right));
            }
        }
        (came, link.counts()[0])
    }

    fn millis(from: u64, to: u64) -> RangeInclusive<Duration> {
        Duration::from_millis(from)..=Duration::from_millis(to)
    }

    #[test]
    fn a_perfect_link_delivers_everything_in_order_at_once() {
        let (mut left, mut right, link) = pair(1, &Faults::NONE, 64, 2048);
        for start in (0..1000).step_by(10) {
            send(&mut left, start..start + 10);
            assert_eq!(drain(&mut right), (start..start + 10).collect::<Vec<_>>());
        }
        send(&mut right, [7]);
        assert_eq!(drain(&mut left), [7]);
        assert_eq!(link.next_arrival(), None);
        assert_eq!(right.ring_counts(), RingCounts::default());
    }

    #[test]
    fn jitter_alone_keeps_the_order() {
        let faults = Faults { delay: millis(1, 50), ..Faults::NONE };
        let (came, counts) = exchange(3, &faults, 1000, 100);
        assert_eq!(came, (0..1000).collect::<Vec<_>>());
        assert_eq!(counts.reordered, 0);
    }

    #[test]
    fn a_packet_arrives_when_its_delay_is_over() {
        let faults = Faults { delay: millis(20, 20), ..Faults::NONE };
        let (mut left, mut right, link) = pair(3, &faults, 64, 2048);
        send(&mut left, [1]);
        let due = Instant::ZERO + Duration::from_millis(20);
        assert_eq!(link.next_arrival(), Some(due));
        link.set_now(Instant::from_nanos(due.as_nanos() - 1));
        assert_eq!(drain(&mut right), [0; 0]);
        link.set_now(due);
        assert_eq!(drain(&mut right), [1]);
    }

    #[test]
    fn faults_come_as_often_as_asked_for() {
        let faults =
            Faults { loss: 0.1, duplication: 0.05, reordering: 0.2, corruption: 0.02, delay: millis(1, 5) };
        let (came, counts) = exchange(5, &faults, 20_000, 100);
        // Five standard deviations to either side.
        let near = |count: u64, of: f64, probability: f64| {
            (count as f64 - of * probability).abs() < 5.0 * (of * probability * (1.0 - probability)).sqrt()
        };
        assert_eq!(counts.sent, 20_000);
        assert!(near(counts.lost, 20_000.0, 0.1), "{counts:?}");
        let left = 20_000.0 - counts.lost as f64;
        assert!(near(counts.duplicated, left, 0.05), "{counts:?}");
        assert!(near(counts.reordered, left + counts.duplicated as f64, 0.2), "{counts:?}");
        assert!(near(counts.corrupted, left + counts.duplicated as f64, 0.02), "{counts:?}");
        assert_eq!(counts.delivered, came.len() as u64);
        assert_eq!(counts.sent + counts.duplicated, counts.lost + counts.overflowed + counts.delivered);
        assert!(came.windows(2).any(|two| two[1] < two[0]));
    }

    #[test]
    fn a_held_back_packet_is_overtaken() {
        let faults = Faults { reordering: 1.0, ..Faults::NONE };
        let (mut left, mut right, link) = pair(9, &faults, 64, 2048);
        send(&mut left, [1]);
        link.set_faults(&Faults::NONE);
        send(&mut left, [2]);
        assert_eq!(drain(&mut right), [2]);
        link.set_now(link.next_arrival().unwrap());
        assert_eq!(drain(&mut right), [1]);
    }

    #[test]
    fn corruption_flips_one_bit() {
        let faults = Faults { corruption: 1.0, ..Faults::NONE };
        let (mut left, mut right, _link) = pair(9, &faults, 64, 2048);
        let mut burst = Burst::new();
        left.alloc(&mut burst, 1);
        burst[0].set_len(1500);
        burst[0].fill(0);
        left.transmit(&mut burst);
        right.receive(&mut burst, 64);
        assert_eq!(burst[0].iter().map(|byte| byte.count_ones()).sum::<u32>(), 1);
        right.recycle(&mut burst);
    }

    #[test]
    fn the_seed_decides() {
        let faults =
            Faults { loss: 0.1, duplication: 0.1, reordering: 0.1, corruption: 0.1, delay: millis(1, 9) };
        assert_eq!(exchange(11, &faults, 2000, 50), exchange(11, &faults, 2000, 50));
        assert_ne!(exchange(11, &faults, 2000, 50), exchange(12, &faults, 2000, 50));
    }

    #[test]
    fn without_a_frame_to_fill_a_packet_is_lost_and_counted() {
        let (mut left, mut right, _link) = pair(1, &Faults::NONE, 128, 2048);
        let mut held = Burst::new();
        assert_eq!(right.alloc(&mut held, 128), 32, "a quarter is kept for sending");
        send(&mut left, 0..100);
        assert_eq!(drain(&mut right).len(), 96);
        assert_eq!(right.ring_counts().fill_ring_empty, 4);
        right.recycle(&mut held);
    }

    #[test]
    fn acknowledgements_find_a_frame_while_most_are_held() {
        let (mut left, mut right, _link) = pair(1, &Faults::NONE, 256, 2048);
        let mut held = Burst::new();
        for round in 0..4 {
            send(&mut left, 0..60);
            assert!(right.receive(&mut held, 64) > 0, "round {round}");
        }
        assert!(held.len() > 192, "more are held than the fill ring had");
        right.recycle(&mut held);
    }

    #[test]
    fn a_runt_is_not_sent() {
        let (mut left, mut right, link) = pair(1, &Faults::NONE, 64, 2048);
        let mut burst = Burst::new();
        left.alloc(&mut burst, 1);
        assert_eq!(left.transmit(&mut burst), 0);
        assert_eq!((left.ring_counts().tx_invalid, link.counts()[0].sent), (1, 0));
        assert_eq!(drain(&mut right), [0; 0]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Receive(usize),
        Recycle(usize),
        Alloc(usize),
        Transmit(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = (bool, Step)> {
        let what = prop_oneof![
            (0..80_usize).prop_map(Step::Receive),
            (0..80_usize).prop_map(Step::Recycle),
            (0..80_usize).prop_map(Step::Alloc),
            (0..80_usize).prop_map(Step::Transmit),
            (0..10_000_u64).prop_map(Step::Wait),
        ];
        (any::<bool>(), what)
    }

    proptest! {
        #[test]
        fn frames_are_neither_made_nor_lost(seed: u64, frames in 1..200_usize, steps in prop::collection::vec(step(), 0..200)) {
            let faults = Faults { loss: 0.1, duplication: 0.2, reordering: 0.2, corruption: 0.1, delay: millis(0, 2) };
            let (left, right, link) = pair(seed, &faults, frames, 2048);
            let mut devices = [left, right];
            let mut hands = [Burst::new(), Burst::new()];
            let mut now = Instant::ZERO;
            for (side, step) in steps {
                let (device, hand) = (&mut devices[usize::from(side)], &mut hands[usize::from(side)]);
                let mut some = |count: usize| hand.drain(..count.min(hand.len())).collect::<Burst>();
                match step {
                    Step::Receive(limit) => prop_assert!(device.receive(hand, limit) <= limit.min(BURST)),
                    Step::Recycle(count) => device.recycle(&mut some(count)),
                    Step::Alloc(limit) => prop_assert!(device.alloc(hand, limit) <= limit),
                    Step::Transmit(count) => {
                        let mut burst = some(count);
                        for frame in &mut burst {
                            frame.set_len(60);
                        }
                        device.transmit(&mut burst);
                        prop_assert!(burst.is_empty());
                    }
                    Step::Wait(micros) => {
                        now = now + Duration::from_micros(micros);
                        link.set_now(now);
                    }
                }
                for (device, hand) in devices.iter().zip(&hands) {
                    let census = device.census();
                    prop_assert_eq!(census.free + census.rings + hand.len(), census.total);
                    prop_assert_eq!(census.total, frames);
                }
            }
            for counts in link.counts() {
                prop_assert_eq!(
                    counts.sent + counts.duplicated,
                    counts.lost + counts.overflowed + counts.delivered + counts.in_flight
                );
            }
        }
    }
}
