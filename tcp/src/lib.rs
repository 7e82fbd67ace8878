//! synmill: a TCP endpoint on AF_XDP.
//!
//! - [`engine`]: the package `synmill-engine`: from one queue of frames to an application. It knows no kernel and no command line.
//! - [`text`]: numbers as text.
//! - [`host`]: the machine: from facts to a plan, from the plan to running workers, and back.
//! - [`face`]: what people and programs see: the command line, runs, reports, and the list of live connections.
//!
//! Each may use those above it. No import runs the other way.

pub mod face;
pub mod host;
pub mod text;
pub use synmill_engine as engine;
