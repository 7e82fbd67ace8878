//! `source:SIZE`: sends SIZE bytes and closes.

use super::argument::Size;
use super::contract::{Memo, Pending, Service, Then};
use super::pattern;

/// Sends `size` bytes of [`pattern`], then FIN. It reads the peer's text and ignores it.
///
/// The memo is the number of bytes not yet acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Bytes to send on each connection.
    pub size: u64,
}

impl Source {
    /// Returns a source of `size` bytes.
    #[must_use]
    pub const fn of_size(size: u64) -> Self {
        Self { size }
    }

    pub(super) const fn argument(self) -> Size {
        Size(self.size)
    }
}

impl Service for Source {
    fn on_open(&self, memo: &mut Memo) {
        *memo = Memo::of(self.size);
    }

    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        debug_assert!(bytes <= memo.get(), "more acknowledged than sent");
        *memo = Memo::of(memo.get().saturating_sub(bytes));
    }

    fn pending(&self, memo: &Memo) -> Pending {
        Pending { bytes: memo.get(), then: Then::Close }
    }

    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
        pattern::fill(self.size - memo.get() + at, into);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::driver::Conversation;

    #[test]
    fn sends_the_pattern_and_closes() {
        for size in [0, 1, 8, 1459, 100_000] {
            for seed in 0..5 {
                let service = Source { size };
                let mut talk = Conversation::open(&service, seed);
                talk.say(b"ignored");
                let want: Vec<u8> = (0..size).map(pattern::byte).collect();
                assert!(talk.run() == (want, Then::Close), "size {size}, seed {seed}");
                assert_eq!(talk.untaken(), 0);
            }
        }
    }

    #[test]
    fn a_long_stream_is_written_from_far_within() {
        let service = Source { size: 1 << 40 };
        let mut memo = Memo::default();
        service.on_open(&mut memo);
        service.on_acked(&mut memo, (1 << 39) + 3);
        let mut text = [0; 16];
        service.write(&memo, 5, &mut text);
        assert_eq!(text[0], pattern::byte((1 << 39) + 8));
        assert_eq!(service.pending(&memo).bytes, (1 << 39) - 3);
    }
}
