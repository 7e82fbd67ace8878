//! The end of an answer, and the limits of both sides' lines.

use serde::{Deserialize, Serialize};

/// Maximum length of a request's line, in bytes.
pub(super) const MAX_REQUEST: usize = 8192;
/// Maximum length of an answer's line, in bytes. No endpoint sends a longer one.
pub(super) const MAX_LINE: u64 = 64 * 1024;

/// The last line of an answer. The lines before it are a [`Row`](super::Row) for each connection, and empty lines that show that
/// the search goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Last {
    /// The answer is complete.
    End(Totals),
    /// The endpoint refused the request.
    Error(String),
}

/// Numbers of connections of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Connections listed.
    pub listed: u64,
    /// Connections that match the request; more than were listed if the request has a limit.
    pub matching: u64,
    /// Connections of each worker, in all states. The search counts them one by one, so the sum is not of one moment.
    pub held: Vec<u64>,
}
