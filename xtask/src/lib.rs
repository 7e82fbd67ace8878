//! What the project's commands and its tests share: the lab.

pub mod ebpf;
pub mod lab;
