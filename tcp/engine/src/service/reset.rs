//! `reset`: accepts and aborts at once. Knows that there is nothing to say; never what the peer says.

use super::{Memo, Pending, Service, Taken, Then};

/// Sends RST as soon as the connection is established.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reset;

impl Service for Reset {
    fn on_data(&self, _memo: &mut Memo, text: &[u8]) -> Taken {
        Taken::Bytes(text.len())
    }

    fn pending(&self, _memo: &Memo) -> Pending {
        Pending { bytes: 0, then: Then::Reset }
    }

    fn write(&self, _memo: &Memo, _at: u64, _into: &mut [u8]) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::driver::Conversation;

    #[test]
    fn resets_at_once() {
        assert_eq!(Conversation::open(&Reset, 1).run(), (Vec::new(), Then::Reset));
    }
}
