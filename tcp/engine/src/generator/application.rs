//! The generator as an application of an endpoint.

use std::sync::Arc;
use std::time::Duration;

use super::desk::Desk;
use super::dialogue::{Heard, Progress, Script};
use super::meters::{Meter, Recorder};
use super::run::{Run, Stage};
use super::track::{GivenUp, Track};
use super::tuples::Walk;
use crate::endpoint::{Application, Id, Open, OpenError, Order, Varies};
use crate::flow::{FlowKey, Share, Timers, table_of};
use crate::proto::End;
use crate::service::{Memo, Pending, Taken};
use crate::time::{Instant, Millis};
use crate::wire::Link;

/// The most slots that the generator looks at for one order, when it wakes or cuts connections.
const SLOTS_PER_ORDER: usize = 1024;
/// How long the endpoint may know a connection after its TIME-WAIT: it counts milliseconds, and its wheel turns by four.
const FORGOTTEN: Duration = Duration::from_millis(8);
/// How long the generator waits for a frame to reset a connection with. No frame comes while the link is down.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// A peer to open connections to.
#[derive(Clone, Debug)]
pub struct Target {
    /// The dialogue of each connection.
    pub script: Script,
    /// The link header to the next hop.
    pub link: Link,
}

/// The parts of one worker's generator.
pub struct Setup {
    /// The targets, by the numbers that the walk gives them.
    pub targets: Vec<Target>,
    /// The worker's order of the tuples.
    pub walk: Walk,
    /// Where latencies go.
    pub recorder: Recorder,
    /// Where the control plane hands in trials and reads accounts.
    pub desk: Arc<Desk>,
    /// How many workers share the load.
    pub workers: u64,
    /// This worker's number, from 0 on.
    pub number: u64,
    /// The longest wait for a handshake, a response or the end.
    pub timeout: Duration,
    /// Whether connections stay open until the trial's end.
    pub holds: bool,
    /// The endpoint's slots.
    pub slots: usize,
}

/// How many connections were under way when the last turn ended, and when that was.
#[derive(Clone, Copy, Debug)]
struct Settled {
    at: Instant,
    open: u64,
}

/// The connection that the endpoint is to open.
#[derive(Clone, Copy, Debug)]
struct Wish {
    intended: Instant,
    block: u16,
}

/// One worker's generator.
pub struct Generator {
    setup: Setup,
    timeout_ms: u32,
    tracks: Box<[Track]>,
    timers: Timers,
    run: Option<Run>,
    wish: Option<Wish>,
    /// Connections under way.
    open: u64,
    /// Connections under way that only stay open.
    holding: u64,
    settled: Settled,
    /// Whether held connections are to close.
    closing: bool,
}

impl Generator {
    /// Allocates all memory that the generator will use.
    #[must_use]
    pub fn new(setup: Setup, now: Instant) -> Self {
        Self {
            timeout_ms: setup.timeout.as_millis().min(u128::from(u32::MAX / 4)) as u32,
            tracks: table_of(setup.slots, |_| Track::free()),
            timers: Timers::new(setup.slots, Share::All, now.millis()),
            setup,
            run: None,
            wish: None,
            open: 0,
            holding: 0,
            settled: Settled { at: now, open: 0 },
            closing: false,
        }
    }

    /// Returns the bytes of memory for `slots` connections that a generator takes beside its endpoint.
    #[must_use]
    pub fn memory_needed(slots: usize) -> usize {
        slots * size_of::<Track>() + Timers::bytes_for(slots, Share::All)
    }

    /// Returns the number of connections under way, held ones included.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open
    }

    /// Begins the next trial, if there is one.
    fn begin(&mut self) -> bool {
        let Some(trial) = self.setup.desk.next_trial() else { return false };
        self.closing = false;
        self.run = Some(Run::new(trial, self.setup.workers, self.setup.number));
        true
    }

    /// Advances the trial through intervals and stages. Returns false when there is none, or it is over.
    fn advance(&mut self, now: Instant) -> bool {
        let Some(run) = &mut self.run else { return self.begin() };
        let Setup { recorder, desk, .. } = &mut self.setup;
        run.hand_over_interval(now, recorder);
        match run.stage {
            Stage::Opening if now >= run.end() || desk.is_stopped() => {
                let (measured, late) = run.stop(now);
                desk.window_ns.set(measured.as_nanos() as u64);
                desk.tally.not_started.add(late);
                run.stage = Stage::Draining(if self.setup.holds { 0 } else { self.tracks.len() });
                self.closing = true;
            }
            // The trial is over once all measurements are handed over. Until then every turn tries again.
            Stage::Draining(_) | Stage::Cutting(_) if self.open == 0 => {
                let is_over = run.hand_over_last(recorder);
                if is_over {
                    desk.set_over(run.trial.number);
                    self.run = None;
                }
                return !is_over;
            }
            Stage::Draining(_) if desk.is_cut() || now >= run.end() + run.trial.drain => {
                run.cut_from = now;
                run.stage = Stage::Cutting(0);
            }
            _ => {}
        }
        true
    }

    /// Returns the order to open the connection that is due, if there is one.
    fn order_open(&mut self, now: Instant) -> Option<Order> {
        let workers = [self.setup.workers, self.setup.number];
        let intended = self.run.as_ref()?.due(now, [self.open, self.holding], workers)?;
        let Some(tuple) = self.setup.walk.next(now) else {
            if self.run.as_mut().is_some_and(|run| run.on_short(now)) {
                self.setup.desk.tally.tuples_short.add(1);
            }
            return None;
        };
        self.wish = Some(Wish { intended, block: tuple.block });
        let link = self.setup.targets[usize::from(tuple.target)].link;
        Some(Order::Open(Open { key: tuple.key, link, role: tuple.target }))
    }

    /// Returns the order to abort the next connection whose deadline has passed.
    fn order_timed_out(&mut self, now: Instant) -> Option<Order> {
        let slot = self.timers.poll(now.millis(), &mut { SLOTS_PER_ORDER }, &mut *self.tracks)?;
        Some(Order::Abort(slot, End::TimedOut))
    }

    /// Returns the next live connection from `from` on, if there is one within the limit, and the slot to continue at.
    fn next_live(&self, from: usize) -> (Option<u32>, usize) {
        let to = (from + SLOTS_PER_ORDER).min(self.tracks.len());
        match self.tracks[from..to].iter().position(Track::is_live) {
            Some(ahead) => (Some((from + ahead) as u32), from + ahead + 1),
            None => (None, to),
        }
    }

    /// Returns the order to wake the next held connection, so that it closes, or to cut the next connection that is left.
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
        // Without room in the wheel, a pass over all slots finds the deadline later.
        self.timers.arm(slot, &mut self.tracks[slot as usize], deadline);
    }

    /// Starts the connection's timeout anew. A held connection has none.
    fn wait_anew(&mut self, slot: u32, now: Instant) {
        let track = &mut self.tracks[slot as usize];
        let waits = !(self.setup.holds && track.is_established() && !self.closing);
        let deadline = waits.then(|| now.millis() + self.timeout_ms);
        track.set_deadline(deadline);
        if let Some(deadline) = deadline {
            self.arm(slot, deadline);
        }
    }

    fn record(&mut self, counts: bool, meter: Meter, elapsed: Duration) {
        self.setup.recorder.record(counts, meter, elapsed);
    }

    /// Passes an event to the dialogue, and records the outcome.
    #[inline]
    fn hear(&mut self, id: Id, now: Instant, event: impl FnOnce(&Script, &mut Progress) -> Heard) {
        let script = &self.setup.targets[usize::from(id.role)].script;
        let heard = event(script, &mut self.tracks[id.slot as usize].progress);
        self.note(id.slot, heard, now);
    }

    /// Records the outcome of an event.
    fn note(&mut self, slot: u32, heard: Heard, now: Instant) {
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
        let tally = &self.setup.desk.tally;
        if self.is_measured(now) {
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
            // The desk keeps only the first.
            let _ = self.setup.desk.first_bad.set(bad);
            self.tracks[slot as usize].give_up(GivenUp::BadResponse);
        }
        self.wait_anew(slot, now);
    }

    /// Returns whether `now` is in the measured time.
    fn is_measured(&self, now: Instant) -> bool {
        self.run.as_ref().is_some_and(|run| run.measures(now))
    }

    /// Records how many connections were under way since the last turn ended.
    fn note_held(&self, now: Instant) {
        let Settled { at, open } = self.settled;
        if now > at && self.is_measured(at) && self.is_measured(now) {
            self.setup.desk.held.note(open, now - at);
        }
    }

    fn script(&self, id: Id) -> &Script {
        &self.setup.targets[usize::from(id.role)].script
    }

    /// Counts the end of a connection.
    fn account(&self, track: &Track, complete: bool, end: End) {
        let tally = &self.setup.desk.tally;
        let cell = match (track.is_established(), track.given_up(), end) {
            (false, GivenUp::Cut, _) => &tally.connect_cut,
            (false, _, End::ResetByPeer) => &tally.refused,
            (false, _, End::TimedOut) => &tally.connect_timed_out,
            (false, _, End::Unreachable) => &tally.unreachable,
            (false, _, End::Closed | End::ResetByUs) => &tally.connect_cut,
            (true, GivenUp::Cut, _) => &tally.cut,
            (true, GivenUp::BadResponse, _) => &tally.bad_response,
            (true, GivenUp::No, End::Closed | End::ResetByUs) if complete => &tally.closed,
            // Both ends have closed before the dialogue was complete.
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
        if counts {
            self.setup.desk.tally.established.add(1);
        }
        if self.is_measured(now) {
            self.setup.desk.tally.established_in_time.add(1);
        }
        self.holding += u64::from(self.setup.holds);
        self.record(counts, Meter::Connect, now - intended);
        self.record(counts, Meter::ConnectFromSyn, now - syn);
        self.wait_anew(id.slot, now);
        self.hear(id, now, Script::opened);
    }

    fn on_data(&mut self, id: Id, _memo: &mut Memo, text: &[u8], now: Instant) -> Taken {
        self.hear(id, now, |script, progress| script.heard(progress, text));
        Taken::Bytes(text.len())
    }

    fn on_acked(&mut self, id: Id, _memo: &mut Memo, bytes: u64, now: Instant) {
        self.hear(id, now, |script, progress| script.acked(progress, bytes));
    }

    fn on_peer_closed(&mut self, id: Id, _memo: &mut Memo, now: Instant) {
        self.hear(id, now, Script::peer_closed);
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
        Some(self.setup.walk.upcoming())
    }

    fn memory_bytes(&self) -> usize {
        size_of_val(&*self.tracks) + self.timers.memory_bytes()
    }

    /// Returns whether an answer may arrive at any moment: a sleeping worker would add its time to wake up.
    fn stays_awake(&self) -> bool {
        self.open > self.holding
    }

    fn next_poll(&self) -> Option<Instant> {
        let run = self.run.as_ref()?;
        match run.stage {
            Stage::Opening => Some(run.next_due()),
            Stage::Draining(slot) | Stage::Cutting(slot) => {
                (slot < self.tracks.len()).then_some(Instant::ZERO)
            }
        }
    }

    fn on_opened(&mut self, id: Id, now: Instant) {
        let (Some(run), Some(wish)) = (&mut self.run, self.wish.take()) else { return };
        run.on_opened();
        let (counts, is_measured) = (run.measures(wish.intended), run.measures(now));
        self.tracks[id.slot as usize].start(wish.intended, now, wish.block, counts);
        self.open += 1;
        self.settled.open = self.open;
        if counts {
            self.setup.desk.tally.started.add(1);
        }
        if is_measured {
            self.setup.desk.tally.started_in_time.add(1);
        }
        self.record(counts, Meter::StartLag, now - wish.intended);
        self.wait_anew(id.slot, now);
    }

    fn on_not_opened(&mut self, error: OpenError, now: Instant) {
        let Some(wish) = self.wish.take() else { return };
        self.setup.walk.ended(wish.block, now);
        match error {
            // A connection has outlived a lap. The next order takes the next tuple.
            OpenError::Exists => {}
            OpenError::TableFull | OpenError::TooManyPaths => {
                if self.run.as_mut().is_some_and(|run| run.on_short(now)) {
                    self.setup.desk.tally.table_full.add(1);
                }
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
        if self.is_measured(now) {
            self.setup.desk.tally.ended_in_time.add(1);
        }
        self.holding -= u64::from(self.setup.holds && track.is_established());
        self.setup.walk.ended(track.block, now + FORGOTTEN);
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
