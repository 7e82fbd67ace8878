//! What is said over a connection. Knows payload bytes and a small memo per connection; never sequence numbers, segments
//! or frames.
//!
//! # A service of your own
//!
//! A service is a value with rules; what differs from connection to connection is the eight bytes of its [`Memo`]. Three
//! questions decide it:
//!
//! 1. *What is said?* The outgoing stream must be a function of memo and position, because [`Service::write`] is asked for
//!    the same bytes again when they are lost. Position 0 is the first byte that the peer has not acknowledged.
//! 2. *What must be remembered?* Enough to know the stream from there on. [`Service::on_acked`] moves the start.
//! 3. *Who closes?* [`Then`] says what follows the last byte.
//!
//! This one sends one line to everybody and closes; it remembers how much of it has been acknowledged:
//!
//! ```
//! use synmill_engine::service::{Memo, Pending, Service, Taken, Then};
//!
//! struct Fortune(&'static [u8]);
//!
//! impl Service for Fortune {
//!     fn on_data(&self, _: &mut Memo, text: &[u8]) -> Taken {
//!         Taken::Bytes(text.len())
//!     }
//!     fn on_acked(&self, memo: &mut Memo, bytes: u64) {
//!         *memo = Memo::of(memo.get() + bytes);
//!     }
//!     fn pending(&self, memo: &Memo) -> Pending {
//!         Pending { bytes: self.0.len() as u64 - memo.get(), then: Then::Close }
//!     }
//!     fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
//!         let from = (memo.get() + at) as usize;
//!         into.copy_from_slice(&self.0[from..from + into.len()]);
//!     }
//! }
//!
//! let (service, mut memo) = (Fortune(b"A ship in harbour is safe.\n"), Memo::default());
//! service.on_acked(&mut memo, 10);
//! let mut text = [0; 7];
//! service.write(&memo, 0, &mut text);
//! assert_eq!(&text, b"harbour");
//! ```
//!
//! `tcp/examples/fortune.rs` is this service, and `tcp/examples/counter.rs` is one that listens too: it answers each line
//! with a number, and leaves text untaken when it owes too much.

mod builtin;
mod close;
mod discard;
#[cfg(test)]
mod driver;
mod echo;
mod http;
pub mod pattern;
mod reset;
mod source;

pub use builtin::parse_size;
pub use builtin::{BuiltIn, Invalid};
pub use close::Close;
pub use discard::Discard;
pub use echo::Echo;
pub use http::{BODY_MAX, Http};
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
    /// Nothing for now: the service waits for the peer, and decides in [`Service::on_peer_closed`] what its FIN means.
    Wait,
    /// The service has said all: FIN follows, now.
    Close,
    /// The service has said all that the peer's text so far asks for: FIN follows once the peer has sent its own, all text
    /// before it was taken and all that it asked for was said.
    CloseAfterPeer,
    /// The connection is aborted: RST follows, now.
    Reset,
}

/// What became of received text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many bytes from the start of the text were used up. The rest is offered again, in front of what follows it, once
    /// the peer has acknowledged something; meanwhile the receive window closes. Text may therefore be left only while
    /// [`Pending::bytes`] is not zero: otherwise no acknowledgement would come.
    Bytes(usize),
    /// All of it, and the same bytes join the outgoing stream: the endpoint keeps the received frames until the peer has
    /// acknowledged them. For a service that cannot write its stream again; it has no [`Pending::bytes`] of its own, and
    /// its [`Service::write`] is never called.
    Echo,
}

/// A server's or client's side of a connection, as a pure machine over a [`Memo`].
///
/// One value serves every connection of a worker: it holds what they have in common, the memo holds what they have not.
pub trait Service {
    /// The connection is established. Called once, before everything else.
    fn on_open(&self, memo: &mut Memo) {
        let _ = memo;
    }

    /// Text has arrived, in order; never empty, and never seen before except for what was not taken.
    fn on_data(&self, memo: &mut Memo, text: &[u8]) -> Taken;

    /// The peer has acknowledged the first `bytes` bytes of the outgoing stream: the memo starts that much later.
    /// FIN is not counted, so this is never more than [`Pending::bytes`].
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
