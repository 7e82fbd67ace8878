//! The generator: it opens connections on a schedule, speaks over them, and accounts for each.
//!
//! A [`Generator`] is an [`crate::endpoint::Application`], as the responder's listeners are. The control plane hands it one
//! [`desk::Trial`] after the other at its [`desk::Desk`], and reads the accounts there; latencies come by [`meters`].

mod application;
pub mod desk;
pub mod dialogue;
mod load;
pub mod meters;
pub mod pace;
mod run;
pub mod tally;
pub mod toeplitz;
mod track;
pub mod tuples;

pub use application::{Generator, Setup, Target};
pub use load::{CloseBy, Load, MAX_UNDER_WAY};
