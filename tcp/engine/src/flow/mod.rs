//! Names of connections and tables of them: which connection a packet, or a deadline, belongs to.

mod hash;
mod key;
mod memory;
mod prefetch;
mod prefix;
mod set;
mod slots;
mod table;
mod timers;

pub use hash::FlowHasher;
pub use key::{Address, FlowKey};
pub(crate) use memory::table_of;
pub(crate) use prefetch::{prefetch, prefetch_to_write};
pub use prefix::Prefix;
pub use set::SlotSet;
pub use slots::{Moment, SlotReader, Slots, Words};
pub use table::{FlowIndex, FlowTable, Full};
pub use timers::{Armed, Deadlines, Marked, Share, Timers};
