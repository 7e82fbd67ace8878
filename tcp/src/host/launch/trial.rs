//! Trials as the control thread sees them: handed in, watched second by second, brought to an end; and the search, which is several of
//! them. Knows schedules and what is printed meanwhile; never a connection.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;
use std::time::Duration;

use super::jobs::Clock;
use super::search::{Next, Search};
use super::session::{NAP, Session};
use super::signals::Signals;
use super::{say, show, stopping};
use crate::face::config::Bench;
use crate::face::report::bench::{Concurrency, Interval, Moment, Phase, Sampler, Step};
use crate::face::report::hdr::Log;
use crate::face::report::serve::held;
use crate::host::nic::{self, Statistics};
use crate::text::grouped;
use synmill_engine::generator::Load;
use synmill_engine::generator::desk::{Desk, Held, Trial};
use synmill_engine::generator::meters::{self, Collector, Meters};
use synmill_engine::generator::tally::Totals;
use synmill_engine::generator::tuples::{self, Space};
use synmill_engine::stats::Snapshot;
use synmill_engine::time::Instant;

/// Time for a trial to reach the workers before it begins.
pub(super) const LEAD: Duration = Duration::from_millis(20);
/// How long after a second's end its latencies are waited for.
const LAG: Duration = Duration::from_millis(20);
/// How long the workers may take to cut what is left when the drain is over.
const GRACE: Duration = Duration::from_secs(10);
/// The shortest trial of a search, and its share of the whole duration.
const STEP: Duration = Duration::from_secs(1);
const STEP_SHARE: u32 = 5;
/// The share of the asked rate that a trial of a search must reach.
const REACHED: f64 = 0.99;

/// The interface's own counters; zeros when it is gone.
pub(super) fn statistics(index: u32) -> Statistics {
    nic::statistics(index).unwrap_or_default()
}

/// What a trial brought.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) begin: Moment,
    pub(super) end: Moment,
    /// How long connections counted.
    pub(super) window: Duration,
    pub(super) totals: Totals,
    pub(super) meters: Meters,
    pub(super) concurrency: Option<Concurrency>,
    /// Segments sent again in the whole trial.
    pub(super) retransmitted: u64,
}

impl Outcome {
    /// Connections established a second.
    fn achieved(&self) -> f64 {
        self.totals.established_in_time as f64 / self.window.as_secs_f64().max(1e-9)
    }

    /// What was lost: connections that failed or never started, and segments that had to be sent again.
    fn lost(&self) -> u64 {
        self.totals.failed() + self.totals.not_started + self.retransmitted
    }
}

/// The run as the control thread sees it.
pub(super) struct Run<'a> {
    pub(super) config: &'a Bench,
    pub(super) session: Session,
    pub(super) clock: Clock,
    pub(super) desks: Vec<Arc<Desk>>,
    pub(super) collectors: Vec<Collector>,
    pub(super) signals: Signals,
    pub(super) trials: u64,
    pub(super) signalled: bool,
    /// What is ending it before its time, and cuts the trial under way: one line.
    pub(super) trouble: Option<String>,
    pub(super) space: &'a Space,
    /// What the last second brought; kept, because it is large.
    pub(super) latest: Option<Box<meters::Interval>>,
    pub(super) intervals: Vec<Interval>,
    pub(super) log: Option<Log<'a, BufWriter<File>>>,
    /// What the log and the report count from.
    pub(super) began: Instant,
    /// Our own counters and the interface's when the trial under way began.
    pub(super) before: Snapshot,
    pub(super) nic: Statistics,
}

impl Run<'_> {
    /// The trial, or the trials of the search: what is reported, the rate that was confirmed, and the steps that led there.
    pub(super) fn all(&mut self) -> (Outcome, Option<u64>, Vec<Step>) {
        match self.config.search() {
            None => (self.trial(self.config.load(), self.config.duration()), None, Vec::new()),
            Some(loss) => self.search(loss),
        }
    }

    fn search(&mut self, loss: f64) -> (Outcome, Option<u64>, Vec<Step>) {
        let short = (self.config.duration() / STEP_SHARE).max(STEP).min(self.config.duration());
        let mut outcome = self.trial(Load::Max, short);
        let reached = outcome.achieved() as u64;
        self.tell(&format!("search: {} connections/s in a closed loop\n", grouped(reached)));
        let mut search = Search::from(reached);
        let mut steps = Vec::new();
        let needed = tuples::needed(reached, self.config.time_wait(), self.config.duration());
        if needed > self.space.len() {
            self.trouble = Some(format!(
                "a search at {} connections/s needs {} tuples, and there are {}: give a larger --source, more --source-ports or a \
                 shorter --time-wait",
                grouped(reached),
                grouped(needed),
                grouped(self.space.len())
            ));
        }
        while !self.signalled && self.trouble.is_none() {
            let (rate, duration, confirmation) = match search.next() {
                Next::Try(rate) => (rate, short, false),
                Next::Confirm(rate) => (rate, self.config.duration(), true),
                Next::Done => break,
            };
            outcome = self.trial(Load::Rate(rate), duration);
            let (started, lost, achieved) = (outcome.totals.started, outcome.lost(), outcome.achieved());
            let few_lost = lost as f64 <= loss * started as f64;
            // What a signal has cut short shows nothing.
            let passed = few_lost && achieved >= REACHED * rate as f64 && !self.signalled;
            let verdict = if passed { "passed" } else { "failed" };
            let what = if confirmation { "confirmation" } else { "step" };
            self.tell(&format!(
                "search: {what} at {} /s: {} /s achieved, {} started, {} lost: {verdict}\n",
                grouped(rate),
                grouped(achieved.round() as u64),
                grouped(started),
                grouped(lost)
            ));
            steps.push(Step { rate, started, lost, achieved, passed, confirmation });
            search.done(passed);
        }
        (outcome, search.confirmed(), steps)
    }

    /// One trial, from handing it in to its last connection's end.
    fn trial(&mut self, load: Load, duration: Duration) -> Outcome {
        self.trials += 1;
        self.before = self.session.total();
        self.nic = statistics(self.session.interface.index);
        let start = self.clock.now() + LEAD;
        let trial = Trial {
            number: self.trials,
            load,
            start,
            ramp: self.config.ramp(),
            warmup: self.config.warmup(),
            duration,
            drain: self.config.drain(),
        };
        for desk in &self.desks {
            assert!(desk.hand_in(trial), "one trial at a time");
        }
        let mut watch = Watch::new(&trial, start - self.began, self.moment(start));
        let mut late = None;
        loop {
            let now = self.clock.now();
            if watch.begin.is_none() && now >= trial.counts_from() {
                watch.begin = Some(self.moment(start));
            }
            if watch.end.is_none() && (now >= trial.end() || self.signalled || self.trouble.is_some()) {
                watch.end = Some(self.moment(start));
            }
            if now >= watch.next() + LAG {
                self.second(&mut watch);
            }
            if self.desks.iter().all(|desk| desk.over() == trial.number) {
                break;
            }
            if self.session.lost_one() {
                self.trouble.get_or_insert_with(|| "a worker is lost".into());
                break;
            }
            if self.trouble.is_some() {
                self.desks.iter().for_each(|desk| desk.cut());
            }
            // From the first time that it is noticed: this thread itself may have been kept waiting.
            let is_late = self.trouble.is_some() || now >= trial.end() + trial.drain;
            if is_late && now - *late.get_or_insert(now) >= GRACE {
                let what = "the workers do not come to an end: their connections cannot be reset";
                self.trouble.get_or_insert_with(|| what.into());
                break;
            }
            let marks = [
                Some(watch.next() + LAG),
                watch.begin.is_none().then(|| trial.counts_from()),
                watch.end.is_none().then(|| trial.end()),
            ];
            let until = marks.into_iter().flatten().min().unwrap_or_else(|| watch.next());
            // In the drain it is over at any moment.
            let nap = if watch.end.is_some() { Duration::from_millis(2) } else { NAP };
            let left = until - self.clock.now();
            if self.signals.wait(nap.min(left)) && !self.signalled {
                self.signalled = true;
                if let Some(line) = stopping(trial.drain, held(&self.session.total())) {
                    say(&line);
                }
                for desk in &self.desks {
                    desk.stop();
                }
            }
        }
        self.second(&mut watch);
        let last = self.moment(start);
        let mut totals = Totals::default();
        for desk in &self.desks {
            totals.merge(&desk.tally.totals());
        }
        let window_ns = self.desks.iter().map(|desk| desk.window_ns.get()).max();
        Outcome {
            begin: watch.begin.unwrap_or_else(|| last.clone()),
            end: watch.end.unwrap_or_else(|| last.clone()),
            window: Duration::from_nanos(window_ns.unwrap_or(0)),
            totals,
            meters: watch.meters,
            concurrency: self.concurrency(load),
            retransmitted: last.counts.since(&self.before).retrans_segs,
        }
    }

    /// A second is over, or the trial is: its line, its place in the report and in the log.
    fn second(&mut self, watch: &mut Watch) {
        let mut latest = self.latest.take().unwrap_or_default();
        latest.clear();
        for collector in &mut self.collectors {
            collector.drain_into(&mut latest);
        }
        let now = self.moment(watch.trial.start);
        let from = watch.since;
        let mut troubles = Vec::new();
        if let Some(log) = &mut self.log {
            let length = now.at.saturating_sub(from - watch.trial.start).min(Duration::from_secs(1));
            let written = log.write(from - self.began, length, &latest.counted);
            troubles.extend(written.err().map(|error| format!("writing the interval log: {error}")));
        }
        watch.meters.merge(&latest.counted);
        latest.counted.merge(&latest.uncounted);
        let mut totals = Totals::default();
        for desk in &self.desks {
            totals.merge(&desk.tally.totals());
        }
        let phase = watch.phase(from);
        // Nobody knows how long the drain is going to be.
        let whole = (phase != Phase::Drain).then(|| watch.trial.end() - watch.trial.start);
        if let Some(line) = watch.sampler.sample(phase, &now, &totals, &latest.counted) {
            self.tell(&(line.line(whole) + "\n"));
            self.intervals.push(line);
        }
        self.latest = Some(latest);
        // Where this thread was kept waiting, seconds are left out.
        let whole = Duration::from_secs(now.at.saturating_sub(LAG).as_secs());
        watch.since = watch.next().max(watch.trial.start + whole);
        troubles.extend(self.session.check_link().err());
        if self.trouble.is_none() && !troubles.is_empty() {
            self.trouble = Some(troubles.join("; "));
        }
    }

    /// How it goes, for those who want to know.
    fn tell(&self, text: &str) {
        if !self.config.rings.quiet {
            show(text);
        }
    }

    fn moment(&self, start: Instant) -> Moment {
        Moment { at: self.clock.now() - start, counts: self.session.total(), cpu: self.session.cpu() }
    }

    /// Connections that were open, if so many were asked for.
    fn concurrency(&self, load: Load) -> Option<Concurrency> {
        let Load::Concurrency(asked) = load else { return None };
        let held = || self.desks.iter().map(|desk| &desk.held);
        let mean = |held: &Held| held.sum_us.get() as f64 / held.us.get().max(1) as f64;
        Some(Concurrency {
            asked,
            min: held().map(|held| held.min.get()).sum(),
            mean: held().map(mean).sum(),
            max: held().map(|held| held.max.get()).sum(),
        })
    }
}

/// A trial as it is watched.
struct Watch {
    trial: Trial,
    /// The window's edges as this thread saw them, some milliseconds late: for CPU time, which is taken between them. What is counted in
    /// the window the workers count.
    begin: Option<Moment>,
    end: Option<Moment>,
    /// When the second under way began.
    since: Instant,
    sampler: Sampler,
    meters: Meters,
}

impl Watch {
    /// A trial that begins so long `after` the run did.
    fn new(trial: &Trial, after: Duration, now: Moment) -> Self {
        Self {
            trial: *trial,
            begin: None,
            end: None,
            since: trial.start,
            sampler: Sampler::new(after, now),
            meters: Meters::default(),
        }
    }

    /// The end of the second under way.
    fn next(&self) -> Instant {
        self.since + Duration::from_secs(1)
    }

    /// What is done at this time.
    fn phase(&self, at: Instant) -> Phase {
        let Trial { start, ramp, .. } = self.trial;
        if at < start + ramp {
            Phase::Ramp
        } else if at < self.trial.counts_from() {
            Phase::WarmUp
        } else if at < self.trial.end() && self.end.as_ref().is_none_or(|end| at < start + end.at) {
            Phase::Measure
        } else {
            Phase::Drain
        }
    }
}
