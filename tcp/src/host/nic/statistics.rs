//! A link's counters that the kernel has for every driver.

use std::io;

use netlink_packet_route::link::{LinkAttribute, Stats64};

use super::netlink::link_message;

/// Counters of a link since it was made, in packets. `struct rtnl_link_stats64` of linux/if_link.h defines each.
///
/// A counter that the driver does not fill is 0. Some drivers count a packet that XDP redirects as received, others do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Good packets received.
    pub rx_packets: u64,
    /// Packets given to the wire.
    pub tx_packets: u64,
    /// Bad packets received, of every kind.
    pub rx_errors: u64,
    /// Packets not sent, for every reason.
    pub tx_errors: u64,
    /// Packets received and then dropped by the host, unwanted packets included.
    pub rx_dropped: u64,
    /// Packets dropped on their way out.
    pub tx_dropped: u64,
    /// Packets that the NIC missed because the host had no buffer for them: loss by overload.
    pub rx_missed_errors: u64,
    /// Packets lost in the NIC's own queue.
    pub rx_fifo_errors: u64,
    /// Packets not sent because the NIC's own queue ran dry or over.
    pub tx_fifo_errors: u64,
}

impl Statistics {
    /// Returns the growth since `before`; 0 for a counter that was reset in between.
    #[must_use]
    pub const fn since(&self, before: &Self) -> Self {
        Self {
            rx_packets: self.rx_packets.saturating_sub(before.rx_packets),
            tx_packets: self.tx_packets.saturating_sub(before.tx_packets),
            rx_errors: self.rx_errors.saturating_sub(before.rx_errors),
            tx_errors: self.tx_errors.saturating_sub(before.tx_errors),
            rx_dropped: self.rx_dropped.saturating_sub(before.rx_dropped),
            tx_dropped: self.tx_dropped.saturating_sub(before.tx_dropped),
            rx_missed_errors: self.rx_missed_errors.saturating_sub(before.rx_missed_errors),
            rx_fifo_errors: self.rx_fifo_errors.saturating_sub(before.rx_fifo_errors),
            tx_fifo_errors: self.tx_fifo_errors.saturating_sub(before.tx_fifo_errors),
        }
    }

    /// Returns the counters of losses that are not 0, with their names, in packets. They overlap: their sum means nothing.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [
            ("rx_missed_errors", self.rx_missed_errors),
            ("rx_fifo_errors", self.rx_fifo_errors),
            ("rx_dropped", self.rx_dropped),
            ("rx_errors", self.rx_errors),
            ("tx_fifo_errors", self.tx_fifo_errors),
            ("tx_dropped", self.tx_dropped),
            ("tx_errors", self.tx_errors),
        ];
        all.into_iter().filter(|&(_, count)| count > 0)
    }
}

impl From<&Stats64> for Statistics {
    fn from(stats: &Stats64) -> Self {
        Self {
            rx_packets: stats.rx_packets,
            tx_packets: stats.tx_packets,
            rx_errors: stats.rx_errors,
            tx_errors: stats.tx_errors,
            rx_dropped: stats.rx_dropped,
            tx_dropped: stats.tx_dropped,
            rx_missed_errors: stats.rx_missed_errors,
            rx_fifo_errors: stats.rx_fifo_errors,
            tx_fifo_errors: stats.tx_fifo_errors,
        }
    }
}

/// Returns the present counters of interface number `index`.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::NotFound`] if the interface is gone.
pub fn statistics(index: u32) -> io::Result<Statistics> {
    let link = link_message(index)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("interface number {index} is gone"))
    })?;
    let counted = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Stats64(stats) => Some(Statistics::from(stats)),
        _ => None,
    });
    counted.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the kernel gives no counters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_by_counter_and_never_below_zero() {
        let before = Statistics { rx_packets: 10, rx_dropped: 3, tx_errors: 5, ..Statistics::default() };
        let after = Statistics { rx_packets: 25, rx_dropped: 4, tx_errors: 2, ..Statistics::default() };
        let difference = after.since(&before);
        assert_eq!(difference, Statistics { rx_packets: 15, rx_dropped: 1, ..Statistics::default() });
        assert_eq!(difference.losses().collect::<Vec<_>>(), [("rx_dropped", 1)]);
    }

    #[test]
    fn an_interface_that_is_gone_has_no_counters() {
        assert_eq!(statistics(0x7fff_fff0).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
