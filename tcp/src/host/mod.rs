//! The machine under the engine: interfaces, the XDP program, AF_XDP rings, threads.

pub mod launch;
pub mod machine;
pub mod nic;
pub mod preflight;
pub mod program;
pub mod rings;
