//! The face of synmill towards people and programs.
//!
//! - [`cli`]: the command line; [`config`]: its options, checked.
//! - [`run`]: the commands that take an interface.
//! - [`report`]: their lines, tables and documents.
//! - [`conns`]: the list of live connections.

pub mod cli;
pub mod config;
pub mod conns;
pub mod report;
pub mod run;
