//! What the machine is.

pub mod cpu;
