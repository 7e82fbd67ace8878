//! `echo`: says what it hears. Knows that the endpoint keeps the frames; never their bytes.

use super::{Memo, Pending, Service, Taken, Then};

/// Sends everything back, as RFC 862 has it, and closes after the peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Service for Echo {
    fn on_data(&self, _memo: &mut Memo, _text: &[u8]) -> Taken {
        Taken::Echo
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
    fn leaves_the_bytes_to_the_endpoint() {
        let mut talk = Conversation::open(&Echo, 1);
        talk.say(b"hello, ");
        talk.say(b"world");
        talk.close();
        assert_eq!(talk.run(), (b"hello, world".to_vec(), Then::CloseAfterPeer));
    }
}
