//! Frames on their way between an endpoint and the worker that moves them.

use crate::device::{BURST, Burst, Frame};

/// Frames on their way from an endpoint, and free frames on their way to it.
#[derive(Debug)]
pub struct Outbox {
    /// Frames to send.
    pub transmit: Burst,
    /// Frames to give back to the device.
    pub recycle: Burst,
    /// Free frames, for a segment that answers no received frame. The worker fills this up before each turn.
    pub free: Burst,
    /// Frames whose flow another worker owns, with that worker's number: the worker copies them to it and recycles them.
    pub hand_over: Vec<(usize, Frame)>,
}

impl Outbox {
    /// Returns an empty outbox with room for a turn.
    #[must_use]
    pub fn new() -> Self {
        Self {
            transmit: Burst::with_capacity(4 * BURST),
            recycle: Burst::with_capacity(4 * BURST),
            free: Burst::with_capacity(2 * BURST),
            hand_over: Vec::with_capacity(BURST),
        }
    }

    /// Returns how many frames it holds.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.transmit.len() + self.recycle.len() + self.free.len() + self.hand_over.len()
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}
