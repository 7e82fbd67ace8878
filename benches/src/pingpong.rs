//! The round trip of a cache line between two cores.
//!
//! It takes some tens of ns if both cores share a cache, and hundreds if a hypervisor has put them on different parts of its machine. So it
//! shows the state of the host during a measurement.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::thread;
use std::time::{Duration, Instant};

use crate::cores::{check, pin};

/// Round trips of one sample.
const ROUND_TRIPS: u32 = 1000;
/// The time after which no sample starts.
const BUDGET: Duration = Duration::from_millis(20);
/// The time after which a sample is cut short: the cores are busy with something else.
const PATIENCE: Duration = Duration::from_millis(200);
/// Round trips between two readings of the clock.
const CLOCK_EVERY: u32 = 64;
/// Ends the other thread.
const STOP: u64 = u64::MAX;

/// A value alone on its pair of cache lines: processors fetch pairs.
#[repr(align(128))]
struct Line(AtomicU64);

/// Returns the median round trip of a cache line between two cores: a thread on one writes it, a thread on the other reads and answers it.
/// Takes about 20 ms. Returns none unless they are two cores that the caller's thread may run on.
#[must_use]
pub fn cache_line_round_trip(core_a: usize, core_b: usize) -> Option<Duration> {
    check(&[core_a, core_b]).ok()?;
    let line = Line(AtomicU64::new(0));
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let pinned = pin(core_b).is_ok();
            start.wait();
            answer(&line.0);
            pinned
        });
        let asks = scope.spawn(|| {
            let pinned = pin(core_a).is_ok();
            start.wait();
            let median = ask(&line.0);
            line.0.store(STOP, Release);
            median.filter(|_| pinned)
        });
        let median = asks.join().ok().flatten();
        median.filter(|_| answers.join().is_ok_and(|pinned| pinned))
    })
}

/// Answers each odd number with the next even one. It spins without a pause, which would count, too.
fn answer(line: &AtomicU64) {
    loop {
        let seen = line.load(Acquire);
        if seen == STOP {
            return;
        }
        if seen % 2 == 1 {
            line.store(seen + 1, Release);
        }
    }
}

/// Returns the median of the samples.
fn ask(line: &AtomicU64) -> Option<Duration> {
    let begin = Instant::now();
    let mut samples = Vec::with_capacity(1024);
    let mut question = 1;
    while begin.elapsed() < BUDGET {
        let Some(sample) = sample(line, &mut question, begin + PATIENCE) else { break };
        samples.push(sample);
    }
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied()
}

/// Returns the mean of some round trips in a row, of fewer at the deadline; none if an answer is missing by then.
fn sample(line: &AtomicU64, question: &mut u64, deadline: Instant) -> Option<Duration> {
    let start = Instant::now();
    for trips in 1..=ROUND_TRIPS {
        line.store(*question, Release);
        let mut spins = 0_u32;
        while line.load(Acquire) == *question {
            spins = spins.wrapping_add(1);
            if spins.is_multiple_of(1 << 20) && Instant::now() > deadline {
                return None;
            }
        }
        *question += 2;
        if trips.is_multiple_of(CLOCK_EVERY) && Instant::now() > deadline {
            return Some(start.elapsed() / trips);
        }
    }
    Some(start.elapsed() / ROUND_TRIPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back() {
        // One core has nothing to measure.
        if let [a, b, ..] = crate::cores::allowed().unwrap()[..] {
            assert!(cache_line_round_trip(a, b).is_some_and(|median| median > Duration::ZERO));
        }
    }

    #[test]
    fn one_core_and_a_core_that_is_not_there_have_no_time() {
        assert_eq!(cache_line_round_trip(0, 0), None);
        assert_eq!(cache_line_round_trip(0, 100_000), None);
    }
}
