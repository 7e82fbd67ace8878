//! The memory that frames are cut from, and the move-only handle to one frame.
#![allow(
    unsafe_code,
    reason = "frames are windows into memory shared with the kernel; every block states why it is sound"
)]

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// Where a packet that the engine writes starts in its chunk, in bytes: the kernel's `XDP_PACKET_HEADROOM`. Devices in memory have it
/// too, so that a frame holds as much in a simulation as on a NIC.
pub const HEADROOM: usize = 256;

/// One chunk of a device's memory, which holds at most one packet.
///
/// A frame is move-only, and only this module makes one, so that a chunk is in exactly one ring or hand: using a frame after it was
/// submitted does not compile. Dropping a frame loses the chunk; give it back with `Device::recycle`.
///
/// A frame is two words, so that it moves in registers. A larger struct goes through memory, and a load of a whole that was just
/// written in parts stalls the processor.
#[must_use = "a dropped frame is lost to its device: recycle or transmit it"]
pub struct Frame {
    chunk: NonNull<u8>,
    /// From the lowest bits on: length, start and size, of 16 bits each, and the home's 8.
    shape: u64,
}

// SAFETY: a frame is the only handle to its chunk (`Region::take` panics for a chunk whose frame exists), so moving it to another
// thread moves the access with it.
unsafe impl Send for Frame {}

impl Frame {
    #[inline]
    fn new(chunk: NonNull<u8>, len: usize, start: usize, size: u16, home: u8) -> Self {
        let shape = len as u64 | (start as u64) << 16 | u64::from(size) << 32 | u64::from(home) << 48;
        Self { chunk, shape }
    }

    #[inline]
    const fn packet_len(&self) -> usize {
        self.shape as u16 as usize
    }

    #[inline]
    const fn size(&self) -> usize {
        (self.shape >> 32) as u16 as usize
    }

    /// Returns which device of a bundle the frame belongs to.
    #[must_use]
    #[inline]
    pub const fn home(&self) -> u8 {
        (self.shape >> 48) as u8
    }

    /// Returns where the packet starts in the chunk, in bytes.
    #[must_use]
    #[inline]
    pub const fn start(&self) -> usize {
        (self.shape >> 16) as u16 as usize
    }

    /// Returns the length of the longest packet that the chunk can hold from the packet's start, in bytes.
    #[must_use]
    #[inline]
    pub const fn capacity(&self) -> usize {
        self.size() - self.start()
    }

    /// Sets the packet's length in bytes. Bytes beyond the old length are those that the chunk held before.
    ///
    /// # Panics
    /// If `len` is larger than [`Frame::capacity`].
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity(), "a packet of {len} bytes in a frame of {}", self.capacity());
        self.shape = self.shape & !0xffff | len as u64;
    }
}

impl Deref for Frame {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the chunk is `size` bytes of initialised memory that outlives the frame and that only this frame accesses;
        // `set_len` and `Region::take` keep `start + len <= size`.
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr().add(self.start()), self.packet_len()) }
    }
}

impl DerefMut for Frame {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` is the only access to the only handle.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.as_ptr().add(self.start()), self.packet_len()) }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({}:{:?} {}+{})", self.home(), self.chunk, self.start(), self.len())
    }
}

/// The memory of one device, cut into chunks of one size. Only a region makes frames and takes them back.
///
/// A region knows which chunks have a frame outside. The device knows whether any other chunk is free or in a ring shared with the
/// kernel; its unsafe ring calls promise that.
pub struct Region {
    base: NonNull<u8>,
    count: u32,
    frame_size: u16,
    /// 2^64 divided by `frame_size`, rounded up: the upper 64 bits of its product with an offset are the number of the chunk.
    reciprocal: u64,
    home: u8,
    out: u32,
    /// One bit a chunk: set while a frame of it exists.
    away: Box<[u64]>,
    backing: Backing,
}

/// The owner of the memory.
enum Backing {
    /// A boxed slice of this many bytes, turned into the raw pointer `base`.
    Heap(usize),
    /// Memory of another owner, which lives as long as this handle.
    Lent(ManuallyDrop<Box<dyn Send>>),
}

// SAFETY: the region owns its memory, and each frame is a handle of its own; nothing here is tied to a thread.
unsafe impl Send for Region {}

impl Region {
    /// Returns `count` zeroed chunks of `frame_size` bytes on the heap.
    ///
    /// # Panics
    /// If `count` is not in `1..=2^32 - 1`, or `frame_size` not in `HEADROOM + 1..=65535`: the programmer chooses both.
    #[must_use]
    pub fn heap(count: usize, frame_size: usize, home: u8) -> Self {
        let bytes = count * frame_size;
        let memory = Box::into_raw(vec![0_u8; bytes].into_boxed_slice());
        let base = NonNull::new(memory.cast::<u8>()).expect("a box is not null");
        Self::new(base, count, frame_size, home, Backing::Heap(bytes))
    }

    /// Returns `count` chunks of `frame_size` bytes of another owner's memory, such as a UMEM, from `base` on.
    ///
    /// # Safety
    /// The memory is initialised and lives until `owner` is dropped. While a frame exists, only that frame accesses its chunk.
    ///
    /// # Panics
    /// See [`Region::heap`].
    #[must_use]
    pub unsafe fn lent(
        base: NonNull<u8>,
        count: usize,
        frame_size: usize,
        home: u8,
        owner: Box<dyn Send>,
    ) -> Self {
        Self::new(base, count, frame_size, home, Backing::Lent(ManuallyDrop::new(owner)))
    }

    fn new(base: NonNull<u8>, count: usize, frame_size: usize, home: u8, backing: Backing) -> Self {
        assert!(count > 0, "a region without frames");
        assert!(frame_size > HEADROOM, "a frame of {frame_size} bytes holds no packet");
        let frame_size = u16::try_from(frame_size).expect("frames below 64 KiB");
        Self {
            base,
            count: u32::try_from(count).expect("fewer than 2^32 frames"),
            frame_size,
            reciprocal: u64::MAX / u64::from(frame_size) + 1,
            home,
            out: 0,
            away: vec![0; count.div_ceil(64)].into_boxed_slice(),
            backing,
        }
    }

    /// Returns the number of chunks.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// Returns the bytes of memory of all chunks.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        self.count() * self.frame_size as usize
    }

    /// Returns whether this region made the frame.
    #[must_use]
    #[inline]
    pub fn owns(&self, frame: &Frame) -> bool {
        frame.chunk.addr().get().wrapping_sub(self.base.addr().get())
            < self.count() * self.frame_size as usize
    }

    /// Returns the number of chunks whose frame is outside.
    #[must_use]
    pub const fn out(&self) -> usize {
        self.out as usize
    }

    /// Sets the device's number in a bundle, which its frames will carry.
    ///
    /// # Panics
    /// If frames are outside: they carry the old number.
    pub fn set_home(&mut self, home: u8) {
        assert!(self.out == 0, "a device renamed while {} of its frames are out", self.out);
        self.home = home;
    }

    /// Makes the frame of chunk `number`, with a packet of `len` bytes from `start`.
    ///
    /// # Panics
    /// If there is no such chunk, if its frame exists already, or if the packet does not fit the chunk.
    #[inline(always)]
    pub fn take(&mut self, number: u32, start: usize, len: usize) -> Frame {
        assert!(number < self.count, "chunk {number} of {}", self.count);
        assert!(start + len <= self.frame_size as usize, "a packet at {start}+{len} in {}", self.frame_size);
        let (word, bit) = (&mut self.away[number as usize / 64], 1 << (number % 64));
        assert!(*word & bit == 0, "chunk {number} was taken twice");
        *word |= bit;
        self.out += 1;
        Frame::new(self.chunk(number), len, start, self.frame_size, self.home)
    }

    /// Ends a frame and returns its chunk's number.
    ///
    /// # Panics
    /// If another region made the frame.
    #[inline(always)]
    #[expect(clippy::needless_pass_by_value, reason = "taking the frame by value is what ends it")]
    pub fn give_back(&mut self, frame: Frame) -> u32 {
        let offset = frame.chunk.addr().get().wrapping_sub(self.base.addr().get()) as u64;
        // Exact for a chunk's offset; any other fails the assertion.
        let number = ((u128::from(offset) * u128::from(self.reciprocal)) >> 64) as u32;
        // A region with frames outside is never freed, so equal addresses mean the same region.
        assert!(number < self.count && frame.chunk == self.chunk(number), "{frame:?} is of another device");
        self.away[number as usize / 64] &= !(1 << (number % 64));
        self.out -= 1;
        number
    }

    #[inline]
    fn chunk(&self, number: u32) -> NonNull<u8> {
        // SAFETY: `number < count` was checked by both callers, and the memory is `count * frame_size` bytes from `base`.
        unsafe { self.base.add(number as usize * self.frame_size as usize) }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.out > 0 {
            // A frame outside would dangle. The memory (and the UMEM, with its socket) stays until the process ends.
            return;
        }
        match &mut self.backing {
            Backing::Heap(bytes) => {
                let memory = ptr::slice_from_raw_parts_mut(self.base.as_ptr(), *bytes);
                // SAFETY: `heap` made this pointer of this length from a box, and no frame is left.
                drop(unsafe { Box::from_raw(memory) });
            }
            // SAFETY: this is the only drop of the handle, nothing uses the handle afterwards, and no frame is left.
            Backing::Lent(owner) => unsafe { ManuallyDrop::drop(owner) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_window_into_its_own_chunk() {
        let mut region = Region::heap(4, 2048, 7);
        let mut frames: Vec<_> = (0..4).map(|number| region.take(number, HEADROOM, 0)).collect();
        for (fill, frame) in frames.iter_mut().enumerate() {
            assert_eq!((frame.len(), frame.start(), frame.capacity(), frame.home()), (0, HEADROOM, 1792, 7));
            frame.set_len(1792);
            frame.fill(fill as u8 + 1);
        }
        for (fill, frame) in frames.iter().enumerate() {
            assert!(frame.iter().all(|&byte| byte == fill as u8 + 1));
        }
        assert_eq!(region.out(), 4);
        for frame in frames {
            region.give_back(frame);
        }
        assert_eq!(region.out(), 0);
    }

    #[test]
    #[should_panic(expected = "chunk 1 was taken twice")]
    fn a_chunk_has_one_frame() {
        let mut region = Region::heap(2, 2048, 0);
        let _first = region.take(1, HEADROOM, 0);
        let _second = region.take(1, HEADROOM, 0);
    }

    #[test]
    #[should_panic(expected = "a packet of 1793 bytes in a frame of 1792")]
    fn a_packet_ends_in_its_chunk() {
        let mut region = Region::heap(1, 2048, 0);
        region.take(0, HEADROOM, 0).set_len(1793);
    }

    #[test]
    #[should_panic(expected = "is of another device")]
    fn a_frame_goes_home_only() {
        let mut region = Region::heap(1, 2048, 0);
        Region::heap(1, 2048, 0).give_back(region.take(0, HEADROOM, 0));
    }

    #[test]
    fn a_frame_outlives_its_region() {
        let mut region = Region::heap(2, 2048, 0);
        let mut frame = region.take(1, HEADROOM, 4);
        drop(region);
        frame.copy_from_slice(b"here");
        assert_eq!(&*frame, b"here");
    }

    #[test]
    fn a_frame_is_small() {
        assert_eq!([size_of::<Frame>(), size_of::<Option<Frame>>()], [16, 16]);
    }
}
