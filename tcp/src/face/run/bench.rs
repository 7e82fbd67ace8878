//! `synmill bench`: from checked options to a generator for each worker, and to the report.

use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::files;
use super::stage::{Stage, say};
use super::trial::Run;
use crate::face::config::{Bench, Valid, Workload};
use crate::face::report::Site;
use crate::face::report::bench::{
    BenchReport, Load as LoadReport, Setup as Facts, Workload as WorkloadReport,
};
use crate::face::report::hdr::{Log, Serializer};
use crate::host::Error;
use crate::host::launch::{ForWorker, Taken};
use crate::host::machine::Machine;
use crate::host::nic::{self, Interface, route};
use crate::host::plan::Plan;
use crate::text::grouped;
use synmill_engine::flow::Address;
use synmill_engine::generator::desk::Desk;
use synmill_engine::generator::dialogue::{Payload, Script};
use synmill_engine::generator::meters::{self, Collector, Recorder};
use synmill_engine::generator::toeplitz::Rss;
use synmill_engine::generator::tuples::{self, Share, Space, Walk};
use synmill_engine::generator::{Generator, Load, MAX_UNDER_WAY, Setup, Target};
use synmill_engine::wire;

/// Most time for a next hop to tell its address.
const PATIENCE: Duration = Duration::from_secs(3);
/// Intervals that the control thread may be late with.
const SPARES: usize = 3;

/// Opens, uses and closes connections, and reports. Returns the report, whose verdict has the deviations from the request.
///
/// The first SIGINT, SIGTERM or, unless the process ignores it, SIGHUP ends the present trial in order. A second SIGINT or SIGTERM ends the
/// process at once.
///
/// # Errors
/// One line: what is wrong and how to fix it. Nothing is left attached. A failure after the start does not lose the report: `bench`
/// shows and writes it first.
pub fn bench(config: &Valid<Bench>) -> Result<BenchReport, Error> {
    let interface = Interface::find(&config.rings.interface)?;
    let mut plan =
        Plan::new(config.rings.clone(), config.endpoint, &config.role(), &interface, &Machine::here())?;
    let space = Arc::new(space(config)?);
    check_tuples(config, &space)?;
    let targets = targets(config, &interface, plan.mac)?;
    if let Some(path) = &config.hdr {
        files::check(path)?;
    }
    let mut stage = Stage::prepare(&config.output, &mut plan)?;
    let taken = stage.take(interface, plan)?;
    // The attachment may have changed it.
    let rss = rss(&taken);
    let workers: Vec<Vec<u16>> = taken.plan.workers.iter().map(|place| numbers(&place.queues)).collect();
    let desks: Vec<Arc<Desk>> = workers.iter().map(|_| Arc::default()).collect();
    let (mut recorders, collectors): (Vec<Option<Recorder>>, Vec<Collector>) = workers
        .iter()
        .map(|_| meters::meters(SPARES))
        .map(|(recorder, collector)| (Some(recorder), collector))
        .unzip();
    let seed = getrandom::u64().map_err(|error| format!("the kernel gives no random numbers: {error}"))?;
    let generator = |ForWorker { number, slots, now }: ForWorker| {
        let share = match &rss {
            Some(rss) => Share::Queues { rss: Arc::clone(rss), queues: workers[number].clone() },
            None => Share::Split { workers: workers.len() as u64, number: number as u64 },
        };
        let setup = Setup {
            targets: targets.clone(),
            walk: Walk::new(Arc::clone(&space), share, config.endpoint.time_wait, seed),
            recorder: recorders[number].take().expect("a generator is made once for each worker"),
            desk: Arc::clone(&desks[number]),
            workers: workers.len() as u64,
            number: number as u64,
            timeout: config.timeout,
            holds: config.workload == Workload::Hold,
            slots,
        };
        Generator::new(setup, now)
    };
    let mut hdr = config.hdr.as_deref().map(|path| files::create(path).map(BufWriter::new)).transpose()?;
    let mut serializer = Serializer::new();
    let command: Vec<String> = std::env::args().collect();
    let log = hdr.as_mut().map(|file| Log::begin(file, &mut serializer, &command, SystemTime::now()));
    let log = log.transpose().map_err(|error| format!("writing the interval log: {error}"))?;
    let watched = stage.start(taken, generator)?;
    for line in facts(config, &space, rss.is_some()) {
        say(&line);
    }

    let setup = setup(config, Site::of(&watched.session), space.len());
    let run = Run::new(config, watched, desks, collectors, &mut stage.signals, log, space.len());
    let (measured, mut failures) = run.measure();
    let flushed = hdr.as_mut().map_or(Ok(()), BufWriter::flush);
    failures.extend(flushed.err().map(|error| format!("writing the interval log: {error}")));
    let report = BenchReport::new(setup, measured);
    stage.finish(&report.table(), &report, failures)?;
    Ok(report)
}

/// Returns all tuples that connections may have.
fn space(config: &Bench) -> Result<Space, Error> {
    let targets: Vec<(Address, u16)> =
        config.targets.iter().map(|target| (Address::from(target.ip()), target.port())).collect();
    let space = Space::new(&config.sources, config.source_ports.clone(), &targets);
    space.map_err(|error| error.to_string().into())
}

/// Refuses a rate that would need a tuple again before its TIME-WAIT has ended.
fn check_tuples(config: &Bench, space: &Space) -> Result<(), Error> {
    let Load::Rate(rate) = config.load else { return Ok(()) };
    let time_wait = config.endpoint.time_wait;
    let needed = tuples::needed(rate, time_wait, config.ramp + config.warmup + config.duration);
    if needed <= space.len() {
        return Ok(());
    }
    Err(format!(
        "{} connections/s with a TIME-WAIT of {time_wait:?} need {} tuples, and there are {}: give a larger --source, more \
         --source-ports or a shorter --time-wait",
        grouped(rate),
        grouped(needed),
        grouped(space.len())
    )
    .into())
}

/// Returns the dialogue with each target, and the way to it.
fn targets(config: &Bench, interface: &Interface, mac: wire::Mac) -> Result<Vec<Target>, Error> {
    let target = |&address: &SocketAddr| {
        let destination = route::next_hop(interface, address.ip(), PATIENCE)
            .map_err(|error| format!("--target {address}: {error}"))?;
        let link = wire::Link { destination, source: mac, tags: Default::default() };
        Ok(Target { script: script(config, address), link })
    };
    config.targets.iter().map(target).collect()
}

fn script(config: &Bench, target: SocketAddr) -> Script {
    let (requests, close) = (config.requests, config.close_by);
    match &config.workload {
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

/// Returns how the NIC spreads packets, if the NIC shows it and each of several workers gets a share.
fn rss(taken: &Taken) -> Option<Arc<Rss>> {
    let workers = &taken.plan.workers;
    let name = &taken.interface.name;
    if workers.len() < 2 {
        return None;
    }
    let table = nic::rss(name, taken.rss_context()).filter(|table| table.is_toeplitz)?;
    let rss = Rss::new(&table.key, table.table)?;
    let idle = workers.iter().position(|place| rss.share(&numbers(&place.queues)).0 == 0);
    if let Some(worker) = idle {
        say(&format!(
            "note: {name} spreads nothing to the queues of worker {worker}: the other workers hand its packets over"
        ));
        return None;
    }
    Some(Arc::new(rss))
}

/// Returns queues in the form of the NIC's table.
fn numbers(queues: &[usize]) -> Vec<u16> {
    queues.iter().map(|&queue| queue as u16).collect()
}

/// Returns the facts about the load, a line each.
fn facts(config: &Bench, space: &Space, chooses_ports: bool) -> Vec<String> {
    let targets: Vec<String> = config.targets.iter().map(ToString::to_string).collect();
    let mut lines = vec![format!("targets: {}", targets.join(", "))];
    let reply = if chooses_ports { ", ports chosen for the queue that the reply arrives at" } else { "" };
    lines.push(format!("tuples: {}{reply}", grouped(space.len())));
    let asked = match (config.search, config.load) {
        (Some(loss), _) => format!("search for the highest rate with at most {}% lost", loss * 100.0),
        (None, Load::Rate(rate)) => format!("{} connections/s", grouped(rate)),
        (None, Load::Max) => {
            format!("as many as can be, at most {} on their way", grouped(MAX_UNDER_WAY))
        }
        (None, Load::Concurrency(count)) => format!("{} connections at a time", grouped(count)),
    };
    let times = [
        ("ramp", config.ramp),
        ("warm-up", config.warmup),
        ("measured", config.duration),
        ("drain at most", config.drain),
    ];
    let times = times.into_iter().filter(|(_, time)| !time.is_zero());
    let times: Vec<String> = times.map(|(name, time)| format!("{name} {} s", time.as_secs_f64())).collect();
    lines.push(format!("load: {asked}; {}", times.join(", ")));
    lines
}

/// Returns the part of the report that was known before the run.
fn setup(config: &Bench, site: Site, tuples: u64) -> Facts {
    let (ramp, warmup, duration) = (config.ramp, config.warmup, config.duration);
    let (kind, requests) = match config.workload {
        Workload::Connect => ("connect", 0),
        Workload::Request { .. } => ("request", config.requests),
        Workload::Http { .. } => ("http", config.requests),
        Workload::Hold => ("hold", 0),
    };
    Facts {
        site,
        load: match config.search {
            Some(_) => LoadReport::search(ramp, warmup, duration),
            None => LoadReport::steady(config.load, ramp, warmup, duration),
        },
        workload: WorkloadReport::new(kind.into(), requests.into(), config.close_by),
        targets: config.targets.iter().map(ToString::to_string).collect(),
        sources: config.sources.iter().map(ToString::to_string).collect(),
        tuples,
    }
}
