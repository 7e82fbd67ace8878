//! The frames of a device in memory: a region on the heap, and the numbers of its free chunks.

use std::collections::VecDeque;

use super::queue::{BURST, Burst};
use super::umem::{Frame, HEADROOM, Region};

/// A packet that is in none of the caller's frames: its chunk's number and its length.
pub(super) type Packet = (u32, u16);

/// A region and its free list.
pub(super) struct Pool {
    region: Region,
    pub(super) free: Vec<u32>,
}

impl Pool {
    /// Returns `frames` free frames of `frame_size` bytes each.
    ///
    /// # Panics
    /// If `frames` is 0 or `frame_size` not in `257..=65535`.
    pub(super) fn new(frames: usize, frame_size: usize) -> Self {
        Self { region: Region::heap(frames, frame_size, 0), free: (0..frames as u32).rev().collect() }
    }

    /// Returns the number of all frames.
    pub(super) fn total(&self) -> usize {
        self.region.count()
    }

    /// Returns the number of frames that callers hold.
    pub(super) fn held(&self) -> usize {
        self.region.out()
    }

    /// See [`Region::set_home`].
    pub(super) fn set_home(&mut self, home: u8) {
        self.region.set_home(home);
    }

    /// Returns the frame of a packet.
    #[inline]
    pub(super) fn take(&mut self, (number, len): Packet) -> Frame {
        self.region.take(number, HEADROOM, len.into())
    }

    /// Ends a frame, and returns its packet.
    #[inline]
    pub(super) fn put(&mut self, frame: Frame) -> Packet {
        let len = frame.len() as u16;
        (self.region.give_back(frame), len)
    }

    /// Appends the frames of at most `limit` packets of `rx` to `into`. Returns how many.
    #[inline]
    pub(super) fn receive(&mut self, rx: &mut VecDeque<Packet>, into: &mut Burst, limit: usize) -> usize {
        let count = limit.min(rx.len()).min(BURST);
        into.extend(rx.range(..count).map(|&packet| self.take(packet)));
        rx.drain(..count);
        count
    }

    /// Frees the chunks of `frames`, and drains it.
    #[inline]
    pub(super) fn recycle(&mut self, frames: &mut Burst) {
        self.free.extend(frames.drain(..).map(|frame| self.region.give_back(frame)));
    }

    /// Appends at most `limit` free, empty frames to `into`. Returns how many.
    #[inline]
    pub(super) fn alloc(&mut self, into: &mut Burst, limit: usize) -> usize {
        let from = self.free.len() - limit.min(self.free.len());
        let numbers = self.free.drain(from..);
        let count = numbers.len();
        into.extend(numbers.map(|number| self.region.take(number, HEADROOM, 0)));
        count
    }
}
