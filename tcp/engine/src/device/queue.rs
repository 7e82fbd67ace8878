//! The seam between the engine and the device that moves its frames: a NIC's queue, or a simulated link.

use std::time::Duration;

use super::umem::Frame;
use crate::stats::RingCounts;
use crate::wire::ETHERNET_HEADER;

/// The most frames that one call of [`Device::receive`] returns.
pub const BURST: usize = 128;

/// The shortest frame that is sent, in bytes: an Ethernet header. The kernel takes shorter ones and never completes them.
pub const SHORTEST: usize = ETHERNET_HEADER;

/// Frames in one hand. Its capacity is set at the start and never grows on the packet path.
pub type Burst = Vec<Frame>;

/// One queue of frames: four verbs for the four rings of AF_XDP, and a way to sleep.
///
/// A frame is always in exactly one place: in the device (free, or in one of its rings) or in the hand that took it.
pub trait Device {
    /// RX: appends at most `limit` received frames to `into`. Returns how many.
    fn receive(&mut self, into: &mut Burst, limit: usize) -> usize;

    /// FILL: takes back frames whose packets are no longer needed. Drains `frames`.
    fn recycle(&mut self, frames: &mut Burst);

    /// COMPLETION: takes back the frames that were sent, and appends at most `limit` free, empty frames to `into`. Returns how many.
    fn alloc(&mut self, into: &mut Burst, limit: usize) -> usize;

    /// TX: submits the frames in order, with at most one kick, and returns how many. Recycles the frames for which the ring has no
    /// room, and counts them in [`RingCounts::tx_ring_full`]. Drains `frames`.
    fn transmit(&mut self, frames: &mut Burst) -> usize;

    /// Sleeps until there is something to receive, at most for `timeout`. A device in memory returns at once.
    fn wait(&mut self, timeout: Duration) {
        let _ = timeout;
    }

    /// Sleeps until there is something to receive from any of these devices, at most for `timeout`. By default it waits for the
    /// first device.
    fn wait_any(devices: &mut [Self], timeout: Duration)
    where
        Self: Sized,
    {
        if let Some(first) = devices.first_mut() {
            first.wait(timeout);
        }
    }

    /// Returns the rings' losses so far, as this end and the kernel (`XDP_STATISTICS`) count them. The worker calls it every 100 ms
    /// or so: a device notices here that its driver has stopped.
    fn ring_counts(&mut self) -> RingCounts;

    /// Returns where the device's frames are, as far as the device can see.
    fn census(&self) -> Census;
}

/// Where a device's frames are. The law of frames: `free + rings + held = total`, where the caller knows how many it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// All frames of the device's memory.
    pub total: usize,
    /// Frames in the device's own free list.
    pub free: usize,
    /// Frames in one of the four rings or on the simulated wire, and the frame that pieces are being copied into.
    pub rings: usize,
}

/// Returns how many of `free` frames go to the fill ring now. The ring has `fill_size` places, of which `filled` are taken.
///
/// A quarter of all frames (`total`) is kept for sending. But while the fill ring holds less than a burst, half of the free frames
/// go there nevertheless: acknowledgements must arrive, or the frames that wait for them are held for ever.
#[must_use]
pub fn refill_quota(total: usize, free: usize, filled: usize, fill_size: usize) -> usize {
    let spare = free.saturating_sub(total / 4);
    let floor = if filled < BURST { free.div_ceil(2).min(BURST - filled) } else { 0 };
    spare.max(floor).min(fill_size - filled)
}
