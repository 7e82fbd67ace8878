//! One worker's several queues as one device. Knows which frame belongs to which of them; never what kind of device they are.

use std::time::Duration;

use super::{BURST, Burst, Census, Device, RingCounts};

/// Devices of one kind behind one face. The frames of the `n`-th carry [`super::Frame::home`] `n`, and go back to it.
pub struct Bundle<D> {
    members: Vec<D>,
    /// Whose turn it is to be asked first.
    next: usize,
    /// One batch for each member, to sort frames into.
    sorted: Vec<Burst>,
}

impl<D: Device> Bundle<D> {
    /// Of devices whose homes are 0, 1, 2, ... in this order.
    ///
    /// # Panics
    /// If there is none, or more than a home can name (256).
    #[must_use]
    pub fn new(members: Vec<D>) -> Self {
        assert!((1..=256).contains(&members.len()), "a bundle of {} devices", members.len());
        let sorted = members.iter().map(|_| Burst::with_capacity(BURST)).collect();
        Self { members, next: 0, sorted }
    }

    /// The devices, in order of their homes.
    #[must_use]
    pub fn members(&self) -> &[D] {
        &self.members
    }

    /// The devices, in order of their homes.
    pub fn members_mut(&mut self) -> &mut [D] {
        &mut self.members
    }

    /// Asks each member once for as much as is still wanted, beginning with another one each time.
    fn in_turns(&mut self, limit: usize, mut ask: impl FnMut(&mut D, usize) -> usize) -> usize {
        let count = self.members.len();
        let mut got = 0;
        for turn in 0..count {
            if got == limit {
                break;
            }
            // A fair share of what is left, so that a busy member does not take the whole burst.
            let share = (limit - got).div_ceil(count - turn);
            got += ask(&mut self.members[(self.next + turn) % count], share);
        }
        self.next = (self.next + 1) % count;
        got
    }

    /// Sorts the frames by home, each member's in their order.
    fn sort(&mut self, frames: &mut Burst) {
        for frame in frames.drain(..) {
            self.sorted[frame.home() as usize].push(frame);
        }
    }
}

impl<D: Device> Device for Bundle<D> {
    fn receive(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.in_turns(limit.min(BURST), |member, share| member.receive(into, share))
    }

    fn recycle(&mut self, frames: &mut Burst) {
        self.sort(frames);
        for (member, frames) in self.members.iter_mut().zip(&mut self.sorted) {
            member.recycle(frames);
        }
    }

    fn alloc(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.in_turns(limit, |member, share| member.alloc(into, share))
    }

    /// Each member has its own kick.
    fn transmit(&mut self, frames: &mut Burst) -> usize {
        self.sort(frames);
        self.members.iter_mut().zip(&mut self.sorted).map(|(member, frames)| member.transmit(frames)).sum()
    }

    fn wait(&mut self, timeout: Duration) {
        D::wait_any(&mut self.members, timeout);
    }

    /// Bundles are not bundled again: the first is waited for.
    fn wait_any(devices: &mut [Self], timeout: Duration) {
        if let Some(first) = devices.first_mut() {
            first.wait(timeout);
        }
    }

    fn ring_counts(&mut self) -> RingCounts {
        self.members.iter_mut().map(Device::ring_counts).fold(RingCounts::default(), |sum, counts| {
            RingCounts {
                rx_ring_full: sum.rx_ring_full + counts.rx_ring_full,
                fill_ring_empty: sum.fill_ring_empty + counts.fill_ring_empty,
                rx_dropped: sum.rx_dropped + counts.rx_dropped,
                tx_invalid: sum.tx_invalid + counts.tx_invalid,
                tx_ring_full: sum.tx_ring_full + counts.tx_ring_full,
                busy_poll_stalls: sum.busy_poll_stalls + counts.busy_poll_stalls,
                tx_stalls: sum.tx_stalls + counts.tx_stalls,
            }
        })
    }

    fn census(&self) -> Census {
        self.members.iter().map(Device::census).fold(Census::default(), |sum, census| Census {
            total: sum.total + census.total,
            free: sum.free + census.free,
            rings: sum.rings + census.rings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::pair::{Faults, PairDevice, pair};

    /// A bundle of three, and the other ends.
    fn bundle() -> (Bundle<PairDevice>, Vec<PairDevice>) {
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..3)
            .map(|home| {
                let (mut ours, theirs, _) = pair(u64::from(home), &Faults::NONE, 256, 2048);
                ours.set_home(home);
                (ours, theirs)
            })
            .unzip();
        (Bundle::new(ours), theirs)
    }

    /// Sends `count` packets full of this byte.
    fn send(device: &mut PairDevice, fill: u8, count: usize) {
        let mut burst = Burst::new();
        assert_eq!(device.alloc(&mut burst, count), count);
        for frame in &mut burst {
            frame.set_len(60);
            frame.fill(fill);
        }
        assert_eq!(device.transmit(&mut burst), count);
    }

    fn assert_law(bundle: &Bundle<PairDevice>, held: usize) {
        let census = bundle.census();
        assert_eq!((census.total, census.free + census.rings + held), (768, 768));
    }

    #[test]
    fn a_busy_member_leaves_the_others_their_share() {
        let (mut bundle, mut theirs) = bundle();
        for (fill, count) in [(0, 64), (1, 10), (2, 30)] {
            send(&mut theirs[fill], fill as u8, count);
        }
        let mut burst = Burst::new();
        let mut came = [0; 3];
        for turn in 0..4 {
            bundle.receive(&mut burst, BURST);
            assert!(burst.len() <= BURST);
            for frame in &burst {
                assert_eq!(frame[0], frame.home());
                came[usize::from(frame.home())] += 1;
            }
            if turn == 0 {
                assert!(came.iter().all(|&count| count >= 10), "{came:?}");
            }
            assert_law(&bundle, burst.len());
            bundle.recycle(&mut burst);
        }
        assert_eq!(came, [64, 10, 30]);
        assert_law(&bundle, 0);
    }

    #[test]
    fn one_member_alone_gets_through() {
        let (mut bundle, mut theirs) = bundle();
        let mut burst = Burst::new();
        let mut came = 0;
        for _ in 0..10 {
            send(&mut theirs[2], 2, 20);
            // Three turns, each with another member first.
            for _ in 0..3 {
                came += bundle.receive(&mut burst, BURST);
                bundle.recycle(&mut burst);
            }
        }
        assert_eq!(came, 200);
    }

    #[test]
    fn each_frame_leaves_by_the_member_it_belongs_to() {
        let (mut bundle, mut theirs) = bundle();
        let mut burst = Burst::new();
        assert_eq!(bundle.alloc(&mut burst, 90), 90);
        let mut expected = [0; 3];
        for frame in &mut burst {
            frame.set_len(60);
            let home = frame.home();
            expected[usize::from(home)] += 1;
            frame.fill(home);
        }
        assert_eq!(expected, [30, 30, 30]);
        assert_law(&bundle, 90);
        assert_eq!(bundle.transmit(&mut burst), 90);
        assert_law(&bundle, 0);
        for (home, device) in theirs.iter_mut().enumerate() {
            assert_eq!(device.receive(&mut burst, BURST), 30);
            assert!(burst.iter().all(|frame| usize::from(frame[0]) == home));
            device.recycle(&mut burst);
        }
    }

    #[test]
    fn losses_are_summed() {
        let (mut bundle, _theirs) = bundle();
        let mut burst = Burst::new();
        bundle.alloc(&mut burst, 6);
        assert_eq!(bundle.transmit(&mut burst), 0, "empty frames are not sent");
        assert_eq!(bundle.ring_counts().tx_invalid, 6);
    }
}
