//! TCP itself, RFC 9293, as pure functions over a control block, with `now` as an argument.
//!
//! - [`Tcb`]: the variables of one connection. [`Transfer`]: congestion control and loss recovery, for connections that need
//!   them. [`Tcp`]: both, borrowed together.
//! - [`segment_arrives`]: section 3.10.7; [`user_calls`]: sections 3.10.1 to 3.10.5; [`timeouts`]: section 3.10.8.
//! - [`Tcp::poll_segment`]: what a connection sends next. [`Rtt`]: RFC 6298.

mod cubic;
mod isn;
mod output;
mod rtt;
mod sack;
mod scoreboard;
mod segment;
pub mod segment_arrives;
mod seq;
mod state;
mod tcb;
mod tcp;
#[cfg(test)]
pub(crate) mod tests;
pub mod timeouts;
mod transfer;
pub mod user_calls;

pub use isn::IsnSecret;
pub use output::{Outgoing, Stream};
pub use rtt::{MIN_RTO_MS, Rtt};
pub use sack::SackBlocks;
pub use scoreboard::Scoreboard;
pub use segment::{Flags, Options, Segment, Timestamps, WireWindow};
pub use segment_arrives::{Arrival, Disposition, Environment, Text};
pub use seq::SeqNum;
pub use state::{End, State, Timer};
pub use tcb::{RECEIVE_WINDOW, Tcb};
pub use tcp::Tcp;
pub use timeouts::Timeout;
pub use transfer::{Recovery, Transfer};
pub use user_calls::FinArrival;
