//! The lab of synmill's tests, benchmarks and commands: two network namespaces, and the processes that run in them.

mod lab;
pub mod prerequisites;
mod process;

pub use lab::{
    CLIENT_INTERFACE, CLIENT_V4, CLIENT_V6, Lab, LabOptions, SERVER_INTERFACE, SERVER_V4, SERVER_V6,
    SOURCES_V4, SOURCES_V6, Side, output, shown,
};
pub use process::{Group, Interrupt, cargo, target, workspace};
