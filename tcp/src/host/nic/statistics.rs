//! A link's counters that the kernel has for every driver.

use std::io;

use netlink_packet_route::link::{LinkAttribute, Stats64};

use super::netlink::{first, link_message};

macro_rules! statistics {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters of a link since it was made, in packets. `struct rtnl_link_stats64` of linux/if_link.h defines each.
        ///
        /// A counter that the driver does not fill is 0. Some drivers count a packet that XDP redirects as received, others do not.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Statistics {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Statistics {
            /// Returns the growth since `before`; 0 for a counter that was reset in between.
            #[must_use]
            pub const fn since(&self, before: &Self) -> Self {
                Self { $($name: self.$name.saturating_sub(before.$name),)+ }
            }

            /// Returns the counters of losses that are not 0, with their names, in packets. They overlap: their sum means nothing.
            pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> {
                let all = [$((stringify!($name), self.$name),)+];
                all.into_iter().filter(|(name, count)| *count > 0 && !name.ends_with("_packets"))
            }
        }

        impl From<&Stats64> for Statistics {
            fn from(stats: &Stats64) -> Self {
                Self { $($name: stats.$name,)+ }
            }
        }
    };
}

statistics! {
    /// Good packets received.
    rx_packets,
    /// Packets given to the wire.
    tx_packets,
    /// Packets that the NIC missed because the host had no buffer for them: loss by overload.
    rx_missed_errors,
    /// Packets lost in the NIC's own queue.
    rx_fifo_errors,
    /// Packets received and then dropped by the host, unwanted packets included.
    rx_dropped,
    /// Bad packets received, of every kind.
    rx_errors,
    /// Packets not sent because the NIC's own queue ran dry or over.
    tx_fifo_errors,
    /// Packets dropped on their way out.
    tx_dropped,
    /// Packets not sent, for every reason.
    tx_errors,
}

/// Returns the present counters of interface number `index`.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::NotFound`] if the interface is gone.
pub fn statistics(index: u32) -> io::Result<Statistics> {
    let link = link_message(index)?.ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, format!("interface number {index} is gone"))
    })?;
    let counted = first!(&link.attributes, LinkAttribute::Stats64(stats) => Statistics::from(stats));
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
