//! The desk at which the control plane and one worker's generator meet: trials in, accounts out.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use super::dialogue::Bad;
use super::load::Load;
use super::tally::Tally;
use crate::stats::Cell;
use crate::time::Instant;

/// One stretch of load: ramp, warm-up, the measured time, and the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The trial's number, from 1 on.
    pub number: u64,
    /// How many connections to open, and when.
    pub load: Load,
    /// When the ramp begins.
    pub start: Instant,
    /// How long the load grows.
    pub ramp: Duration,
    /// How long the full load lasts before the measured time.
    pub warmup: Duration,
    /// The measured time. A connection counts if its intended start lies in it.
    pub duration: Duration,
    /// How long open connections may take to end after the measured time, before the generator cuts them.
    pub drain: Duration,
}

impl Trial {
    /// Returns when the measured time begins.
    #[must_use]
    pub fn counts_from(&self) -> Instant {
        self.start + self.ramp + self.warmup
    }

    /// Returns when the measured time ends: from then on the generator opens no connection.
    #[must_use]
    pub fn end(&self) -> Instant {
        self.counts_from() + self.duration
    }
}

/// The trials that may wait at a desk.
const TRIALS: usize = 2;

/// The desk of one worker. The control plane writes trials and orders to stop; the generator writes everything else.
#[derive(Debug, Default)]
pub struct Desk {
    trials: Waiting,
    stop: AtomicBool,
    cut: AtomicBool,
    over: AtomicU64,
    /// The accounts of the present trial.
    pub tally: Tally,
    /// The measured time in nanoseconds: the trial's duration, unless the control plane stopped it.
    pub window_ns: Cell,
    /// Why the first bad response was bad.
    pub first_bad: OnceLock<Bad>,
    /// Connections under way in the measured time.
    pub held: Held,
}

/// How many connections were under way between turns.
#[derive(Debug, Default)]
pub struct Held {
    /// The fewest.
    pub min: Cell,
    /// The most.
    pub max: Cell,
    /// Connections times microseconds.
    pub sum_us: Cell,
    /// Microseconds.
    pub us: Cell,
    /// The part in nanoseconds that is not in the two sums yet: a turn may take less than a microsecond.
    rest_sum_ns: Cell,
    rest_ns: Cell,
}

/// The nanoseconds after which the rest moves into the sums.
const KEPT_NS: u64 = 1_000_000;

impl Held {
    /// Records that `open` connections were under way for `elapsed`.
    pub(super) fn note(&self, open: u64, elapsed: Duration) {
        if (self.us.get() == 0 && self.rest_ns.get() == 0) || open < self.min.get() {
            self.min.set(open);
        }
        if open > self.max.get() {
            self.max.set(open);
        }
        let ns = elapsed.as_nanos() as u64;
        self.rest_sum_ns.add(open * ns);
        self.rest_ns.add(ns);
        if self.rest_ns.get() >= KEPT_NS {
            self.sum_us.add(self.rest_sum_ns.get() / 1000);
            self.us.add(self.rest_ns.get() / 1000);
            self.rest_sum_ns.set(0);
            self.rest_ns.set(0);
        }
    }

    fn clear(&self) {
        let Self { min, max, sum_us, us, rest_sum_ns, rest_ns } = self;
        for cell in [min, max, sum_us, us, rest_sum_ns, rest_ns] {
            cell.set(0);
        }
    }
}

/// The trials that wait at a desk.
#[derive(Debug)]
struct Waiting(ArrayQueue<Trial>);

impl Default for Waiting {
    fn default() -> Self {
        Self(ArrayQueue::new(TRIALS))
    }
}

impl Desk {
    /// Hands in the next trial. Returns false when too many wait.
    #[must_use]
    pub fn hand_in(&self, trial: Trial) -> bool {
        self.trials.0.push(trial).is_ok()
    }

    /// Ends the measured time of the present trial now. Open connections still drain.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Ends the present trial now, without a drain: the generator cuts open connections.
    pub fn cut(&self) {
        self.cut.store(true, Relaxed);
        self.stop();
    }

    /// Returns the number of the last trial that is over, with all accounts written; 0 for none.
    #[must_use]
    pub fn over(&self) -> u64 {
        // Acquire: a reader of the number sees the accounts.
        self.over.load(Acquire)
    }

    pub(super) fn next_trial(&self) -> Option<Trial> {
        let trial = self.trials.0.pop()?;
        self.tally.clear();
        self.held.clear();
        Some(trial)
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    pub(super) fn set_over(&self, number: u64) {
        self.over.store(number, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_shorter_than_a_microsecond_add_up() {
        let held = Held::default();
        // Ten milliseconds, three quarters of them with 100 connections.
        for turn in 0..40_000_u32 {
            held.note(if turn % 4 == 0 { 20 } else { 100 }, Duration::from_nanos(250));
        }
        assert_eq!((held.min.get(), held.max.get()), (20, 100));
        assert_eq!((held.us.get(), held.sum_us.get()), (10_000, 800_000));
    }
}
