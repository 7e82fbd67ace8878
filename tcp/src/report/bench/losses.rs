//! Where SYNs were lost: bounds, from counters that cannot tell a SYN from another packet.

use serde::Serialize;

use crate::report::Named;
use crate::stats::Snapshot;

/// The interface's own counters of what it lost. Others, such as kinds of errors, are in these sums already.
const NIC_LOSSES: [&str; 5] = ["rx_errors", "tx_errors", "rx_dropped", "tx_dropped", "rx_missed_errors"];

/// SYNs sent again, and where the lost ones, or the answers to them, can have gone.
///
/// What was lost at our own rings or at the interface need not have been a SYN, and one packet can be in two counters:
/// the three parts nearest to us are upper bounds, and what is left for the peer or the way is at least so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LostSyns {
    /// SYNs sent again: the sum of the others.
    pub total: u64,
    /// At our own TX rings, or for want of a frame, at most.
    pub our_tx: u64,
    /// At our own RX and fill rings, at most.
    pub our_rx: u64,
    /// At the interface, at most.
    pub nic: u64,
    /// The rest: at the peer or on the way.
    pub peer_or_way: u64,
}

impl LostSyns {
    /// Each place in turn, the nearest first, takes as many as it can have lost.
    #[must_use]
    pub fn attribute(counts: &Snapshot, nic: &Named) -> Self {
        let mut rest = counts.retrans_syn;
        let mut take = |most: u64| {
            let taken = most.min(rest);
            rest -= taken;
            taken
        };
        let our_tx = take(counts.tx_ring_full + counts.tx_invalid + counts.no_free_frame);
        let our_rx = take(counts.rx_ring_full + counts.fill_ring_empty + counts.rx_dropped);
        let nic = take(nic_losses(nic).map(|(_, count)| count).sum());
        Self { total: counts.retrans_syn, our_tx, our_rx, nic, peer_or_way: rest }
    }
}

/// What the interface says it lost; kinds that occurred only.
pub(super) fn nic_losses(nic: &Named) -> impl Iterator<Item = (&str, u64)> {
    let pairs = nic.0.iter().map(|(name, count)| (name.as_str(), *count));
    pairs.filter(|(name, count)| *count > 0 && NIC_LOSSES.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_takes_what_it_can_have_lost_and_no_more() {
        let check = |syns: u64, tx: u64, rx: u64, nic: u64, parts: [u64; 4]| {
            let counts =
                Snapshot { retrans_syn: syns, tx_ring_full: tx, fill_ring_empty: rx, ..Snapshot::default() };
            let nic = [("rx_packets", 1_000_000), ("rx_missed_errors", nic)].into_iter().collect();
            let LostSyns { total, our_tx, our_rx, nic, peer_or_way } = LostSyns::attribute(&counts, &nic);
            assert_eq!(total, syns);
            assert_eq!([our_tx, our_rx, nic, peer_or_way], parts);
        };
        check(0, 5, 5, 5, [0, 0, 0, 0]);
        check(10, 0, 0, 0, [0, 0, 0, 10]);
        check(10, 1, 2, 3, [1, 2, 3, 4]);
        check(10, 20, 2, 3, [10, 0, 0, 0]);
        check(10, 4, 20, 3, [4, 6, 0, 0]);
        check(10, 4, 3, 20, [4, 3, 3, 0]);
    }
}
