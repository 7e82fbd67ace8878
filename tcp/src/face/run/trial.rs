//! Trials as the control thread sees them: hand one in, watch it second by second, bring it to an end. A search is several trials.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;
use std::time::Duration;

use super::search::{Next, Search};
use super::stage::{NAP, Watched, say, show, stopping};
use crate::face::config::Bench;
use crate::face::report::bench::{Concurrency, Early, Interval, Measured, Moment, Phase, Sampler, Step};
use crate::face::report::hdr::Log;
use crate::face::report::serve::held;
use crate::host::launch::{Clock, Left, Signals};
use crate::host::nic::{Statistics, statistics};
use crate::text::grouped;
use synmill_engine::generator::Load;
use synmill_engine::generator::desk::{Desk, Held, Trial};
use synmill_engine::generator::meters::{self, Collector, Meters};
use synmill_engine::generator::tally::Totals;
use synmill_engine::generator::tuples;
use synmill_engine::time::Instant;

/// Time for a trial to reach the workers before it begins.
const LEAD: Duration = Duration::from_millis(20);
/// Time after a second's end in which its latencies arrive.
const LAG: Duration = Duration::from_millis(20);
/// Most time for the workers to cut the remaining connections after the drain.
const GRACE: Duration = Duration::from_secs(10);
/// The shortest trial of a search, and its share of the whole duration.
const STEP: Duration = Duration::from_secs(1);
const STEP_SHARE: u32 = 5;
/// The share of the requested rate that a trial of a search must reach.
const REACHED: f64 = 0.99;

/// Returns the connections of a trial that were established per second.
fn achieved(trial: &Measured) -> f64 {
    trial.totals.established_in_time as f64 / trial.window.as_secs_f64().max(1e-9)
}

/// Returns the losses of a trial: connections that failed or never started, and retransmitted segments.
fn lost(trial: &Measured) -> u64 {
    let retransmitted = trial.counts.since(&trial.before).retrans_segs;
    trial.totals.failed() + trial.totals.not_started + retransmitted
}

/// The run as the control thread sees it.
pub(super) struct Run<'a> {
    config: &'a Bench,
    watched: Watched,
    clock: Clock,
    desks: Vec<Arc<Desk>>,
    collectors: Vec<Collector>,
    signals: &'a mut Signals,
    log: Option<Log<'a, BufWriter<File>>>,
    /// The number of different tuples.
    tuples: u64,
    trials: u64,
    signalled: bool,
    /// The line of a failure that ends the run early and cuts the present trial.
    trouble: Option<String>,
    /// The measurements of the last second; kept, because they are large.
    latest: Option<Box<meters::Interval>>,
    intervals: Vec<Interval>,
    /// The zero of the log and of the report.
    began: Instant,
    /// The interface's own counters at the begin of the present trial.
    nic: Statistics,
}

impl<'a> Run<'a> {
    /// The run of these workers, by their desks and collectors. There are `tuples` different tuples.
    pub(super) fn new(
        config: &'a Bench,
        watched: Watched,
        desks: Vec<Arc<Desk>>,
        collectors: Vec<Collector>,
        signals: &'a mut Signals,
        log: Option<Log<'a, BufWriter<File>>>,
        tuples: u64,
    ) -> Self {
        let clock = watched.session.taken.clock;
        Self {
            config,
            watched,
            clock,
            desks,
            collectors,
            signals,
            log,
            tuples,
            trials: 0,
            signalled: false,
            trouble: None,
            latest: None,
            intervals: Vec::new(),
            began: clock.now() + LEAD,
            nic: Statistics::default(),
        }
    }

    /// Runs the trial, or the trials of the search, and stops the workers. Returns the measurements and the failures, a line each.
    pub(super) fn measure(mut self) -> (Measured, Vec<String>) {
        let mut measured = match self.config.search {
            None => self.trial(self.config.load, self.config.duration),
            Some(loss) => self.search(loss),
        };
        measured.first_bad = self.desks.iter().find_map(|desk| desk.first_bad.get()).map(ToString::to_string);
        measured.nic = self.statistics().since(&self.nic).losses().collect();
        measured.ended_early = match (&self.trouble, self.signalled) {
            (Some(_), _) => Some(Early::Trouble),
            (None, true) => Some(Early::Signal),
            (None, false) => None,
        };
        let Left { counts, failures, .. } = self.watched.stop();
        (measured.counts, measured.intervals) = (counts, self.intervals);
        (measured, self.trouble.into_iter().chain(failures).collect())
    }

    /// Returns the interface's own counters; zeros if the interface is gone.
    fn statistics(&self) -> Statistics {
        statistics(self.watched.session.taken.interface.index).unwrap_or_default()
    }

    /// Runs the trials of a search that allows this share of losses. Returns the measurements of the last trial.
    fn search(&mut self, loss: f64) -> Measured {
        let short = (self.config.duration / STEP_SHARE).max(STEP).min(self.config.duration);
        let mut last = self.trial(Load::Max, short);
        let reached = achieved(&last) as u64;
        self.tell(&format!("search: {} connections/s in a closed loop\n", grouped(reached)));
        let mut search = Search::from(reached);
        let mut steps = Vec::new();
        let needed = tuples::needed(reached, self.config.endpoint.time_wait, self.config.duration);
        if needed > self.tuples {
            self.trouble = Some(format!(
                "a search at {} connections/s needs {} tuples, and there are {}: give a larger --source, more --source-ports or a \
                 shorter --time-wait",
                grouped(reached),
                grouped(needed),
                grouped(self.tuples)
            ));
        }
        while !self.signalled && self.trouble.is_none() {
            let (rate, duration, confirmation) = match search.next() {
                Next::Try(rate) => (rate, short, false),
                Next::Confirm(rate) => (rate, self.config.duration, true),
                Next::Done => break,
            };
            last = self.trial(Load::Rate(rate), duration);
            let (started, lost, achieved) = (last.totals.started, lost(&last), achieved(&last));
            let few_lost = lost as f64 <= loss * started as f64;
            // A trial that a signal has cut short shows nothing.
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
        Measured { confirmed: search.confirmed(), steps, ..last }
    }

    /// Runs one trial, from its hand-in to the end of its last connection. Returns its measurements, without those of the run.
    fn trial(&mut self, load: Load, duration: Duration) -> Measured {
        self.trials += 1;
        let before = self.watched.session.total();
        self.nic = self.statistics();
        let start = self.clock.now() + LEAD;
        let trial = Trial {
            number: self.trials,
            load,
            start,
            ramp: self.config.ramp,
            warmup: self.config.warmup,
            duration,
            drain: self.config.drain,
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
            if self.watched.session.lost_one() {
                self.trouble.get_or_insert_with(|| "a worker is lost".into());
                break;
            }
            if self.trouble.is_some() {
                self.desks.iter().for_each(|desk| desk.cut());
            }
            // From the first time that it is noticed: this thread itself may have been late.
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
            // The drain may be over at any moment.
            let nap = if watch.end.is_some() { Duration::from_millis(2) } else { NAP };
            let left = until - self.clock.now();
            if self.signals.wait(nap.min(left)) && !self.signalled {
                self.signalled = true;
                if let Some(line) = stopping(trial.drain, held(&self.watched.session.total())) {
                    say(&line);
                }
                for desk in &self.desks {
                    desk.stop();
                }
            }
        }
        self.second(&mut watch);
        let last = self.moment(start);
        let window_ns = self.desks.iter().map(|desk| desk.window_ns.get()).max();
        Measured {
            begin: watch.begin.unwrap_or_else(|| last.clone()),
            end: watch.end.unwrap_or_else(|| last.clone()),
            window: Duration::from_nanos(window_ns.unwrap_or(0)),
            totals: self.totals(),
            meters: watch.meters,
            before,
            counts: last.counts,
            concurrency: self.concurrency(load),
            ..Measured::default()
        }
    }

    /// Returns the accounts of all workers together.
    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for desk in &self.desks {
            totals.merge(&desk.tally.totals());
        }
        totals
    }

    /// Ends a second, the last of a trial perhaps: prints its line, and adds it to the report and the log.
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
        let phase = watch.phase(from);
        // The length of the drain is unknown.
        let whole = (phase != Phase::Drain).then(|| watch.trial.end() - watch.trial.start);
        if let Some(line) = watch.sampler.sample(phase, &now, &self.totals(), &latest.counted) {
            self.tell(&(line.line(whole) + "\n"));
            self.intervals.push(line);
        }
        self.latest = Some(latest);
        // Seconds that passed while this thread waited are left out.
        let whole = Duration::from_secs(now.at.saturating_sub(LAG).as_secs());
        watch.since = watch.next().max(watch.trial.start + whole);
        troubles.extend(self.watched.session.check_link().err());
        if self.trouble.is_none() && !troubles.is_empty() {
            self.trouble = Some(troubles.join("; "));
        }
    }

    /// Prints progress, unless the run is quiet.
    fn tell(&self, text: &str) {
        if !self.config.output.quiet {
            show(text);
        }
    }

    fn moment(&self, start: Instant) -> Moment {
        Moment {
            at: self.clock.now() - start,
            counts: self.watched.session.total(),
            cpu: self.watched.session.cpu(),
        }
    }

    /// Returns the connections that were open, if the load is a number of them.
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

/// The present trial.
struct Watch {
    trial: Trial,
    /// The window's edges as this thread saw them, some milliseconds late. CPU time is taken between them; the workers count everything else
    /// in the window.
    begin: Option<Moment>,
    end: Option<Moment>,
    /// The begin of the present second.
    since: Instant,
    sampler: Sampler,
    meters: Meters,
}

impl Watch {
    /// A trial that begins this long `after` the run.
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

    /// Returns the end of the present second.
    fn next(&self) -> Instant {
        self.since + Duration::from_secs(1)
    }

    /// Returns the phase at this time.
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
