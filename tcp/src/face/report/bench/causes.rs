//! The causes for which connections failed.

use synmill_engine::generator::tally::Totals;

/// Number of the first causes of [`failed`] that end a connection before its handshake is complete.
pub(super) const BEFORE_HANDSHAKE: usize = 4;

/// The causes of [`failed`] for connections that the generator itself cut at the end of the drain.
pub(super) const CUT: [&str; 2] = ["connect_cut", "cut"];

/// Returns the failed connections by cause, in the document's order.
pub(super) const fn failed(totals: &Totals) -> [(&'static str, u64); 8] {
    [
        ("refused", totals.refused),
        ("connect_timed_out", totals.connect_timed_out),
        ("unreachable", totals.unreachable),
        ("connect_cut", totals.connect_cut),
        ("reset_by_peer", totals.reset_by_peer),
        ("bad_response", totals.bad_response),
        ("timed_out", totals.timed_out),
        ("cut", totals.cut),
    ]
}
