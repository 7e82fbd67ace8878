//! `synmill bench`: from a configuration to trials and their report. Knows schedules and what is printed; never a connection.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::files::{self, Replacement};
use super::jobs::{Clock, Limits, Place};
use super::search::{Next, Search};
use super::session::{Left, NAP, Session, Taken, check_captures};
use super::signals::Signals;
use super::{Error, say, show};
use crate::config::{Bench, Workload};
use crate::flow::Address;
use crate::generator::desk::{Desk, Held, Trial};
use crate::generator::dialogue::{Payload, Script};
use crate::generator::meters::{self, Collector, Meters, Recorder};
use crate::generator::tally::Totals;
use crate::generator::toeplitz::Rss;
use crate::generator::tuples::{self, Share, Space, Walk};
use crate::generator::{Generator, Load, Setup, Target};
use crate::interface::{self, Interface, Statistics, route};
use crate::preflight::{Machine, Plan};
use crate::report::bench::{
    BenchReport, Concurrency, Interval, Load as LoadReport, Measured, Moment, Phase, Sampler, Setup as Facts,
    Step, Workload as WorkloadReport,
};
use crate::report::hdr::{Log, Serializer};
use crate::report::{Host, Named, Site, grouped};
use crate::stats::Snapshot;
use crate::time::Instant;
use crate::wire;

/// How long a next hop may take to answer for its address.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time for a trial to reach the workers before it begins.
const LEAD: Duration = Duration::from_millis(20);
/// How long after a second's end its latencies are waited for.
const LAG: Duration = Duration::from_millis(20);
/// Intervals that the control thread may be late with.
const SPARES: usize = 3;
/// How long the workers may take to cut what is left when the drain is over.
const GRACE: Duration = Duration::from_secs(10);
/// The shortest trial of a search, and its share of the whole duration.
const STEP: Duration = Duration::from_secs(1);
const STEP_SHARE: u32 = 5;
/// The share of the asked rate that a trial of a search must reach.
const REACHED: f64 = 0.99;

/// Opens, uses and closes connections as configured, and reports. Facts go to standard error; a line a second and the final table go to
/// standard output. Returns the whole run; what of it is not as asked is in its verdict.
///
/// SIGINT and SIGTERM end the trial under way in order; a second one ends the process at once.
///
/// # Errors
/// One line: what is wrong and how to fix it. Nothing is left attached then. What fails once connections are opened does not
/// lose the report: it is shown and written first.
pub fn bench(config: &Bench) -> Result<BenchReport, Error> {
    let rings = &config.rings;
    let interface = Interface::find(rings.interface())?;
    let machine = Machine::here();
    let plan = |interface: &Interface| Plan::bench(config, interface, &machine);
    let first_plan = plan(&interface)?;
    let space = Arc::new(space(config)?);
    check_tuples(config, &space)?;
    let targets = targets(config, &interface, first_plan.mac)?;
    check_captures(rings, &first_plan)?;
    let json = rings.json().map(|path| Replacement::prepare(path)).transpose()?;
    if let Some(path) = config.hdr() {
        files::check(path)?;
    }
    let mut signals = Signals::catch().map_err(|error| Error(format!("catching signals: {error}")))?;

    let taken = Taken::new(interface, rings, &plan, &mut signals)?;
    // As it is now: the attachment may have changed it.
    let rss = rss(&taken)?;
    let clock = taken.clock;
    let workers = taken.plan.workers.clone();
    let desks: Vec<Arc<Desk>> = workers.iter().map(|_| Arc::default()).collect();
    let (mut recorders, collectors): (Vec<Option<Recorder>>, Vec<Collector>) = workers
        .iter()
        .map(|_| meters::meters(SPARES))
        .map(|(recorder, collector)| (Some(recorder), collector))
        .unzip();
    let limits = Limits {
        max_connections: config.max_connections(),
        time_wait: config.time_wait(),
        piggyback: config.piggyback,
    };
    let seed =
        getrandom::u64().map_err(|error| Error(format!("the kernel gives no random numbers: {error}")))?;
    let generator = |place: &Place| {
        let share = match &rss {
            Some(rss) => {
                Share::Queues { rss: Arc::clone(rss), queues: numbers(&workers[place.number].queues) }
            }
            None => Share::Split { workers: workers.len() as u64, number: place.number as u64 },
        };
        let setup = Setup {
            targets: targets.clone(),
            walk: Walk::new(Arc::clone(&space), share, config.time_wait(), seed),
            recorder: recorders[place.number].take().expect("a generator is made once for each worker"),
            desk: Arc::clone(&desks[place.number]),
            workers: workers.len() as u64,
            number: place.number as u64,
            timeout: config.timeout(),
            holds: *config.workload() == Workload::Hold,
            slots: place.slots,
        };
        Generator::new(setup, place.now)
    };
    let mut hdr = config.hdr().map(|path| files::create(path).map(BufWriter::new)).transpose()?;
    let mut serializer = Serializer::new();
    let command: Vec<String> = std::env::args().collect();
    let log = hdr.as_mut().map(|file| Log::begin(file, &mut serializer, &command, SystemTime::now()));
    let log = log.transpose().map_err(|error| Error(format!("writing the interval log: {error}")))?;
    let session = taken.start(rings, &limits, generator, &[])?;
    for line in said(config, &space, rss.is_some()) {
        say(&line);
    }

    let facts = facts(config, &session, space.len());
    let mut run = Run {
        config,
        session,
        clock,
        desks,
        collectors,
        signals,
        trials: 0,
        signalled: false,
        trouble: None,
        intervals: Vec::new(),
        log,
        space: &space,
        latest: None,
        began: clock.now() + LEAD,
        before: Snapshot::default(),
        nic: Statistics::default(),
    };
    let (result, confirmed, steps) = run.all();
    let first_bad = run.desks.iter().find_map(|desk| desk.first_bad.get()).map(ToString::to_string);
    let Run { session, signalled, trouble, intervals, before, nic, .. } = run;
    let nic = statistics(session.interface.index).since(&nic);
    let Left { counts, failures, .. } = session.stop();
    let mut failures = failures;
    failures.splice(0..0, trouble);
    let flushed = hdr.as_mut().map_or(Ok(()), BufWriter::flush);
    failures.extend(flushed.err().map(|error| format!("writing the interval log: {error}")));
    let measured = Measured {
        begin: result.begin,
        end: result.end,
        window: result.window,
        totals: result.totals,
        first_bad,
        meters: result.meters,
        before,
        counts,
        nic: nic.losses().collect::<Named>(),
        concurrency: result.concurrency,
        confirmed,
        steps,
        intervals,
        signalled,
    };
    let report = BenchReport::new(facts, measured);
    show(&report.table());
    if let Some(json) = json {
        let text = report.json().map_err(|error| Error(format!("making the report: {error}")));
        failures.extend(text.and_then(|text| json.write(&text)).err().map(|error| error.to_string()));
    }
    if failures.is_empty() { Ok(report) } else { Err(Error(failures.join("; "))) }
}

/// The interface's own counters; zeros when it is gone.
fn statistics(index: u32) -> Statistics {
    interface::statistics(index).unwrap_or_default()
}

/// All the tuples that connections may have.
fn space(config: &Bench) -> Result<Space, Error> {
    let sources: Vec<(Address, u8)> =
        config.sources().iter().map(|source| (Address::from(source.address()), source.len())).collect();
    let targets: Vec<(Address, u16)> =
        config.targets().iter().map(|target| (Address::from(target.ip()), target.port())).collect();
    Space::new(&sources, config.source_ports().clone(), &targets).map_err(|error| Error(error.to_string()))
}

/// Are there enough tuples for none to come back before its TIME-WAIT has ended?
fn check_tuples(config: &Bench, space: &Space) -> Result<(), Error> {
    let Load::Rate(rate) = config.load() else { return Ok(()) };
    let whole = config.ramp() + config.warmup() + config.duration();
    let needed = tuples::needed(rate, config.time_wait(), whole);
    if needed <= space.len() {
        return Ok(());
    }
    Err(Error(format!(
        "{} connections/s with a TIME-WAIT of {:?} need {} tuples, and there are {}: give a larger --source, more \
         --source-ports or a shorter --time-wait",
        grouped(rate),
        config.time_wait(),
        grouped(needed),
        grouped(space.len())
    )))
}

/// What is said to each target, and the way to it.
fn targets(config: &Bench, interface: &Interface, mac: wire::Mac) -> Result<Vec<Target>, Error> {
    let target = |&address: &SocketAddr| {
        let destination = route::next_hop(interface, address.ip(), PATIENCE)
            .map_err(|error| Error(format!("--target {address}: {error}")))?;
        let link = wire::Link { destination, source: mac, tags: Default::default() };
        Ok(Target { script: script(config, address), link })
    };
    config.targets().iter().map(target).collect()
}

fn script(config: &Bench, target: SocketAddr) -> Script {
    let (requests, close) = (config.requests(), config.close_by());
    match config.workload() {
        Workload::Connect => Script::connect(close),
        Workload::Hold => Script::hold(close),
        Workload::Request { payload, expect } => {
            Script::request(Payload::Bytes(Arc::clone(payload)), *expect, requests, close)
        }
        Workload::Http { path, payload, expect } => {
            let payload = payload.as_ref().map(|payload| Payload::Bytes(Arc::clone(payload)));
            // RFC 9110 section 7.2: the default port is left out.
            let host = match (target.port(), target) {
                (80, SocketAddr::V4(v4)) => v4.ip().to_string(),
                (80, SocketAddr::V6(v6)) => format!("[{}]", v6.ip()),
                _ => target.to_string(),
            };
            Script::http(&host, path, payload, *expect, requests, close)
        }
    }
}

/// How the adapter spreads what arrives, where it says so and every worker has a part of it.
fn rss(taken: &Taken) -> Result<Option<Arc<Rss>>, Error> {
    let workers = &taken.plan.workers;
    let name = &taken.interface.name;
    if workers.len() < 2 {
        return Ok(None);
    }
    let table = interface::rss(name)
        .map_err(|error| Error(format!("asking how {name} spreads what it receives: {error}")))?;
    let table = table.filter(|table| table.is_toeplitz);
    let Some(rss) = table.and_then(|table| Rss::new(&table.key, table.table)) else { return Ok(None) };
    let idle = workers.iter().position(|place| rss.share(&numbers(&place.queues)).0 == 0);
    if let Some(worker) = idle {
        say(&format!(
            "note: {name} spreads nothing to the queues of worker {worker}: what the others get is handed over"
        ));
        return Ok(None);
    }
    Ok(Some(Arc::new(rss)))
}

/// Queues as the adapter's table has them.
fn numbers(queues: &[usize]) -> Vec<u16> {
    queues.iter().map(|&queue| queue as u16).collect()
}

/// What the user should know of the load.
fn said(config: &Bench, space: &Space, chooses_ports: bool) -> Vec<String> {
    let targets: Vec<String> = config.targets().iter().map(ToString::to_string).collect();
    let mut lines = vec![format!("targets: {}", targets.join(", "))];
    let reply = if chooses_ports { ", ports chosen for the queue that the reply arrives at" } else { "" };
    lines.push(format!("tuples: {}{reply}", grouped(space.len())));
    let asked = match (config.search(), config.load()) {
        (Some(loss), _) => format!("search for the highest rate with at most {}% lost", loss * 100.0),
        (None, Load::Rate(rate)) => format!("{} connections/s", grouped(rate)),
        (None, Load::Max) => {
            format!("as many as can be, at most {} on their way", grouped(crate::generator::MAX_UNDER_WAY))
        }
        (None, Load::Concurrency(count)) => format!("{} connections at a time", grouped(count)),
    };
    let seconds =
        |name: &str, time: Duration| (!time.is_zero()).then(|| format!("{name} {} s", time.as_secs_f64()));
    let times = [
        seconds("ramp", config.ramp()),
        seconds("warm-up", config.warmup()),
        seconds("measured", config.duration()),
        seconds("drain at most", config.drain()),
    ];
    let times: Vec<String> = times.into_iter().flatten().collect();
    lines.push(format!("load: {asked}; {}", times.join(", ")));
    lines
}

/// What the report says of the run beside what was measured.
fn facts(config: &Bench, session: &Session, tuples: u64) -> Facts {
    let (ramp, warmup, duration) = (config.ramp(), config.warmup(), config.duration());
    let (kind, requests) = match config.workload() {
        Workload::Connect => ("connect", 0),
        Workload::Request { .. } => ("request", config.requests()),
        Workload::Http { .. } => ("http", config.requests()),
        Workload::Hold => ("hold", 0),
    };
    Facts {
        site: Site {
            command: std::env::args().collect(),
            host: Host::here(),
            interface: session.interface.name.clone(),
            driver: session.interface.driver.clone(),
            mode: session.mode.clone(),
            queues: session.plan.workers.iter().flat_map(|place| place.queues.iter().copied()).collect(),
            workers: session.plan.workers.len(),
        },
        load: match config.search() {
            Some(_) => LoadReport::search(ramp, warmup, duration),
            None => LoadReport::steady(config.load(), ramp, warmup, duration),
        },
        workload: WorkloadReport::new(kind.into(), requests.into(), config.close_by()),
        targets: config.targets().iter().map(ToString::to_string).collect(),
        sources: config.sources().iter().map(ToString::to_string).collect(),
        tuples,
    }
}

/// What a trial brought.
#[derive(Default)]
struct Outcome {
    begin: Moment,
    end: Moment,
    /// How long connections counted.
    window: Duration,
    totals: Totals,
    meters: Meters,
    concurrency: Option<Concurrency>,
    /// Segments sent again in the whole trial.
    retransmitted: u64,
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
struct Run<'a> {
    config: &'a Bench,
    session: Session,
    clock: Clock,
    desks: Vec<Arc<Desk>>,
    collectors: Vec<Collector>,
    signals: Signals,
    trials: u64,
    signalled: bool,
    /// What ended it before its time: one line.
    trouble: Option<String>,
    space: &'a Space,
    /// What the last second brought; kept, because it is large.
    latest: Option<Box<meters::Interval>>,
    intervals: Vec<Interval>,
    log: Option<Log<'a, BufWriter<File>>>,
    /// What the log and the report count from.
    began: Instant,
    /// Our own counters and the interface's when the trial under way began.
    before: Snapshot,
    nic: Statistics,
}

impl Run<'_> {
    /// The trial, or the trials of the search: what is reported, the rate that was confirmed, and the steps that led there.
    fn all(&mut self) -> (Outcome, Option<u64>, Vec<Step>) {
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
            let (rate, duration, what) = match search.next() {
                Next::Try(rate) => (rate, short, "step"),
                Next::Confirm(rate) => (rate, self.config.duration(), "confirmation"),
                Next::Done => break,
            };
            outcome = self.trial(Load::Rate(rate), duration);
            let (started, lost, achieved) = (outcome.totals.started, outcome.lost(), outcome.achieved());
            let few_lost = lost as f64 <= loss * started as f64;
            // What a signal has cut short shows nothing.
            let passed = few_lost && achieved >= REACHED * rate as f64 && !self.signalled;
            let verdict = if passed { "passed" } else { "failed" };
            self.tell(&format!(
                "search: {what} at {} /s: {} /s achieved, {} started, {} lost: {verdict}\n",
                grouped(rate),
                grouped(achieved.round() as u64),
                grouped(started),
                grouped(lost)
            ));
            steps.push(Step { rate, started, lost, achieved, passed });
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
        while self.trouble.is_none() {
            let now = self.clock.now();
            if watch.begin.is_none() && now >= trial.counts_from() {
                watch.begin = Some(self.moment(start));
            }
            if watch.end.is_none() && (now >= trial.end() || self.signalled) {
                watch.end = Some(self.moment(start));
            }
            if now >= watch.next() + LAG {
                self.second(&mut watch);
            }
            if self.desks.iter().all(|desk| desk.over() == trial.number) {
                break;
            }
            if self.session.lost_one() {
                self.trouble = Some("a worker is lost".into());
            }
            // From the first time that it is noticed: this thread itself may have been kept waiting.
            if now >= trial.end() + trial.drain && now - *late.get_or_insert(now) >= GRACE {
                self.trouble =
                    Some("the workers do not come to an end: their connections cannot be reset".into());
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
