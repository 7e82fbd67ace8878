//! What is said over a connection. Knows payload bytes and a small memo per connection; never sequence numbers, segments
//! or frames.

mod builtin;
mod close;
mod discard;
#[cfg(test)]
mod driver;
mod echo;
pub mod pattern;
mod reset;
mod source;

pub use builtin::{BuiltIn, Invalid};
pub use close::Close;
pub use discard::Discard;
pub use echo::Echo;
pub use reset::Reset;
pub use source::Source;

/// Eight bytes of a service's own for each connection, zero when it opens.
///
/// The memo describes the outgoing stream from its first unacknowledged byte on: [`Service::on_acked`] moves that point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Memo(pub [u8; 8]);

impl Memo {
    /// The memo as one little-endian number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u64 {
        u64::from_le_bytes(self.0)
    }

    /// A memo that holds one number.
    #[must_use]
    #[inline]
    pub const fn of(value: u64) -> Self {
        Self(value.to_le_bytes())
    }
}

/// What a service has to say, counted from the first unacknowledged byte of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Bytes ready to be sent, those sent and not yet acknowledged included.
    pub bytes: u64,
    /// What comes after them.
    pub then: Then,
}

/// What follows the last byte of [`Pending`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing for now: the service waits for the peer.
    Wait,
    /// The service has said all: FIN follows, now.
    Close,
    /// The service has said all that the peer's text so far asks for, and closes when the peer has.
    CloseAfterPeer,
    /// The connection is aborted: RST follows, now.
    Reset,
}

/// What became of received text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many bytes from the start of the text were used up. The rest is offered again, in front of what follows it, once
    /// the peer has acknowledged something; meanwhile the receive window closes.
    Bytes(usize),
    /// All of it, and the same bytes join the outgoing stream: the endpoint keeps the received frames until the peer has
    /// acknowledged them. For a service that cannot write its stream again.
    Echo,
}

/// A server's or client's side of a connection, as a pure machine over a [`Memo`].
///
/// One value serves every connection of a worker: it holds what they have in common, the memo holds what they have not.
pub trait Service {
    /// The connection is established.
    fn on_open(&self, memo: &mut Memo) {
        let _ = memo;
    }

    /// Text has arrived, in order; never empty, and never seen before except for what was not taken.
    fn on_data(&self, memo: &mut Memo, text: &[u8]) -> Taken;

    /// The peer has acknowledged the first `bytes` bytes of the outgoing stream: the memo starts that much later.
    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        let _ = (memo, bytes);
    }

    /// The peer has said all (its FIN has come, and all text before it was taken).
    fn on_peer_closed(&self, memo: &mut Memo) {
        let _ = memo;
    }

    /// What there is to send.
    fn pending(&self, memo: &Memo) -> Pending;

    /// Writes the outgoing stream from `at` on, counted from its first unacknowledged byte, and fills `into`, which never
    /// reaches beyond [`Pending::bytes`]. A pure function of memo and position: a retransmission is written again, so
    /// nothing needs a send buffer.
    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]);
}
