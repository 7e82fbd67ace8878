//! The live connections of a running endpoint, listed for another process: `synmill conns`.
//!
//! - [`Request`]: which connections, and how many; a line of JSON.
//! - [`Row`]: one connection, a line of JSON each; [`Last`] is the line after the rows.
//! - [`door`]: the socket's file, which exists from before the first connection to the end of the run.
//! - [`server`]: one thread beside the workers that answers one client after the other.
//! - [`client`]: finds the endpoint, sends the request and prints the answer.
//! - [`table`]: the answer for people.

mod answer;
pub mod client;
pub mod door;
mod request;
mod row;
pub mod server;
pub mod table;
#[cfg(test)]
pub(crate) mod tests;

pub use answer::{Last, Totals};
pub use request::{MOST_PEERS, MOST_TOP, Request, Sort, StateName, Top};
pub use row::{Row, SCHEMA};
pub use server::{Views, step_back};
