//! The generator's report: a line a second, a table of one screen, the document `synmill-bench/1`.
//!
//! Three kinds of figures stand side by side. *Connections that count* are those whose intended start lies in the measured
//! window, followed to their end: accounts, latencies and requests are theirs. *Rates* are of all connections while the window
//! lasted. Packets, retransmissions and losses are of the whole *trial*, with its ramp, warm-up and drain. A search has several
//! trials and reports the last one. Any other run is one trial.

mod causes;
mod interval;
mod latency;
mod lost_syns;
mod measured;
mod report;
mod setup;
mod table;
#[cfg(test)]
pub(super) mod tests;
mod usage;
mod verdict;

pub use interval::{Interval, Moment, Phase, Sampler};
pub use latency::{Latencies, Latency};
pub use lost_syns::LostSyns;
pub use measured::Measured;
pub use report::{
    BenchReport, Concurrency, Connections, Outcome, Packets, Rates, Received, Requests, Retransmissions, Step,
};
pub use setup::{Load, Setup, Workload};
pub use usage::{CoreUse, CpuUse, ProcessUse};
pub use verdict::Early;
