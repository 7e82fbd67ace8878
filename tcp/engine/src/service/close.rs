//! `close`: accepts and closes at once. Knows that there is nothing to say; never what the peer says.

use super::{Memo, Pending, Service, Taken, Then};

/// Sends FIN as soon as the connection is established, and ignores what the peer sends until it closes too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Close;

impl Service for Close {
    fn on_data(&self, _memo: &mut Memo, text: &[u8]) -> Taken {
        Taken::Bytes(text.len())
    }

    fn pending(&self, _memo: &Memo) -> Pending {
        Pending { bytes: 0, then: Then::Close }
    }

    fn write(&self, _memo: &Memo, _at: u64, _into: &mut [u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::driver::Conversation;

    #[test]
    fn closes_before_and_after_text() {
        let mut talk = Conversation::open(&Close, 1);
        assert_eq!(talk.run(), (Vec::new(), Then::Close));
        talk.say(b"anything");
        assert_eq!(talk.run(), (Vec::new(), Then::Close));
        assert_eq!(talk.untaken(), 0);
    }
}
