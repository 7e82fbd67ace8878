//! `echo`: sends all text back.

use super::contract::{Memo, Pending, Service, Taken, Then};

/// Sends all text back, as RFC 862 requires, and closes after the peer. The endpoint keeps the received frames for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Service for Echo {
    fn on_data(&self, _memo: &mut Memo, _text: &[u8]) -> Taken {
        Taken::Echo
    }

    fn pending(&self, _memo: &Memo) -> Pending {
        Pending::only(Then::CloseAfterPeer)
    }
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
