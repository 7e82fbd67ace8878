//! How packets of an MTU lie in a driver's memory.

use synmill_engine::device::umem::HEADROOM;
use synmill_engine::device::{Buffers, LINK_HEADER, MAX_FRAME_SIZE, MAX_PIECES};

/// The largest MTU that fits a page beside XDP's headroom and the end of a socket buffer (veth refuses more with `ERANGE`).
const MAX_MTU: usize = 3506;

/// The largest MTU of one buffer with virtio_net, whose own header of 12 bytes shares the page. In copy mode the driver grants up to
/// [`MAX_MTU`] and then drops packets that do not fit (Linux 7.2).
const MAX_MTU_VIRTIO: usize = MAX_MTU - 12;

/// Returns the largest MTU, in bytes, that such buffers carry.
#[must_use]
pub const fn max_mtu(buffers: Buffers) -> usize {
    match buffers {
        Buffers::One => MAX_MTU,
        Buffers::Several => MAX_PIECES * (MAX_FRAME_SIZE - HEADROOM) - LINK_HEADER,
    }
}

/// Returns the largest MTU, in bytes, whose packets fit one buffer of this driver.
#[must_use]
pub fn one_buffer_mtu(driver: &str) -> usize {
    if driver == "virtio_net" { MAX_MTU_VIRTIO } else { MAX_MTU }
}

/// Returns how this driver lays out packets of this MTU, in bytes.
#[must_use]
pub fn buffers(driver: &str, mtu: usize) -> Buffers {
    if mtu > one_buffer_mtu(driver) { Buffers::Several } else { Buffers::One }
}
