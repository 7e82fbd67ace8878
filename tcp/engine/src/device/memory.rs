//! One queue of frames in memory whose other side is the caller: what a NIC would bring is put in by hand, what was sent is taken
//! out by hand. Knows frames; never IP, TCP or ports, and no link.

use std::collections::VecDeque;
use std::time::Duration;

use super::umem::{HEADROOM, Region};
use super::{BURST, Burst, Census, Device, RingCounts};

/// A device without a wire, for whoever measures or tests one end alone. Nothing is copied: a packet is written into a frame
/// before it is received, and read from its frame after it was sent.
pub struct MemoryDevice {
    region: Region,
    free: Vec<u32>,
    /// To be received: chunk and length.
    rx: VecDeque<(u32, u16)>,
    /// Sent, and not taken out yet: chunk and length.
    tx: VecDeque<(u32, u16)>,
}

impl MemoryDevice {
    /// `frames` frames of `frame_size` bytes each.
    ///
    /// # Panics
    /// If `frames` is 0 or `frame_size` not in `257..=65535`.
    #[must_use]
    pub fn new(frames: usize, frame_size: usize) -> Self {
        Self {
            region: Region::heap(frames, frame_size, 0),
            free: (0..frames as u32).rev().collect(),
            rx: VecDeque::with_capacity(frames),
            tx: VecDeque::with_capacity(frames),
        }
    }

    /// Puts a packet in: `write` is given a whole frame and says how long the packet is. False, and `write` is not called, when no
    /// frame is free.
    pub fn deliver(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let Some(number) = self.free.pop() else { return false };
        let mut frame = self.region.take(number, HEADROOM, 0);
        frame.set_len(frame.capacity());
        let len = write(&mut frame);
        self.rx.push_back((self.region.give_back(frame), len as u16));
        true
    }

    /// Takes out every packet that was sent, in order; `read` is given each.
    pub fn collect(&mut self, mut read: impl FnMut(&[u8])) {
        for (number, len) in self.tx.drain(..) {
            let frame = self.region.take(number, HEADROOM, len as usize);
            read(&frame);
            self.free.push(self.region.give_back(frame));
        }
    }

    /// Packets put in and not received yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.rx.len()
    }
}

impl Device for MemoryDevice {
    fn receive(&mut self, into: &mut Burst, limit: usize) -> usize {
        let count = limit.min(self.rx.len()).min(BURST);
        let frames = self.rx.range(..count);
        into.extend(frames.map(|&(number, len)| self.region.take(number, HEADROOM, len as usize)));
        self.rx.drain(..count);
        count
    }

    fn recycle(&mut self, frames: &mut Burst) {
        self.free.extend(frames.drain(..).map(|frame| self.region.give_back(frame)));
    }

    fn alloc(&mut self, into: &mut Burst, limit: usize) -> usize {
        let from = self.free.len() - limit.min(self.free.len());
        let numbers = self.free.drain(from..);
        let count = numbers.len();
        into.extend(numbers.map(|number| self.region.take(number, HEADROOM, 0)));
        count
    }

    fn transmit(&mut self, frames: &mut Burst) -> usize {
        let count = frames.len();
        self.tx.extend(frames.drain(..).map(|frame| {
            let len = frame.len() as u16;
            (self.region.give_back(frame), len)
        }));
        count
    }

    fn wait(&mut self, _timeout: Duration) {}

    fn wait_any(_devices: &mut [Self], _timeout: Duration) {}

    fn ring_counts(&mut self) -> RingCounts {
        RingCounts::default()
    }

    fn census(&self) -> Census {
        Census { total: self.region.count(), free: self.free.len(), rings: self.rx.len() + self.tx.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_is_received_and_what_is_sent_is_taken_out() {
        let mut device = MemoryDevice::new(2, 512);
        let put = |device: &mut MemoryDevice, byte: u8| {
            device.deliver(|frame| {
                frame[..20].fill(byte);
                20
            })
        };
        assert!(put(&mut device, 1) && put(&mut device, 2) && !put(&mut device, 3));
        let mut burst = Burst::new();
        assert_eq!((device.receive(&mut burst, 8), device.alloc(&mut Burst::new(), 8)), (2, 0));
        assert_eq!(
            burst.iter().map(|frame| (frame.len(), frame[19])).collect::<Vec<_>>(),
            [(20, 1), (20, 2)]
        );
        assert_eq!(device.transmit(&mut burst), 2);
        assert_eq!(device.census(), Census { total: 2, free: 0, rings: 2 });
        let mut sent = Vec::new();
        device.collect(|packet| sent.push(packet.to_vec()));
        assert_eq!(sent, [[1; 20], [2; 20]]);
        assert_eq!(device.census(), Census { total: 2, free: 2, rings: 0 });
    }
}
