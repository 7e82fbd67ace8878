//! When connections are due: one even schedule, shared by the workers.

use std::time::Duration;

use crate::time::Instant;

const NANOS_PER_S: u128 = 1_000_000_000;

/// The intended starts of one worker's connections. All workers share one schedule: connection `k` is due at a time that depends on `k`
/// alone, and worker `number` of `workers` has every `workers`-th connection from `number` on. Each time is computed from `k` in
/// integers and rounded down to a nanosecond, so errors do not add up.
///
/// During a ramp the rate grows linearly from 0: `k = rate t^2 / (2 ramp)`. After it, connections are `1 / rate` apart.
#[derive(Clone, Debug)]
pub struct Pace {
    start: Instant,
    rate_per_s: u128,
    ramp_ns: u128,
    workers: u64,
    /// The number of this worker's next connection, counted over all workers.
    next: u64,
    due: Instant,
}

impl Pace {
    /// Returns the schedule of worker `number`, from 0 on, for `rate_per_s` connections per second of all `workers` together. The
    /// arithmetic is exact for ramps of up to 20 days at 100 million connections per second.
    #[must_use]
    pub fn new(start: Instant, rate_per_s: u64, ramp: Duration, workers: u64, number: u64) -> Self {
        assert!(rate_per_s > 0 && number < workers, "a pace has a rate, and its worker a number");
        let (rate_per_s, ramp_ns) = (rate_per_s.into(), ramp.as_nanos());
        let mut pace = Self { start, rate_per_s, ramp_ns, workers, next: number, due: start };
        pace.due = pace.start_of(number);
        pace
    }

    /// Returns the intended start of this worker's next connection.
    #[must_use]
    #[inline]
    pub const fn due(&self) -> Instant {
        self.due
    }

    /// Goes on to the connection after the next one.
    #[inline]
    pub fn advance(&mut self) {
        self.next += self.workers;
        self.due = self.start_of(self.next);
    }

    /// Gives up this worker's connections that are due before `time`. Returns how many of them were due at or after `from`.
    pub fn give_up_before(&mut self, time: Instant, from: Instant) -> u64 {
        let first = self.next;
        // The number of this worker's connections before the `k`th of all.
        let ours = |k: u64| k.saturating_sub(first).div_ceil(self.workers);
        let (before, uncounted) = (ours(self.due_before(time)), ours(self.due_before(from)));
        self.next = first + before * self.workers;
        self.due = self.start_of(self.next);
        before.saturating_sub(uncounted)
    }

    /// Returns the intended start of connection `k`.
    fn start_of(&self, k: u64) -> Instant {
        // Twice the time that `k` connections take at the full rate, times the rate: no fractions.
        let twice = 2 * u128::from(k) * NANOS_PER_S;
        let full = self.ramp_ns * self.rate_per_s;
        let since_start = if twice < full {
            (twice * self.ramp_ns / self.rate_per_s).isqrt()
        } else {
            // The ramp has half the connections of the full rate.
            (twice + full) / (2 * self.rate_per_s)
        };
        Instant::from_nanos(self.start.as_nanos() + since_start as u64)
    }

    /// Returns how many connections of all workers are due before `time`: those whose unrounded start is earlier.
    fn due_before(&self, time: Instant) -> u64 {
        let since_start = u128::from(time.as_nanos().saturating_sub(self.start.as_nanos()));
        let count = if since_start < self.ramp_ns {
            (since_start * since_start * self.rate_per_s).div_ceil(2 * self.ramp_ns * NANOS_PER_S)
        } else {
            ((2 * since_start - self.ramp_ns) * self.rate_per_s).div_ceil(2 * NANOS_PER_S)
        };
        count as u64
    }
}

/// Returns how many connections worker `number` of `workers` may hold at a time, when all workers together hold `at_once`. The first
/// workers get the remainder of the division. During the ramp the number grows linearly from 1, with `since_start`.
#[must_use]
pub fn allowed(at_once: u64, ramp: Duration, since_start: Duration, workers: u64, number: u64) -> u64 {
    assert!(number < workers, "a worker's number");
    let share = at_once / workers + u64::from(number < at_once % workers);
    if since_start >= ramp {
        return share;
    }
    let grown = u128::from(share) * since_start.as_nanos() / ramp.as_nanos();
    (grown as u64).max(share.min(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Instant = Instant::from_nanos(12_345_678_901);
    const NO_RAMP: Duration = Duration::ZERO;

    /// Returns how many connections of all workers together are due in `[from, to)`.
    fn planned(pace: &Pace, from: Instant, to: Instant) -> u64 {
        pace.due_before(to).saturating_sub(pace.due_before(from))
    }

    /// Returns when the first `count` connections of worker `number` are due, in nanoseconds from the start.
    fn starts(rate: u64, ramp: Duration, workers: u64, number: u64, count: usize) -> Vec<u64> {
        let mut pace = Pace::new(START, rate, ramp, workers, number);
        let mut next = || {
            let due = pace.due();
            pace.advance();
            (due - START).as_nanos() as u64
        };
        (0..count).map(|_| next()).collect()
    }

    /// Checks that each gap is less than a nanosecond away from the exact one.
    fn check_even(starts: &[u64], rate: u64) {
        for pair in starts.windows(2) {
            let exact = 1_000_000_000 / rate;
            assert!((exact..=exact + 1).contains(&(pair[1] - pair[0])), "{pair:?} at {rate}/s");
        }
    }

    #[test]
    fn what_is_given_up_is_counted_from_a_time_on() {
        for workers in 1..5 {
            let at = |ms| START + Duration::from_millis(ms);
            let given_up = |number| {
                let mut pace = Pace::new(START, 1000, NO_RAMP, workers, number);
                (0..3).for_each(|_| pace.advance());
                let count = pace.give_up_before(at(500), at(200));
                assert!(pace.due() >= at(500) && pace.due() < at(500 + workers));
                assert_eq!(pace.give_up_before(at(400), at(0)), 0);
                count
            };
            assert_eq!((0..workers).map(given_up).sum::<u64>(), 300);
        }
    }

    #[test]
    fn gaps_are_even() {
        for rate in [1, 3, 7, 1000, 99_999, 100_000, 14_880_952, 1_000_000_000] {
            let starts = starts(rate, NO_RAMP, 1, 0, 10_000);
            assert_eq!(starts[0], 0);
            check_even(&starts, rate);
        }
        assert_eq!(starts(3, NO_RAMP, 1, 0, 4), [0, 333_333_333, 666_666_666, 1_000_000_000]);
    }

    #[test]
    fn workers_share_one_schedule() {
        for (rate, ramp_ms) in [(1, 0), (100_000, 0), (999_983, 0), (5, 3000), (100_000, 50)] {
            let ramp = Duration::from_millis(ramp_ms);
            let whole = starts(rate, ramp, 1, 0, 12_000);
            for workers in [2, 3, 64] {
                let count = whole.len() / workers;
                let shares: Vec<_> = (0..workers)
                    .map(|number| starts(rate, ramp, workers as u64, number as u64, count))
                    .collect();
                let dealt = (0..count * workers).map(|k| shares[k % workers][k / workers]);
                assert!(dealt.eq(whole[..count * workers].iter().copied()), "{workers} workers at {rate}/s");
            }
        }
    }

    #[test]
    fn the_schedule_does_not_drift() {
        let day = Duration::from_secs(24 * 60 * 60);
        for rate in [1, 3, 100_000, 99_999_989, 100_000_000] {
            for ramp in [Duration::ZERO, Duration::from_secs(2), day] {
                // The connections of the ramp and of 20 days after it, of 8 workers.
                let after = 20 * 86_400 * rate;
                let k = rate * ramp.as_secs() / 2 + after;
                let mut pace = Pace::new(START, rate, ramp, 1, 0);
                pace.next = k - 1;
                pace.advance();
                let expected = START + ramp + 20 * day;
                assert!(expected.as_nanos() - pace.due().as_nanos() <= 1, "{rate}/s {ramp:?}");
                assert_eq!(planned(&pace, START, pace.due()), k, "{rate}/s {ramp:?}");
            }
        }
        // The longest ramp.
        let pace = Pace::new(START, 100_000_000, 20 * day, 1, 0);
        assert_eq!(planned(&pace, START, START + 20 * day), 100_000_000 * 10 * 86_400);
        // The last connection of the ramp is due a little more than 10 ns before its end.
        let last = pace.start_of(100_000_000 * 10 * 86_400 - 1);
        assert_eq!(last + Duration::from_nanos(11), START + 20 * day);
    }

    #[test]
    fn a_ramp_grows_and_joins_the_even_part() {
        for (rate, ramp_ms) in [(1, 10_000), (3, 1000), (1000, 2000), (999_983, 7), (100_000, 100)] {
            let ramp = Duration::from_millis(ramp_ms);
            let ramp_ns = ramp.as_nanos() as u64;
            let starts = starts(rate, ramp, 1, 0, 20_000);
            let gaps: Vec<u64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
            // Rounding changes each end of a gap by up to a nanosecond.
            assert!(gaps.windows(2).all(|pair| pair[1] <= pair[0] + 2), "{rate}/s over {ramp:?}");
            let join = starts.partition_point(|&start| start < ramp_ns);
            check_even(&starts[join..], rate);
            assert_eq!(join as u64, (rate * ramp_ms).div_ceil(2000), "{rate}/s over {ramp:?}");
            // At the join the gap is hardly longer than the even one.
            if join > 100 {
                assert!(gaps[join - 1] * 100 <= 101 * 1_000_000_000 / rate, "{rate}/s over {ramp:?}");
            }
        }
        // A quarter of the ramp's connections are due in its first half.
        let pace = Pace::new(START, 1000, Duration::from_secs(2), 4, 3);
        let at = |ms| START + Duration::from_millis(ms);
        assert_eq!(planned(&pace, START, at(1000)), 250);
        assert_eq!(planned(&pace, at(1000), at(2000)), 750);
        assert_eq!(planned(&pace, at(2000), at(3000)), 1000);
    }

    #[test]
    fn shares_of_what_is_open_at_once() {
        let ramp = Duration::from_secs(10);
        let shares = |at_once, since_start, workers| -> Vec<u64> {
            (0..workers).map(|number| allowed(at_once, ramp, since_start, workers, number)).collect()
        };
        let [start, half, end] = [0, 5, 10].map(Duration::from_secs);
        for (at_once, since_start, expected) in [
            (0, start, [0, 0, 0]),
            (0, end, [0, 0, 0]),
            (1, start, [1, 0, 0]),
            (1, end, [1, 0, 0]),
            (2, half, [1, 1, 0]),
            (300, start, [1, 1, 1]),
            (300, half, [50, 50, 50]),
            (302, end, [101, 101, 100]),
            (302, half, [50, 50, 50]),
            (10_000_000, half, [1_666_667, 1_666_666, 1_666_666]),
        ] {
            assert_eq!(shares(at_once, since_start, 3), expected, "{at_once} after {since_start:?}");
        }
        assert_eq!(allowed(7, Duration::ZERO, Duration::ZERO, 2, 0), 4);
    }

    proptest! {
        #[test]
        fn what_is_planned_is_what_is_due(
            rate in 1u64..100_000,
            ramp_us in prop_oneof![Just(0u64), 1u64..200_000],
            workers in 1u64..9,
            from in 0u64..300_000,
            len in 0u64..300_000,
        ) {
            let ramp = Duration::from_micros(ramp_us);
            // Any nanosecond: some fall on a start, or before the beginning.
            let from = Instant::from_nanos(START.as_nanos() - 1_000_000 + from * 997);
            let to = from + Duration::from_nanos(len * 641);
            let planned = planned(&Pace::new(START, rate, ramp, workers, 0), from, to);
            let mut due = 0;
            for number in 0..workers {
                let mut pace = Pace::new(START, rate, ramp, workers, number);
                while pace.due() < to {
                    due += u64::from(pace.due() >= from);
                    pace.advance();
                }
            }
            prop_assert_eq!(planned, due);
        }

        #[test]
        fn shares_add_up_and_only_grow(at_once in any::<u64>(), workers in 1u64..200, ramp_ns in 0u64..1_000_000_000) {
            let ramp = Duration::from_nanos(ramp_ns);
            let sum = |since_start: Duration| -> u128 {
                (0..workers).map(|number| u128::from(allowed(at_once, ramp, since_start, workers, number))).sum()
            };
            prop_assert_eq!(sum(ramp), at_once.into());
            let steps: Vec<_> = (0..=10).map(|tenth| sum(ramp * tenth / 10)).collect();
            prop_assert!(steps.is_sorted(), "{:?}", steps);
        }
    }
}
