//! A second of a run, and its line. Knows differences of counters; never who takes them.

use std::fmt::Write as _;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::latency::micros;
use super::{Failed, Moment};
use crate::face::report::{Named, RINGS, grown, per_s, serve, softirq_percents, tenth, worker_percents};
use crate::text::{self, grouped};
use synmill_engine::generator::meters::{Meter, Meters};
use synmill_engine::generator::tally::Totals;

/// What a run is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Coming up to the load.
    #[default]
    Ramp,
    /// Under the whole load, not counted yet.
    WarmUp,
    /// In the window: what starts now counts.
    Measure,
    /// Nothing starts any more, what is under way goes on to its end.
    Drain,
}

impl Phase {
    /// Its name in lines and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ramp => "ramp",
            Self::WarmUp => "warm-up",
            Self::Measure => "measure",
            Self::Drain => "drain",
        }
    }
}

impl Serialize for Phase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What happened between two samples, to all connections, counted ones and others.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Interval {
    /// Its end, since the run began: the trials of a search follow each other.
    pub at_s: f64,
    /// Its end, since the trial's start.
    #[serde(skip)]
    pub trial_s: f64,
    /// What the run was at when it began.
    pub phase: Phase,
    /// SYNs sent for the first time.
    pub started_per_s: u64,
    /// Handshakes completed.
    pub established_per_s: u64,
    /// Connections closed: ended in whatever way, or gone into TIME-WAIT.
    pub closed_per_s: u64,
    /// Connections that were not closed at its end.
    pub open: u64,
    /// Requests answered.
    pub requests_per_s: u64,
    /// Connections that failed in the interval; causes that occurred only.
    pub failed: Named,
    /// 99 of a hundred connections had their SYN,ACK by then; nothing without any.
    pub connect_p99_us: Option<f64>,
    /// 99 of a hundred requests had their response by then; nothing without any.
    pub request_p99_us: Option<f64>,
    /// CPU time of each worker's thread, user and system.
    pub worker_cpu_percent: Vec<f64>,
    /// Time each worker's core spent in soft interrupts.
    pub softirq_percent: Vec<f64>,
    /// Segments sent again in the interval.
    pub retrans_segs: u64,
    /// What was dropped in the interval; reasons that occurred only.
    pub drops: Named,
    /// Losses at the rings in the interval; kinds that occurred only.
    pub ring_losses: Named,
}

/// A shorter time has no rates: what is left of a run behind its last whole second.
const SHORTEST: Duration = Duration::from_millis(50);

/// Turns counters that only grow into intervals.
#[derive(Debug, Default)]
pub struct Sampler {
    /// When the trial began, since the run did.
    after: Duration,
    before: Moment,
    totals: Totals,
}

impl Sampler {
    /// A sampler that starts at this moment of a trial that began so long `after` the run did.
    #[must_use]
    pub fn new(after: Duration, start: Moment) -> Self {
        Self { after, before: start, totals: Totals::default() }
    }

    /// The interval that ends now; nothing when it is too short for rates. `totals` are the accounts at this moment, `meters` what was measured since the last
    /// sample, counted or not.
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
        let before = std::mem::replace(&mut self.before, now.clone());
        let totals_before = std::mem::replace(&mut self.totals, *totals);
        let (counts, counts_before) = (&now.counts, &before.counts);
        let rate = |after: u64, before: u64| per_s(after.saturating_sub(before), seconds).round() as u64;
        let p99 = |meter: Meter| {
            let samples = meters.get(meter);
            (!samples.is_empty()).then(|| micros(samples.value_at_quantile(0.99)))
        };
        // Only what counts has its causes written down; of the rest is known how many handshakes failed.
        let failed = match phase {
            Phase::Ramp | Phase::WarmUp => {
                let unfinished = counts.attempt_fails.saturating_sub(counts_before.attempt_fails);
                [("connect_failed", unfinished)].into_iter().filter(|&(_, count)| count > 0).collect()
            }
            Phase::Measure | Phase::Drain => {
                let [after, before] = [totals, &totals_before].map(|totals| Failed::from(totals).causes());
                grown(after.into_iter(), before.into_iter()).collect()
            }
        };
        Some(Interval {
            at_s: tenth((self.after + now.at).as_secs_f64()),
            trial_s: now.at.as_secs_f64(),
            phase,
            started_per_s: rate(counts.active_opens, counts_before.active_opens),
            established_per_s: rate(counts.established, counts_before.established),
            closed_per_s: rate(serve::closed(counts), serve::closed(counts_before)),
            open: serve::held(counts),
            requests_per_s: rate(meters.get(Meter::Request).len(), 0),
            failed,
            connect_p99_us: p99(Meter::Connect),
            request_p99_us: p99(Meter::Request),
            worker_cpu_percent: worker_percents(&before.cpu, &now.cpu, seconds),
            softirq_percent: softirq_percents(&before.cpu, &now.cpu, seconds),
            retrans_segs: counts.retrans_segs.saturating_sub(counts_before.retrans_segs),
            drops: grown(counts.drops(), counts_before.drops()).collect(),
            ring_losses: grown(counts.counts(), counts_before.counts())
                .filter(|(name, _)| RINGS.contains(name))
                .collect(),
        })
    }
}

impl Interval {
    /// The line a second. `length` is how long the trial is going to be, draining left out, if that is known.
    #[must_use]
    pub fn line(&self, length: Option<Duration>) -> String {
        let length = length.map_or_else(String::new, |length| format!("/{:.0}", length.as_secs_f64()));
        let mut line = format!(
            "{:>7} s {:<7} started {:>9}/s  estab {:>9}/s  open {:>7}",
            format!("{:.0}{length}", self.trial_s),
            self.phase.name(),
            grouped(self.started_per_s),
            grouped(self.established_per_s),
            grouped(self.open),
        );
        let percents =
            |values: &[f64]| values.iter().map(|v| format!("{v:.0}")).collect::<Vec<_>>().join(" ");
        // Writing to a string does not fail.
        if let Some(us) = self.connect_p99_us {
            let _ = write!(line, "  connect p99 {}", text::duration(us));
        }
        if let Some(us) = self.request_p99_us {
            let _ = write!(line, "  requests {}/s", grouped(self.requests_per_s));
            let _ = write!(line, " p99 {}", text::duration(us));
        }
        let _ = write!(line, "  cpu % {}", percents(&self.worker_cpu_percent));
        let _ = write!(line, " softirq {}", percents(&self.softirq_percent));
        for (name, count) in &self.failed.0 {
            let _ = write!(line, "  {} {}", name.replace('_', " "), grouped(*count));
        }
        if self.retrans_segs > 0 {
            let _ = write!(line, "  sent again {}", grouped(self.retrans_segs));
        }
        for (name, count) in self.drops.0.iter().chain(&self.ring_losses.0) {
            let _ = write!(line, "  {name} {}", grouped(*count));
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::machine::cpu::{CoreTicks, Cpu};
    use synmill_engine::stats::Snapshot;

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
        let first =
            sampler.sample(Phase::Ramp, &moment(2, 260, counts), &Totals::default(), &Meters::default());
        let first = first.unwrap();
        assert_eq!((first.at_s, first.trial_s), (22.0, 2.0));
        assert_eq!((first.started_per_s, first.established_per_s, first.closed_per_s), (1_000, 900, 800));
        assert_eq!(
            (first.open, &first.worker_cpu_percent[..], &first.softirq_percent[..]),
            (200, &[80.0][..], &[40.0][..])
        );
        let line = first.line(Some(Duration::from_secs(14)));
        let begin = "   2/14 s ramp    started     1,000/s  estab       900/s  open     200  cpu % 80";
        assert!(line.starts_with(begin) && line.contains("connect failed 150"), "{line}");
        assert!(!line.contains("p99") && !line.contains("again") && !line.contains('\n'), "{line}");

        let mut meters = Meters::default();
        meters.record(Meter::Connect, Duration::from_micros(250));
        (0..30).for_each(|_| meters.record(Meter::Request, Duration::from_millis(2)));
        counts.retrans_segs = 4;
        counts.rx_ring_full = 5;
        counts.drop_land = 6;
        let totals = Totals { refused: 3, ..Totals::default() };
        let second = sampler.sample(Phase::Measure, &moment(3, 300, counts), &totals, &meters).unwrap();
        assert_eq!((second.started_per_s, second.requests_per_s), (0, 30));
        let line = second.line(None);
        for part in [
            "      3 s measure ",
            "connect p99 250 us",
            "requests 30/s p99 2.00 ms",
            "refused 3",
            "sent again 4",
            "drop_land 6",
            "rx_ring_full 5",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains("connect failed"), "{line}");
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
        // What happened in them is in the next line, if there is one.
        assert_eq!(sample(1000, 100), Some(100));
        assert_eq!(sample(1049, 100), None);
    }
}
