//! `discard` and `hold`: say nothing and close when the peer does. Knows how much text came; never what it says.

use super::{Memo, Pending, Service, Taken, Then};

/// Reads and forgets everything, as RFC 863 has it.
///
/// It also serves `hold`: a connection that is only kept open is one on which the peer happens to say nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Service for Discard {
    fn on_data(&self, _memo: &mut Memo, text: &[u8]) -> Taken {
        Taken::Bytes(text.len())
    }

    fn pending(&self, _memo: &Memo) -> Pending {
        Pending { bytes: 0, then: Then::CloseAfterPeer }
    }

    fn write(&self, _memo: &Memo, _at: u64, _into: &mut [u8]) {}
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
