//! How many frames a queue has, and of which size.

use super::umem::HEADROOM;

/// Frames of one queue of an interface.
pub const QUEUE_FRAMES: usize = 8192;
/// The most bytes of such a frame.
pub const MAX_FRAME_SIZE: usize = 4096;
/// The most pieces of a packet.
pub const MAX_PIECES: usize = 4;
/// The most bytes of an Ethernet header, with two VLAN tags.
pub const LINK_HEADER: usize = crate::wire::LONGEST_ETHERNET_HEADER;
/// The share of the large frames that is kept for sending: one in so many. Received pieces are never copied into these.
pub const LARGE_FOR_SENDING: usize = 4;

/// How packets lie in a driver's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Buffers {
    /// Each packet in one buffer, no larger than a page. Every driver with XDP has this.
    #[default]
    One,
    /// In several buffers where one is too small: XDP frags. The kernel has this since Linux 5.18, for AF_XDP since 6.6; not every
    /// driver has it.
    Several,
}

/// Returns the most bytes of memory that one queue's frames take. The MTU is in bytes.
#[must_use]
pub const fn queue_bytes(buffers: Buffers, mtu: usize) -> usize {
    let large = match buffers {
        Buffers::One => 0,
        Buffers::Several => large_frames(QUEUE_FRAMES) * (HEADROOM + LINK_HEADER + mtu),
    };
    QUEUE_FRAMES * MAX_FRAME_SIZE + large
}

/// Returns how many frames of one queue may be kept for later: half of the frames that the longest packets arrive in. The others
/// are for receiving and sending.
#[must_use]
pub const fn kept_frames(buffers: Buffers) -> usize {
    match buffers {
        Buffers::One => QUEUE_FRAMES / 2,
        Buffers::Several => large_frames(QUEUE_FRAMES) / 2,
    }
}

/// Returns how many large frames a queue of `frames` frames has, for packets of several pieces.
pub const fn large_frames(frames: usize) -> usize {
    frames / 2
}

const _: () = assert!(
    kept_frames(Buffers::Several)
        < large_frames(QUEUE_FRAMES) - large_frames(QUEUE_FRAMES) / LARGE_FOR_SENDING,
    "a segment that fills a hole always finds a frame, however many are kept"
);
