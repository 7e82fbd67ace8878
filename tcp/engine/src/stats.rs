//! The one list of counters, per-worker cells with a single writer, and the laws that the counts obey.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::names::named;

/// A counter with one writer and any number of readers: a plain load and store, never a locked instruction.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds `count`. Only the cell's one writer may call this.
    #[inline]
    pub fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }

    /// Takes `count` away from a gauge.
    #[inline]
    pub fn sub(&self, count: u64) {
        self.set(self.get().wrapping_sub(count));
    }

    /// Adds one to a gauge, or takes one away.
    #[inline]
    pub fn turn(&self, up: bool) {
        self.add(if up { 1 } else { u64::MAX });
    }

    /// Overwrites the value of a gauge, or of a count that is read elsewhere.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Returns the present value.
    #[must_use]
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Defines a struct of counts that can be summed.
macro_rules! counts {
    ($(#[$attribute:meta])* $counts:ident { $($(#[doc = $doc:literal])+ $name:ident,)+ }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct $counts {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl $counts {
            /// Adds the counts of another.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

/// Defines a struct of cells, and the struct of their values at one moment, which the method `$read` returns.
macro_rules! cells {
    (
        $(#[$cells_attribute:meta])* $cells:ident => $read:ident() -> $(#[$attribute:meta])* $counts:ident {
            $($(#[doc = $doc:literal])+ $name:ident,)+
        }
    ) => {
        $(#[$cells_attribute])*
        #[derive(Debug, Default)]
        pub struct $cells {
            $($(#[doc = $doc])+ pub $name: $crate::stats::Cell,)+
        }

        impl $cells {
            /// Reads all values, one after the other: sums close only when the writer has stopped.
            #[must_use]
            pub fn $read(&self) -> $counts {
                $counts { $($name: self.$name.get(),)+ }
            }

            /// Sets all cells to zero. Only the writer may call this.
            pub fn clear(&self) {
                $(self.$name.set(0);)+
            }
        }

        $crate::stats::counts! { $(#[$attribute])* $counts { $($(#[doc = $doc])+ $name,)+ } }
    };
}
pub(crate) use {cells, counts};

/// Expands to the code that differs between the kinds of counters.
macro_rules! of_kind {
    // A gauge is a state, so a difference keeps it.
    (difference gauges $now:expr, $before:expr) => { $now };
    (difference $kind:ident $now:expr, $before:expr) => { $now.saturating_sub($before) };

    (sum of ends $($value:expr),+) => { 0 $(+ $value)+ };
    (sum of $kind:ident $($value:expr),+) => { 0 };

    (struct of rings $($(#[doc = $doc:literal])+ $name:ident,)+) => {
        counts! {
            /// The losses at a device's rings since the device was made, in frames unless the field says otherwise.
            RingCounts { $($(#[doc = $doc])+ $name,)+ }
        }

        impl Counters {
            /// Overwrites the counters of the rings.
            pub fn set_rings(&self, counts: &RingCounts) {
                $(self.$name.set(counts.$name);)+
            }
        }
    };
    (struct of $kind:ident $($(#[doc = $doc:literal])+ $name:ident,)+) => {};
}

macro_rules! counters {
    (
        counters { $($kind:ident { $($(#[doc = $doc:literal])+ $name:ident,)+ })+ }
        drops { $($(#[doc = $drop_doc:literal])+ $variant:ident = $drop_name:ident,)+ }
    ) => {
        cells! {
            /// One worker's counters, in cache lines of their own: no reader of a neighbouring value waits for these.
            #[repr(align(128))]
            Counters => snapshot() ->
            /// The counters of one or several workers at one moment.
            Snapshot { $($($(#[doc = $doc])+ $name,)+)+ $($(#[doc = $drop_doc])+ $drop_name,)+ }
        }

        $(of_kind! { struct of $kind $($(#[doc = $doc])+ $name,)+ })+

        named! {
            /// Why the engine dropped a frame. Each reason has a counter, whose name it bears.
            pub enum DropReason { $($(#[doc = $drop_doc])+ $variant = stringify!($drop_name),)+ }
        }

        impl Counters {
            /// Counts one drop.
            #[inline]
            pub fn drop_for(&self, reason: DropReason) {
                match reason { $(DropReason::$variant => self.$drop_name.add(1),)+ }
            }
        }

        impl Snapshot {
            /// Returns the counts since `before`. Gauges keep their present value.
            #[must_use]
            pub fn since(&self, before: &Self) -> Self {
                Self {
                    $($($name: of_kind!(difference $kind self.$name, before.$name),)+)+
                    $($drop_name: self.$drop_name.saturating_sub(before.$drop_name),)+
                }
            }

            /// Returns the number of connections that ended, in whatever way.
            #[must_use]
            pub const fn ended(&self) -> u64 {
                $(of_kind!(sum of $kind $(self.$name),+) +)+ 0
            }

            /// Returns name and value of each counter but the drops, in the list's order.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$($((stringify!($name), self.$name),)+)+].into_iter()
            }

            /// Returns name and value of each drop counter, in the list's order.
            pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($drop_name), self.$drop_name),)+].into_iter()
            }
        }
    };
}

// A new counter is one line here. The kinds are `counts`, `gauges` (a state, not a count), `ends` (a way for a connection to
// end, part of the law of connections) and `rings` (a `Device` counts them).
counters! {
    counters {
        counts {
            /// Connections that this end opened: CLOSED to SYN-SENT (RFC 4022 tcpActiveOpens).
            active_opens,
            /// Connections that peers opened: LISTEN to SYN-RECEIVED (RFC 4022 tcpPassiveOpens).
            passive_opens,
            /// SYN-SENT or SYN-RECEIVED to CLOSED or LISTEN (RFC 4022 tcpAttemptFails).
            attempt_fails,
            /// ESTABLISHED or CLOSE-WAIT to CLOSED (RFC 4022 tcpEstabResets).
            estab_resets,
        }
        gauges {
            /// Connections in ESTABLISHED or CLOSE-WAIT now (RFC 4022 tcpCurrEstab).
            curr_estab,
            /// Connections in the table now, in any state, TIME-WAIT included.
            curr_connections,
            /// Connections in SYN-SENT or SYN-RECEIVED now.
            curr_half_open,
            /// Connections in TIME-WAIT now.
            curr_time_wait,
        }
        counts {
            /// Segments received whole, with a good checksum (RFC 4022 tcpInSegs less tcpInErrs).
            in_segs,
            /// Segments sent, retransmissions not counted (RFC 4022 tcpOutSegs).
            out_segs,
            /// Segments sent that carry something sent before (RFC 4022 tcpRetransSegs).
            retrans_segs,
            /// Segments received with a bad checksum or a malformed header (RFC 4022 tcpInErrs).
            in_errs,
            /// Segments sent with RST (RFC 4022 tcpOutRsts). `out_segs` counts them too.
            out_rsts,
            /// Bytes of text delivered to services.
            in_bytes,
            /// Bytes of text sent, retransmissions not counted.
            out_bytes,

            /// Handshakes completed: to ESTABLISHED from SYN-SENT or SYN-RECEIVED.
            established,
        }
        ends {
            /// Connections ended with both FINs acknowledged and, where this end closed first, after TIME-WAIT.
            ended_closed,
            /// Connections ended by the peer's RST.
            ended_reset_by_peer,
            /// Connections that this end aborted: with RST, or silently where the RFC sends none.
            ended_reset_by_us,
            /// Connections ended because the peer stopped answering.
            ended_timed_out,
            /// Connections in SYN-SENT ended because a router reported the peer as unreachable.
            ended_unreachable,
            /// TIME-WAIT records evicted for a new connection.
            ended_evicted_time_wait,
            /// Half-open connections evicted for a new connection.
            ended_evicted_half_open,
        }
        counts {
            /// Retransmitted SYNs and SYN,ACKs.
            retrans_syn,
            /// Retransmission timeouts with text or FIN unacknowledged. `retrans_segs` counts the segments sent for them.
            retrans_timeout,
            /// Fast recoveries begun by SACK blocks or three duplicate acknowledgements. `retrans_segs` counts the segments sent for them.
            retrans_fast,
            /// Tail loss probes due (RFC 8985 section 7).
            tail_loss_probes,
            /// Zero-window probes sent.
            window_probes,
            /// Segments received out of order and kept.
            in_out_of_order,
            /// Segments received that carry nothing new.
            in_duplicates,
            /// Acknowledgements delayed, and sent when their timer expired.
            delayed_acks,
            /// Segments accepted whose checksum field held only the pseudo-header's sum.
            in_partial_checksums,
            /// TIME-WAIT records reopened by a new SYN.
            time_wait_reopened,
            /// ICMP errors about a segment in flight that left its connection as it was (RFC 9293 section 3.9.2.2).
            in_soft_errors,

            /// Frames received from the device.
            in_frames,
            /// Received frames that were answered, with or without a connection.
            frames_answered,
            /// Received frames that needed no answer, or none yet.
            frames_absorbed,
            /// Received frames handed over to the worker that owns the flow.
            frames_handed_out,
            /// Frames that other workers received and handed over to this one.
            frames_handed_in,
            /// Frames sent that answer no received one: timers, further text, probes, one acknowledgement for many segments.
            frames_originated,
            /// ARP requests and neighbour solicitations answered.
            neighbour_answers,
            /// ICMP and ICMPv6 echo requests answered.
            echo_answers,
        }
        rings {
            /// Packets that the kernel lost because the RX ring was full (XDP_STATISTICS).
            rx_ring_full,
            /// Packets that the kernel lost because the fill ring was empty (XDP_STATISTICS). With zero-copy the driver counts each
            /// time that it finds no frame there, which need not lose a packet.
            fill_ring_empty,
            /// Packets that the kernel dropped before the RX ring, mostly because they are larger than a frame (XDP_STATISTICS), and
            /// packets of several pieces for which no large frame was free.
            rx_dropped,
            /// TX descriptors that the kernel refused (XDP_STATISTICS), and frames too short to send.
            tx_invalid,
            /// Frames for which the TX ring had no room, or not for all their pieces.
            tx_ring_full,
            /// Queues that sent nothing while they preferred busy polling, and so prefer it no longer: once per queue at most.
            busy_poll_stalls,
            /// Times that a queue sent nothing for a second though frames waited: the driver or the NIC has stopped. Counted once for
            /// each time that it goes on again.
            tx_stalls,
        }
        counts {
            /// Times that there was something to send and no free frame to write it into.
            no_free_frame,
            /// Deadlines that found no room in the timer wheel. A pass over all connections finds them later.
            timer_wheel_full,
            /// Times that a transfer wanted a record for congestion control or reordering, and the pool was empty.
            no_transfer_record,
        }
    }
    drops {
        /// Shorter than its headers say, or than an Ethernet header.
        Truncated = drop_truncated,
        /// An EtherType that is not ours, or more than two VLAN tags.
        EtherType = drop_ethertype,
        /// An IP header that contradicts itself: version, header length or total length.
        IpHeader = drop_ip_header,
        /// A wrong IPv4 header checksum.
        IpChecksum = drop_ip_checksum,
        /// An IP fragment.
        Fragment = drop_fragment,
        /// Neither TCP nor a message that the engine answers.
        Protocol = drop_protocol,
        /// More IPv6 extension headers than the bound, or a malformed one.
        ExtensionHeaders = drop_extension_headers,
        /// A TCP header length below 20 bytes or beyond the packet.
        TcpHeader = drop_tcp_header,
        /// A TCP option with a wrong length.
        TcpOptions = drop_tcp_options,
        /// A wrong TCP checksum.
        TcpChecksum = drop_tcp_checksum,
        /// From its own destination (land attack).
        Land = drop_land,
        /// A source or destination that no host may have: multicast, broadcast, loopback, unspecified.
        Martian = drop_martian,
        /// Port 0.
        PortZero = drop_port_zero,
        /// No control bit at all.
        FlagsNone = drop_flags_none,
        /// Control bits that exclude each other: SYN with FIN or RST, FIN without ACK, all six.
        FlagsInvalid = drop_flags_invalid,
        /// A malformed ARP, neighbour discovery or ICMP message.
        Malformed = drop_malformed,
        /// To an address or port without listener and connection, from which no answer may come.
        NotOurs = drop_not_ours,
        /// An RST outside the window.
        RstOutOfWindow = drop_rst_out_of_window,
        /// An ICMP error about a segment that is not in flight (RFC 5927 section 4.1).
        IcmpOutOfWindow = drop_icmp_out_of_window,
        /// For no connection: an RST, an ICMP error, or a segment that would be answered by an RST.
        NoConnection = drop_no_connection,
        /// A segment without ACK where RFC 9293 requires one.
        NoAck = drop_no_ack,
        /// Text for which there was no room: the window was full, or no record or frame was left to keep it in.
        TextNoRoom = drop_text_no_room,
        /// A SYN when the half-open connections' share of the table was used up.
        SynBacklog = drop_syn_backlog,
        /// A SYN when the table was full of established connections.
        TableFull = drop_table_full,
        /// More distinct next hops or local addresses than the tables hold.
        TooManyPaths = drop_too_many_paths,
        /// For another worker, whose inbox was full.
        HandOverFull = drop_hand_over_full,
    }
}

/// A sum that can be counted in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Law {
    /// The law's name.
    pub name: &'static str,
    /// The sum of the arrivals.
    pub left: u64,
    /// The sum of the outcomes.
    pub right: u64,
}

impl Law {
    /// Returns whether both sides are equal.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.left == self.right
    }
}

impl Snapshot {
    /// Returns the accounts. Each holds whenever all writers have stopped between two turns.
    ///
    /// - connections: opened by either end = ended in a named way + still in the table (TIME-WAIT is in the table);
    /// - handshakes: begun = completed + failed + under way;
    /// - frames: received or handed in = answered, absorbed, handed out, or dropped for a named reason.
    #[must_use]
    pub fn laws(&self) -> [Law; 3] {
        let opened = self.active_opens + self.passive_opens;
        let dropped: u64 = self.drops().map(|(_, count)| count).sum();
        [
            Law { name: "connections", left: opened, right: self.ended() + self.curr_connections },
            Law {
                name: "handshakes",
                left: opened,
                right: self.established + self.attempt_fails + self.curr_half_open,
            },
            Law {
                name: "frames",
                left: self.in_frames + self.frames_handed_in,
                right: self.frames_answered + self.frames_absorbed + self.frames_handed_out + dropped,
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_end_and_every_drop_is_in_the_accounts() {
        // One of everything: 7 ends and 1 open connection; 2 handshakes completed and 5 failed; a frame for each reason and 3 others.
        let counters = Counters::default();
        for cell in [
            &counters.ended_closed,
            &counters.ended_reset_by_peer,
            &counters.ended_reset_by_us,
            &counters.ended_timed_out,
            &counters.ended_unreachable,
            &counters.ended_evicted_time_wait,
            &counters.ended_evicted_half_open,
            &counters.curr_connections,
            &counters.curr_half_open,
            &counters.frames_answered,
            &counters.frames_absorbed,
            &counters.frames_handed_out,
            &counters.frames_handed_in,
        ] {
            cell.add(1);
        }
        let ends =
            counters.snapshot().counts().filter(|(name, count)| name.starts_with("ended_") && *count == 1);
        assert_eq!(ends.count() as u64, counters.snapshot().ended());
        counters.active_opens.add(3);
        counters.passive_opens.add(5);
        counters.established.add(2);
        counters.attempt_fails.add(5);
        for reason in DropReason::ALL {
            counters.drop_for(reason);
        }
        counters.in_frames.add(DropReason::ALL.len() as u64 + 2);
        for law in counters.snapshot().laws() {
            assert!(law.holds(), "{law:?}");
        }
    }

    #[test]
    fn one_too_few_breaks_one_law() {
        for (name, snapshot) in [
            ("connections", Snapshot { passive_opens: 1, established: 1, ..Snapshot::default() }),
            ("handshakes", Snapshot { passive_opens: 1, curr_connections: 1, ..Snapshot::default() }),
            ("frames", Snapshot { in_frames: 2, drop_land: 1, ..Snapshot::default() }),
        ] {
            let broken: Vec<&str> =
                snapshot.laws().iter().filter(|law| !law.holds()).map(|law| law.name).collect();
            assert_eq!(broken, [name]);
        }
    }

    #[test]
    fn a_difference_leaves_gauges_as_they_are() {
        let before = Snapshot { in_segs: 2, drop_martian: 3, ..Snapshot::default() };
        let now = Snapshot { in_segs: 9, drop_martian: 3, ..Snapshot::default() };
        assert_eq!(now.since(&before), Snapshot { in_segs: 7, ..Snapshot::default() });
        let gauges = |value: u64| Snapshot {
            curr_estab: value,
            curr_connections: value,
            curr_half_open: value,
            curr_time_wait: value,
            ..Snapshot::default()
        };
        assert_eq!(gauges(4).since(&gauges(3)), gauges(4));
        let named = Snapshot::default().counts().filter(|(name, _)| name.starts_with("curr_"));
        assert_eq!(named.count(), 4, "a gauge that a difference does not know");
    }

    #[test]
    fn snapshots_add_up_and_keep_every_name_once() {
        let one = Snapshot { in_segs: 2, drop_martian: 3, ..Snapshot::default() };
        let mut sum = one;
        sum.merge(&one);
        assert_eq!((sum.in_segs, sum.drop_martian), (4, 6));
        assert_eq!(sum.drops().count(), DropReason::ALL.len());
        let mut names: Vec<&str> = sum.counts().chain(sum.drops()).map(|(name, _)| name).collect();
        let total = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), total);
    }
}
