//! End to end: `synmill serve` on real AF_XDP rings in a lab of two namespaces, with the kernel's TCP as the client.
//! Needs root, and the packages that `cargo xtask test` sees to.

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
#[path = "../../src/face/report/documented/schema.rs"]
mod schema;
mod streams;
mod vlan;
