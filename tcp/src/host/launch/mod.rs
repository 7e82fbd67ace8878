//! From a plan to running workers and back: attach, bind, set the NIC, start, watch, stop.

mod crew;
mod jobs;
mod ladder;
mod own_file;
mod session;
mod signals;

pub use jobs::{Clock, ForWorker};
pub use own_file::OwnFile;
pub use session::{Left, Session, Taken};
pub use signals::Signals;
