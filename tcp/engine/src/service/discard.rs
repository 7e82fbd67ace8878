//! `discard` and `hold`: ignore all text, and close when the peer does.

use super::contract::{Memo, Pending, Service, Then};

/// Reads and ignores all text, as RFC 863 requires. It is `hold` too: a connection that is only kept open is one on which the peer
/// sends nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Service for Discard {
    fn pending(&self, _memo: &Memo) -> Pending {
        Pending::only(Then::CloseAfterPeer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::driver::Conversation;

    #[test]
    fn takes_all_says_nothing_and_outlasts_the_peer() {
        let mut talk = Conversation::open(&Discard, 1);
        talk.say(&[7; 5000]);
        talk.close();
        assert_eq!(talk.run(), (Vec::new(), Then::CloseAfterPeer));
        assert_eq!(talk.untaken(), 0);
    }
}
