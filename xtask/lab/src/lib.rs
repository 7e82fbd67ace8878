//! The lab of synmill's tests, benchmarks and commands: network namespaces, the processes in them, and their reports.

mod command;
mod interrupt;
mod lab;
pub mod prerequisites;
mod process;
mod report;
pub mod schema;
mod synmill;
mod wait;

pub use command::{Words, cargo, output, shown, target, workspace};
pub use interrupt::Interrupt;
pub use lab::{
    Attached, CLIENT_INTERFACE, CLIENT_V4, CLIENT_V6, Lab, LabOptions, SERVER_INTERFACE, SERVER_V4,
    SERVER_V6, SOURCES_V4, SOURCES_V6, Side,
};
pub use process::{Output, Process};
pub use report::{Run, last_json};
pub use synmill::Synmill;
pub use wait::{until, wait};
