//! `reset`: accepts and aborts at once.

use super::contract::{Memo, Pending, Service, Then};

/// Sends RST as soon as the connection is established.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reset;

impl Service for Reset {
    fn pending(&self, _memo: &Memo) -> Pending {
        Pending::only(Then::Reset)
    }
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
