//! Round-trip time and the retransmission timeout, RFC 6298, in milliseconds.

/// The timeout before the first sample: RFC 6298 (2.1).
pub(super) const INITIAL_RTO_MS: u32 = 1000;
/// The shortest timeout: Linux's TCP_RTO_MIN. RFC 6298 (2.4) says 1 s, and RFC 8961 allows less.
pub const MIN_RTO_MS: u32 = 200;
/// The longest timeout: Linux's TCP_RTO_MAX. RFC 6298 (2.5) asks for at least 60 s.
pub(super) const MAX_RTO_MS: u32 = 120_000;

/// The smoothed round-trip time and its variation, in eighths and quarters of a millisecond as RFC 6298's gains suggest.
/// A smoothed time of 0 means that there was no sample yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rtt {
    srtt_eighths: u16,
    rttvar_quarters: u16,
}

impl Rtt {
    /// No sample yet.
    pub const NONE: Self = Self { srtt_eighths: 0, rttvar_quarters: 0 };

    /// The stand-in for a first sample after a lost SYN: a timeout of 3 s, RFC 6298 (5.7).
    pub const AFTER_LOST_SYN: Self = Self { srtt_eighths: 8 * 1000, rttvar_quarters: 2000 };

    /// Returns the value packed into 32 bits, for the control block.
    #[must_use]
    #[inline]
    pub const fn to_bits(self) -> u32 {
        (self.srtt_eighths as u32) << 16 | self.rttvar_quarters as u32
    }

    /// Returns the value that [`Rtt::to_bits`] packed.
    #[must_use]
    #[inline]
    pub const fn from_bits(bits: u32) -> Self {
        Self { srtt_eighths: (bits >> 16) as u16, rttvar_quarters: bits as u16 }
    }

    /// Takes a sample in milliseconds: RFC 6298 (2.2) and (2.3). A sample below the clock's grain counts as 1 ms.
    #[inline]
    pub fn sample(&mut self, sample_ms: u32) {
        let sample = sample_ms.clamp(1, 8000);
        if self.srtt_eighths == 0 {
            self.srtt_eighths = (sample * 8) as u16;
            self.rttvar_quarters = (sample * 2) as u16;
            return;
        }
        let srtt = u32::from(self.srtt_eighths);
        let rttvar = u32::from(self.rttvar_quarters);
        let error = (srtt / 8).abs_diff(sample);
        self.rttvar_quarters = (rttvar - rttvar / 4 + error).min(0xffff) as u16;
        self.srtt_eighths = (srtt - srtt / 8 + sample).clamp(1, 0xffff) as u16;
    }

    /// Keeps the timeout as `backoff` doublings have made it: only new samples bring it down (RFC 6298 section 5, last note).
    pub fn keep(&mut self, backoff: u8) {
        let rto = self.rto_ms(backoff);
        self.srtt_eighths = self.srtt_eighths.max(8);
        self.rttvar_quarters = (rto - u32::from(self.srtt_eighths) / 8).min(0xffff) as u16;
    }

    /// Returns the smoothed time and its variation in microseconds, `None` before the first sample.
    #[must_use]
    pub const fn micros(self) -> Option<[u32; 2]> {
        if self.srtt_eighths == 0 {
            None
        } else {
            Some([self.srtt_eighths as u32 * 125, self.rttvar_quarters as u32 * 250])
        }
    }

    /// Returns the timeout in milliseconds after `backoff` doublings: RFC 6298 (2.3) to (2.5) and (5.5).
    #[must_use]
    #[inline]
    pub fn rto_ms(self, backoff: u8) -> u32 {
        let base = if self.srtt_eighths == 0 {
            INITIAL_RTO_MS
        } else {
            (u32::from(self.srtt_eighths) / 8 + u32::from(self.rttvar_quarters).max(1)).max(MIN_RTO_MS)
        };
        base.checked_shl(u32::from(backoff)).map_or(MAX_RTO_MS, |rto| rto.min(MAX_RTO_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sample_sets_both_variables() {
        let mut rtt = Rtt::NONE;
        assert_eq!(rtt.rto_ms(0), INITIAL_RTO_MS);
        rtt.sample(100);
        assert_eq!(rtt.micros(), Some([100_000, 50_000]));
        // R + max(G, 4 * R/2), RFC 6298 (2.2).
        assert_eq!(rtt.rto_ms(0), 300);
    }

    #[test]
    fn steady_samples_bring_the_timeout_down_to_its_floor() {
        let mut rtt = Rtt::NONE;
        for _ in 0..200 {
            rtt.sample(20);
        }
        assert_eq!(rtt.micros().map(|[smoothed, _]| smoothed), Some(20_000));
        assert_eq!(rtt.rto_ms(0), MIN_RTO_MS);
    }

    #[test]
    fn back_off_doubles_up_to_the_ceiling() {
        let rtt = Rtt::NONE;
        assert_eq!([0, 1, 2, 6].map(|backoff| rtt.rto_ms(backoff)), [1000, 2000, 4000, 64_000]);
        assert_eq!(rtt.rto_ms(7), MAX_RTO_MS);
        assert_eq!(rtt.rto_ms(15), MAX_RTO_MS);
    }

    #[test]
    fn a_timeout_that_was_kept_comes_down_with_samples_only() {
        for first in [None, Some(100)] {
            let mut rtt = Rtt::NONE;
            first.into_iter().for_each(|sample| rtt.sample(sample));
            let backed_off = rtt.rto_ms(3);
            rtt.keep(3);
            assert_eq!(rtt.rto_ms(0), backed_off);
            (0..40).for_each(|_| rtt.sample(100));
            assert!(rtt.rto_ms(0) < 300);
        }
    }

    #[test]
    fn a_lost_syn_stands_for_three_seconds() {
        assert_eq!(Rtt::AFTER_LOST_SYN.rto_ms(0), 3000);
    }

    #[test]
    fn extreme_samples_saturate() {
        let mut rtt = Rtt::NONE;
        for sample in [u32::MAX, 0, u32::MAX, u32::MAX, 0] {
            rtt.sample(sample);
            assert!((MIN_RTO_MS..=MAX_RTO_MS).contains(&rtt.rto_ms(0)));
            assert_eq!(Rtt::from_bits(rtt.to_bits()), rtt);
        }
    }
}
