//! The memory that frames are cut from, and the move-only handle to one of them. Knows chunks and lengths; never what they carry.
#![allow(
    unsafe_code,
    reason = "frames are windows into memory shared with the kernel; every block states what keeps it sound"
)]

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// One chunk of a device's memory, holding at most one packet.
///
/// Move-only, and only this module makes one, so that a chunk is in exactly one ring or hand: using a frame after it was
/// submitted does not compile. Dropping one loses the chunk; give it back with [`super::Device::recycle`].
#[must_use = "a dropped frame is lost to its device: recycle or transmit it"]
pub struct Frame {
    chunk: NonNull<u8>,
    number: u32,
    start: u16,
    len: u16,
    size: u16,
    home: u8,
}

// SAFETY: a frame is the only handle to its chunk (`Region::frame` is called once for each number that is at home), so
// moving it to another thread moves the access with it.
unsafe impl Send for Frame {}

impl Frame {
    /// The chunk's number in its device's memory.
    #[must_use]
    #[inline]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Which of several devices bound together the frame belongs to.
    #[must_use]
    #[inline]
    pub const fn home(&self) -> u8 {
        self.home
    }

    /// Where the packet starts in the chunk, in bytes.
    #[must_use]
    #[inline]
    pub const fn start(&self) -> usize {
        self.start as usize
    }

    /// The longest packet the chunk can hold from its present start, in bytes.
    #[must_use]
    #[inline]
    pub const fn capacity(&self) -> usize {
        (self.size - self.start) as usize
    }

    /// Sets the packet's length in bytes. What lies beyond the old length is whatever the chunk held before.
    ///
    /// # Panics
    /// If `len` is larger than [`Frame::capacity`].
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "a packet of {len} bytes in a frame of {}", self.capacity());
        self.len = len as u16;
    }
}

impl Deref for Frame {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `Region::frame` made the chunk `size` bytes of initialised memory that outlives the frame and that no one
        // else accesses; `start + len <= size` is kept by `set_len` and by `Region::frame`.
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr().add(self.start as usize), self.len as usize) }
    }
}

impl DerefMut for Frame {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only way to the only handle.
        unsafe {
            std::slice::from_raw_parts_mut(self.chunk.as_ptr().add(self.start as usize), self.len as usize)
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}:{} {}+{})", self.home, self.number, self.start, self.len)
    }
}
