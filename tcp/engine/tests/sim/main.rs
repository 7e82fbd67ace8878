//! Whole dialogues between two endpoints over a link in memory, in virtual time, with faults from a seed.
//!
//! The checks are outside the system under test: the services compare text byte by byte, the devices count frames, and the counters must
//! obey their laws.

mod dialogues;
mod generator;
mod harness;
mod overload;
mod services;
mod wrap;
