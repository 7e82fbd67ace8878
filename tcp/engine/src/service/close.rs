//! `close`: accepts and closes at once.

use super::contract::{Memo, Pending, Service, Then};

/// Sends FIN as soon as the connection is established, and ignores the peer's text until the peer closes too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Close;

impl Service for Close {
    fn pending(&self, _memo: &Memo) -> Pending {
        Pending::only(Then::Close)
    }
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
