//! A trial under way: its stages, and when the next connection is due.

use std::mem;
use std::time::Duration;

use super::desk::Trial;
use super::load::{Load, MAX_UNDER_WAY};
use super::meters::Recorder;
use super::pace::{self, Pace};
use crate::time::Instant;

/// The length of an interval of measurements.
const INTERVAL: Duration = Duration::from_secs(1);

/// The stage of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The generator opens connections.
    Opening,
    /// The generator opens no more connections. It tells held ones to close, from this slot on.
    Draining(usize),
    /// The generator cuts the connections that are left, from this slot on.
    Cutting(usize),
}

/// A trial under way.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) trial: Trial,
    pub(super) stage: Stage,
    /// When the stage of cutting began.
    pub(super) cut_from: Instant,
    /// The measured time.
    counts_from: Instant,
    end: Instant,
    /// The schedule of an open loop.
    pace: Option<Pace>,
    /// Intervals handed over, and when the next is due.
    intervals: u64,
    next_interval: Instant,
    /// When a tuple or a slot was last missing. The generator tries again in the next turn, not before.
    short_at: Option<Instant>,
    /// Whether the shortage is counted for the connection that is due.
    short_counted: bool,
}

impl Run {
    /// Returns a trial in its first stage, for worker `number` of `workers`.
    pub(super) fn new(trial: Trial, workers: u64, number: u64) -> Self {
        let pace = match trial.load {
            Load::Rate(rate) => Some(Pace::new(trial.start, rate, trial.ramp, workers, number)),
            Load::Max | Load::Concurrency(_) => None,
        };
        Self {
            trial,
            stage: Stage::Opening,
            cut_from: Instant::ZERO,
            counts_from: trial.counts_from(),
            end: trial.end(),
            pace,
            intervals: 0,
            next_interval: trial.start + INTERVAL,
            short_at: None,
            short_counted: false,
        }
    }

    /// Returns when the generator opens the last connection.
    pub(super) const fn end(&self) -> Instant {
        self.end
    }

    /// Returns whether `time` is in the measured time.
    pub(super) fn measures(&self, time: Instant) -> bool {
        (self.counts_from..self.end).contains(&time)
    }

    /// Hands over the samples since the last interval, if an interval is due.
    pub(super) fn hand_over_interval(&mut self, now: Instant, recorder: &mut Recorder) {
        if now >= self.next_interval {
            let _ = recorder.cut(self.intervals);
            self.intervals += 1;
            self.next_interval = self.next_interval + INTERVAL;
        }
    }

    /// Hands over the last samples. Returns false when there is no room for them yet.
    pub(super) fn hand_over_last(&self, recorder: &mut Recorder) -> bool {
        recorder.cut(self.intervals)
    }

    /// Ends the measured time. Returns how long it was, and how many connections were due in it and not opened.
    pub(super) fn stop(&mut self, now: Instant) -> (Duration, u64) {
        self.end = self.end.min(now);
        let late = self.pace.as_mut().map_or(0, |pace| pace.give_up_before(self.end, self.counts_from));
        (self.end - self.counts_from, late)
    }

    /// Returns the intended start of the connection that worker `number` of `workers` may open now. `open` connections are under way,
    /// and `holding` of these only stay open.
    pub(super) fn due(
        &self,
        now: Instant,
        [open, holding]: [u64; 2],
        [workers, number]: [u64; 2],
    ) -> Option<Instant> {
        if self.stage != Stage::Opening || now < self.trial.start || self.short_at == Some(now) {
            return None;
        }
        if let Some(pace) = &self.pace {
            return (pace.due() <= now && pace.due() < self.end).then(|| pace.due());
        }
        let (at_once, under_way) = match self.trial.load {
            Load::Concurrency(at_once) => (at_once, open),
            Load::Max | Load::Rate(_) => (MAX_UNDER_WAY.max(workers), open - holding),
        };
        let allowed = pace::allowed(at_once, self.trial.ramp, now - self.trial.start, workers, number);
        (under_way < allowed).then_some(now)
    }

    /// Returns when the next connection is due, or the stage ends.
    pub(super) fn next_due(&self) -> Instant {
        self.pace.as_ref().map_or(self.end, |pace| pace.due().min(self.end))
    }

    /// The connection that was due is under way.
    pub(super) fn on_opened(&mut self) {
        self.short_counted = false;
        if let Some(pace) = &mut self.pace {
            pace.advance();
        }
    }

    /// A tuple or a slot is missing for the connection that is due. Returns true the first time.
    pub(super) fn on_short(&mut self, now: Instant) -> bool {
        self.short_at = Some(now);
        !mem::replace(&mut self.short_counted, true)
    }
}
