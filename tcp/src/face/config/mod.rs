//! Options that are complete and valid, as far as that is known without looking at the machine.

mod bench;
mod conns;
mod serve;

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use bench::{Bench, Workload};
pub use conns::Conns;
pub use serve::{Listener, Serve};

use crate::face::cli::{self, ControlSocket};
use crate::host::nic::HashKey;
use crate::host::nic::spread::Steering;
use crate::host::plan::{self, Queues};
use synmill_engine::endpoint::{MAX_CONNECTIONS, Settings};

/// Options that have passed their checks. Only this room makes such a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid<T>(T);

impl<T> Deref for Valid<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Most connections held at once, in millions.
const MAX_MILLIONS: u64 = MAX_CONNECTIONS as u64 / 1_000_000;
/// Most addresses of one option.
const MAX_ADDRESSES: usize = 256;
/// The longest TIME-WAIT. RFC 9293's 2 MSL is four minutes.
const MAX_TIME_WAIT: Duration = Duration::from_secs(3600);
/// The longest run, and the longest drain: a deadline in milliseconds differs from the past for 24 days.
const MAX_DURATION: Duration = Duration::from_secs(20 * 24 * 3600);

/// The output of a command beside its table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The file for the final report.
    pub json: Option<PathBuf>,
    /// The socket for `synmill conns`; `None` for the one in the common folder.
    pub control: Option<ControlSocket>,
    /// Print no line a second.
    pub quiet: bool,
}

/// Checks the options of every command that takes an interface against each other.
///
/// # Errors
/// One line: what is wrong and how to fix it.
fn check_rings(options: cli::Rings) -> Result<(plan::Options, Settings, Output), String> {
    check_interface(&options.interface)?;
    let rings = plan::Options {
        interface: options.interface,
        queues: options.queues,
        steering: steering(options.steer, options.rss_key)?,
        workers: options.workers.map(Into::into),
        cores: options.cores,
        mode: options.mode,
        busy_poll: options.busy_poll,
        pcap: options.pcap,
    };
    check_workers(&rings)?;
    let control = match &options.control {
        Some(ControlSocket::At(path)) => Some(path),
        _ => None,
    };
    let (json, pcap) = (options.json.as_ref(), rings.pcap.as_ref());
    check_named(&[("--json", json), ("--pcap", pcap)])?;
    check_files(&[("--json", json), ("--pcap", pcap), ("--control", control)])?;
    let endpoint =
        Settings { accept_partial_checksums: options.accept_partial_checksums, ..Settings::default() };
    Ok((rings, endpoint, Output { json: options.json, control: options.control, quiet: options.quiet }))
}

fn steering(how: cli::Steer, key: Option<HashKey>) -> Result<Steering, String> {
    match (how, key) {
        (cli::Steer::Rss, key) => Ok(Steering::Table { key }),
        (_, Some(_)) => Err("--rss-key is for --steer rss: add that, or leave the key out".into()),
        (cli::Steer::None, None) => Ok(Steering::Untouched),
        (cli::Steer::Ntuple, None) => Ok(Steering::Rules(Vec::new())),
    }
}

/// Linux's rule for names (`dev_valid_name`): 1 to 15 bytes, no slash, colon or white space, not `.` or `..`.
fn check_interface(name: &str) -> Result<(), String> {
    let valid = (1..16).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0');
    if valid { Ok(()) } else { Err(format!("--interface {name:?}: give a name as `ip link` shows it")) }
}

/// Returns the address, an IPv4-mapped one as IPv4: on the wire they are the same.
fn check_address(option: &str, address: SocketAddr) -> Result<SocketAddr, String> {
    let refuse = |what: &str| Err(format!("{option} {address}: {what}"));
    if let SocketAddr::V6(v6) = address
        && v6.scope_id() != 0
    {
        return refuse("leave the zone out: --interface names it");
    }
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    if address.port() == 0 {
        refuse("there is no port 0: give a port from 1 to 65535")
    } else if ip.is_loopback() {
        refuse("a loopback address never comes over an interface: give an address of the network")
    } else if ip.is_multicast() || broadcast {
        refuse("TCP has one receiver: give a unicast address")
    } else {
        Ok(SocketAddr::new(ip, address.port()))
    }
}

/// Checks the addresses of an option: at least one, no two alike.
fn check_addresses(
    option: &str,
    given: impl ExactSizeIterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, String> {
    if !(1..=MAX_ADDRESSES).contains(&given.len()) {
        return Err(format!("{} times {option}: give it from 1 to {MAX_ADDRESSES} times", given.len()));
    }
    let mut addresses = Vec::with_capacity(given.len());
    for address in given {
        let address = check_address(option, address)?;
        if addresses.contains(&address) {
            return Err(format!("{option} {address} is given twice: give each address and port once"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// Checks queues, workers and cores as far as that is possible before the interface is known.
fn check_workers(rings: &plan::Options) -> Result<(), String> {
    let queues = match &rings.queues {
        Queues::All => None,
        Queues::Only(numbers) => Some(numbers.len()),
    };
    if let (Some(queues), Some(workers)) = (queues, rings.workers)
        && workers > queues
    {
        return Err(format!("--workers {workers} for {queues} queue(s): give at most --workers {queues}"));
    }
    if let (Some(workers), Some(cores)) =
        (rings.workers.or(queues), rings.cores.as_ref().map(|cores| cores.len()))
        && cores < workers
    {
        return Err(format!(
            "{cores} core(s) for {workers} workers: give more --cores, or --workers {cores}"
        ));
    }
    Ok(())
}

/// Refuses `-`: the user means standard output by it, not a file of this name.
fn check_named(files: &[(&str, Option<&PathBuf>)]) -> Result<(), String> {
    match files.iter().find(|(_, file)| file.is_some_and(|file| file.as_os_str() == "-")) {
        None => Ok(()),
        Some((option, _)) => Err(format!(
            "{option} - would be a file called `-`: give another name (standard output has the table)"
        )),
    }
}

/// Refuses a file that two options name.
fn check_files(files: &[(&str, Option<&PathBuf>)]) -> Result<(), String> {
    for (number, &(option, file)) in files.iter().enumerate() {
        let Some(file) = file.map(|file| whole(file)) else { continue };
        let same =
            files.iter().take(number).find(|(_, other)| other.is_some_and(|other| whole(other) == file));
        if let Some((other, _)) = same {
            return Err(format!("{other} and {option} name the same file: give each its own"));
        }
    }
    Ok(())
}

/// Returns one name for a file of many names. The file need not be there yet.
fn whole(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.into());
        let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
        match (folder, path.file_name()) {
            (Some(folder), Some(name)) => folder.join(name),
            _ => path,
        }
    })
}

/// Checks a number. `most` is in millions.
fn check_count(option: &str, count: u64, least: u64, most: u64) -> Result<(), String> {
    let is_within = (least..=most * 1_000_000).contains(&count);
    if is_within { Ok(()) } else { Err(format!("{option} {count}: give from {least} to {most}M")) }
}

/// Checks a number of connections. The run needs at least `least`.
fn check_max_connections(count: usize, least: usize) -> Result<(), String> {
    check_count("--max-connections", count as u64, least as u64, MAX_MILLIONS)
}

fn check_time_wait(time: Duration) -> Result<(), String> {
    check_within("--time-wait", time, MAX_TIME_WAIT)
}

fn check_within(option: &str, time: Duration, most: Duration) -> Result<(), String> {
    let hours = most.as_secs() / 3600;
    if time > most { Err(format!("{option} {time:?}: give at most {hours}h")) } else { Ok(()) }
}
