//! The generator: when to open which connection, what to say over it, and what came of it. Knows addresses, text and time; never
//! segments, frames, devices or threads.

pub mod dialogue;
pub mod meters;
pub mod pace;
pub mod tally;
pub mod toeplitz;
pub mod tuples;

/// How many connections, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Open loop: so many connections a second, evenly, whatever becomes of them.
    Rate(u64),
    /// As many as can be opened and closed.
    Max,
    /// Closed loop: so many connections open at any time.
    Concurrency(u64),
}

/// Who ends a connection whose work is done, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseBy {
    /// We do, with FIN.
    Fin,
    /// We do, with RST.
    Rst,
    /// The peer does, with FIN; ours follows.
    Peer,
}
