//! End to end: `synmill serve` and `synmill bench` on AF_XDP rings in a lab of two namespaces, with the kernel's TCP as the peer.
//! Needs root, and the packages that `cargo xtask test` installs.

mod bench;
mod client;
mod conns;
mod exchange;
mod harness;
mod http;
mod lifecycle;
mod load;
mod loss;
mod neighbours;
mod queues;
mod refusals;
mod streams;
mod vlan;
