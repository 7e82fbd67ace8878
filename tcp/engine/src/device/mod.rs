//! One queue of frames. Knows frames, rings and bursts; never IP, TCP or ports.

pub mod bundle;
pub mod memory;
pub mod pair;
pub mod pcap;
pub mod umem;

use std::time::Duration;

pub use umem::Frame;

/// The most frames that one call of [`Device::receive`] hands out.
pub const BURST: usize = 128;

/// Frames of a queue of an interface.
pub const QUEUE_FRAMES: usize = 8192;
/// The most bytes of such a frame.
pub const MAX_FRAME_SIZE: usize = 4096;
/// The most pieces of a packet.
pub const MAX_PIECES: usize = 4;
/// The most bytes of an Ethernet header, with two VLAN tags.
pub const LINK_HEADER: usize = 14 + 2 * 4;

/// How packets lie in a driver's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Buffers {
    /// Each in one buffer, no larger than a page: every driver with XDP has that.
    #[default]
    One,
    /// In several where one is too small: XDP frags, in the kernel since Linux 5.18, for AF_XDP since 6.6, and not in every driver.
    Several,
}

/// The most bytes of memory that a queue's frames take, at an MTU in bytes.
#[must_use]
pub const fn queue_bytes(buffers: Buffers, mtu: usize) -> usize {
    let large = match buffers {
        Buffers::One => 0,
        Buffers::Several => large_frames(QUEUE_FRAMES) * (umem::HEADROOM + LINK_HEADER + mtu),
    };
    QUEUE_FRAMES * MAX_FRAME_SIZE + large
}

/// The most frames of a queue that may be kept for later: half of those that the longest packets come in. The others are for receiving and
/// sending.
#[must_use]
pub const fn kept_frames(buffers: Buffers) -> usize {
    match buffers {
        Buffers::One => QUEUE_FRAMES / 2,
        Buffers::Several => large_frames(QUEUE_FRAMES) / 2,
    }
}

/// Frames for packets of several pieces, by all frames of the queue.
pub const fn large_frames(frames: usize) -> usize {
    frames / 2
}

/// Of those a share that is only sent from, in which no pieces are copied together.
pub const LARGE_FOR_SENDING: usize = 4;

const _: () = assert!(
    kept_frames(Buffers::Several)
        < large_frames(QUEUE_FRAMES) - large_frames(QUEUE_FRAMES) / LARGE_FOR_SENDING,
    "what fills a hole always finds a frame, however many are kept"
);

/// Frames on their way; its capacity is set at start and never grows on the packet path.
pub type Burst = Vec<Frame>;

/// One queue of frames: four verbs for the four rings of AF_XDP, and a way to sleep.
///
/// A frame is always in exactly one place: in the device (free, or in one of its rings) or in the hand that took it.
pub trait Device {
    /// RX: appends at most `limit` received frames to `into`; the number appended.
    fn receive(&mut self, into: &mut Burst, limit: usize) -> usize;

    /// FILL: takes back frames that carry nothing any more. Drains `frames`.
    fn recycle(&mut self, frames: &mut Burst);

    /// COMPLETION: takes back what was sent, and appends at most `limit` free, empty frames to `into`; the number appended.
    fn alloc(&mut self, into: &mut Burst, limit: usize) -> usize;

    /// TX: submits the frames in order with at most one kick. What the ring has no room for is recycled, and counted in
    /// [`RingCounts::tx_ring_full`]. Drains `frames`; the number submitted.
    fn transmit(&mut self, frames: &mut Burst) -> usize;

    /// Sleeps until there is something to receive, at most for `timeout`. A device without a kernel behind it returns at once.
    fn wait(&mut self, timeout: Duration);

    /// Sleeps until there is something to receive from any of these devices, at most for `timeout`.
    fn wait_any(devices: &mut [Self], timeout: Duration)
    where
        Self: Sized;

    /// What the rings lost so far, from our side and from the kernel's (`XDP_STATISTICS`). To be asked every 100 ms or so: what is
    /// wrong over time is noticed here.
    fn ring_counts(&mut self) -> RingCounts;

    /// Where the frames are, as far as the device can see.
    fn census(&self) -> Census;
}

/// Losses at the rings since the device was made, in frames where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounts {
    /// The kernel had a packet for the RX ring and no room in it.
    pub rx_ring_full: u64,
    /// The kernel had a packet and no frame in the fill ring; without copying: the driver looked there for frames and found none, which
    /// need not have lost a packet.
    pub fill_ring_empty: u64,
    /// The kernel dropped a packet on its way to the RX ring for another reason (larger than a frame, mostly), or it came in pieces, and
    /// there was no frame for the whole.
    pub rx_dropped: u64,
    /// The kernel found a TX descriptor it could not take.
    pub tx_invalid: u64,
    /// We had a frame to send and no room in the TX ring, or not for all its pieces.
    pub tx_ring_full: u64,
    /// Times that nothing was sent while busy polling was preferred, so that it is preferred no longer; once a queue at most.
    pub busy_poll_stalls: u64,
    /// Times that nothing was sent for a second though frames waited, busy polling or not: the driver or the NIC has stopped. Once for
    /// each time that it goes on again.
    pub tx_stalls: u64,
}

/// The law of frames: `free + rings + held = total`, where the caller knows what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// All frames of the device's memory.
    pub total: usize,
    /// In the device's own free list.
    pub free: usize,
    /// In one of the four rings, or on the simulated wire; the one that pieces are copied into, too.
    pub rings: usize,
}

/// The shortest frame that is sent: an Ethernet header. The kernel takes shorter ones and never completes them.
pub const SHORTEST: usize = 14;

/// How many of `free` frames go to the fill side now, of whose `fill_size` places `filled` are taken.
///
/// A quarter of all frames (`total`) is kept for sending. But with less than a burst to receive into, half of what is free
/// goes there nevertheless: acknowledgements must come in, or what waits for them is held for ever.
#[must_use]
pub fn refill_quota(total: usize, free: usize, filled: usize, fill_size: usize) -> usize {
    let spare = free.saturating_sub(total / 4);
    let floor = if filled < BURST { free.div_ceil(2).min(BURST - filled) } else { 0 };
    spare.max(floor).min(fill_size - filled)
}
