//! Services that check the text they hear.

use std::cell::Cell;
use std::rc::Rc;

use synmill_engine::service::{Memo, Pending, Service, Taken, Then, pattern};

/// The counts of one side's services, all connections together.
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

/// Checks that `text` is the pattern from `at` on.
fn check(at: u64, text: &[u8]) {
    let mut want = vec![0; text.len()];
    pattern::fill(at, &mut want);
    assert!(text == want, "the text from {at} on differs within {} bytes", text.len());
}

/// Returns the two numbers of a memo, of 32 bits each.
fn halves(memo: &Memo) -> (u64, u64) {
    (memo.get() >> 32, memo.get() & 0xffff_ffff)
}

/// One side of a talk. Each side sends a number of pattern bytes and expects a number of them.
///
/// The memo: the position of the first unacknowledged byte, and the bytes heard.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    pub(crate) sends: u64,
    pub(crate) hears: u64,
    /// It starts to send only when it has heard all.
    pub(crate) answers: bool,
    /// It closes when it has said and heard all; without this, when the peer has closed.
    pub(crate) closes: bool,
    pub(crate) tally: Rc<Tally>,
}

impl Talk {
    /// Returns a side that asks: it sends at once.
    pub(crate) fn asks(sends: u64, hears: u64, closes: bool, tally: &Rc<Tally>) -> Self {
        Self { sends, hears, answers: false, closes, tally: Rc::clone(tally) }
    }

    /// Returns a side that answers: it sends when it has heard all.
    pub(crate) fn answers(sends: u64, hears: u64, closes: bool, tally: &Rc<Tally>) -> Self {
        Self { answers: true, ..Self::asks(sends, hears, closes, tally) }
    }
}

impl Service for Talk {
    fn on_open(&self, _memo: &mut Memo) {
        bump(&self.tally.opened, 1);
    }

    fn on_data(&self, memo: &mut Memo, text: &[u8]) -> Taken {
        let (said, heard) = halves(memo);
        check(heard, text);
        let heard = heard + text.len() as u64;
        assert!(heard <= self.hears, "heard {heard} bytes of {}", self.hears);
        bump(&self.tally.bytes, text.len() as u64);
        *memo = Memo::of(said << 32 | heard);
        Taken::Bytes(text.len())
    }

    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        let (said, heard) = halves(memo);
        assert!(said + bytes <= self.sends, "{bytes} more acknowledged after {said} of {}", self.sends);
        *memo = Memo::of((said + bytes) << 32 | heard);
    }

    fn on_peer_closed(&self, memo: &mut Memo) {
        bump(&self.tally.whole, u64::from(halves(memo).1 == self.hears));
    }

    fn pending(&self, memo: &Memo) -> Pending {
        let (said, heard) = halves(memo);
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
        pattern::fill(halves(memo).0 + at, into);
    }
}

/// Takes text a few bytes at a time, and only while its own text is acknowledged, so that it holds the peer back.
///
/// The memo: its unacknowledged bytes, and the bytes heard.
#[derive(Clone, Debug)]
pub(crate) struct Slow {
    pub(crate) tally: Rc<Tally>,
}

impl Service for Slow {
    fn on_data(&self, memo: &mut Memo, text: &[u8]) -> Taken {
        let (unacked, heard) = halves(memo);
        if unacked > 0 {
            return Taken::Bytes(0);
        }
        let taken = text.len().min(700);
        check(heard, &text[..taken]);
        bump(&self.tally.bytes, taken as u64);
        *memo = Memo::of(1 << 32 | (heard + taken as u64));
        Taken::Bytes(taken)
    }

    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        assert_eq!(bytes, 1);
        *memo = Memo::of(halves(memo).1);
    }

    fn on_peer_closed(&self, _memo: &mut Memo) {
        bump(&self.tally.whole, 1);
    }

    fn pending(&self, memo: &Memo) -> Pending {
        Pending { bytes: halves(memo).0, then: Then::CloseAfterPeer }
    }

    fn write(&self, _memo: &Memo, _at: u64, into: &mut [u8]) {
        into.fill(b'.');
    }
}

/// Sends bytes of the pattern, hears dots, and closes when the last byte is acknowledged. The memo: the acknowledged bytes.
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
        Pending { bytes: self.sends - memo.get(), then: Then::Close }
    }

    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
        pattern::fill(memo.get() + at, into);
    }
}
