//! Services that check what they hear. Their memos hold how far the talk has come.

use std::cell::Cell;
use std::rc::Rc;

use synmill_engine::service::{Memo, Pending, Service, Taken, Then, pattern};

/// What the services of one side saw, all connections together.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) opened: Cell<u64>,
    /// Talks that were completed to the last byte, in both directions.
    pub(crate) whole: Cell<u64>,
    pub(crate) bytes: Cell<u64>,
}

fn bump(cell: &Cell<u64>, by: u64) {
    cell.set(cell.get() + by);
}

/// One side of a talk. Each side sends a number of pattern bytes and expects a number of them.
///
/// The memo: the position of the first unacknowledged byte (32 bits), and the bytes heard (32 bits).
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    pub(crate) sends: u64,
    pub(crate) hears: u64,
    /// Starts to send only when it has heard all.
    pub(crate) answers: bool,
    /// Closes when it has said and heard all; else when the peer has closed.
    pub(crate) closes: bool,
    pub(crate) tally: Rc<Tally>,
}

impl Talk {
    fn said_and_heard(memo: &Memo) -> (u64, u64) {
        (memo.get() >> 32, memo.get() & 0xffff_ffff)
    }
}

impl Service for Talk {
    fn on_open(&self, _memo: &mut Memo) {
        bump(&self.tally.opened, 1);
    }

    fn on_data(&self, memo: &mut Memo, text: &[u8]) -> Taken {
        let (said, heard) = Self::said_and_heard(memo);
        for (index, byte) in text.iter().enumerate() {
            assert_eq!(
                *byte,
                pattern::byte(heard + index as u64),
                "byte {} of the text",
                heard + index as u64
            );
        }
        let heard = heard + text.len() as u64;
        assert!(heard <= self.hears, "heard {heard} bytes of {}", self.hears);
        bump(&self.tally.bytes, text.len() as u64);
        *memo = Memo::of(said << 32 | heard);
        Taken::Bytes(text.len())
    }

    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        let (said, heard) = Self::said_and_heard(memo);
        assert!(said + bytes <= self.sends, "{bytes} more acknowledged after {said} of {}", self.sends);
        *memo = Memo::of((said + bytes) << 32 | heard);
    }

    fn on_peer_closed(&self, memo: &mut Memo) {
        let (_, heard) = Self::said_and_heard(memo);
        if heard == self.hears {
            bump(&self.tally.whole, 1);
        }
    }

    fn pending(&self, memo: &Memo) -> Pending {
        let (said, heard) = Self::said_and_heard(memo);
        let has_heard_all = heard == self.hears;
        let bytes = if self.answers && !has_heard_all { 0 } else { self.sends - said };
        let then = match (self.closes, has_heard_all) {
            (true, true) => Then::Close,
            (true, false) => Then::Wait,
            (false, _) => Then::CloseAfterPeer,
        };
        Pending { bytes, then }
    }

    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
        let (said, _) = Self::said_and_heard(memo);
        pattern::fill(said + at, into);
    }
}

/// Takes text a few bytes at a time, and only while nothing of its own is unacknowledged: holds the peer back.
#[derive(Clone, Debug)]
pub(crate) struct Slow {
    pub(crate) tally: Rc<Tally>,
}

impl Service for Slow {
    fn on_data(&self, memo: &mut Memo, text: &[u8]) -> Taken {
        let (unacked, heard) = Talk::said_and_heard(memo);
        if unacked > 0 {
            return Taken::Bytes(0);
        }
        let taken = text.len().min(700);
        for (index, byte) in text[..taken].iter().enumerate() {
            assert_eq!(*byte, pattern::byte(heard + index as u64));
        }
        bump(&self.tally.bytes, taken as u64);
        *memo = Memo::of(1 << 32 | (heard + taken as u64));
        Taken::Bytes(taken)
    }

    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        assert_eq!(bytes, 1);
        *memo = Memo::of(Talk::said_and_heard(memo).1);
    }

    fn on_peer_closed(&self, _memo: &mut Memo) {
        bump(&self.tally.whole, 1);
    }

    fn pending(&self, memo: &Memo) -> Pending {
        Pending { bytes: Talk::said_and_heard(memo).0, then: Then::CloseAfterPeer }
    }

    fn write(&self, _memo: &Memo, _at: u64, into: &mut [u8]) {
        into.fill(b'.');
    }
}

/// Says bytes of the pattern, counts the dots that come back, and closes when the last byte is acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    pub(crate) sends: u64,
}

impl Service for Teller {
    fn on_data(&self, _memo: &mut Memo, text: &[u8]) -> Taken {
        assert!(text.iter().all(|byte| *byte == b'.'));
        Taken::Bytes(text.len())
    }

    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        *memo = Memo::of(memo.get() + bytes);
    }

    fn pending(&self, memo: &Memo) -> Pending {
        let bytes = self.sends - memo.get();
        Pending { bytes, then: Then::Close }
    }

    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
        pattern::fill(memo.get() + at, into);
    }
}
