//! One engine alone on in-memory rings, and a peer that writes and reads its frames by hand. Knows both ends' packets; never a clock
//! that measures.

mod client;
mod responder;

pub use client::{Client, Family};
pub use responder::{Responder, Setup};

use synmill::wire::Mac;

/// The peer's Ethernet address, and the engine's.
pub const PEER: Mac = [2, 0, 0, 0, 0, 1];
/// See [`PEER`].
pub const ENGINE: Mac = [2, 0, 0, 0, 0, 2];
