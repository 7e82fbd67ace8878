//! synmill: a TCP endpoint on AF_XDP.
//!
//! A worker owns queues. It reads a burst of frames, parses each into a segment, finds the connection, applies
//! RFC 9293, writes the answer into the same frame and sends it. The map, from the wire inwards and out again:
//!
//! - [`device`]: one queue of frames: real AF_XDP rings, or two in-memory ends of a faulty link.
//! - [`wire`]: bytes to values and back: Ethernet, VLAN, ARP, IPv4, IPv6, ICMP, TCP and their checksums.
//! - [`flow`]: which connection a packet belongs to, and which connection a deadline belongs to.
//! - [`proto`]: TCP itself, as pure functions over a control block.
//! - [`service`]: what is said over a connection.
//! - [`endpoint`]: one core's TCP: joins the four above.
//! - [`generator`]: whom to open connections to, when, and what came of them.
//! - [`worker`]: the loop body that moves bursts between a device and an endpoint.
//! - `steer` (feature `xdp`): the XDP program: loaded, attached, and told what is ours.
//! - [`stats`]: the one list of counters, and the laws they obey.
//! - [`conns`]: the live connections, listed for another process.
//! - `launch` (feature `xdp`): the control plane: from a configuration to running workers, and back.
//! - [`interface`]: what the kernel says about a network interface.
//! - [`preflight`]: what is refused before anything is touched, and the plan otherwise.
//! - [`config`]: what is asked for, checked; [`cli`] is its text.
//! - [`report`]: what a run looks like, to people and to programs.
//! - [`time`]: the clock's value, as everything but the worker's loop sees it; `sync`: atomics that a model checker can watch;
//!   `hint`: which branches are seldom taken.

pub mod cli;
pub mod config;
pub mod conns;
pub mod device;
pub mod endpoint;
pub mod flow;
pub mod generator;
mod hint;
pub mod interface;
#[cfg(feature = "xdp")]
pub mod launch;
pub mod preflight;
pub mod proto;
pub mod report;
pub mod service;
pub mod stats;
#[cfg(feature = "xdp")]
pub mod steer;
mod sync;
pub mod time;
pub mod wire;
pub mod worker;
