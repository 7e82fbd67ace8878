//! The AF_XDP rings of one queue of an interface: descriptors, kicks and the socket.

#![allow(unsafe_code, reason = "ring calls promise that a chunk is in one place; sockets need system calls")]

mod busy_poll;
mod device;
mod large;
mod open;
mod socket;
#[cfg(test)]
mod tests;
mod watchdog;

pub use device::XdpDevice;
pub use open::{BindMode, XdpOptions};
