//! The state that only a long or lossy transfer needs: congestion control (RFC 5681, 9438), loss recovery (RFC 6675, or 6582 for
//! peers without SACK; RFC 6937, 8985) and the receiver's account of text that waits.

use super::cubic::Cubic;
use super::scoreboard::Scoreboard;
use super::{Rtt, SackBlocks, SeqNum};
use crate::time::Millis;

/// The window of the first flight, RFC 6928: ten segments.
pub(super) const INITIAL_WINDOW_SEGMENTS: u32 = 10;
/// Duplicate acknowledgements that mean a loss, RFC 5681 section 3.2.
const DUPLICATE_THRESHOLD: u8 = 3;
/// No window grows beyond this: RFC 7323 section 2.3's largest.
const MAX_WINDOW: u32 = 1 << 30;
/// The shortest wait for a tail loss probe, in milliseconds: a few of the clock's. RFC 8985 section 7.2 has two round trips.
const MIN_PROBE_MS: u32 = 10;

/// How a transfer recovers from a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// No loss is known.
    #[default]
    Open,
    /// Fast recovery until `recover` is acknowledged, RFC 6675 section 5, or RFC 6582 section 3.2 without SACK.
    Fast {
        /// SND.NXT when the loss was noticed.
        recover: SeqNum,
    },
    /// After a timeout: the numbers up to `recover` are retransmitted in slow start: the holes of the scoreboard or, without one, all numbers from
    /// `next` on.
    Timeout {
        /// SND.NXT when the timer ran out.
        recover: SeqNum,
        /// The next number to retransmit.
        next: SeqNum,
    },
}

/// A tail loss probe, RFC 8985 section 7: it asks for the acknowledgement that would show a loss at the end of a flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Probe {
    /// The retransmission timer is the ordinary one.
    #[default]
    None,
    /// The retransmission timer stands for the probe's.
    Armed,
    /// The probe waits to be sent.
    Due,
    /// It was sent when SND.NXT was `end`.
    Sent {
        /// SND.NXT.
        end: SeqNum,
        /// It carries the last segment, and nothing new.
        again: bool,
    },
}

/// Proportional rate reduction, RFC 6937: sends while a loss is recovered, as acknowledgements come in. In bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reduction {
    /// RecoverFS.
    flight: u32,
    delivered: u32,
    out: u32,
}

/// A connection's transfer record. The endpoint takes it from a pool when a connection needs one.
#[derive(Clone, Debug, PartialEq)]
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
    /// Does the peer permit SACK?
    sack: bool,
    /// The peer's reports, from the first loss on. Without a scoreboard, recovery is RFC 6582's.
    scoreboard: Option<Box<Scoreboard>>,
    cubic: Cubic,
    reduction: Reduction,
    pub(super) probe: Probe,
    /// The time that the retransmission timer was last started with, in milliseconds.
    pub(super) timeout_ms: u32,
    /// SND.NXT when the congestion window last kept text back: it grows only while it is used (RFC 7661).
    limited: SeqNum,
    /// When text was sent last.
    last_sent: Millis,
}

impl Transfer {
    /// Returns the record of a connection with segments of `mss` bytes whose unacknowledged numbers start at `una`, to a peer that
    /// permits `sack` or not. `window` is the receive window in bytes.
    #[must_use]
    pub fn new(rtt: Rtt, mss: u32, una: SeqNum, window: u32, sack: bool) -> Self {
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
            sack,
            scoreboard: None,
            cubic: Cubic::default(),
            reduction: Reduction::default(),
            probe: Probe::None,
            timeout_ms: rtt.rto_ms(0),
            limited: una,
            last_sent: Millis(0),
        }
    }

    /// Does the record want a scoreboard, because a report has come or all is lost?
    #[must_use]
    pub fn wants_scoreboard(&self) -> bool {
        self.sack && self.scoreboard.is_none() && self.recovery == Recovery::Open
    }

    /// Takes a scoreboard for numbers from `una` on.
    pub fn attach_scoreboard(&mut self, mut scoreboard: Box<Scoreboard>, una: SeqNum) {
        *scoreboard = Scoreboard::new(una);
        self.scoreboard = Some(scoreboard);
    }

    /// Gives the scoreboard back.
    pub fn detach_scoreboard(&mut self) -> Option<Box<Scoreboard>> {
        self.scoreboard.take()
    }

    pub(super) const fn has_scoreboard(&self) -> bool {
        self.scoreboard.is_some()
    }

    fn recovers(&self) -> bool {
        self.recovery != Recovery::Open
    }

    /// Takes an acknowledgement of `acked` new numbers up to `una`, with `flight` numbers still in flight; `reports` tells that it carries
    /// SACK blocks. Returns whether the first unacknowledged segment must be retransmitted (a partial acknowledgement, RFC 6582 section
    /// 3.2 step 5).
    pub fn on_ack(
        &mut self,
        acked: u32,
        una: SeqNum,
        flight: u32,
        mss: u32,
        reports: bool,
        now: Millis,
    ) -> bool {
        self.duplicate_acks = 0;
        if una.after(self.last_recover) {
            // It must not fall behind by half the sequence space: it would count as ahead again.
            self.last_recover = una - 1;
        }
        let before = una - acked;
        let was_limited = self.limited.at_or_after(before);
        if una.after(self.limited) {
            self.limited = una - 1;
        }
        let mut delivered = acked;
        if let Some(board) = &mut self.scoreboard {
            let reported = board.reported(before);
            board.acknowledge(una, mss);
            delivered = (acked + board.reported(una)).saturating_sub(reported);
            board.lose_again(mss);
        }
        let is_reduced = self.end_probe(una, acked + flight, mss, reports);
        match self.recovery {
            Recovery::Open => {
                let is_used = was_limited
                    || (self.congestion_window < self.slow_start_threshold
                        && 2 * (acked + flight) >= self.congestion_window);
                if is_reduced {
                    // The acknowledgement that shows a loss opens no window.
                } else if is_used {
                    self.grow(acked, mss, now);
                } else {
                    self.cubic.pause();
                }
                false
            }
            Recovery::Fast { recover } if una.at_or_after(recover) => {
                self.congestion_window = if self.scoreboard.is_some() {
                    self.slow_start_threshold
                } else {
                    self.slow_start_threshold.min(flight.max(mss) + mss)
                };
                self.recovery = Recovery::Open;
                false
            }
            Recovery::Fast { .. } if self.scoreboard.is_some() => {
                self.reduce(delivered, una, flight, mss);
                false
            }
            Recovery::Fast { .. } => {
                // Deflate by the acknowledged bytes, and add back one segment for the retransmission.
                self.congestion_window = self.congestion_window.saturating_sub(acked).max(mss) + mss;
                true
            }
            Recovery::Timeout { recover, next } => {
                self.grow(delivered, mss, now);
                self.recovery = if una.at_or_after(recover) {
                    Recovery::Open
                } else {
                    Recovery::Timeout { recover, next: if next.before(una) { una } else { next } }
                };
                false
            }
        }
    }

    /// Ends the episode of a tail loss probe, with `flight` numbers in flight before the acknowledgement. A segment that the probe repeated
    /// was lost, unless the peer reports a duplicate (RFC 8985 section 7.4.2): then the window shrinks, and the result is true.
    fn end_probe(&mut self, una: SeqNum, flight: u32, mss: u32, reports: bool) -> bool {
        if let Probe::Sent { end, again } = self.probe
            && una.before(end)
            && again
        {
            return false;
        }
        let repeats = matches!(self.probe, Probe::Sent { again: true, .. });
        let was_lost = repeats && !reports && !self.recovers();
        self.probe = Probe::None;
        if was_lost {
            self.slow_start_threshold = self.cubic.on_loss(self.congestion_window.min(flight), mss);
            self.congestion_window = self.congestion_window.min(self.slow_start_threshold);
        }
        was_lost
    }

    /// Slow start below the threshold (RFC 5681 section 3.1, counting bytes: RFC 3465, L = 2), CUBIC above.
    fn grow(&mut self, acked: u32, mss: u32, now: Millis) {
        let growth = if self.congestion_window < self.slow_start_threshold {
            acked.min(2 * mss)
        } else {
            let rtt_ms = self.rtt.micros().map_or(0, |[smoothed, _]| smoothed / 1000);
            self.cubic.growth(self.congestion_window, acked, mss, rtt_ms, now)
        };
        self.congestion_window = (self.congestion_window + growth).min(MAX_WINDOW);
    }

    /// Sets the window during fast recovery: RFC 6937, with the slow start reduction bound.
    fn reduce(&mut self, delivered: u32, una: SeqNum, flight: u32, mss: u32) {
        let pipe = self.pipe(una, flight, mss);
        let Reduction { flight: start, delivered: sum, out } = &mut self.reduction;
        *sum = sum.saturating_add(delivered);
        let threshold = self.slow_start_threshold;
        let more = if pipe > threshold {
            let share = (u64::from(*sum) * u64::from(threshold)).div_ceil(u64::from((*start).max(1)));
            u32::try_from(share).unwrap_or(u32::MAX).saturating_sub(*out)
        } else {
            (sum.saturating_sub(*out).max(delivered) + mss).min(threshold - pipe)
        };
        // The first retransmission goes in any case.
        let least = if *out == 0 { mss } else { 0 };
        self.congestion_window = pipe + more.max(least);
    }

    /// Returns how many numbers are on their way to the peer, of `flight` from `una` on.
    pub(super) fn pipe(&self, una: SeqNum, flight: u32, mss: u32) -> u32 {
        self.scoreboard.as_ref().map_or(flight, |board| board.pipe(una, flight, self.recovers(), mss))
    }

    /// Takes the SACK blocks of an acknowledgement of everything before `una`, with everything up to `nxt` sent. Returns whether they
    /// start fast recovery (RFC 6675 section 5).
    fn on_report(&mut self, blocks: &SackBlocks, una: SeqNum, nxt: SeqNum, mss: u32) -> bool {
        // The probe was sent after every segment that its answer shows to be missing.
        let recovers = self.recovers() || matches!(self.probe, Probe::Sent { .. });
        let flight = nxt - una;
        let Some(board) = &mut self.scoreboard else { return false };
        let before = board.reported(una);
        board.report(blocks, una, nxt, mss);
        board.lose_again(mss);
        let delivered = board.reported(una) - before;
        match self.recovery {
            Recovery::Open if board.has_loss(flight, recovers, mss) => {
                self.reduction = Reduction { flight, delivered: 0, out: 0 };
                self.slow_start_threshold = self.cubic.on_loss(self.congestion_window.min(flight), mss);
                self.recovery = Recovery::Fast { recover: nxt };
                self.last_recover = nxt;
                self.reduce(delivered, una, flight, mss);
                true
            }
            Recovery::Fast { .. } => {
                self.reduce(delivered, una, flight, mss);
                false
            }
            Recovery::Open | Recovery::Timeout { .. } => false,
        }
    }

    /// Returns the first lost numbers to be sent again, and how many they are, as the scoreboard has them.
    pub(super) fn next_lost(&self, flight: u32, mss: u32) -> Option<(SeqNum, u32)> {
        if !self.recovers() {
            return None;
        }
        self.scoreboard.as_ref()?.next_lost(flight, true, mss)
    }

    /// Notes that the numbers from `at` on were sent again because the scoreboard had them as lost.
    pub(super) fn sent_again(&mut self, at: SeqNum, len: u32, nxt: SeqNum) {
        self.reduction.out = self.reduction.out.saturating_add(len);
        if let Some(board) = &mut self.scoreboard {
            board.sent_again(at, len, nxt);
        }
    }

    /// Has the first hole sent again, whether it was already or not. Returns its first number and its length, if there is a hole.
    pub(super) fn lose_first(&mut self) -> Option<(SeqNum, u32)> {
        self.scoreboard.as_mut()?.lose_first()
    }

    /// Notes that text is about to be sent for the first time, with `flight` numbers in flight. After a pause of a timeout the window of
    /// the first flight is all that is known of the path (RFC 5681 section 4.1).
    pub(super) fn before_new(&mut self, flight: u32, mss: u32, now: Millis) {
        if flight == 0 && now.since(self.last_sent) > self.rtt.rto_ms(0) {
            self.congestion_window = self.congestion_window.min(INITIAL_WINDOW_SEGMENTS * mss);
            self.cubic.pause();
        }
    }

    /// Notes that `len` numbers were sent for the first time.
    pub(super) fn sent_new(&mut self, len: u32, now: Millis) {
        self.reduction.out = self.reduction.out.saturating_add(len);
        self.last_sent = now;
    }

    /// Notes that the congestion window keeps text behind `nxt` back.
    pub(super) fn on_limited(&mut self, nxt: SeqNum) {
        self.limited = nxt;
    }

    /// Returns how long to wait for a tail loss probe, in milliseconds: RFC 8985 section 7.2. A single segment waits for the ordinary
    /// timeout, because its acknowledgement may be delayed. Fast recovery has a probe, too: of a whole round trip's acknowledgements
    /// there is often one, which may be lost.
    pub(super) fn probe_timeout_ms(&self, flight: u32, mss: u32) -> Option<u32> {
        let [smoothed, _] = self.rtt.micros()?;
        let wait_ms = (2 * smoothed / 1000).max(MIN_PROBE_MS);
        let has_hole = self.scoreboard.as_ref().is_some_and(|board| !board.is_empty());
        let may_probe = self.sack
            && self.probe == Probe::None
            && !matches!(self.recovery, Recovery::Timeout { .. })
            && (flight > mss || has_hole);
        (may_probe && wait_ms < self.rtt.rto_ms(0)).then_some(wait_ms)
    }

    /// Takes an acknowledgement of nothing but `una`, or one with SACK blocks, with everything up to `nxt` sent. Returns whether it starts
    /// fast recovery (RFC 6675 section 5, or RFC 5681 section 3.2 steps 2 and 3).
    pub fn on_duplicate_ack(&mut self, blocks: &SackBlocks, una: SeqNum, nxt: SeqNum, mss: u32) -> bool {
        if self.scoreboard.is_some() {
            return self.on_report(blocks, una, nxt, mss);
        }
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
                let flight = (nxt - una).min(self.congestion_window);
                self.slow_start_threshold = self.cubic.on_loss(flight, mss);
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
        let again = matches!(self.recovery, Recovery::Timeout { .. });
        if !again {
            self.slow_start_threshold = self.cubic.on_loss(nxt - una, mss);
        }
        if let Some(board) = &mut self.scoreboard {
            board.lose_all(una, nxt, again);
        }
        self.probe = Probe::None;
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
            Recovery::Timeout { recover, next } if next.before(recover) && self.scoreboard.is_none() => {
                Some(next)
            }
            _ => None,
        }
    }

    /// Notes that the recovery after a timeout has come to `next`; `None` if nothing is left to retransmit.
    pub(super) fn repaired_up_to(&mut self, next: Option<SeqNum>) {
        if let Recovery::Timeout { recover, .. } = self.recovery {
            self.recovery = Recovery::Timeout { recover, next: next.unwrap_or(recover) };
        }
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
        Transfer::new(Rtt::NONE, MSS, SeqNum(0), 65536, false)
    }

    fn acknowledge(transfer: &mut Transfer, acked: u32, una: SeqNum, flight: u32) -> bool {
        transfer.on_limited(una);
        transfer.on_ack(acked, una, flight, MSS, false, Millis(0))
    }

    #[test]
    fn slow_start_grows_by_what_is_acknowledged_and_avoidance_by_a_segment_a_window() {
        let mut transfer = transfer();
        assert_eq!(transfer.congestion_window, 10_000);
        acknowledge(&mut transfer, 2000, SeqNum(2000), 8000);
        assert_eq!(transfer.congestion_window, 12_000);
        transfer.slow_start_threshold = 12_000;
        for _ in 0..12 {
            acknowledge(&mut transfer, 1000, SeqNum(3000), 8000);
        }
        assert!((12_900..=13_000).contains(&transfer.congestion_window), "{}", transfer.congestion_window);
    }

    #[test]
    fn the_third_duplicate_starts_fast_recovery_and_a_full_acknowledgement_ends_it() {
        let mut transfer = transfer();
        assert_eq!(
            [0; 2].map(|_| transfer.on_duplicate_ack(&SackBlocks::NONE, SeqNum(0), SeqNum(10_000), MSS)),
            [false; 2]
        );
        assert_eq!(transfer.allowance(MSS), 12_000);
        assert!(transfer.on_duplicate_ack(&SackBlocks::NONE, SeqNum(0), SeqNum(10_000), MSS));
        assert_eq!(transfer.slow_start_threshold, 7000);
        assert_eq!(transfer.congestion_window, 10_000);
        assert!(!transfer.on_duplicate_ack(&SackBlocks::NONE, SeqNum(0), SeqNum(10_000), MSS));
        assert_eq!(transfer.congestion_window, 11_000);
        // A partial acknowledgement: the next hole is retransmitted.
        assert!(acknowledge(&mut transfer, 3000, SeqNum(3000), 7000));
        assert_eq!(transfer.congestion_window, 9000);
        assert!(!acknowledge(&mut transfer, 7000, SeqNum(10_000), 0));
        assert_eq!(transfer.recovery, Recovery::Open);
        assert_eq!(transfer.congestion_window, 2000);
    }

    /// A needless retransmission brings duplicates of the last number of the repair.
    #[test]
    fn duplicates_of_what_was_just_repaired_start_nothing() {
        let mut transfer = transfer();
        transfer.on_timeout(SeqNum(0), SeqNum(10_000), MSS);
        acknowledge(&mut transfer, 10_000, SeqNum(10_000), 0);
        assert_eq!(transfer.recovery, Recovery::Open);
        for _ in 0..5 {
            assert!(!transfer.on_duplicate_ack(&SackBlocks::NONE, SeqNum(10_000), SeqNum(17_000), MSS));
        }
        acknowledge(&mut transfer, 1000, SeqNum(11_000), 6000);
        let third =
            [0; 3].map(|_| transfer.on_duplicate_ack(&SackBlocks::NONE, SeqNum(11_000), SeqNum(17_000), MSS));
        assert_eq!(third, [false, false, true]);
    }

    #[test]
    fn what_limited_transmit_sends_counts_in_no_window() {
        let mut transfer = transfer();
        for nxt in [10_000, 11_000] {
            assert!(!transfer.on_duplicate_ack(&SackBlocks::NONE, SeqNum(0), SeqNum(nxt), MSS));
        }
        assert_eq!(transfer.allowance(MSS), 12_000);
        assert!(transfer.on_duplicate_ack(&SackBlocks::NONE, SeqNum(0), SeqNum(12_000), MSS));
        assert_eq!((transfer.slow_start_threshold, transfer.allowance(MSS)), (7000, 10_000));
    }

    #[test]
    fn a_timeout_goes_back_to_one_segment_and_sends_all_again() {
        let mut transfer = transfer();
        transfer.on_timeout(SeqNum(0), SeqNum(10_000), MSS);
        assert_eq!((transfer.congestion_window, transfer.slow_start_threshold), (1000, 7000));
        assert_eq!(transfer.recovery, Recovery::Timeout { recover: SeqNum(10_000), next: SeqNum(0) });
        acknowledge(&mut transfer, 4000, SeqNum(4000), 6000);
        assert_eq!(transfer.recovery, Recovery::Timeout { recover: SeqNum(10_000), next: SeqNum(4000) });
        // A second timeout in the same repair halves nothing again.
        transfer.on_timeout(SeqNum(4000), SeqNum(10_000), MSS);
        assert_eq!(transfer.slow_start_threshold, 7000);
    }
}
