//! What people and programs see of synmill: the command line, its configuration, reports, and the list of live connections.

pub mod cli;
pub mod config;
pub mod conns;
pub mod report;
