//! `synmill bench`: from a configuration to a generator for each worker, and to the report. Knows what is asked for; never how a trial
//! goes on.

use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::files::{self, Replacement};
use super::jobs::Place;
use super::session::{Left, Session, Taken, check_captures};
use super::signals::Signals;
use super::trial::{LEAD, Run, statistics};
use super::{Error, say, show};
use crate::face::config::{Bench, Workload};
use crate::face::report::bench::{
    BenchReport, Early, Load as LoadReport, Measured, Setup as Facts, Workload as WorkloadReport,
};
use crate::face::report::hdr::{Log, Serializer};
use crate::face::report::{self, Host, Named, Site};
use crate::host::nic::{self, Interface, Statistics, route};
use crate::host::preflight::{Machine, Plan};
use crate::text::grouped;
use synmill_engine::endpoint::Settings;
use synmill_engine::flow::Address;
use synmill_engine::generator::desk::Desk;
use synmill_engine::generator::dialogue::{Payload, Script};
use synmill_engine::generator::meters::{self, Collector, Recorder};
use synmill_engine::generator::toeplitz::Rss;
use synmill_engine::generator::tuples::{self, Share, Space, Walk};
use synmill_engine::generator::{Generator, Load, Setup, Target};
use synmill_engine::stats::Snapshot;
use synmill_engine::wire;

/// How long a next hop may take to answer for its address.
const PATIENCE: Duration = Duration::from_secs(3);
/// Intervals that the control thread may be late with.
const SPARES: usize = 3;

/// Opens, uses and closes connections as configured, and reports. Facts go to standard error; a line a second and the final table go to
/// standard output. Returns the whole run; what of it is not as asked is in its verdict.
///
/// SIGINT, SIGTERM and, unless it is ignored, SIGHUP end the trial under way in order; a second SIGINT or SIGTERM ends the process at
/// once.
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
    let rss = rss(&taken);
    let clock = taken.clock;
    let workers = taken.plan.workers.clone();
    let desks: Vec<Arc<Desk>> = workers.iter().map(|_| Arc::default()).collect();
    let (mut recorders, collectors): (Vec<Option<Recorder>>, Vec<Collector>) = workers
        .iter()
        .map(|_| meters::meters(SPARES))
        .map(|(recorder, collector)| (Some(recorder), collector))
        .unzip();
    let settings = Settings {
        max_connections: config.max_connections(),
        time_wait: config.time_wait(),
        accept_partial_checksums: rings.accept_partial_checksums,
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
    let session = taken.start(rings, &settings, generator, &[])?;
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
    let ended_early = match (&trouble, signalled) {
        (Some(_), _) => Some(Early::Trouble),
        (None, true) => Some(Early::Signal),
        (None, false) => None,
    };
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
        ended_early,
    };
    let report = BenchReport::new(facts, measured);
    show(&report.table());
    if let Some(json) = json {
        let text = report::json(&report).map_err(|error| Error(format!("making the report: {error}")));
        failures.extend(text.and_then(|text| json.write(&text)).err().map(|error| error.to_string()));
    }
    if failures.is_empty() { Ok(report) } else { Err(Error(failures.join("; "))) }
}

/// All the tuples that connections may have.
fn space(config: &Bench) -> Result<Space, Error> {
    let targets: Vec<(Address, u16)> =
        config.targets().iter().map(|target| (Address::from(target.ip()), target.port())).collect();
    Space::new(config.sources(), config.source_ports().clone(), &targets)
        .map_err(|error| Error(error.to_string()))
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
fn rss(taken: &Taken) -> Option<Arc<Rss>> {
    let workers = &taken.plan.workers;
    let name = &taken.interface.name;
    if workers.len() < 2 {
        return None;
    }
    let table = nic::rss(name, taken.spread.context()).filter(|table| table.is_toeplitz)?;
    let rss = Rss::new(&table.key, table.table)?;
    let idle = workers.iter().position(|place| rss.share(&numbers(&place.queues)).0 == 0);
    if let Some(worker) = idle {
        say(&format!(
            "note: {name} spreads nothing to the queues of worker {worker}: what the others get is handed over"
        ));
        return None;
    }
    Some(Arc::new(rss))
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
            format!(
                "as many as can be, at most {} on their way",
                grouped(synmill_engine::generator::MAX_UNDER_WAY)
            )
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
