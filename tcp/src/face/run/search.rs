//! The search for the highest rate that loses little enough: which rate to try next.

/// The search ends when the difference of the bounds is this part of the upper one.
const CLOSE: u64 = 50;
/// Most trials, and most confirmations.
const MOST_TRIALS: u32 = 16;
const MOST_CONFIRMATIONS: u32 = 5;

/// The next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A short trial at this rate, in connections/s.
    Try(u64),
    /// A trial of the whole duration.
    Confirm(u64),
    /// The search is over: it found no rate, or the last confirmation passed.
    Done,
}

/// Bisection between the highest rate that passed and the lowest that failed, and a confirmation of the result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Search {
    passed: u64,
    failed: Option<u64>,
    trials: u32,
    confirmations: u32,
    confirmed: Option<u64>,
    next: Next,
}

impl Search {
    /// Begins at the rate of a closed loop, in connections/s.
    pub(super) const fn from(reached: u64) -> Self {
        let next = if reached == 0 { Next::Done } else { Next::Try(reached) };
        Self { passed: 0, failed: None, trials: 0, confirmations: 0, confirmed: None, next }
    }

    /// Returns the next step.
    pub(super) const fn next(&self) -> Next {
        self.next
    }

    /// Returns the confirmed rate, if there is one.
    pub(super) const fn confirmed(&self) -> Option<u64> {
        self.confirmed
    }

    /// Ends the present step.
    pub(super) fn done(&mut self, passed: bool) {
        self.next = match self.next {
            Next::Done => Next::Done,
            Next::Try(rate) => {
                self.trials += 1;
                if passed {
                    self.passed = rate;
                } else {
                    self.failed = Some(rate);
                }
                self.after_trial()
            }
            Next::Confirm(rate) if passed => {
                self.confirmed = Some(rate);
                Next::Done
            }
            Next::Confirm(rate) => {
                self.confirmations += 1;
                // A twentieth less each time: the result was luck.
                let rate = rate - rate.div_ceil(20);
                if rate == 0 || self.confirmations == MOST_CONFIRMATIONS {
                    Next::Done
                } else {
                    Next::Confirm(rate)
                }
            }
        };
    }

    fn after_trial(&self) -> Next {
        let close = match self.failed {
            Some(failed) => failed - self.passed <= (failed / CLOSE).max(1),
            None => false,
        };
        if close || self.trials == MOST_TRIALS {
            return if self.passed == 0 { Next::Done } else { Next::Confirm(self.passed) };
        }
        Next::Try(match self.failed {
            Some(failed) => self.passed.midpoint(failed),
            None => self.passed + self.passed.div_ceil(4),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches where every rate up to `limit` passes a trial, and every one up to `lasting` a confirmation. Returns the rates tried, and the
    /// confirmed one.
    fn search(reached: u64, limit: u64, lasting: u64) -> (Vec<u64>, Option<u64>) {
        let (mut search, mut tried) = (Search::from(reached), Vec::new());
        loop {
            match search.next() {
                Next::Try(rate) => {
                    tried.push(rate);
                    search.done(rate <= limit);
                }
                Next::Confirm(rate) => {
                    search.done(rate <= lasting);
                    let confirmed = (rate <= lasting).then_some(rate);
                    assert_eq!(search.confirmed(), confirmed);
                    assert!(confirmed.is_none() || search.next() == Next::Done);
                }
                Next::Done => return (tried, search.confirmed()),
            }
        }
    }

    #[test]
    fn it_ends_within_two_percent_below_the_limit() {
        for (reached, limit) in
            [(100_000, 80_000), (100_000, 100_000), (100_000, 240_000), (1_000_000, 5_000), (50, 33)]
        {
            let (tried, found) = search(reached, limit, u64::MAX);
            let found = found.unwrap();
            assert!(
                found <= limit && limit - found <= (limit / CLOSE).max(2),
                "{reached} {limit}: {found}, {tried:?}"
            );
            assert!(tried.len() <= MOST_TRIALS as usize);
        }
    }

    #[test]
    fn what_does_not_last_is_lowered_and_nothing_is_found_where_nothing_passes() {
        let (_, found) = search(100_000, 80_000, 75_000);
        assert!((70_000..=75_000).contains(&found.unwrap()));
        assert_eq!(search(100_000, 80_000, 10_000).1, None);
        assert_eq!(search(1000, 0, 0).1, None);
        assert_eq!(search(0, 0, 0), (Vec::new(), None));
    }
}
