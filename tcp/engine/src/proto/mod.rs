//! TCP itself, RFC 9293, as pure functions over a control block. Knows sequence numbers, segments and `now` as an argument;
//! never bytes, frames, addresses, tables, allocation or clocks.
//!
//! - [`Tcb`]: the variables of one connection, and [`Tcb::poll_segment`]: what it sends next.
//! - [`segment_arrives`]: section 3.10.7; [`user_calls`]: sections 3.10.1 to 3.10.5; [`timeouts`]: section 3.10.8.
//! - [`Transfer`]: congestion control and recovery, for connections that need them; [`Rtt`]: RFC 6298.

mod isn;
mod rtt;
mod segment;
pub mod segment_arrives;
mod seq;
mod tcb;
#[cfg(test)]
mod tests;
pub mod timeouts;
mod transfer;
pub mod user_calls;

pub use isn::IsnSecret;
pub use rtt::{MIN_RTO_MS, Rtt};
pub use segment::{Flags, Options, SackBlocks, Segment, Timestamps, WireWindow};
pub use segment_arrives::{Arrival, Disposition, End, Environment, Text};
pub use seq::SeqNum;
pub use tcb::{Outgoing, RECEIVE_WINDOW, State, Stream, Tcb, Timer};
pub use timeouts::Timeout;
pub use transfer::{Recovery, Transfer};
