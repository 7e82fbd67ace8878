//! The machine under the engine: interfaces, the XDP program, AF_XDP rings, threads.

pub mod interface;
pub mod launch;
pub mod machine;
pub mod preflight;
pub mod program;
pub mod rings;
