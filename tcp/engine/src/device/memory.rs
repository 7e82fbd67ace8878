//! A device in memory without a wire: the caller is its other end.

use std::collections::VecDeque;

use super::pool::{Packet, Pool};
use super::queue::{Burst, Census, Device};
use crate::stats::RingCounts;

/// A device whose caller puts in the packets that a NIC would receive, and takes out the packets that were sent. For measurements
/// and tests of one end alone. Nothing is copied: a packet is written into a frame before it is received, and read from its frame
/// after it was sent.
pub struct MemoryDevice {
    pool: Pool,
    /// Packets to be received.
    rx: VecDeque<Packet>,
    /// Packets sent and not taken out yet.
    tx: VecDeque<Packet>,
}

impl MemoryDevice {
    /// Returns a device of `frames` frames of `frame_size` bytes each.
    ///
    /// # Panics
    /// If `frames` is 0 or `frame_size` not in `257..=65535`.
    #[must_use]
    pub fn new(frames: usize, frame_size: usize) -> Self {
        let queue = || VecDeque::with_capacity(frames);
        Self { pool: Pool::new(frames, frame_size), rx: queue(), tx: queue() }
    }

    /// Puts a packet in. `write` gets a whole frame and returns the packet's length. Returns false, without calling `write`, when
    /// no frame is free.
    pub fn deliver(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let Some(number) = self.pool.free.pop() else { return false };
        let mut frame = self.pool.take((number, 0));
        frame.set_len(frame.capacity());
        let len = write(&mut frame);
        let (number, _) = self.pool.put(frame);
        self.rx.push_back((number, len as u16));
        true
    }

    /// Takes out every packet that was sent, in order, and calls `read` with each.
    pub fn collect(&mut self, mut read: impl FnMut(&[u8])) {
        for packet in self.tx.drain(..) {
            let frame = self.pool.take(packet);
            read(&frame);
            let (number, _) = self.pool.put(frame);
            self.pool.free.push(number);
        }
    }

    /// Returns the number of packets put in and not received yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.rx.len()
    }
}

impl Device for MemoryDevice {
    fn receive(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.pool.receive(&mut self.rx, into, limit)
    }

    fn recycle(&mut self, frames: &mut Burst) {
        self.pool.recycle(frames);
    }

    fn alloc(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.pool.alloc(into, limit)
    }

    fn transmit(&mut self, frames: &mut Burst) -> usize {
        let count = frames.len();
        self.tx.extend(frames.drain(..).map(|frame| self.pool.put(frame)));
        count
    }

    fn ring_counts(&mut self) -> RingCounts {
        RingCounts::default()
    }

    fn census(&self) -> Census {
        let rings = self.rx.len() + self.tx.len();
        Census { total: self.pool.total(), free: self.pool.free.len(), rings }
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
