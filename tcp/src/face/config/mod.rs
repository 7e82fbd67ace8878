//! The configuration as meant: complete, and valid as far as it can be without looking at the machine. Knows no device.

mod bench;
mod conns;
mod serve;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use bench::{Bench, MAX_PAYLOAD, MAX_RATE, MAX_REQUESTS, MAX_TARGETS, MAX_TIMEOUT, Workload};
pub use conns::Conns;
pub use serve::{Config, Listener, MAX_LISTENERS};

use crate::face::cli::{self, ControlSocket, HashKey, Mode, Queues};
use crate::text::Numbers;
use synmill_engine::endpoint::MAX_CONNECTIONS;

/// The longest TIME-WAIT. RFC 9293's 2 MSL is four minutes.
pub const MAX_TIME_WAIT: Duration = Duration::from_secs(3600);
/// The longest run, and the longest drain: a deadline in milliseconds is told from the past for 24 days.
pub const MAX_DURATION: Duration = Duration::from_secs(20 * 24 * 3600);

/// Where and how packets are taken, and what is written about it: what every command that takes an interface's rings knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rings {
    interface: String,
    queues: Queues,
    workers: Option<NonZeroUsize>,
    cores: Option<Numbers>,
    steer: Steer,
    json: Option<PathBuf>,
    pcap: Option<PathBuf>,
    control: Option<ControlSocket>,
    /// How to reach the driver.
    pub mode: Mode,
    /// Poll the driver from the workers' own system calls.
    pub busy_poll: bool,
    /// Accept segments whose checksum field holds only the pseudo-header's sum.
    pub accept_partial_checksums: bool,
    /// No line a second.
    pub quiet: bool,
}

/// How the NIC is to bring packets to the queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steer {
    /// As it does.
    AsItIs,
    /// By flow rules.
    Rules,
    /// By its RSS table.
    Table {
        /// And with this key.
        key: Option<Vec<u8>>,
    },
}

impl Rings {
    /// Checks the options against each other.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub fn new(options: cli::Rings) -> Result<Self, String> {
        check_interface(&options.interface)?;
        check_workers(&options.queues, options.workers, options.cores.as_ref())?;
        let steer = steer(options.steer, options.rss_key)?;
        let control = match &options.control {
            Some(ControlSocket::At(path)) => Some(path),
            _ => None,
        };
        let (json, pcap) = (options.json.as_ref(), options.pcap.as_ref());
        check_named(&[("--json", json), ("--pcap", pcap)])?;
        check_files(&[("--json", json), ("--pcap", pcap), ("--control", control)])?;
        Ok(Self {
            interface: options.interface,
            queues: options.queues,
            workers: options.workers,
            cores: options.cores,
            steer,
            json: options.json,
            pcap: options.pcap,
            control: options.control,
            mode: options.mode,
            busy_poll: options.busy_poll,
            accept_partial_checksums: options.accept_partial_checksums,
            quiet: options.quiet,
        })
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// The queues asked for.
    #[must_use]
    pub const fn queues(&self) -> &Queues {
        &self.queues
    }

    /// The workers asked for; `None` for one per queue.
    #[must_use]
    pub fn workers(&self) -> Option<usize> {
        self.workers.map(NonZeroUsize::get)
    }

    /// The cores asked for; `None` for those the process may run on.
    #[must_use]
    pub fn cores(&self) -> Option<&[usize]> {
        self.cores.as_deref()
    }

    /// How the NIC is to bring packets to the queues.
    #[must_use]
    pub const fn steer(&self) -> &Steer {
        &self.steer
    }

    /// Where the final report goes.
    #[must_use]
    pub const fn json(&self) -> Option<&PathBuf> {
        self.json.as_ref()
    }

    /// The socket that the live connections can be asked for at; `None` for the one in the common folder.
    #[must_use]
    pub const fn control(&self) -> Option<&ControlSocket> {
        self.control.as_ref()
    }

    /// Where the frames go.
    #[must_use]
    pub const fn pcap(&self) -> Option<&PathBuf> {
        self.pcap.as_ref()
    }
}

fn steer(how: cli::Steer, key: Option<HashKey>) -> Result<Steer, String> {
    match (how, key.map(|HashKey(key)| key)) {
        (cli::Steer::Rss, key) => Ok(Steer::Table { key }),
        (_, Some(_)) => Err("--rss-key is for --steer rss: add that, or leave the key out".into()),
        (cli::Steer::None, None) => Ok(Steer::AsItIs),
        (cli::Steer::Ntuple, None) => Ok(Steer::Rules),
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

/// The address, an IPv4-mapped one as IPv4: on the wire they are the same.
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

/// What can be said about queues, workers and cores before the interface is known.
fn check_workers(
    queues: &Queues,
    workers: Option<NonZeroUsize>,
    cores: Option<&Numbers>,
) -> Result<(), String> {
    let queues = match queues {
        Queues::All => None,
        Queues::Only(numbers) => Some(numbers.len()),
    };
    let workers = workers.map(NonZeroUsize::get);
    if let (Some(queues), Some(workers)) = (queues, workers)
        && workers > queues
    {
        return Err(format!("--workers {workers} for {queues} queue(s): give at most --workers {queues}"));
    }
    if let (Some(workers), Some(cores)) = (workers.or(queues), cores.map(|cores| cores.len()))
        && cores < workers
    {
        return Err(format!(
            "{cores} core(s) for {workers} workers: give more --cores, or --workers {cores}"
        ));
    }
    Ok(())
}

/// No `-`: who writes it means standard output, and not a file of this name.
fn check_named(files: &[(&str, Option<&PathBuf>)]) -> Result<(), String> {
    match files.iter().find(|(_, file)| file.is_some_and(|file| file.as_os_str() == "-")) {
        None => Ok(()),
        Some((option, _)) => Err(format!(
            "{option} - would be a file called `-`: give another name (standard output has the table)"
        )),
    }
}

/// No file twice.
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

/// A file's one name, of the many it may have. The file need not be there yet.
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

/// `least` is what the run cannot do without.
fn check_max_connections(count: usize, least: usize) -> Result<(), String> {
    if (least..=MAX_CONNECTIONS).contains(&count) {
        return Ok(());
    }
    let most = MAX_CONNECTIONS / 1_000_000;
    Err(format!("--max-connections {count}: give from {least} to {most}M"))
}

fn check_time_wait(time: Duration) -> Result<(), String> {
    check_within("--time-wait", time, MAX_TIME_WAIT)
}

fn check_within(option: &str, time: Duration, most: Duration) -> Result<(), String> {
    let hours = most.as_secs() / 3600;
    if time > most { Err(format!("{option} {time:?}: give at most {hours}h")) } else { Ok(()) }
}
