//! What was asked for, and where.

use std::time::Duration;

use serde::Serialize;

use crate::face::report::Site;
use synmill_engine::generator;

/// What was asked for, and where it ran.
#[derive(Clone, Debug, Serialize)]
pub struct Setup {
    /// Command, host and interface.
    #[serde(flatten)]
    pub site: Site,
    /// How many connections, when, and how long.
    pub load: Load,
    /// What each connection did.
    pub workload: Workload,
    /// Addresses and ports that connections were opened to.
    pub targets: Vec<String>,
    /// Addresses or networks that connections were opened from.
    pub sources: Vec<String>,
    /// How many different connections these allow at a time.
    pub tuples: u64,
}

/// How many connections were asked for, and when.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Load {
    /// `rate`, `max`, `concurrency` or `search`.
    pub kind: &'static str,
    /// Connections a second for `rate`, connections at a time for `concurrency`, nothing for the others.
    pub asked: Option<u64>,
    /// Time to come up to the load.
    pub ramp_s: f64,
    /// Time under the whole load that does not count yet.
    pub warmup_s: f64,
    /// Time that counts, as it was asked for.
    pub duration_s: f64,
}

impl Load {
    /// One load all the time.
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

    /// A search for the highest rate; the times are each trial's.
    #[must_use]
    pub fn search(ramp: Duration, warmup: Duration, duration: Duration) -> Self {
        Self { kind: "search", ..Self::steady(generator::Load::Max, ramp, warmup, duration) }
    }
}

/// What each connection did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Workload {
    /// Its name, as given.
    pub kind: String,
    /// Requests of a connection; none where there are none to send.
    pub requests: u64,
    /// Who ends it, and how: `fin`, `rst` or `peer`.
    pub close: &'static str,
}

impl Workload {
    /// A workload by its name.
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
