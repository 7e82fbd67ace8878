//! Why connections failed.

use serde::Serialize;
use synmill_engine::generator::tally::Totals;

/// Connections that did not do all they were meant to, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The SYN was answered with RST.
    pub refused: u64,
    /// The handshake was not completed in time.
    pub connect_timed_out: u64,
    /// The peer was reported unreachable.
    pub unreachable: u64,
    /// The handshake was under way when the trial ended.
    pub connect_cut: u64,
    /// The peer reset it, once established.
    pub reset_by_peer: u64,
    /// We reset it, because the peer said something else than what was to be said.
    pub bad_response: u64,
    /// The peer did not answer in time, once established.
    pub timed_out: u64,
    /// It was established and under way when the trial ended.
    pub cut: u64,
}

impl Failed {
    /// Each cause, by the name it has in the document; the first four are from before the handshake was complete.
    pub(super) const fn causes(&self) -> [(&'static str, u64); 8] {
        [
            ("refused", self.refused),
            ("connect_timed_out", self.connect_timed_out),
            ("unreachable", self.unreachable),
            ("connect_cut", self.connect_cut),
            ("reset_by_peer", self.reset_by_peer),
            ("bad_response", self.bad_response),
            ("timed_out", self.timed_out),
            ("cut", self.cut),
        ]
    }
}

impl From<&Totals> for Failed {
    fn from(totals: &Totals) -> Self {
        Self {
            refused: totals.refused,
            connect_timed_out: totals.connect_timed_out,
            unreachable: totals.unreachable,
            connect_cut: totals.connect_cut,
            reset_by_peer: totals.reset_by_peer,
            bad_response: totals.bad_response,
            timed_out: totals.timed_out,
            cut: totals.cut,
        }
    }
}
