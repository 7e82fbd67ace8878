//! The benchmarks' common parts, and the parts of the peers that need no kernel.

pub mod callgrind;
pub mod cores;
pub mod counts;
pub mod engine;
pub mod http;
pub mod numbered;
pub mod pingpong;
pub mod reflect;
pub mod rings;
pub mod rows;
pub mod scratch;
pub mod sums;
pub mod timing;
