//! synmill's TCP engine: everything between one queue of frames and an application. It needs no root, no NIC and no C library.
//!
//! A worker owns queues. It reads a burst of frames, parses each into a segment, finds the connection, applies RFC 9293,
//! writes the answer into the received frame and sends it. The rooms, from the wire inwards and out again:
//!
//! - [`device`]: one queue of frames, as a trait; in-memory devices, a faulty link among them.
//! - [`wire`]: bytes to values and back: Ethernet, VLAN, ARP, IPv4, IPv6, ICMP, TCP and their checksums.
//! - [`flow`]: which connection a packet belongs to, and which connection a deadline belongs to.
//! - [`proto`]: TCP itself, as pure functions over a control block.
//! - [`service`]: what an application says over a connection.
//! - [`endpoint`]: one core's TCP: joins the four above.
//! - [`generator`]: which connections to open and when, and what became of each.
//! - [`worker`]: the loop body that moves bursts between a device and an endpoint.
//! - [`stats`]: the one list of counters, and the laws they obey.
//! - [`time`]: the clock's value, as everything but the worker's loop sees it; `sync`: atomics that a model checker can
//!   watch; `hint`: unlikely branches.

pub mod device;
pub mod endpoint;
pub mod flow;
pub mod generator;
mod hint;
pub mod proto;
pub mod service;
pub mod stats;
mod sync;
pub mod time;
pub mod wire;
pub mod worker;
