//! Latencies: a histogram of each kind, and the queues between the worker that records them and the thread that reads them.
//!
//! A worker fills one [`Interval`] and swaps it for an empty one at each cut. The reading thread empties the full one and gives it
//! back. Neither waits for the other, and no sample is ever lost.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use hdrhistogram::Histogram;

use crate::names::named;

named! {
    /// A latency, named as in reports and logs.
    ///
    /// A connection's *intended start* is its time in the schedule, however late its SYN was sent: a generator that falls behind does
    /// not make these latencies look better. A latency *from the SYN* is the time that the peer and the path took.
    pub enum Meter {
        /// Intended start to SYN,ACK.
        Connect = "connect",
        /// SYN sent to SYN,ACK.
        ConnectFromSyn = "connect_from_syn",
        /// Intended start to the first byte of the first response.
        FirstByte = "first_byte",
        /// SYN sent to the first byte of the first response.
        FirstByteFromSyn = "first_byte_from_syn",
        /// Request sent to its response's last byte.
        Request = "request",
        /// FIN sent to its acknowledgement.
        Close = "close",
        /// Intended start to the connection's end.
        Life = "life",
        /// SYN sent to the connection's end.
        LifeFromSyn = "life_from_syn",
        /// Intended start to SYN sent: how late the generator was.
        StartLag = "start_lag",
    }
}

/// The lower bound of a sample, 1 us: the duration of a worker's turn hides shorter latencies.
const LOWEST_NS: u64 = 1_000;
/// The upper bound of a sample: an hour.
const HIGHEST_NS: u64 = 3_600_000_000_000;
/// Significant decimal digits of a histogram's values.
const DIGITS: u8 = 3;

/// A histogram of each [`Meter`], in nanoseconds. It allocates all its memory at the start, some 2 MB.
#[derive(Clone, Debug)]
pub struct Meters([Histogram<u64>; Meter::ALL.len()]);

impl Default for Meters {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, HIGHEST_NS, DIGITS);
        let histogram = histogram.expect("the bounds are more than a factor of two apart");
        Self(Meter::ALL.map(|_| histogram.clone()))
    }
}

impl Meters {
    /// Counts a sample. A sample outside the bounds, 1 us and 1 h, counts as the bound.
    #[inline]
    pub fn record(&mut self, meter: Meter, elapsed: Duration) {
        let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(HIGHEST_NS);
        self.0[meter as usize].saturating_record(ns.clamp(LOWEST_NS, HIGHEST_NS));
    }

    /// Returns the samples of one meter, in nanoseconds.
    #[must_use]
    pub fn get(&self, meter: Meter) -> &Histogram<u64> {
        &self.0[meter as usize]
    }

    /// Returns each meter with its samples.
    pub fn iter(&self) -> impl Iterator<Item = (Meter, &Histogram<u64>)> {
        Meter::ALL.into_iter().zip(&self.0)
    }

    /// Returns whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Histogram::is_empty)
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            // Most meters of an interval are empty.
            if !other.is_empty() {
                own.add(other).expect("all histograms have the same bounds");
            }
        }
    }

    /// Removes all samples.
    pub fn clear(&mut self) {
        // Resetting a histogram takes as long as reading its memory, and most are empty.
        self.0.iter_mut().filter(|histogram| !histogram.is_empty()).for_each(Histogram::reset);
    }
}

/// The samples of one worker between two cuts.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    /// The number of the cut. If no empty interval is there at a cut, its number is missing, and the next interval has its samples.
    pub number: u64,
    /// Samples of connections that count.
    pub counted: Meters,
    /// Samples of all other connections: those of ramp and warm-up.
    pub uncounted: Meters,
}

impl Interval {
    /// Returns whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counted.is_empty() && self.uncounted.is_empty()
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.counted.merge(&other.counted);
        self.uncounted.merge(&other.uncounted);
    }

    /// Writes to all of the memory, so that the worker meets no page fault.
    fn touch(&mut self) {
        for meters in [&mut self.counted, &mut self.uncounted] {
            meters.0.iter_mut().for_each(Histogram::reset);
        }
    }

    /// Removes all samples.
    pub fn clear(&mut self) {
        self.counted.clear();
        self.uncounted.clear();
    }
}

/// The queues between a worker and the reading thread.
#[derive(Debug)]
struct Round {
    full: ArrayQueue<Box<Interval>>,
    empty: ArrayQueue<Box<Interval>>,
}

/// Returns a worker's end and the reader's end. Besides the interval that the worker fills there are `spares` empty ones: one for each
/// cut that the reader may be late with.
#[must_use]
pub fn meters(spares: usize) -> (Recorder, Collector) {
    let cleared = || {
        let mut interval = Box::<Interval>::default();
        interval.touch();
        interval
    };
    // All intervals at once, and the one that is made when the worker ends.
    let most = spares + 2;
    let round = Arc::new(Round { full: ArrayQueue::new(most), empty: ArrayQueue::new(most) });
    for _ in 0..spares {
        put(&round.empty, cleared());
    }
    (Recorder { filling: cleared(), next: 0, round: Arc::clone(&round) }, Collector { round })
}

/// Appends an interval. Each queue has room for all intervals.
fn put(queue: &ArrayQueue<Box<Interval>>, interval: Box<Interval>) {
    let refused = queue.push(interval);
    debug_assert!(refused.is_ok(), "more intervals than were made");
}

/// The worker's end. It records without a lock, a wait or an allocation. When it is dropped, its samples go to the reader.
#[derive(Debug)]
pub struct Recorder {
    filling: Box<Interval>,
    /// The number of the next cut.
    next: u64,
    round: Arc<Round>,
}

impl Recorder {
    /// Counts a sample. `counts` says whether its connection counts.
    #[inline]
    pub fn record(&mut self, counts: bool, meter: Meter, elapsed: Duration) {
        let meters = if counts { &mut self.filling.counted } else { &mut self.filling.uncounted };
        meters.record(meter, elapsed);
    }

    /// Hands over the samples since the last cut, as interval `number`. Returns false if there is no empty interval to go on with: the
    /// samples then stay for the next cut, under its number.
    pub fn cut(&mut self, number: u64) -> bool {
        self.next = number + 1;
        let Some(empty) = self.round.empty.pop() else { return false };
        self.hand_over(number, empty);
        true
    }

    fn hand_over(&mut self, number: u64, empty: Box<Interval>) {
        let mut full = mem::replace(&mut self.filling, empty);
        full.number = number;
        put(&self.round.full, full);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if !self.filling.is_empty() {
            // The worker has ended, so it may allocate.
            self.hand_over(self.next, Box::default());
        }
    }
}

/// The reader's end.
#[derive(Debug)]
pub struct Collector {
    round: Arc<Round>,
}

impl Collector {
    /// Calls `read` with the oldest interval that was handed over and not read yet, empties the interval, and gives it back to the
    /// worker. Returns `None` if there is no such interval.
    pub fn read<T>(&mut self, read: impl FnOnce(&Interval) -> T) -> Option<T> {
        let mut interval = self.round.full.pop()?;
        let outcome = read(&interval);
        // The reader clears it because that takes megabytes of writes.
        interval.clear();
        put(&self.round.empty, interval);
        Some(outcome)
    }

    /// Adds all intervals that were handed over to `sum`.
    pub fn drain_into(&mut self, sum: &mut Interval) {
        while self.read(|interval| sum.merge(interval)).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn every_meter_has_a_histogram_and_a_name_of_its_own() {
        let mut meters = Meters::default();
        assert!(meters.is_empty());
        for (count, meter) in Meter::ALL.into_iter().enumerate() {
            assert_eq!(meter as usize, count, "{meter:?}");
            (0..=count).for_each(|_| meters.record(meter, Duration::from_micros(10)));
        }
        let counts: Vec<u64> = meters.iter().map(|(_, histogram)| histogram.len()).collect();
        assert_eq!(counts, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let mut names = Meter::ALL.map(Meter::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Meter::ALL.len());
        meters.clear();
        assert!(meters.is_empty());
    }

    #[test]
    fn values_keep_three_digits_and_stay_within_the_bounds() {
        let check = |elapsed: Duration, ns: u64| {
            let mut meters = Meters::default();
            meters.record(Meter::Close, elapsed);
            let histogram = meters.get(Meter::Close);
            assert_eq!(histogram.len(), 1);
            assert!(histogram.equivalent(histogram.max(), ns), "{elapsed:?}: {}", histogram.max());
            assert!(histogram.max().abs_diff(ns) * 1000 <= ns, "{elapsed:?}: {}", histogram.max());
        };
        check(Duration::ZERO, LOWEST_NS);
        check(Duration::from_nanos(1), LOWEST_NS);
        check(Duration::from_micros(123), 123_000);
        check(Duration::from_nanos(987_654_321), 987_654_321);
        check(Duration::from_secs(3600), HIGHEST_NS);
        check(Duration::from_secs(3601), HIGHEST_NS);
        check(Duration::MAX, HIGHEST_NS);
    }

    #[test]
    fn what_does_not_count_is_kept_apart() {
        let (mut recorder, mut collector) = meters(1);
        recorder.record(true, Meter::Connect, Duration::from_millis(1));
        recorder.record(false, Meter::Connect, Duration::from_millis(2));
        recorder.record(false, Meter::Connect, Duration::from_millis(3));
        assert!(recorder.cut(7));
        let count = |meters: &Meters| meters.get(Meter::Connect).len();
        let read = collector.read(|read| (read.number, count(&read.counted), count(&read.uncounted)));
        assert_eq!(read, Some((7, 1, 2)));
    }

    #[test]
    fn a_late_reader_finds_everything_under_the_next_number() {
        let (mut recorder, mut collector) = meters(1);
        let record = |recorder: &mut Recorder| {
            recorder.record(true, Meter::Life, Duration::from_millis(1));
        };
        record(&mut recorder);
        assert!(recorder.cut(0));
        record(&mut recorder);
        assert!(!recorder.cut(1), "the reader has not read the only spare one");
        record(&mut recorder);
        let read = |collector: &mut Collector| {
            collector.read(|read| (read.number, read.counted.get(Meter::Life).len()))
        };
        assert_eq!(read(&mut collector), Some((0, 1)));
        assert!(recorder.cut(2), "the reader has given it back");
        record(&mut recorder);
        drop(recorder);
        assert_eq!(read(&mut collector), Some((2, 2)));
        assert_eq!(read(&mut collector), Some((3, 1)), "the last goes over when the worker ends");
        assert_eq!(read(&mut collector), None);
    }

    #[test]
    fn no_sample_is_lost_between_two_threads() {
        const SAMPLES: u64 = 300_000;
        let (mut recorder, mut collector) = meters(2);
        let worker = thread::spawn(move || {
            for sample in 0..SAMPLES {
                let elapsed = Duration::from_nanos(sample * 1000);
                recorder.record(sample % 3 == 0, Meter::Connect, elapsed);
                recorder.record(sample % 3 == 0, Meter::Request, elapsed);
                if sample % 500 == 499 {
                    recorder.cut(sample / 500);
                }
            }
        });
        let mut sum = Interval::default();
        let mut last = None;
        while !worker.is_finished() {
            collector.read(|read| {
                assert!(last < Some(read.number), "{last:?}, then {}", read.number);
                last = Some(read.number);
                sum.merge(read);
            });
        }
        worker.join().unwrap();
        collector.drain_into(&mut sum);
        assert!(collector.read(|_| ()).is_none());
        let counts = |meters: &Meters| meters.iter().map(|(_, samples)| samples.len()).collect::<Vec<u64>>();
        let [counted, others] = [SAMPLES / 3, SAMPLES - SAMPLES / 3];
        assert_eq!(counts(&sum.counted), [counted, 0, 0, 0, counted, 0, 0, 0, 0]);
        assert_eq!(counts(&sum.uncounted), [others, 0, 0, 0, others, 0, 0, 0, 0]);
    }
}
