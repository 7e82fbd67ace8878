//! synmill: a TCP endpoint on AF_XDP.
//!
//! - [`engine`]: the package `synmill-engine`: from one queue of frames to an application. It knows no kernel and no command line.
//! - [`host`]: the machine: interfaces, the XDP program, AF_XDP rings, threads; from a plan to running workers, and back.
//! - [`face`]: what people and programs see: the command line, its configuration, reports, and the list of live connections.
//!
//! The face may use the host, the host may use the engine; no import runs the other way.

pub mod face;
pub mod host;
pub mod text;
pub use synmill_engine as engine;
