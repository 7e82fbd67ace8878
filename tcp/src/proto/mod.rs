//! TCP itself, RFC 9293, as pure functions over a control block. Knows sequence numbers, segments and `now` as an argument;
//! never bytes, frames, addresses, tables, allocation or clocks.

pub mod segment;
mod seq;

pub use segment::{Flags, Options, Segment, Timestamps, WireWindow};
pub use seq::SeqNum;
