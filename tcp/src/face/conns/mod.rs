//! The live connections of a running endpoint, listed for another process: `synmill conns`. Knows [`View`]s and a socket; never
//! records, frames, or who owns a connection.
//!
//! - [`Request`]: which connections, and how many; asked in one line of JSON.
//! - [`Row`]: one connection as it is told, a line of JSON each; [`Last`] is the line behind them.
//! - [`door`]: the socket's file, from before the first connection to the end of the run.
//! - [`server`]: one thread beside the workers that answers one client after the other.
//! - [`client`]: finds the endpoint, asks, and reads.
//! - [`table`]: what people see.

pub mod client;
pub mod door;
mod request;
mod row;
pub mod server;
pub mod table;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use tests::documented_rows;

use serde::{Deserialize, Serialize};

pub use request::{MOST_PEERS, MOST_TOP, Request, Sort, StateName, Top};
pub use row::{Row, SCHEMA};

use synmill_engine::endpoint::{View, Viewer};
use synmill_engine::time::Instant;

/// The longest line of a request, in bytes.
const MAX_REQUEST: u64 = 8192;
/// The longest line of an answer, in bytes: more is not an endpoint's.
const MAX_LINE: u64 = 64 * 1024;

/// Makes this thread the last to get a core: a looker-on takes from a worker what no other does, about a seventieth where they share one.
pub fn step_back() {
    // Nobody is refused this way; and if so, all works as well.
    let _ = rustix::process::nice(19);
}

/// Where connections are looked at: an endpoint's [`Viewer`], or a test's own.
pub trait Views {
    /// See [`Viewer::slots`].
    fn slots(&self) -> u32;
    /// See [`Viewer::view`].
    fn view(&self, slot: u32, now: Instant) -> Option<View>;
}

impl Views for Viewer {
    fn slots(&self) -> u32 {
        self.slots()
    }

    fn view(&self, slot: u32, now: Instant) -> Option<View> {
        self.view(slot, now)
    }
}

/// The last line of an answer. Before it there is one for each connection, a [`Row`] in JSON, and empty ones that say that the search
/// goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Last {
    /// All has been said.
    End(Totals),
    /// The request was not understood.
    Error(String),
}

/// What an answer's end tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Connections listed.
    pub listed: u64,
    /// Connections that are as asked for; more than were listed when only so many were to be.
    pub matching: u64,
    /// Connections held, in all states, by worker. Counted on the way: with many of them no single moment's number.
    pub held: Vec<u64>,
}
