//! Which connection a packet, or a deadline, belongs to. Knows keys, slots and deadlines; never TCP.

mod key;

pub use key::{Address, FlowKey};
