//! The generator's record of a connection: one cache line, by slot.

use super::dialogue::Progress;
use crate::flow::{Armed, Deadlines, Marked, prefetch_to_write};
use crate::time::{Instant, Millis};

/// Why the generator gave a connection up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum GivenUp {
    /// It did not.
    #[default]
    No,
    /// The peer's text was not the expected one.
    BadResponse,
    /// The trial is over.
    Cut,
}

/// One connection.
///
/// | bytes | content |
/// |---|---|
/// | 0-31 | progress of the dialogue |
/// | 32-55 | times: intended start; SYN; the present request's start, or the FIN |
/// | 56-63 | deadline in ms, block of the tuple, the wheel's mark, flags |
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Track {
    pub(super) progress: Progress,
    pub(super) intended: Instant,
    pub(super) syn: Instant,
    pub(super) since: Instant,
    pub(super) deadline: Millis,
    pub(super) block: u16,
    armed: u8,
    flags: u8,
}

const _: () = assert!(size_of::<Track>() == 64, "one cache line");

const LIVE: u8 = 1;
const ESTABLISHED: u8 = 2;
const COUNTS: u8 = 4;
const HAS_DEADLINE: u8 = 8;
const BAD_RESPONSE: u8 = 16;
const CUT: u8 = 32;

impl Track {
    /// Returns the record of a free slot.
    pub(super) fn free() -> Self {
        Self {
            progress: Progress::default(),
            intended: Instant::ZERO,
            syn: Instant::ZERO,
            since: Instant::ZERO,
            deadline: Millis(0),
            block: 0,
            armed: 0,
            flags: 0,
        }
    }

    /// Begins the record of a new connection. The wheel's mark stays: the last owner's entry may still be in the wheel.
    pub(super) fn start(&mut self, intended: Instant, now: Instant, block: u16, counts: bool) {
        let armed = self.armed;
        let flags = LIVE | if counts { COUNTS } else { 0 };
        *self = Self { intended, syn: now, since: now, block, armed, flags, ..Self::free() };
    }

    pub(super) fn end(&mut self) {
        self.flags = 0;
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) const fn is_live(&self) -> bool {
        self.has(LIVE)
    }

    pub(super) const fn counts(&self) -> bool {
        self.has(COUNTS)
    }

    pub(super) const fn is_established(&self) -> bool {
        self.has(ESTABLISHED)
    }

    pub(super) const fn set_established(&mut self) {
        self.flags |= ESTABLISHED;
    }

    /// Returns when the connection will have timed out.
    pub(super) fn deadline(&self) -> Option<Millis> {
        self.has(HAS_DEADLINE).then_some(self.deadline)
    }

    pub(super) fn set_deadline(&mut self, deadline: Option<Millis>) {
        match deadline {
            Some(deadline) => {
                self.deadline = deadline;
                self.flags |= HAS_DEADLINE;
            }
            None => self.flags &= !HAS_DEADLINE,
        }
    }

    pub(super) const fn given_up(&self) -> GivenUp {
        if self.has(BAD_RESPONSE) {
            GivenUp::BadResponse
        } else if self.has(CUT) {
            GivenUp::Cut
        } else {
            GivenUp::No
        }
    }

    pub(super) fn give_up(&mut self, why: GivenUp) {
        self.flags |= match why {
            GivenUp::No => 0,
            GivenUp::BadResponse => BAD_RESPONSE,
            GivenUp::Cut => CUT,
        };
    }
}

impl Marked for Track {
    fn armed(&self) -> Armed {
        Armed(self.armed)
    }

    fn set_armed(&mut self, armed: Armed) {
        self.armed = armed.0;
    }
}

impl Deadlines for [Track] {
    fn armed(&self, slot: u32) -> Armed {
        self[slot as usize].armed()
    }

    fn set_armed(&mut self, slot: u32, armed: Armed) {
        self[slot as usize].set_armed(armed);
    }

    fn deadline(&self, slot: u32) -> Option<Millis> {
        let track = &self[slot as usize];
        track.deadline().filter(|_| track.is_live())
    }

    fn prefetch(&self, slot: u32) {
        prefetch_to_write(&self[slot as usize]);
    }
}
