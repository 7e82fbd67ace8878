//! The load of a trial, and how connections end.

/// The most connections on their way at once, all workers together, under [`Load::Max`]: enough to keep both ends busy, and few enough
/// for every ring on the path to hold their segments.
pub const MAX_UNDER_WAY: u64 = 512;

/// How many connections to open, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Open loop: so many connections per second, evenly, whatever becomes of them.
    Rate(u64),
    /// As many as can be opened and closed.
    Max,
    /// Closed loop: so many connections open at any time.
    Concurrency(u64),
}

/// Which end closes a connection whose work is done, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseBy {
    /// The generator, with FIN.
    Fin,
    /// The generator, with RST.
    Rst,
    /// The peer, with FIN; the generator's FIN follows.
    Peer,
}
