//! One queue of frames, as a trait, and devices in memory.

pub mod bundle;
mod frames;
pub mod memory;
pub mod pair;
pub mod pcap;
mod pool;
mod queue;
#[cfg(test)]
mod testing;
pub mod umem;

pub use crate::stats::RingCounts;
pub use frames::{
    Buffers, LARGE_FOR_SENDING, LINK_HEADER, MAX_FRAME_SIZE, MAX_PIECES, QUEUE_FRAMES, kept_frames,
    large_frames, queue_bytes,
};
pub use queue::{BURST, Burst, Census, Device, SHORTEST, refill_quota};
pub use umem::Frame;
