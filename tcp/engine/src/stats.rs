//! The one list of counters, per-worker cells with a single writer, and the laws the counts obey. Knows names and numbers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter with one writer and any number of readers: a plain load and store, never a locked instruction.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds `count`; only ever called by the cell's one writer.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Takes `count` away (gauges only).
    #[inline]
    pub fn sub(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(count), Relaxed);
    }

    /// One more, or one fewer (gauges only).
    #[inline]
    pub fn turn(&self, up: bool) {
        self.add(if up { 1 } else { u64::MAX });
    }

    /// Overwrites the value (gauges, and counts read from elsewhere).
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The present value.
    #[must_use]
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    (
        counters { $($(#[doc = $doc:literal])+ $name:ident,)+ }
        drops { $($(#[doc = $drop_doc:literal])+ $variant:ident = $drop_name:ident,)+ }
    ) => {
        /// One worker's counters, in cache lines of their own: what others read beside them need not wait for these.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: Cell,)+
            $($(#[doc = $drop_doc])+ pub $drop_name: Cell,)+
        }

        /// The counters of one or several workers at a moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Snapshot {
            $($(#[doc = $doc])+ pub $name: u64,)+
            $($(#[doc = $drop_doc])+ pub $drop_name: u64,)+
        }

        /// Why something received was dropped; each reason is a counter of its own.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[doc = $drop_doc])+ $variant,)+
        }

        impl DropReason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The counter's name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($drop_name),)+ }
            }
        }

        impl Counters {
            /// Counts one drop.
            #[inline]
            pub fn drop_for(&self, reason: DropReason) {
                match reason { $(DropReason::$variant => self.$drop_name.add(1),)+ }
            }

            /// All values at this moment. Read one after the other: sums close only when the writer has stopped.
            #[must_use]
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.get(),)+ $($drop_name: self.$drop_name.get(),)+ }
            }
        }

        impl Snapshot {
            /// Adds another worker's counts.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
                $(self.$drop_name += other.$drop_name;)+
            }

            /// What was counted since `before`. Gauges tell the present state still.
            #[must_use]
            pub fn since(&self, before: &Self) -> Self {
                let mut grown = Self {
                    $($name: self.$name.saturating_sub(before.$name),)+
                    $($drop_name: self.$drop_name.saturating_sub(before.$drop_name),)+
                };
                grown.curr_estab = self.curr_estab;
                grown.curr_connections = self.curr_connections;
                grown.curr_half_open = self.curr_half_open;
                grown.curr_time_wait = self.curr_time_wait;
                grown
            }

            /// Name and value of each counter but the drops, in the list's order.
            pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }

            /// Name and value of each drop counter, in the list's order.
            pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($drop_name), self.$drop_name),)+].into_iter()
            }
        }
    };
}

counters! {
    counters {
        /// Connections opened by us: CLOSED to SYN-SENT (RFC 4022 tcpActiveOpens).
        active_opens,
        /// Connections opened by peers: LISTEN to SYN-RECEIVED (RFC 4022 tcpPassiveOpens).
        passive_opens,
        /// SYN-SENT or SYN-RECEIVED to CLOSED or LISTEN (RFC 4022 tcpAttemptFails).
        attempt_fails,
        /// ESTABLISHED or CLOSE-WAIT to CLOSED (RFC 4022 tcpEstabResets).
        estab_resets,
        /// Connections in ESTABLISHED or CLOSE-WAIT now (RFC 4022 tcpCurrEstab).
        curr_estab,
        /// Connections in the table now, in any state, TIME-WAIT included.
        curr_connections,
        /// Connections in SYN-SENT or SYN-RECEIVED now.
        curr_half_open,
        /// Connections in TIME-WAIT now.
        curr_time_wait,
        /// Segments received whole, with a good checksum (RFC 4022 tcpInSegs less tcpInErrs).
        in_segs,
        /// Segments sent, retransmissions not counted (RFC 4022 tcpOutSegs).
        out_segs,
        /// Segments sent that carry something sent before (RFC 4022 tcpRetransSegs).
        retrans_segs,
        /// Segments received with a bad checksum or a malformed header (RFC 4022 tcpInErrs).
        in_errs,
        /// Segments sent with RST (RFC 4022 tcpOutRsts); counted in `out_segs` too.
        out_rsts,
        /// Bytes of text delivered to services.
        in_bytes,
        /// Bytes of text sent, retransmissions not counted.
        out_bytes,

        /// Handshakes completed: to ESTABLISHED from SYN-SENT or SYN-RECEIVED.
        established,
        /// Connections ended with both FINs acknowledged, and with TIME-WAIT over where ours was first.
        ended_closed,
        /// Connections ended by the peer's RST.
        ended_reset_by_peer,
        /// Connections ended by our RST, or given up by us where the RFC sends none.
        ended_reset_by_us,
        /// Connections ended because the peer stopped answering.
        ended_timed_out,
        /// Connections in SYN-SENT ended because a router said that the peer cannot be reached.
        ended_unreachable,
        /// TIME-WAIT records given up early, for a new connection.
        ended_evicted_time_wait,
        /// Half-open connections given up early, for a new connection.
        ended_evicted_half_open,

        /// SYN or SYN,ACK sent again.
        retrans_syn,
        /// Retransmission timers that ran out with text or FIN unacknowledged; what goes again for it is in `retrans_segs`.
        retrans_timeout,
        /// Fast recoveries begun by three duplicate acknowledgements; what goes again for them is in `retrans_segs`.
        retrans_fast,
        /// Zero-window probes sent.
        window_probes,
        /// Segments received out of order and kept.
        in_out_of_order,
        /// Segments received that carry nothing new.
        in_duplicates,
        /// Acknowledgements held back and sent by their timer.
        delayed_acks,
        /// Segments whose checksum field held only the pseudo-header's sum, accepted on request.
        in_partial_checksums,
        /// TIME-WAIT records reopened by a new SYN.
        time_wait_reopened,
        /// ICMP errors about a segment in flight that left its connection as it was (RFC 9293 section 3.9.2.2).
        in_soft_errors,

        /// Frames received from the device.
        in_frames,
        /// Received frames that were answered, connection or not.
        frames_answered,
        /// Received frames that needed no answer, or not yet.
        frames_absorbed,
        /// Received frames passed on to the worker that owns the flow.
        frames_handed_out,
        /// Frames received from other workers, which saw them first.
        frames_handed_in,
        /// Frames sent that answer no received one: timers, further data, probes, one acknowledgement for many.
        frames_originated,
        /// ARP requests and neighbour solicitations answered.
        neighbour_answers,
        /// ICMP and ICMPv6 echo requests answered.
        echo_answers,

        /// The kernel had a packet and no room in the RX ring (XDP_STATISTICS).
        rx_ring_full,
        /// The kernel had a packet and no frame in the fill ring (XDP_STATISTICS).
        fill_ring_empty,
        /// The kernel dropped a packet before the RX ring: larger than a frame, mostly (XDP_STATISTICS). Or it came in pieces, and there was
        /// no frame for the whole.
        rx_dropped,
        /// The kernel refused a TX descriptor (XDP_STATISTICS).
        tx_invalid,
        /// A frame to be sent found no room in the TX ring, or not for all its pieces.
        tx_ring_full,
        /// Queues where nothing was sent while busy polling was preferred, so that it is preferred no longer.
        busy_poll_stalls,
        /// Times that a queue sent nothing for a second though frames waited: the driver or the NIC has stopped.
        tx_stalls,
        /// There was something to send and no free frame to write it into.
        no_free_frame,
        /// A deadline found no room in the timer wheel, and is found by going through all connections instead: later, but found.
        timer_wheel_full,
        /// A transfer wanted a record of its own for congestion or reordering, and the pool was empty.
        no_transfer_record,
    }
    drops {
        /// Shorter than its headers say, or than Ethernet's.
        Truncated = drop_truncated,
        /// An EtherType that is not ours, or more than two VLAN tags.
        EtherType = drop_ethertype,
        /// An IP header that contradicts itself: version, header length or total length.
        IpHeader = drop_ip_header,
        /// A wrong IPv4 header checksum.
        IpChecksum = drop_ip_checksum,
        /// An IP fragment.
        Fragment = drop_fragment,
        /// Neither TCP nor anything answered.
        Protocol = drop_protocol,
        /// More IPv6 extension headers than the bound, or one that is malformed.
        ExtensionHeaders = drop_extension_headers,
        /// A TCP header length below 20 bytes or beyond the packet.
        TcpHeader = drop_tcp_header,
        /// A TCP option whose length is a lie.
        TcpOptions = drop_tcp_options,
        /// A wrong TCP checksum.
        TcpChecksum = drop_tcp_checksum,
        /// From its own destination (land).
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
        /// To an address or port that no listener and no connection has, and that may not be answered.
        NotOurs = drop_not_ours,
        /// An RST outside the window.
        RstOutOfWindow = drop_rst_out_of_window,
        /// An ICMP error about a segment that is not in flight (RFC 5927 section 4.1).
        IcmpOutOfWindow = drop_icmp_out_of_window,
        /// An RST, a segment that would be answered by one, or an ICMP error, for no connection.
        NoConnection = drop_no_connection,
        /// A segment without ACK where RFC 9293 asks for one.
        NoAck = drop_no_ack,
        /// Text that found no room: the window was full, or no record or frame was left to keep it in.
        TextNoRoom = drop_text_no_room,
        /// A SYN that found the half-open connections' share used up.
        SynBacklog = drop_syn_backlog,
        /// A SYN that found the table full of established connections.
        TableFull = drop_table_full,
        /// More distinct next hops or local addresses than the tables hold.
        TooManyPaths = drop_too_many_paths,
        /// For another worker, whose inbox was full.
        HandOverFull = drop_hand_over_full,
    }
}

/// A sum that has two ways to be reckoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Law {
    /// What it is about.
    pub name: &'static str,
    /// What came in.
    pub left: u64,
    /// Where it went.
    pub right: u64,
}

impl Law {
    /// Do the two agree?
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.left == self.right
    }
}

impl Snapshot {
    /// Connections that ended, in whatever way.
    #[must_use]
    pub const fn ended(&self) -> u64 {
        self.ended_closed
            + self.ended_reset_by_peer
            + self.ended_reset_by_us
            + self.ended_timed_out
            + self.ended_unreachable
            + self.ended_evicted_time_wait
            + self.ended_evicted_half_open
    }

    /// The accounts: each holds whenever the writers have stopped between two turns.
    ///
    /// - connections: opened, by us or by peers = ended in a named way + still in the table (TIME-WAIT is in the table);
    /// - handshakes: begun = completed + failed + under way;
    /// - frames: received, or handed in by another worker = answered, absorbed, handed out, or dropped for a named reason.
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
        // One of everything: 7 ends and 1 still open; 2 handshakes and 5 failed; a frame for each reason and 3 others.
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
        counters.active_opens.add(3);
        counters.passive_opens.add(5);
        counters.established.add(2);
        counters.attempt_fails.add(5);
        for &reason in DropReason::ALL {
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
