//! The options of `synmill bench`, checked.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{
    MAX_ADDRESSES, MAX_DURATION, MAX_MILLIONS, Output, Valid, check_addresses, check_count, check_files,
    check_max_connections, check_named, check_rings, check_time_wait, check_within,
};
use crate::face::cli;
use crate::host::plan::{self, Role};
use synmill_engine::endpoint::{MAX_CONNECTIONS, Settings};
use synmill_engine::flow::{Address, Prefix};
use synmill_engine::generator::{CloseBy, Load};
use synmill_engine::service::{Invalid, parse_size, pattern};

/// The highest rate, in connections/s. No interface carries as many.
const MAX_RATE: u64 = 1_000_000_000;
/// Most requests over one connection, in millions.
const MAX_REQUESTS_MILLIONS: u64 = 1000;
/// The longest payload, in bytes.
const MAX_PAYLOAD: u64 = 16 << 20;
/// The longest wait for a peer.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// Bytes of a request without `--payload`.
const REQUEST_LEN: u64 = 64;
/// Room for connections beyond those that are open: those in TIME-WAIT, which are evicted first when the table is full.
const ROOM: usize = 64_000;
/// Room for connections if nobody knows how many there will be.
const ROOM_FOR_ANY: usize = 64_000;

/// The work of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workload {
    /// It opens and closes.
    Connect,
    /// It sends bytes and waits for an answer.
    Request {
        /// The bytes to send, at least one.
        payload: Arc<[u8]>,
        /// Bytes of the answer.
        expect: u64,
    },
    /// It speaks HTTP/1.1.
    Http {
        /// The path to request: it begins with `/`, and is printable ASCII without spaces.
        path: String,
        /// The request's body. The request is a POST with it, and a GET without.
        payload: Option<Arc<[u8]>>,
        /// Bytes of the answer's body; `None` for any number.
        expect: Option<u64>,
    },
    /// It opens and stays open.
    Hold,
}

/// A run of `synmill bench`.
#[derive(Clone, Debug, PartialEq)]
pub struct Bench {
    /// How to take the interface.
    pub rings: plan::Options,
    /// The choices about the endpoints.
    pub endpoint: Settings,
    /// The output.
    pub output: Output,
    /// The addresses and ports to connect to, in turn: at least one, no two alike, none of them in a source.
    pub targets: Vec<SocketAddr>,
    /// The addresses to connect from: at least one prefix for each family of the targets, without overlaps.
    pub sources: Vec<Prefix>,
    /// The ports to connect from: at least one, never 0.
    pub source_ports: RangeInclusive<u16>,
    /// The number and the times of the connections; of a search its first step.
    pub load: Load,
    /// For a search, the share of connections that may fail, from 0 to below 1. `None` for a single trial.
    pub search: Option<f64>,
    /// The work of a connection.
    pub workload: Workload,
    /// Requests over each connection.
    pub requests: u32,
    /// The end that closes a connection.
    pub close_by: CloseBy,
    /// The time in which the load rises, before the warm-up.
    pub ramp: Duration,
    /// The time under the whole load that does not count.
    pub warmup: Duration,
    /// The time that counts: never zero.
    pub duration: Duration,
    /// Most time for open connections to end after that.
    pub drain: Duration,
    /// Most time for a handshake or an answer: never zero.
    pub timeout: Duration,
    /// The file for latencies.
    pub hdr: Option<PathBuf>,
}

impl Bench {
    /// Checks the options against each other, and reads the payload's file if there is one.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub fn new(options: cli::Bench) -> Result<Valid<Self>, String> {
        let targets = check_targets(&options.target)?;
        check_sources(&options.source)?;
        check_pairs(&targets, &options.source)?;
        let (load, search) = check_load(&options)?;
        check_times(&options)?;
        let requests = check_requests(&options)?;
        let close_by = check_close(options.workload, options.close)?;
        let workload = workload(&options)?;
        let (rings, endpoint, output) = check_rings(options.rings)?;
        check_named(&[("--hdr", options.hdr.as_ref())])?;
        check_files(&[
            ("--json", output.json.as_ref()),
            ("--pcap", rings.pcap.as_ref()),
            ("--hdr", options.hdr.as_ref()),
        ])?;
        let open_for = match workload {
            Workload::Hold => options.ramp + options.warmup + options.duration,
            _ => options.timeout,
        };
        let max_connections = options.max_connections.unwrap_or_else(|| room(load, open_for));
        let least = concurrency(load).unwrap_or(1);
        check_max_connections(max_connections, least.max(rings.workers.unwrap_or(1)))?;
        Ok(Valid(Self {
            rings,
            endpoint: Settings {
                max_connections,
                time_wait: options.time_wait,
                piggyback: !options.no_piggyback,
                ..endpoint
            },
            output,
            targets,
            sources: options.source,
            source_ports: options.source_ports,
            load,
            search,
            workload,
            requests,
            close_by,
            ramp: options.ramp,
            warmup: options.warmup,
            duration: options.duration,
            drain: options.drain,
            timeout: options.timeout,
            hdr: options.hdr,
        }))
    }

    /// Returns the work of the workers.
    #[must_use]
    pub fn role(&self) -> Role {
        let (sources, targets) = (self.sources.clone(), self.targets.clone());
        Role::Generate { sources, targets, concurrency: concurrency(self.load) }
    }
}

/// Returns the number of connections that a load keeps open.
fn concurrency(load: Load) -> Option<usize> {
    match load {
        Load::Concurrency(count) => usize::try_from(count).ok(),
        Load::Rate(_) | Load::Max => None,
    }
}

/// Returns the most connections held at once by a load whose connections are open for `open_for` at most.
fn room(load: Load, open_for: Duration) -> usize {
    let room = match load {
        Load::Max => ROOM_FOR_ANY,
        Load::Concurrency(count) => {
            let count = count as usize;
            count + ROOM.max(count / 4)
        }
        Load::Rate(rate) => {
            let open = u128::from(rate) * open_for.as_millis() / 1000;
            usize::try_from(open).map_or(usize::MAX, |open| open.saturating_add(ROOM))
        }
    };
    room.min(MAX_CONNECTIONS)
}

fn check_targets(given: &[SocketAddr]) -> Result<Vec<SocketAddr>, String> {
    let targets = check_addresses("--target", given.iter().copied())?;
    match targets.iter().find(|target| target.ip().is_unspecified()) {
        None => Ok(targets),
        Some(target) => Err(format!("--target {target}: an unspecified address is nobody's: give a host's")),
    }
}

/// Addresses that no host has, and their kind (RFC 6890).
const NO_HOSTS: [(Prefix, &str); 7] = [
    (Prefix::new(Address::v4([0, 0, 0, 0]), 8).unwrap(), "unspecified"),
    (Prefix::new(Address::v4([127, 0, 0, 0]), 8).unwrap(), "loopback"),
    (Prefix::new(Address::v4([224, 0, 0, 0]), 4).unwrap(), "multicast"),
    (Prefix::host(Address::v4([255; 4])), "broadcast"),
    (Prefix::host(Address::v6([0; 16])), "unspecified"),
    (Prefix::host(Address::v6(1_u128.to_be_bytes())), "loopback"),
    (Prefix::new(Address::v6([0xff; 16]), 8).unwrap(), "multicast"),
];

fn check_sources(sources: &[Prefix]) -> Result<(), String> {
    if !(1..=MAX_ADDRESSES).contains(&sources.len()) {
        return Err(format!("{} sources: give from 1 to {MAX_ADDRESSES}", sources.len()));
    }
    for (number, source) in sources.iter().enumerate() {
        for (prefix, what) in NO_HOSTS {
            if source.overlaps(&prefix) {
                return Err(format!(
                    "--source {source}: {what} addresses are no host's: give unicast addresses that only synmill has"
                ));
            }
        }
        if let Some(other) = sources.iter().take(number).find(|other| other.overlaps(source)) {
            return Err(format!("--source {other} and --source {source} overlap: give each address once"));
        }
    }
    Ok(())
}

/// Checks targets and sources against each other.
fn check_pairs(targets: &[SocketAddr], sources: &[Prefix]) -> Result<(), String> {
    for target in targets {
        if let Some(source) = sources.iter().find(|source| source.contains(target.ip().into())) {
            return Err(format!(
                "--target {target} is in --source {source}, whose addresses only synmill has: give another source"
            ));
        }
        if !sources.iter().any(|source| source.first().is_v4() == target.is_ipv4()) {
            let example =
                if target.is_ipv4() { "IPv4, such as 198.19.0.0/16" } else { "IPv6, such as fd00:19::/64" };
            return Err(format!("--target {target} has no --source of its family: give one of {example}"));
        }
    }
    Ok(())
}

fn check_load(options: &cli::Bench) -> Result<(Load, Option<f64>), String> {
    if options.loss.is_some() && !options.search {
        return Err("--loss without --search: give --search, or leave it out".into());
    }
    let loss = options.loss.unwrap_or(0.0);
    if !(0.0..1.0).contains(&loss) {
        return Err(format!("--loss {loss}: give a share from 0 to below 1, such as 0.001 or 0.1%"));
    }
    if options.search && options.workload == cli::Workload::Hold {
        return Err("--search with --workload hold: connections that stay have no rate to find: \
                    give --concurrency, or another workload"
            .into());
    }
    match (options.rate, options.concurrency, options.search) {
        (None, None, true) => Ok((Load::Max, Some(loss))),
        (Some(Load::Rate(rate)), None, false) if !(1..=MAX_RATE).contains(&rate) => {
            Err(format!("--rate {rate}: give from 1 to {}M a second, or max", MAX_RATE / 1_000_000))
        }
        (Some(load), None, false) => Ok((load, None)),
        (None, Some(count), false) => {
            check_count("--concurrency", count as u64, 1, MAX_MILLIONS)?;
            Ok((Load::Concurrency(count as u64), None))
        }
        _ => Err("give exactly one of --rate, --concurrency and --search".into()),
    }
}

fn check_times(options: &cli::Bench) -> Result<(), String> {
    check_time_wait(options.time_wait)?;
    check_within("--timeout", options.timeout, MAX_TIMEOUT)?;
    for (option, time) in [
        ("--ramp", options.ramp),
        ("--warmup", options.warmup),
        ("--duration", options.duration),
        ("--drain", options.drain),
    ] {
        check_within(option, time, MAX_DURATION)?;
    }
    let together = options.ramp + options.warmup + options.duration;
    check_within("--ramp, --warmup and --duration together:", together, MAX_DURATION)?;
    for (option, time) in [("--duration", options.duration), ("--timeout", options.timeout)] {
        if time.is_zero() {
            return Err(format!("{option} 0: give at least 1ms"));
        }
    }
    Ok(())
}

fn check_requests(options: &cli::Bench) -> Result<u32, String> {
    let requests = options.requests;
    if requests > 1 && matches!(options.workload, cli::Workload::Connect | cli::Workload::Hold) {
        return Err(means_nothing("--requests", options.workload, "request or http"));
    }
    check_count("--requests", requests as u64, 1, MAX_REQUESTS_MILLIONS)?;
    Ok(requests as u32)
}

/// Returns that an option means nothing to this workload, and the workloads that it is for.
fn means_nothing(option: &str, workload: cli::Workload, others: &str) -> String {
    let workload = format!("{workload:?}").to_lowercase();
    format!("{option} means nothing to --workload {workload}: leave it out, or use --workload {others}")
}

fn check_close(workload: cli::Workload, close: Option<CloseBy>) -> Result<CloseBy, String> {
    match (workload, close) {
        (cli::Workload::Hold, Some(CloseBy::Peer)) => {
            Err("--close peer with --workload hold: connections stay until we end them: give fin or rst"
                .into())
        }
        (_, Some(close)) => Ok(close),
        (cli::Workload::Http, None) => Ok(CloseBy::Peer),
        (_, None) => Ok(CloseBy::Fin),
    }
}

fn workload(options: &cli::Bench) -> Result<Workload, String> {
    let is_http = options.workload == cli::Workload::Http;
    let is_silent = matches!(options.workload, cli::Workload::Connect | cli::Workload::Hold);
    let useless = [
        ("--payload", options.payload.is_some() && is_silent, "request or http"),
        ("--expect", options.expect.is_some() && is_silent, "request or http"),
        ("--path", options.path.is_some() && !is_http, "http"),
    ];
    if let Some((option, _, others)) = useless.into_iter().find(|&(_, is_useless, _)| is_useless) {
        return Err(means_nothing(option, options.workload, others));
    }
    let payload = options.payload.as_deref().map(payload).transpose()?;
    Ok(match options.workload {
        cli::Workload::Connect => Workload::Connect,
        cli::Workload::Hold => Workload::Hold,
        cli::Workload::Request => {
            let payload = payload.unwrap_or_else(|| generated(REQUEST_LEN));
            let expect = options.expect.unwrap_or(payload.len() as u64);
            Workload::Request { payload, expect }
        }
        cli::Workload::Http => {
            let path = options.path.clone().unwrap_or_else(|| "/".into());
            if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(format!(
                    "--path {path:?}: begin it with `/`, and write spaces and other than ASCII as %20 and so on"
                ));
            }
            Workload::Http { path, payload, expect: options.expect }
        }
    })
}

/// Returns the payload of `--payload`: that many bytes, or a file's content.
fn payload(given: &Path) -> Result<Arc<[u8]>, String> {
    let size = given.to_str().map(|text| parse_size("--payload", text, MAX_PAYLOAD));
    let refuse = |what: &str| Err(format!("--payload {}: {what}", given.display()));
    match size {
        Some(Ok(0)) => refuse("nothing to send: give at least 1 byte, or leave it out"),
        Some(Ok(size)) => Ok(generated(size)),
        Some(Err(error @ Invalid::TooLarge { .. })) => Err(error.to_string()),
        _ => match read(given) {
            Err(error) => refuse(&format!("{error}: give a file, or a SIZE such as 512 or 64K")),
            Ok(bytes) if bytes.is_empty() => refuse("the file is empty: give one that is not, or a SIZE"),
            Ok(bytes) if bytes.len() as u64 > MAX_PAYLOAD => {
                refuse(&format!("the file is too large: give one of at most {}M", MAX_PAYLOAD >> 20))
            }
            Ok(bytes) => Ok(bytes.into()),
        },
    }
}

/// Returns the file's content, up to a byte more than is allowed.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_PAYLOAD + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the bytes that services send, too.
fn generated(size: u64) -> Arc<[u8]> {
    let mut bytes = vec![0; size as usize];
    pattern::fill(0, &mut bytes);
    bytes.into()
}
