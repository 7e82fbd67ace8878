//! The text that is sent and taken over a connection: the [`Service`] trait, and the built-in services.
//!
//! # Writing a service
//!
//! A service is a value with rules. The state of one connection is the eight bytes of its [`Memo`]. Three questions shape it:
//!
//! 1. *Which text does it send?* The outgoing stream must be a function of memo and position, because the endpoint calls
//!    [`Service::write`] again for bytes that were lost. Position 0 is the first byte that the peer has not acknowledged.
//! 2. *What must the memo hold?* Enough to know the stream from there on. [`Service::on_acked`] moves the start.
//! 3. *Who closes?* [`Then`] names the action after the last byte.
//!
//! This service sends one line to every client and closes; its memo counts the acknowledged bytes:
//!
//! ```
//! use synmill_engine::service::{Memo, Pending, Service, Then};
//!
//! struct Fortune(&'static [u8]);
//!
//! impl Service for Fortune {
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
//! `tcp/examples/fortune.rs` is this service. `tcp/examples/counter.rs` reads text too: it answers each line with a number, and leaves
//! text untaken when too many answers are unacknowledged.

mod argument;
mod builtin;
mod close;
mod contract;
mod discard;
#[cfg(test)]
pub(crate) mod driver;
mod echo;
mod http;
pub mod pattern;
mod payload;
pub(crate) mod reading;
mod reset;
mod source;

pub use argument::{Invalid, parse_size};
pub use builtin::BuiltIn;
pub use close::Close;
pub use contract::{Memo, Pending, Service, Taken, Then};
pub use discard::Discard;
pub use echo::Echo;
pub use http::{BODY_MAX, Http};
pub use payload::Payload;
pub use reset::Reset;
pub use source::Source;
