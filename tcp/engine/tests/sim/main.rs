//! Whole dialogues between two endpoints over a link in memory, in virtual time, with seeded faults.
//!
//! The checkers stand outside the system under test: text is compared byte by byte by the services, frames are counted by
//! the devices, and the counters must obey their laws.

mod dialogues;
mod generator;
mod harness;
mod overload;
mod services;
mod wrap;
