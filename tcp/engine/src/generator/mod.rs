//! The generator: when to open which connection, what to say over it, and what came of it. Knows addresses, text and time; never
//! segments, frames, devices or threads.
//!
//! A [`Generator`] is an [`Application`] of the endpoint beside the responder's listeners. The control plane hands it one
//! [`Trial`] after the other at its [`Desk`] and reads the accounts there; latencies come by [`meters`].

pub mod desk;
pub mod dialogue;
pub mod meters;
pub mod pace;
pub mod tally;
pub mod toeplitz;
mod track;
pub mod tuples;

use std::sync::Arc;
use std::time::Duration;

use desk::{Desk, Trial};
use dialogue::{Heard, Script};
use meters::{Meter, Recorder};
use pace::Pace;
use track::{GivenUp, Track};
use tuples::Walk;

use crate::endpoint::{Application, Id, Open, OpenError, Order, Varies};
use crate::flow::{FlowKey, Share, Timers, table_of};
use crate::proto::End;
use crate::service::{Memo, Pending, Taken};
use crate::time::{Instant, Millis};
use crate::wire::Link;

/// How many connections, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Open loop: so many connections a second, evenly, whatever becomes of them.
    Rate(u64),
    /// As many as can be opened and closed.
    Max,
    /// Closed loop: so many connections open at any time.
    Concurrency(u64),
}

/// Who ends a connection whose work is done, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseBy {
    /// We do, with FIN.
    Fin,
    /// We do, with RST.
    Rst,
    /// The peer does, with FIN; ours follows.
    Peer,
}

/// Connections on their way at once, all workers together, when as many as possible are to be opened: enough to keep both ends
/// busy, and few enough for every ring on the way to hold what they have to say.
pub const MAX_UNDER_WAY: u64 = 512;
/// Slots looked at for one order while connections are woken or cut.
const SLOTS_PER_ORDER: usize = 1024;
/// How long after its TIME-WAIT the endpoint may still know a connection: it counts in milliseconds, and its wheel turns by four.
const FORGOTTEN: Duration = Duration::from_millis(8);
/// How long a connection that is cut is waited for with a frame to reset it with: none comes while the link is down.
const CUT_PATIENCE: Duration = Duration::from_secs(1);
/// Time between two cuts of what is measured.
const INTERVAL: Duration = Duration::from_secs(1);

/// A peer to open connections to.
#[derive(Clone, Debug)]
pub struct Target {
    /// What is said to it.
    pub script: Script,
    /// From us to its next hop.
    pub link: Link,
}

/// What a worker's generator is made of.
pub struct Setup {
    /// The targets, by the numbers that the walk gives them.
    pub targets: Vec<Target>,
    /// The worker's way through the tuples.
    pub walk: Walk,
    /// Where latencies go.
    pub recorder: Recorder,
    /// Where the control plane is met.
    pub desk: Arc<Desk>,
    /// How many workers share the load, and which of them this is.
    pub workers: u64,
    /// See `workers`.
    pub number: u64,
    /// Longest wait for a handshake, a response or the end.
    pub timeout: Duration,
    /// Do connections stay open until the trial's end?
    pub holds: bool,
    /// The endpoint's slots.
    pub slots: usize,
}

/// Where a trial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Connections are opened.
    Opening,
    /// No more are opened; those that hold are told to close, from this slot on.
    Draining(usize),
    /// What is left is cut, from this slot on.
    Cutting(usize),
}

/// How many connections were under way when the last turn ended, and when that was.
#[derive(Clone, Copy, Debug)]
struct Settled {
    at: Instant,
    open: u64,
}

/// The trial under way.
#[derive(Clone, Debug)]
struct Run {
    trial: Trial,
    counts_from: Instant,
    end: Instant,
    stage: Stage,
    /// When what was left began to be cut.
    cut_from: Instant,
    /// Of an open loop.
    pace: Option<Pace>,
    /// Intervals cut, and when the next is.
    intervals: u64,
    next_cut: Instant,
    /// A tuple or a slot was missing at this time: not before another turn is it tried again.
    short_at: Option<Instant>,
    /// What was missing was counted for the connection that is due.
    short_counted: bool,
}

/// An OPEN that was asked for.
#[derive(Clone, Copy, Debug)]
struct Wish {
    intended: Instant,
    block: u16,
}

/// One worker's generator.
pub struct Generator {
    targets: Vec<Target>,
    walk: Walk,
    recorder: Recorder,
    desk: Arc<Desk>,
    workers: u64,
    number: u64,
    timeout_ms: u32,
    holds: bool,
    tracks: Box<[Track]>,
    timers: Timers,
    run: Option<Run>,
    wish: Option<Wish>,
    /// Connections under way, and those of them that have only to stay.
    open: u64,
    holding: u64,
    settled: Settled,
    /// Are connections that hold to close?
    closing: bool,
}

impl Generator {
    /// Allocates everything it will ever use.
    #[must_use]
    pub fn new(setup: Setup, now: Instant) -> Self {
        Self {
            targets: setup.targets,
            walk: setup.walk,
            recorder: setup.recorder,
            desk: setup.desk,
            workers: setup.workers,
            number: setup.number,
            timeout_ms: setup.timeout.as_millis().min(u128::from(u32::MAX / 4)) as u32,
            holds: setup.holds,
            tracks: table_of(setup.slots, |_| Track::free()),
            timers: Timers::new(setup.slots, Share::All, now.millis()),
            run: None,
            wish: None,
            open: 0,
            holding: 0,
            settled: Settled { at: now, open: 0 },
            closing: false,
        }
    }

    /// Bytes of memory for connections that a generator will take beside its endpoint.
    #[must_use]
    pub fn memory_needed(slots: usize) -> usize {
        slots * size_of::<Track>() + Timers::bytes_for(slots, Share::All)
    }

    /// Connections under way, those held included.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Takes the next trial, if there is one.
    fn begin(&mut self) -> bool {
        let Some(trial) = self.desk.next_trial() else { return false };
        let pace = match trial.load {
            Load::Rate(rate) => Some(Pace::new(trial.start, rate, trial.ramp, self.workers, self.number)),
            Load::Max | Load::Concurrency(_) => None,
        };
        self.closing = false;
        self.run = Some(Run {
            trial,
            counts_from: trial.counts_from(),
            end: trial.end(),
            stage: Stage::Opening,
            cut_from: Instant::ZERO,
            pace,
            intervals: 0,
            next_cut: trial.start + INTERVAL,
            short_at: None,
            short_counted: false,
        });
        true
    }

    /// Moves the trial on: intervals, and from stage to stage. False when there is none, or it is over.
    fn advance(&mut self, now: Instant) -> bool {
        let Some(run) = &mut self.run else { return self.begin() };
        if now >= run.next_cut {
            let _ = self.recorder.cut(run.intervals);
            run.intervals += 1;
            run.next_cut = run.next_cut + INTERVAL;
        }
        match run.stage {
            Stage::Opening if now >= run.end || self.desk.is_stopped() => {
                run.end = run.end.min(now);
                self.desk.window_ns.set((run.end - run.counts_from).as_nanos() as u64);
                self.leave_out(now);
                self.closing = true;
                if let Some(run) = &mut self.run {
                    run.stage = Stage::Draining(if self.holds { 0 } else { self.tracks.len() });
                }
            }
            Stage::Draining(_) | Stage::Cutting(_) if self.open == 0 => {
                let number = run.trial.number;
                // The trial is over when all that was measured is on its way; until then it is tried again.
                if self.recorder.cut(run.intervals) {
                    self.run = None;
                    self.desk.set_over(number);
                    return false;
                }
            }
            Stage::Draining(_) if self.desk.is_cut() || now >= run.end + run.trial.drain => {
                run.cut_from = now;
                run.stage = Stage::Cutting(0);
            }
            _ => {}
        }
        true
    }

    /// Counts the connections that were due and were not opened: the generator was late.
    fn leave_out(&mut self, now: Instant) {
        let Some(Run { pace: Some(pace), counts_from, end, .. }) = &mut self.run else { return };
        // Of those that were due by the time the trial was stopped.
        let late = pace.give_up_before((*end).min(now), *counts_from);
        self.desk.tally.not_started.add(late);
    }

    /// The intended start of a connection that may be opened now.
    fn due(&self, now: Instant) -> Option<Instant> {
        let run = self.run.as_ref().filter(|run| run.stage == Stage::Opening)?;
        if now < run.trial.start || run.short_at == Some(now) {
            return None;
        }
        if let Some(pace) = &run.pace {
            return (pace.due() <= now && pace.due() < run.end).then(|| pace.due());
        }
        let (at_once, under_way) = match run.trial.load {
            Load::Concurrency(at_once) => (at_once, self.open),
            Load::Max | Load::Rate(_) => (MAX_UNDER_WAY.max(self.workers), self.open - self.holding),
        };
        let allowed =
            pace::allowed(at_once, run.trial.ramp, now - run.trial.start, self.workers, self.number);
        (under_way < allowed).then_some(now)
    }

    fn order_open(&mut self, now: Instant) -> Option<Order> {
        let intended = self.due(now)?;
        let Some(tuple) = self.walk.next(now) else {
            self.fall_short(now, |desk| desk.tally.tuples_short.add(1));
            return None;
        };
        self.wish = Some(Wish { intended, block: tuple.block });
        let link = self.targets[usize::from(tuple.target)].link;
        Some(Order::Open(Open { key: tuple.key, link, role: tuple.target }))
    }

    /// What a connection needs is missing: counted once for each connection, and tried again with the next turn.
    fn fall_short(&mut self, now: Instant, count: impl Fn(&Desk)) {
        let Some(run) = &mut self.run else { return };
        run.short_at = Some(now);
        if !run.short_counted {
            run.short_counted = true;
            count(&self.desk);
        }
    }

    /// The next connection that waited too long.
    fn order_timed_out(&mut self, now: Instant) -> Option<Order> {
        let slot = self.timers.poll(now.millis(), &mut { SLOTS_PER_ORDER }, &mut *self.tracks)?;
        Some(Order::Abort(slot, End::TimedOut))
    }

    /// The next live connection from `from` on, if one is near; and where to look next.
    fn next_live(&self, from: usize) -> (Option<u32>, usize) {
        let to = (from + SLOTS_PER_ORDER).min(self.tracks.len());
        match self.tracks[from..to].iter().position(Track::is_live) {
            Some(ahead) => (Some((from + ahead) as u32), from + ahead + 1),
            None => (None, to),
        }
    }

    /// Tells the next connection that holds to close, or cuts the next one that is left.
    fn order_end(&mut self, now: Instant, has_frame: bool) -> Option<Order> {
        let run = self.run.as_ref()?;
        let (from, cuts) = match run.stage {
            Stage::Opening => return None,
            Stage::Draining(from) => (from, false),
            Stage::Cutting(from) => (from, true),
        };
        if cuts && !has_frame && now < run.cut_from + CUT_PATIENCE {
            return None;
        }
        let (slot, next) = self.next_live(from);
        if let Some(run) = &mut self.run {
            run.stage = if cuts { Stage::Cutting(next) } else { Stage::Draining(next) };
        }
        let slot = slot?;
        if cuts {
            self.tracks[slot as usize].give_up(GivenUp::Cut);
            return Some(Order::Abort(slot, End::ResetByUs));
        }
        Some(Order::Wake(slot))
    }

    fn arm(&mut self, slot: u32, deadline: Millis) {
        // Without room in the wheel the connection is found all the same, later.
        self.timers.arm(slot, &mut self.tracks[slot as usize], deadline);
    }

    /// From now on the connection has the whole time again; or all time, while it holds.
    fn wait_anew(&mut self, slot: u32, now: Instant) {
        let track = &mut self.tracks[slot as usize];
        let waits = !(self.holds && track.is_established() && !self.closing);
        let deadline = waits.then(|| now.millis() + self.timeout_ms);
        track.set_deadline(deadline);
        if let Some(deadline) = deadline {
            self.arm(slot, deadline);
        }
    }

    fn record(&mut self, counts: bool, meter: Meter, elapsed: Duration) {
        self.recorder.record(counts, meter, elapsed);
    }

    /// Takes note of what the dialogue made of an event.
    fn take_note(&mut self, slot: u32, heard: Heard, now: Instant) {
        if heard == Heard::default() {
            return;
        }
        let Track { intended, syn, since, .. } = self.tracks[slot as usize];
        let counts = self.tracks[slot as usize].counts();
        if heard.first_byte {
            self.record(counts, Meter::FirstByte, now - intended);
            self.record(counts, Meter::FirstByteFromSyn, now - syn);
        }
        if heard.done > 0 {
            self.record(counts, Meter::Request, now - since);
        }
        let tally = &self.desk.tally;
        if self.is_in_time(now) {
            tally.requests_in_time.add(heard.done.into());
        }
        if counts {
            tally.requests_started.add(heard.started.into());
            tally.requests_done.add(heard.done.into());
            tally.http_errors.add(heard.http_error.into());
        }
        if heard.started > 0 {
            self.tracks[slot as usize].since = now;
        }
        if let Some(bad) = heard.bad {
            // Only the first is kept.
            let _ = self.desk.first_bad.set(bad);
            self.tracks[slot as usize].give_up(GivenUp::BadResponse);
        }
        self.wait_anew(slot, now);
    }

    /// Is this in the time that counts?
    fn is_in_time(&self, now: Instant) -> bool {
        self.run.as_ref().is_some_and(|run| (run.counts_from..run.end).contains(&now))
    }

    /// A turn begins: how many connections were under way since the last one ended.
    fn note_held(&self, now: Instant) {
        let Settled { at, open } = self.settled;
        if now > at && self.is_in_time(at) && self.is_in_time(now) {
            self.desk.held.note(open, now - at);
        }
    }

    fn script(&self, id: Id) -> &Script {
        &self.targets[usize::from(id.role)].script
    }

    /// Counts what became of a connection.
    fn account(&self, track: &Track, complete: bool, end: End) {
        let tally = &self.desk.tally;
        let cell = match (track.is_established(), track.given_up(), end) {
            (false, GivenUp::Cut, _) => &tally.connect_cut,
            (false, _, End::ResetByPeer) => &tally.refused,
            (false, _, End::TimedOut) => &tally.connect_timed_out,
            (false, _, End::Unreachable) => &tally.unreachable,
            (false, _, End::Closed | End::ResetByUs) => &tally.connect_cut,
            (true, GivenUp::Cut, _) => &tally.cut,
            (true, GivenUp::BadResponse, _) => &tally.bad_response,
            (true, GivenUp::No, End::Closed | End::ResetByUs) if complete => &tally.closed,
            // Both have closed, and something was still to be said.
            (true, GivenUp::No, End::Closed) => &tally.bad_response,
            (true, GivenUp::No, End::ResetByPeer) => &tally.reset_by_peer,
            (true, GivenUp::No, End::TimedOut | End::Unreachable) => &tally.timed_out,
            (true, GivenUp::No, End::ResetByUs) => &tally.cut,
        };
        cell.add(1);
    }
}

impl Application for Generator {
    const VARIES: Varies = Varies::Local;

    fn listener(&self, _key: &FlowKey) -> Option<u16> {
        None
    }

    fn on_open(&mut self, id: Id, _memo: &mut Memo, now: Instant) {
        let track = &mut self.tracks[id.slot as usize];
        track.set_established();
        track.since = now;
        let (counts, intended, syn) = (track.counts(), track.intended, track.syn);
        let heard = self.targets[usize::from(id.role)].script.opened(&mut track.progress);
        if counts {
            self.desk.tally.established.add(1);
        }
        if self.is_in_time(now) {
            self.desk.tally.established_in_time.add(1);
        }
        self.holding += u64::from(self.holds);
        self.record(counts, Meter::Connect, now - intended);
        self.record(counts, Meter::ConnectFromSyn, now - syn);
        self.wait_anew(id.slot, now);
        self.take_note(id.slot, heard, now);
    }

    fn on_data(&mut self, id: Id, _memo: &mut Memo, text: &[u8], now: Instant) -> Taken {
        let track = &mut self.tracks[id.slot as usize];
        let heard = self.targets[usize::from(id.role)].script.heard(&mut track.progress, text);
        self.take_note(id.slot, heard, now);
        Taken::Bytes(text.len())
    }

    fn on_acked(&mut self, id: Id, _memo: &mut Memo, bytes: u64, now: Instant) {
        let track = &mut self.tracks[id.slot as usize];
        let heard = self.targets[usize::from(id.role)].script.acked(&mut track.progress, bytes);
        self.take_note(id.slot, heard, now);
    }

    fn on_peer_closed(&mut self, id: Id, _memo: &mut Memo, now: Instant) {
        let track = &mut self.tracks[id.slot as usize];
        let heard = self.targets[usize::from(id.role)].script.peer_closed(&mut track.progress);
        self.take_note(id.slot, heard, now);
    }

    fn pending(&self, id: Id, _memo: &Memo) -> Pending {
        self.script(id).pending(&self.tracks[id.slot as usize].progress, self.closing)
    }

    fn write(&self, id: Id, _memo: &Memo, at: u64, into: &mut [u8]) {
        self.script(id).write(&self.tracks[id.slot as usize].progress, at, into);
    }

    fn poll(&mut self, now: Instant, has_frame: bool) -> Option<Order> {
        self.note_held(now);
        let order = if self.advance(now) {
            self.order_timed_out(now)
                .or_else(|| self.order_end(now, has_frame))
                .or_else(|| if has_frame { self.order_open(now) } else { None })
        } else {
            None
        };
        self.settled = Settled { at: now, open: self.open };
        order
    }

    fn upcoming(&self) -> Option<&FlowKey> {
        Some(self.walk.upcoming())
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.tracks) + self.timers.memory_bytes()
    }

    /// While an answer may come at any moment: who sleeps would add the time of getting up to it.
    fn stays_awake(&self) -> bool {
        self.open > self.holding
    }

    fn next_poll(&self) -> Option<Instant> {
        let run = self.run.as_ref()?;
        match (&run.pace, run.stage) {
            (Some(pace), Stage::Opening) => Some(pace.due().min(run.end)),
            (None, Stage::Opening) => Some(run.end),
            (_, Stage::Draining(slot) | Stage::Cutting(slot)) => {
                (slot < self.tracks.len()).then_some(Instant::ZERO)
            }
        }
    }

    fn on_opened(&mut self, id: Id, now: Instant) {
        let (Some(run), Some(wish)) = (&mut self.run, self.wish.take()) else { return };
        run.short_counted = false;
        if let Some(pace) = &mut run.pace {
            pace.advance();
        }
        let counts = (run.counts_from..run.end).contains(&wish.intended);
        let track = &mut self.tracks[id.slot as usize];
        track.start(wish.intended, now, wish.block, counts);
        self.open += 1;
        self.settled.open = self.open;
        if counts {
            self.desk.tally.started.add(1);
        }
        if self.is_in_time(now) {
            self.desk.tally.started_in_time.add(1);
        }
        self.record(counts, Meter::StartLag, now - wish.intended);
        self.wait_anew(id.slot, now);
    }

    fn on_not_opened(&mut self, error: OpenError, now: Instant) {
        let Some(wish) = self.wish.take() else { return };
        self.walk.ended(wish.block, now);
        match error {
            // A connection that outlived a lap: the next tuple will do.
            OpenError::Exists => {}
            OpenError::TableFull | OpenError::TooManyPaths => {
                self.fall_short(now, |desk| desk.tally.table_full.add(1));
            }
        }
    }

    fn on_fin_sent(&mut self, id: Id, now: Instant) {
        self.tracks[id.slot as usize].since = now;
        self.wait_anew(id.slot, now);
    }

    fn on_fin_acked(&mut self, id: Id, now: Instant) {
        let track = &self.tracks[id.slot as usize];
        let (counts, since) = (track.counts(), track.since);
        self.record(counts, Meter::Close, now - since);
    }

    fn on_end(&mut self, id: Id, end: End, now: Instant) {
        let track = self.tracks[id.slot as usize];
        if !track.is_live() {
            return;
        }
        self.tracks[id.slot as usize].end();
        self.open -= 1;
        if self.is_in_time(now) {
            self.desk.tally.ended_in_time.add(1);
        }
        self.holding -= u64::from(self.holds && track.is_established());
        self.walk.ended(track.block, now + FORGOTTEN);
        let complete = self.script(id).is_complete(&track.progress);
        if track.is_established()
            && complete
            && track.given_up() == GivenUp::No
            && matches!(end, End::Closed | End::ResetByUs)
        {
            self.record(track.counts(), Meter::Life, now - track.intended);
            self.record(track.counts(), Meter::LifeFromSyn, now - track.syn);
        }
        if track.counts() {
            self.account(&track, complete, end);
        }
    }
}
