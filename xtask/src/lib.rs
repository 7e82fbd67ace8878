//! What the project's commands and its tests share: the lab, and what the guest of a virtual machine is told.

pub mod ebpf;
pub mod guest;
