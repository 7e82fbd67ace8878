//! One worker's several queues as one device.

use std::time::Duration;

use super::queue::{BURST, Burst, Census, Device};
use crate::stats::RingCounts;

/// Several devices of one kind as one. The frames of the `n`-th carry [`super::umem::Frame::home`] `n`, and go back to it.
pub struct Bundle<D> {
    members: Vec<D>,
    /// The member that comes first in the next call.
    next: usize,
    /// One batch for each member, to sort frames into.
    sorted: Vec<Burst>,
}

impl<D: Device> Bundle<D> {
    /// Bundles devices whose homes are 0, 1, 2, ... in this order.
    ///
    /// # Panics
    /// If there is none, or more than a home can name (256).
    #[must_use]
    pub fn new(members: Vec<D>) -> Self {
        assert!((1..=256).contains(&members.len()), "a bundle of {} devices", members.len());
        let sorted = members.iter().map(|_| Burst::with_capacity(BURST)).collect();
        Self { members, next: 0, sorted }
    }

    /// Returns the devices, in order of their homes.
    #[must_use]
    pub fn members(&self) -> &[D] {
        &self.members
    }

    /// Calls `ask` with each member and the number of frames wanted of it, beginning with another member each time.
    fn in_turns(&mut self, limit: usize, mut ask: impl FnMut(&mut D, usize) -> usize) -> usize {
        let count = self.members.len();
        let mut got = 0;
        for turn in 0..count {
            if got == limit {
                break;
            }
            // A fair share of the rest, so that a busy member does not take the whole burst.
            let share = (limit - got).div_ceil(count - turn);
            got += ask(&mut self.members[(self.next + turn) % count], share);
        }
        self.next = (self.next + 1) % count;
        got
    }

    /// Sorts the frames by home, and keeps their order.
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

    /// Each member makes its own kick.
    fn transmit(&mut self, frames: &mut Burst) -> usize {
        self.sort(frames);
        self.members.iter_mut().zip(&mut self.sorted).map(|(member, frames)| member.transmit(frames)).sum()
    }

    fn wait(&mut self, timeout: Duration) {
        D::wait_any(&mut self.members, timeout);
    }

    fn ring_counts(&mut self) -> RingCounts {
        let mut sum = RingCounts::default();
        self.members.iter_mut().for_each(|member| sum.merge(&member.ring_counts()));
        sum
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
    use crate::device::testing::{drain, send};

    /// Returns a bundle of three, and the other ends.
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

    fn assert_law(bundle: &Bundle<PairDevice>, held: usize) {
        let census = bundle.census();
        assert_eq!((census.total, census.free + census.rings + held), (768, 768));
    }

    #[test]
    fn a_busy_member_leaves_the_others_their_share() {
        let (mut bundle, mut theirs) = bundle();
        for (fill, count) in [(0, 64), (1, 10), (2, 30)] {
            send(&mut theirs[fill], vec![[fill as u8; 60]; count]);
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
            send(&mut theirs[2], [[2; 60]; 20]);
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
            let packets = drain(device);
            assert!(packets.len() == 30 && packets.iter().all(|(_, packet)| usize::from(packet[0]) == home));
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
