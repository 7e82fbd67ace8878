//! The load and workload of a run, and where it ran.

use std::time::Duration;

use serde::Serialize;

use crate::face::report::Site;
use synmill_engine::generator;

/// The load and workload that the user asked for, and where it ran.
#[derive(Clone, Debug, Serialize)]
pub struct Setup {
    /// Command, host and interface.
    #[serde(flatten)]
    pub site: Site,
    /// Number of connections, and times.
    pub load: Load,
    /// Workload of each connection.
    pub workload: Workload,
    /// Addresses and ports to which connections were opened.
    pub targets: Vec<String>,
    /// Addresses or networks from which connections were opened.
    pub sources: Vec<String>,
    /// Number of different tuples of source and target.
    pub tuples: u64,
}

/// The load that the user asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Load {
    /// `rate`, `max`, `concurrency` or `search`.
    pub kind: &'static str,
    /// Connections per second for `rate`, connections at a time for `concurrency`, `None` for the others.
    pub asked: Option<u64>,
    /// Time in which the load rises.
    pub ramp_s: f64,
    /// Time of full load before the window.
    pub warmup_s: f64,
    /// Length of the window.
    pub duration_s: f64,
}

impl Load {
    /// Creates a load of one trial.
    #[must_use]
    pub fn steady(load: generator::Load, ramp: Duration, warmup: Duration, duration: Duration) -> Self {
        let (kind, asked) = match load {
            generator::Load::Rate(per_s) => ("rate", Some(per_s)),
            generator::Load::Max => ("max", None),
            generator::Load::Concurrency(open) => ("concurrency", Some(open)),
        };
        let [ramp_s, warmup_s, duration_s] = [ramp, warmup, duration].map(|time| time.as_secs_f64());
        Self { kind, asked, ramp_s, warmup_s, duration_s }
    }

    /// Creates the load of a search for the highest rate. The times are those of each trial.
    #[must_use]
    pub fn search(ramp: Duration, warmup: Duration, duration: Duration) -> Self {
        Self { kind: "search", ..Self::steady(generator::Load::Max, ramp, warmup, duration) }
    }
}

/// The workload of each connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// The workload's name, as the user gave it.
    pub kind: String,
    /// Requests per connection; 0 for a workload without requests.
    pub requests: u64,
    /// How a connection is closed: `fin` or `rst` by us, `peer` by the peer.
    pub close: &'static str,
}

impl Workload {
    /// Creates a workload with this name.
    #[must_use]
    pub const fn new(kind: String, requests: u64, close: generator::CloseBy) -> Self {
        let close = match close {
            generator::CloseBy::Fin => "fin",
            generator::CloseBy::Rst => "rst",
            generator::CloseBy::Peer => "peer",
        };
        Self { kind, requests, close }
    }
}
