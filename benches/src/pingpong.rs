//! How long a cache line takes from one core to another and back. Knows cores and one atomic; never what the line is
//! for.
//!
//! Where both cores share a cache the answer is some tens of nanoseconds; where a hypervisor has put them on different
//! parts of its machine, hundreds. It tells which state the host is in while a figure is measured.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Release};
use std::thread;
use std::time::{Duration, Instant};

use core_affinity::CoreId;

use crate::check_cores;

/// Round trips of one sample.
const ROUND_TRIPS: u32 = 1000;
/// After this time no further sample is begun.
const BUDGET: Duration = Duration::from_millis(20);
/// A sample that is not through by now belongs to cores that are busy with something else; it is cut short.
const PATIENCE: Duration = Duration::from_millis(200);
/// Round trips between two looks at the clock.
const CLOCK_EVERY: u32 = 64;
/// Ends the other thread.
const STOP: u64 = u64::MAX;

/// One value, alone on its cache lines: processors fetch them in pairs.
#[repr(align(128))]
struct Line(AtomicU64);

/// The median time of a round trip of one cache line between two cores, each with a pinned thread of its own: written
/// here, seen and answered there, seen here. Takes about 20 ms. `None` when they are one core, or one cannot be had:
/// the caller's thread has to be allowed on both.
#[must_use]
pub fn cache_line_round_trip(core_a: usize, core_b: usize) -> Option<Duration> {
    check_cores(&[core_a, core_b]).ok()?;
    let line = Line(AtomicU64::new(0));
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let answers = scope.spawn(|| {
            let pinned = pin(core_b);
            start.wait();
            answer(&line.0);
            pinned
        });
        let asks = scope.spawn(|| {
            let pinned = pin(core_a);
            start.wait();
            let median = ask(&line.0);
            line.0.store(STOP, Release);
            median.filter(|_| pinned)
        });
        let median = asks.join().ok().flatten();
        median.filter(|_| answers.join().is_ok_and(|pinned| pinned))
    })
}

fn pin(core: usize) -> bool {
    core_affinity::set_for_current(CoreId { id: core })
}

/// Every odd number is a question; the next even one is its answer. Spins without a pause, which would be measured,
/// too.
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

/// The median over samples.
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

/// The mean of some round trips in a row, fewer of them when the deadline comes; `None` if an answer is not there by
/// then.
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
        let cores: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        // With one core there is nothing to measure, and nobody to wait for.
        if let [a, b, ..] = cores[..] {
            assert!(cache_line_round_trip(a, b).is_some_and(|median| median > Duration::ZERO));
        }
    }

    #[test]
    fn one_core_and_a_core_that_is_not_there_have_no_time() {
        assert_eq!(cache_line_round_trip(0, 0), None);
        assert_eq!(cache_line_round_trip(0, 100_000), None);
    }
}
