//! The state that only a long or lossy transfer needs: congestion control (RFC 5681), loss recovery (RFC 6582) and the
//! receiver's account of text that waits.

use super::{Rtt, SeqNum};

/// The window of the first flight, RFC 6928: ten segments.
pub(super) const INITIAL_WINDOW_SEGMENTS: u32 = 10;
/// Duplicate acknowledgements that mean a loss, RFC 5681 section 3.2.
const DUPLICATE_THRESHOLD: u8 = 3;
/// No window grows beyond this: RFC 7323 section 2.3's largest.
const MAX_WINDOW: u32 = 1 << 30;

/// How a transfer recovers from a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// No loss is known.
    #[default]
    Open,
    /// Fast recovery until `recover` is acknowledged, RFC 6582 section 3.2.
    Fast {
        /// SND.NXT when the loss was noticed.
        recover: SeqNum,
    },
    /// After a timeout: everything from `next` up to `recover` is retransmitted in slow start.
    Timeout {
        /// SND.NXT when the timer ran out.
        recover: SeqNum,
        /// The next number to retransmit.
        next: SeqNum,
    },
}

/// A connection's transfer record. The endpoint takes it from a pool when a connection needs one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Round-trip times. They move here from the control block, which then holds this record's number.
    pub rtt: Rtt,
    /// cwnd, in bytes.
    pub congestion_window: u32,
    /// ssthresh, in bytes.
    pub slow_start_threshold: u32,
    /// Duplicate acknowledgements in a row.
    pub duplicate_acks: u8,
    /// Loss recovery.
    pub recovery: Recovery,
    /// `recover` of the last recovery: only duplicates of a number beyond it start a new one (RFC 6582 section 3.2 step 2).
    pub last_recover: SeqNum,
    /// Bytes received in order that the service has not taken yet. The receive window is smaller by as much.
    pub held_bytes: u32,
    /// The receive window that we advertised last, in bytes.
    pub advertised: u32,
    /// Segments retransmitted.
    pub retransmissions: u32,
    /// The number of a FIN that arrived before the text in front of it.
    pub early_fin: Option<SeqNum>,
}

impl Transfer {
    /// Returns the record of a connection with segments of `mss` bytes whose unacknowledged numbers start at `una`. `window` is
    /// the receive window in bytes.
    #[must_use]
    pub fn new(rtt: Rtt, mss: u32, una: SeqNum, window: u32) -> Self {
        Self {
            rtt,
            congestion_window: INITIAL_WINDOW_SEGMENTS * mss,
            slow_start_threshold: MAX_WINDOW,
            duplicate_acks: 0,
            recovery: Recovery::Open,
            last_recover: una - 1,
            held_bytes: 0,
            advertised: window,
            retransmissions: 0,
            early_fin: None,
        }
    }

    /// Takes an acknowledgement of `acked` new numbers up to `una`, with `flight` numbers still in flight. Returns whether the first
    /// unacknowledged segment must be retransmitted (a partial acknowledgement, RFC 6582 section 3.2 step 5).
    pub fn on_ack(&mut self, acked: u32, una: SeqNum, flight: u32, mss: u32) -> bool {
        self.duplicate_acks = 0;
        if una.after(self.last_recover) {
            // It must not fall behind by half the sequence space: it would count as ahead again.
            self.last_recover = una - 1;
        }
        match self.recovery {
            Recovery::Open => {
                self.grow(acked, mss);
                false
            }
            Recovery::Fast { recover } if una.at_or_after(recover) => {
                self.congestion_window = self.slow_start_threshold.min(flight.max(mss) + mss);
                self.recovery = Recovery::Open;
                false
            }
            Recovery::Fast { .. } => {
                // Deflate by the acknowledged bytes, and add back one segment for the retransmission.
                self.congestion_window = self.congestion_window.saturating_sub(acked).max(mss) + mss;
                true
            }
            Recovery::Timeout { recover, next } => {
                self.grow(acked, mss);
                self.recovery = if una.at_or_after(recover) {
                    Recovery::Open
                } else {
                    Recovery::Timeout { recover, next: if next.before(una) { una } else { next } }
                };
                false
            }
        }
    }

    /// Slow start below the threshold, congestion avoidance above: RFC 5681 section 3.1, counting bytes (RFC 3465, L = 2).
    fn grow(&mut self, acked: u32, mss: u32) {
        let growth = if self.congestion_window < self.slow_start_threshold {
            acked.min(2 * mss)
        } else {
            (u64::from(mss) * u64::from(acked.min(mss)) / u64::from(self.congestion_window)).max(1) as u32
        };
        self.congestion_window = (self.congestion_window + growth).min(MAX_WINDOW);
    }

    /// Takes a duplicate acknowledgement of `una`, with everything up to `nxt` sent. Returns whether the first unacknowledged
    /// segment must be retransmitted (RFC 5681 section 3.2 steps 2 and 3).
    pub fn on_duplicate_ack(&mut self, una: SeqNum, nxt: SeqNum, mss: u32) -> bool {
        match self.recovery {
            Recovery::Fast { .. } => {
                self.congestion_window = (self.congestion_window + mss).min(MAX_WINDOW);
                false
            }
            Recovery::Timeout { .. } => false,
            Recovery::Open => {
                self.duplicate_acks = self.duplicate_acks.saturating_add(1);
                if self.duplicate_acks != DUPLICATE_THRESHOLD || !una.after(self.last_recover) {
                    return false;
                }
                // Without the segments that limited transmit has sent beyond the window.
                self.halve((nxt - una).min(self.congestion_window), mss);
                self.duplicate_acks = 0;
                self.congestion_window = self.slow_start_threshold + u32::from(DUPLICATE_THRESHOLD) * mss;
                self.recovery = Recovery::Fast { recover: nxt };
                self.last_recover = nxt;
                true
            }
        }
    }

    /// Starts the recovery after a timeout: one segment, then everything in flight in slow start (RFC 5681 section 3.1).
    pub fn on_timeout(&mut self, una: SeqNum, nxt: SeqNum, mss: u32) {
        if !matches!(self.recovery, Recovery::Timeout { .. }) {
            self.halve(nxt - una, mss);
        }
        self.congestion_window = mss;
        self.duplicate_acks = 0;
        self.recovery = Recovery::Timeout { recover: nxt, next: una };
        self.last_recover = nxt;
    }

    /// Returns the next number to retransmit while the recovery after a timeout goes on.
    #[must_use]
    #[inline]
    pub fn repair_after_timeout(&self) -> Option<SeqNum> {
        match self.recovery {
            Recovery::Timeout { recover, next } if next.before(recover) => Some(next),
            _ => None,
        }
    }

    /// Notes that the recovery after a timeout has come to `next`; `None` if nothing is left to retransmit.
    pub(super) fn repaired_up_to(&mut self, next: Option<SeqNum>) {
        if let Recovery::Timeout { recover, .. } = self.recovery {
            self.recovery = Recovery::Timeout { recover, next: next.unwrap_or(recover) };
        }
    }

    fn halve(&mut self, flight: u32, mss: u32) {
        self.slow_start_threshold = (flight / 2).max(2 * mss);
    }

    /// Returns how many bytes the network allows in flight: cwnd, and one segment more for each of the first two duplicates
    /// (limited transmit, RFC 3042).
    #[must_use]
    pub fn allowance(&self, mss: u32) -> u32 {
        self.congestion_window + u32::from(self.duplicate_acks.min(2)) * mss
    }

    /// Would a fresh record serve as well, but for the congestion window?
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.held_bytes == 0 && self.early_fin.is_none() && self.recovery == Recovery::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    fn transfer() -> Transfer {
        Transfer::new(Rtt::NONE, MSS, SeqNum(0), 65536)
    }

    #[test]
    fn slow_start_grows_by_what_is_acknowledged_and_avoidance_by_a_segment_a_window() {
        let mut transfer = transfer();
        assert_eq!(transfer.congestion_window, 10_000);
        transfer.on_ack(2000, SeqNum(2000), 8000, MSS);
        assert_eq!(transfer.congestion_window, 12_000);
        transfer.slow_start_threshold = 12_000;
        for _ in 0..12 {
            transfer.on_ack(1000, SeqNum(3000), 8000, MSS);
        }
        assert!((12_900..=13_000).contains(&transfer.congestion_window), "{}", transfer.congestion_window);
    }

    #[test]
    fn the_third_duplicate_starts_fast_recovery_and_a_full_acknowledgement_ends_it() {
        let mut transfer = transfer();
        assert_eq!([0; 2].map(|_| transfer.on_duplicate_ack(SeqNum(0), SeqNum(10_000), MSS)), [false; 2]);
        assert_eq!(transfer.allowance(MSS), 12_000);
        assert!(transfer.on_duplicate_ack(SeqNum(0), SeqNum(10_000), MSS));
        assert_eq!(transfer.slow_start_threshold, 5000);
        assert_eq!(transfer.congestion_window, 8000);
        assert!(!transfer.on_duplicate_ack(SeqNum(0), SeqNum(10_000), MSS));
        assert_eq!(transfer.congestion_window, 9000);
        // A partial acknowledgement: the next hole is retransmitted.
        assert!(transfer.on_ack(3000, SeqNum(3000), 7000, MSS));
        assert_eq!(transfer.congestion_window, 7000);
        assert!(!transfer.on_ack(7000, SeqNum(10_000), 0, MSS));
        assert_eq!(transfer.recovery, Recovery::Open);
        assert_eq!(transfer.congestion_window, 2000);
    }

    /// A needless retransmission brings duplicates of the last number of the repair.
    #[test]
    fn duplicates_of_what_was_just_repaired_start_nothing() {
        let mut transfer = transfer();
        transfer.on_timeout(SeqNum(0), SeqNum(10_000), MSS);
        transfer.on_ack(10_000, SeqNum(10_000), 0, MSS);
        assert_eq!(transfer.recovery, Recovery::Open);
        for _ in 0..5 {
            assert!(!transfer.on_duplicate_ack(SeqNum(10_000), SeqNum(17_000), MSS));
        }
        transfer.on_ack(1000, SeqNum(11_000), 6000, MSS);
        let third = [0; 3].map(|_| transfer.on_duplicate_ack(SeqNum(11_000), SeqNum(17_000), MSS));
        assert_eq!(third, [false, false, true]);
    }

    #[test]
    fn what_limited_transmit_sends_counts_in_no_window() {
        let mut transfer = transfer();
        for nxt in [10_000, 11_000] {
            assert!(!transfer.on_duplicate_ack(SeqNum(0), SeqNum(nxt), MSS));
        }
        assert_eq!(transfer.allowance(MSS), 12_000);
        assert!(transfer.on_duplicate_ack(SeqNum(0), SeqNum(12_000), MSS));
        assert_eq!((transfer.slow_start_threshold, transfer.allowance(MSS)), (5000, 8000));
    }

    #[test]
    fn a_timeout_goes_back_to_one_segment_and_sends_all_again() {
        let mut transfer = transfer();
        transfer.on_timeout(SeqNum(0), SeqNum(10_000), MSS);
        assert_eq!((transfer.congestion_window, transfer.slow_start_threshold), (1000, 5000));
        assert_eq!(transfer.recovery, Recovery::Timeout { recover: SeqNum(10_000), next: SeqNum(0) });
        transfer.on_ack(4000, SeqNum(4000), 6000, MSS);
        assert_eq!(transfer.recovery, Recovery::Timeout { recover: SeqNum(10_000), next: SeqNum(4000) });
        // A second timeout in the same repair halves nothing again.
        transfer.on_timeout(SeqNum(4000), SeqNum(10_000), MSS);
        assert_eq!(transfer.slow_start_threshold, 5000);
    }
}
