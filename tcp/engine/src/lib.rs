//! synmill's TCP engine: everything between one queue of frames and an application. It needs no root, no NIC and no C library.
//!
//! A worker owns queues. It reads a burst of frames, parses each into a segment, finds the connection, applies RFC 9293,
//! writes the answer into the received frame and sends it. The rooms, from the wire inwards and out again:
//!
//! - [`device`]: one queue of frames, as a trait; devices in memory, among them a faulty link.
//! - [`wire`]: bytes to values and back: Ethernet, VLAN, ARP, IPv4, IPv6, ICMP, TCP and their checksums.
//! - [`flow`]: finds the connection of a packet, and the connection of a deadline.
//! - [`proto`]: TCP itself, as pure functions over a control block.
//! - [`service`]: the text that a server sends and takes.
//! - [`endpoint`]: one core's TCP, which joins the four rooms above.
//! - [`generator`]: opens connections on a schedule, and accounts for each.
//! - [`worker`]: the loop that moves bursts between a device and an endpoint.
//! - [`stats`]: the one list of counters, and the laws that they obey.
//! - [`time`]: a point in time as a value; `sync`: atomics that a model checker can watch; `hint`: unlikely branches;
//!   `names`: enums with names; `random`: numbers from a seed.

pub mod device;
pub mod endpoint;
pub mod flow;
pub mod generator;
mod hint;
mod names;
pub mod proto;
mod random;
pub mod service;
pub mod stats;
mod sync;
pub mod time;
pub mod wire;
pub mod worker;
