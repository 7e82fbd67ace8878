//! The commands that take an interface: from checked options to a report.
//!
//! Facts and notes go to standard error. A line a second and the final table go to standard output.

mod bench;
mod files;
mod search;
mod serve;
mod stage;
mod trial;

pub use bench::bench;
pub use serve::serve;
