//! Bounds of the SYNs lost at each place. The counters cannot tell a SYN from another packet.

use serde::Serialize;

use crate::face::report::Named;
use crate::text::grouped;
use synmill_engine::stats::Snapshot;

/// The interface's own counters of losses. These sums include the interface's other counters, such as single kinds of errors.
const NIC_LOSSES: [&str; 5] = ["rx_errors", "tx_errors", "rx_dropped", "tx_dropped", "rx_missed_errors"];

/// SYNs retransmitted, and the places where they or their answers may have been lost.
///
/// A packet lost at our own rings or at the interface need not have been a SYN or its answer. So each of these places has an
/// upper bound, and the peer and the way together have a lower bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LostSyns {
    /// SYNs retransmitted.
    pub total: u64,
    /// Upper bound of the losses at our own TX rings and for want of a frame.
    pub our_tx: u64,
    /// Upper bound of the losses at our own RX and fill rings.
    pub our_rx: u64,
    /// Upper bound of the losses at the interface.
    pub nic: u64,
    /// Lower bound of the losses at the peer or on the way: the rest, if all other places lost as many as they can have.
    pub peer_or_way: u64,
}

impl LostSyns {
    /// Computes the bounds from the counters of one trial.
    #[must_use]
    pub fn attribute(counts: &Snapshot, nic: &Named) -> Self {
        let total = counts.retrans_syn;
        let our_tx = counts.tx_ring_full + counts.tx_invalid + counts.no_free_frame;
        // In copy mode the kernel counts a packet that found no frame in both (net/xdp/xsk.c, __xsk_rcv).
        let our_rx = counts.rx_ring_full + counts.fill_ring_empty.max(counts.rx_dropped);
        let nic = nic_losses(nic).map(|(_, count)| count).sum::<u64>();
        Self {
            total,
            our_tx: our_tx.min(total),
            our_rx: our_rx.min(total),
            nic: nic.min(total),
            peer_or_way: total.saturating_sub(our_tx + our_rx + nic),
        }
    }

    /// Returns a phrase for each place: first the peer and the way, then the places that may have lost any.
    pub(super) fn places(&self) -> Vec<String> {
        let Self { total, our_tx, our_rx, nic, peer_or_way } = *self;
        let far = match peer_or_way {
            least if least == total => grouped(total),
            least => format!("{} to {}", grouped(least), grouped(total)),
        };
        let near = [(our_tx, "at our own TX ring"), (our_rx, "at our own RX ring"), (nic, "at the NIC")];
        let near = near.into_iter().filter(|&(count, _)| count > 0);
        let near = near.map(|(count, place)| format!("at most {} {place}", grouped(count)));
        [format!("{far} at the peer or on the way")].into_iter().chain(near).collect()
    }
}

/// Returns the interface's counters of losses that grew.
pub(super) fn nic_losses(nic: &Named) -> impl Iterator<Item = (&str, u64)> {
    nic.occurred().filter(|(name, _)| NIC_LOSSES.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_has_lost_more_than_it_can_and_the_peer_at_least_the_rest() {
        let check = |syns: u64, tx: u64, rx: u64, nic: u64, parts: [u64; 4]| {
            let counts = Snapshot {
                retrans_syn: syns,
                tx_ring_full: tx,
                // One packet, counted twice.
                fill_ring_empty: rx,
                rx_dropped: rx,
                ..Snapshot::default()
            };
            let nic = [("rx_packets", 1_000_000), ("rx_missed_errors", nic)].into_iter().collect();
            let LostSyns { total, our_tx, our_rx, nic, peer_or_way } = LostSyns::attribute(&counts, &nic);
            assert_eq!(total, syns);
            assert_eq!([our_tx, our_rx, nic, peer_or_way], parts);
        };
        check(0, 5, 5, 5, [0, 0, 0, 0]);
        check(10, 0, 0, 0, [0, 0, 0, 10]);
        check(10, 1, 2, 3, [1, 2, 3, 4]);
        check(10, 20, 2, 3, [10, 2, 3, 0]);
        check(10, 4, 20, 3, [4, 10, 3, 0]);
        check(10, 4, 3, 20, [4, 3, 10, 0]);
    }

    #[test]
    fn bounds_are_told_as_bounds() {
        let told = |lost: LostSyns| lost.places().join(", ");
        let away = LostSyns { total: 3_300, peer_or_way: 3_300, ..LostSyns::default() };
        assert_eq!(told(away), "3,300 at the peer or on the way");
        let unsure = LostSyns { our_rx: 3_274, peer_or_way: 26, ..away };
        assert_eq!(told(unsure), "26 to 3,300 at the peer or on the way, at most 3,274 at our own RX ring");
    }
}
