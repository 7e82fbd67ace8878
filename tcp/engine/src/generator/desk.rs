//! What the control plane and a worker's generator tell each other. Knows trials and totals; never connections.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use super::Load;
use super::dialogue::Bad;
use super::tally::Tally;
use crate::stats::Cell;
use crate::time::Instant;

/// One stretch of load: ramp, warm-up, the time that counts, and the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// 1 for the first.
    pub number: u64,
    /// How many connections, and when.
    pub load: Load,
    /// When the ramp begins.
    pub start: Instant,
    /// How long the load grows.
    pub ramp: Duration,
    /// How long it goes on before anything counts.
    pub warmup: Duration,
    /// How long it counts; connections that are to start in this time are those that count.
    pub duration: Duration,
    /// How long open connections may take to end afterwards, before they are cut.
    pub drain: Duration,
}

impl Trial {
    /// When connections begin to count.
    #[must_use]
    pub fn counts_from(&self) -> Instant {
        self.start + self.ramp + self.warmup
    }

    /// When no more connections are opened.
    #[must_use]
    pub fn end(&self) -> Instant {
        self.counts_from() + self.duration
    }
}

/// Two trials are enough to be one ahead.
const TRIALS: usize = 2;

/// Where a worker's generator and the control plane meet. The generator has one writer's part, the control plane the other's.
#[derive(Debug)]
pub struct Desk {
    trials: ArrayQueue<Trial>,
    stop: AtomicBool,
    cut: AtomicBool,
    over: AtomicU64,
    /// The accounts of the present trial.
    pub tally: Tally,
    /// How long connections counted, in nanoseconds: the trial's duration, unless it was stopped.
    pub window_ns: Cell,
    /// What was wrong with the first response that was bad.
    pub first_bad: OnceLock<Bad>,
    /// Connections under way in the time that counts.
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
    /// What is too short to be in the two above yet, in nanoseconds: a turn may take less than a microsecond.
    rest_sum_ns: Cell,
    rest_ns: Cell,
}

/// Notes are kept in nanoseconds until they are so long together.
const KEPT_NS: u64 = 1_000_000;

impl Held {
    /// So many were under way for `elapsed`.
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

impl Default for Desk {
    fn default() -> Self {
        Self {
            trials: ArrayQueue::new(TRIALS),
            stop: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            over: AtomicU64::new(0),
            tally: Tally::default(),
            window_ns: Cell::default(),
            first_bad: OnceLock::new(),
            held: Held::default(),
        }
    }
}

impl Desk {
    /// Hands in the next trial; false when too many wait.
    #[must_use]
    pub fn hand_in(&self, trial: Trial) -> bool {
        self.trials.push(trial).is_ok()
    }

    /// Ends the present trial now: open connections still drain.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Ends the present trial now, its drain too: open connections are cut.
    pub fn cut(&self) {
        self.cut.store(true, Relaxed);
        self.stop();
    }

    /// The number of the last trial that is over, with all its accounts written; 0 for none.
    #[must_use]
    pub fn over(&self) -> u64 {
        // Acquire: who sees the number sees the accounts.
        self.over.load(std::sync::atomic::Ordering::Acquire)
    }

    pub(super) fn next_trial(&self) -> Option<Trial> {
        let trial = self.trials.pop()?;
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
        self.over.store(number, std::sync::atomic::Ordering::Release);
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
