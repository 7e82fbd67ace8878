//! A received frame on its way through the passes, and what became of it.

use crate::device::Frame;
use crate::stats::DropReason;
use crate::wire::TcpPacket;

/// The fate of a received frame: the endpoint counts exactly one for each.
pub(super) enum Fate {
    Answered,
    Absorbed,
    Dropped(DropReason),
    HandedOut,
}

/// A parsed segment between the passes.
#[derive(Default)]
pub(super) struct Work {
    pub(super) packet: TcpPacket,
    pub(super) hash: u64,
    /// The slot that the index suggests.
    pub(super) guess: Option<u32>,
    /// May another worker have the flow?
    pub(super) may_be_elsewhere: bool,
    pub(super) frame: Option<Frame>,
}
