//! An interval of a run, and its line on standard output.

use std::fmt;
use std::mem::replace;
use std::time::Duration;

use serde::Serialize;

use super::causes::failed;
use super::latency::micros;
use crate::face::report::interval::{Busy, Losses};
use crate::face::report::{Named, per_s, serve, tenth, words};
use crate::host::machine::cpu::Cpu;
use crate::text::{duration, grouped};
use synmill_engine::generator::meters::{Meter, Meters};
use synmill_engine::generator::tally::Totals;
use synmill_engine::stats::Snapshot;

/// The counters of all workers and the CPU time, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Time from the start of the trial.
    pub at: Duration,
    /// The counters.
    pub counts: Snapshot,
    /// CPU time.
    pub cpu: Cpu,
}

/// Phase of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The load rises.
    #[default]
    Ramp,
    /// The load is full, but connections do not count yet.
    WarmUp,
    /// The window: connections that start now count.
    Measure,
    /// No connection starts; open ones go on to their end.
    Drain,
}

/// Writes the name that JSON has.
impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Activity of all connections between two samples, whether they count or not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Interval {
    /// End of the interval, from the begin of the run. The trials of a search follow each other.
    pub at_s: f64,
    /// End of the interval, from the begin of the trial.
    #[serde(skip)]
    pub trial_s: f64,
    /// Phase at the begin of the interval.
    pub phase: Phase,
    /// SYNs sent for the first time.
    pub started_per_s: u64,
    /// Handshakes completed.
    pub established_per_s: u64,
    /// Connections closed: ended in any way, or entered TIME-WAIT.
    pub closed_per_s: u64,
    /// Connections not closed at the end of the interval.
    pub open: u64,
    /// Requests whose response was complete.
    pub requests_per_s: u64,
    /// Connections that failed in the interval, by cause; only causes that occurred.
    pub failed: Named,
    /// 99th percentile from the intended start to SYN,ACK; `None` without a sample.
    pub connect_p99_us: Option<f64>,
    /// 99th percentile from the request to the end of its response; `None` without a sample.
    pub request_p99_us: Option<f64>,
    /// CPU time in the interval.
    #[serde(flatten)]
    pub busy: Busy,
    /// Losses in the interval.
    #[serde(flatten)]
    pub losses: Losses,
}

/// Shorter intervals have no rates. The rest of a trial after its last whole second may be one.
const SHORTEST: Duration = Duration::from_millis(50);

/// Turns counters that only grow into intervals.
#[derive(Debug, Default)]
pub struct Sampler {
    /// Begin of the trial, from the begin of the run.
    after: Duration,
    before: Moment,
    totals: Totals,
}

impl Sampler {
    /// Creates a sampler that starts at a moment of a trial. The trial began `after` the run.
    #[must_use]
    pub fn new(after: Duration, start: Moment) -> Self {
        Self { after, before: start, totals: Totals::default() }
    }

    /// Returns the interval that ends now; `None` if it is too short for rates.
    ///
    /// `totals` are the accounts now. `meters` are all latencies since the last sample, whether they count or not.
    pub fn sample(
        &mut self,
        phase: Phase,
        now: &Moment,
        totals: &Totals,
        meters: &Meters,
    ) -> Option<Interval> {
        let length = now.at.saturating_sub(self.before.at);
        if length < SHORTEST {
            return None;
        }
        let seconds = length.as_secs_f64();
        let before = replace(&mut self.before, now.clone());
        let totals_before = replace(&mut self.totals, *totals);
        let grown = now.counts.since(&before.counts);
        let rate = |count: u64| per_s(count, seconds).round() as u64;
        let p99 = |meter: Meter| {
            let samples = meters.get(meter);
            (!samples.is_empty()).then(|| micros(samples.value_at_quantile(0.99)))
        };
        // Only connections that count have a cause. Of the others only the number of failed handshakes is known.
        let failed: Vec<(&str, u64)> = match phase {
            Phase::Ramp | Phase::WarmUp => vec![("connect_failed", grown.attempt_fails)],
            Phase::Measure | Phase::Drain => {
                let pairs = failed(totals).into_iter().zip(failed(&totals_before));
                pairs.map(|((cause, after), (_, before))| (cause, after.saturating_sub(before))).collect()
            }
        };
        Some(Interval {
            at_s: tenth((self.after + now.at).as_secs_f64()),
            trial_s: now.at.as_secs_f64(),
            phase,
            started_per_s: rate(grown.active_opens),
            established_per_s: rate(grown.established),
            closed_per_s: rate(serve::closed(&now.counts).saturating_sub(serve::closed(&before.counts))),
            open: serve::held(&now.counts),
            requests_per_s: rate(meters.get(Meter::Request).len()),
            failed: failed.into_iter().filter(|&(_, count)| count > 0).collect(),
            connect_p99_us: p99(Meter::Connect),
            request_p99_us: p99(Meter::Request),
            busy: Busy::between(&before.cpu, &now.cpu, seconds),
            losses: Losses::from(&grown),
        })
    }
}

impl Interval {
    /// Returns the interval's line on standard output. `length` is the planned length of the trial without its drain, where
    /// it is known.
    #[must_use]
    pub fn line(&self, length: Option<Duration>) -> String {
        let length = length.map_or_else(String::new, |length| format!("/{:.0}", length.as_secs_f64()));
        let mut parts = vec![
            format!(
                "{:>7} s {:<7} started {:>9}/s",
                format!("{:.0}{length}", self.trial_s),
                self.phase,
                grouped(self.started_per_s)
            ),
            format!("estab {:>9}/s", grouped(self.established_per_s)),
            format!("open {:>7}", grouped(self.open)),
        ];
        parts.extend(self.connect_p99_us.map(|us| format!("connect p99 {}", duration(us))));
        let requests = grouped(self.requests_per_s);
        parts.extend(self.request_p99_us.map(|us| format!("requests {requests}/s p99 {}", duration(us))));
        let [cpu, softirq] = self.busy.lists();
        parts.push(format!("cpu % {cpu} softirq {softirq}"));
        parts.extend(words(self.failed.occurred()));
        parts.extend(self.losses.words("sent again"));
        parts.join("  ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::report::tests::{has, lacks};
    use crate::host::machine::cpu::CoreTicks;

    fn moment(seconds: u64, worker: u64, counts: Snapshot) -> Moment {
        let core = CoreTicks { softirq: worker / 2, ..CoreTicks::default() };
        let cpu = Cpu { workers: vec![worker], cores: vec![core], ..Cpu::default() };
        Moment { at: Duration::from_secs(seconds), counts, cpu }
    }

    #[test]
    fn an_interval_is_a_difference_over_its_time() {
        let mut sampler = Sampler::new(Duration::from_secs(20), moment(0, 100, Snapshot::default()));
        let mut counts = Snapshot {
            active_opens: 2_000,
            established: 1_800,
            curr_connections: 500,
            curr_time_wait: 300,
            ended_closed: 1_300,
            attempt_fails: 150,
            ..Snapshot::default()
        };
        let mut meters = Meters::default();
        let now = moment(2, 260, counts);
        let first = sampler.sample(Phase::Ramp, &now, &Totals::default(), &meters).unwrap();
        assert_eq!((first.at_s, first.trial_s), (22.0, 2.0));
        assert_eq!((first.started_per_s, first.established_per_s, first.closed_per_s), (1_000, 900, 800));
        let Busy { worker_cpu_percent: workers, softirq_percent: softirqs } = &first.busy;
        assert_eq!((first.open, &workers[..], &softirqs[..]), (200, &[80.0][..], &[40.0][..]));
        let line = first.line(Some(Duration::from_secs(14)));
        let begin = "   2/14 s ramp    started     1,000/s  estab       900/s  open     200  cpu % 80";
        assert!(line.starts_with(begin), "{line}");
        has(&line, &["connect failed 150"]);
        lacks(&line, &["p99", "again", "\n"]);

        meters.record(Meter::Connect, Duration::from_micros(250));
        (0..30).for_each(|_| meters.record(Meter::Request, Duration::from_millis(2)));
        counts.retrans_segs = 4;
        counts.rx_ring_full = 5;
        counts.drop_land = 6;
        let totals = Totals { refused: 3, ..Totals::default() };
        let second = sampler.sample(Phase::Measure, &moment(3, 300, counts), &totals, &meters).unwrap();
        assert_eq!((second.started_per_s, second.requests_per_s), (0, 30));
        let line = second.line(None);
        has(&line, &["      3 s measure ", "connect p99 250 us", "requests 30/s p99 2.00 ms"]);
        has(&line, &["refused 3", "sent again 4", "drop_land 6", "rx_ring_full 5"]);
        lacks(&line, &["connect failed"]);
    }

    #[test]
    fn accounts_that_begin_anew_do_not_fail_backwards() {
        let mut sampler = Sampler::default();
        let sample = |sampler: &mut Sampler, second: u64, refused: u64| {
            let totals = Totals { refused, ..Totals::default() };
            let now = moment(second, 0, Snapshot::default());
            sampler.sample(Phase::Measure, &now, &totals, &Meters::default()).unwrap().failed
        };
        assert_eq!(sample(&mut sampler, 1, 3).0, [("refused".to_owned(), 3)]);
        assert!(sample(&mut sampler, 2, 0).0.is_empty());
    }

    #[test]
    fn a_few_milliseconds_make_no_line() {
        let mut sampler = Sampler::default();
        let mut sample = |ms: u64, active_opens: u64| {
            let counts = Snapshot { active_opens, ..Snapshot::default() };
            let now = Moment { at: Duration::from_millis(ms), counts, ..Moment::default() };
            let interval = sampler.sample(Phase::Drain, &now, &Totals::default(), &Meters::default());
            interval.map(|interval| interval.started_per_s)
        };
        assert_eq!(sample(3, 5), None);
        // The next interval includes them, if there is one.
        assert_eq!(sample(1000, 100), Some(100));
        assert_eq!(sample(1049, 100), None);
    }
}
