//! The command line as given: options, their help, and the text of values. Knows no interface and no relation between options.

mod bench;
mod conns;
mod serve;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::text::Numbers;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use bench::{Bench, Workload};
pub use conns::Conns;
pub use serve::{Listen, Serve};

/// The `synmill` command.
#[derive(Debug, Parser)]
#[command(name = "synmill", version, about = "A TCP endpoint on AF_XDP", infer_subcommands = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Accept, answer and close TCP connections at the rate of the interface
    Serve(Box<Serve>),
    /// Open, use and close TCP connections at a rate, and measure what becomes of them
    Bench(Box<Bench>),
    /// List the live connections of a `serve` or `bench` that runs
    Conns(Box<Conns>),
}

/// What every command that takes an interface's rings is asked, as given.
#[derive(Args, Clone, Debug)]
pub struct Rings {
    /// Interface to use; every packet for other addresses and ports stays with the kernel
    #[arg(long, display_order = 0, value_name = "IF")]
    pub interface: String,

    /// Receive queues to use: `all`, or numbers and ranges such as 0-3 or 0,2.
    /// Without --steer every active queue must be among them
    #[arg(long, help_heading = RINGS, value_name = "QUEUES", default_value = "all", value_parser = parse_queues)]
    pub queues: Queues,

    /// What to set on the NIC so that packets come to --queues, which may leave queues to the kernel then.
    /// It is taken back at the end, but not after kill -9, SIGQUIT or a second Ctrl-C (rules, an RSS context, ntuple on, table
    /// and key are left then): notes at the start say how to do it by hand
    #[arg(long, help_heading = RINGS, value_name = "HOW", default_value = "none")]
    pub steer: Steer,

    /// With --steer rss: the hash's key, as `ethtool -x` shows it; the same key spreads in the same way in every run
    #[arg(long, help_heading = RINGS, value_name = "HEX", value_parser = parse_key)]
    pub rss_key: Option<HashKey>,

    /// Worker threads; queues are dealt out to them in turn [default: one per queue]
    #[arg(long, help_heading = RINGS, value_name = "N")]
    pub workers: Option<NonZeroUsize>,

    /// Cores to pin the workers to, in order, such as 1,2 or 2-5 [default: those this process may run on]
    #[arg(long, help_heading = RINGS, value_name = "CORES")]
    pub cores: Option<Numbers>,

    /// How to reach the driver; `auto` takes the first that works of zerocopy, copy, skb
    #[arg(long, help_heading = RINGS, value_name = "MODE", default_value = "auto")]
    pub mode: Mode,

    /// Poll the driver from the workers' own system calls: lower latency, more CPU
    #[arg(long, help_heading = RINGS)]
    pub busy_poll: bool,

    /// Accept segments whose checksum is only the pseudo-header's sum, as the kernel at a veth's other end sends them
    #[arg(long, help_heading = RINGS)]
    pub accept_partial_checksums: bool,

    /// Write the final report to this file, as JSON
    #[arg(long, help_heading = OUTPUT, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write every frame received and sent to this file, as pcap, which can be read meanwhile; slow.
    /// Several workers write FILE.0, FILE.1 and so on
    #[arg(long, help_heading = OUTPUT, value_name = "FILE")]
    pub pcap: Option<PathBuf>,

    /// Where `synmill conns` asks for the live connections: a socket's path, or `none`. Only our own user may
    /// [default: /run/synmill/PID.sock]
    #[arg(long, help_heading = OUTPUT, value_name = "PATH|none", value_parser = parse_control)]
    pub control: Option<ControlSocket>,

    /// No line a second; start, end and errors only
    #[arg(long, help_heading = OUTPUT)]
    pub quiet: bool,
}

/// Headings of the help.
const RINGS: &str = "Queues and workers";
const OUTPUT: &str = "Output";

/// How packets get from the driver to the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The first of the others that the driver can do
    Auto,
    /// Program in the driver; the device writes into our memory
    #[value(name = "zerocopy")]
    ZeroCopy,
    /// Program in the driver; the kernel copies packets
    Copy,
    /// Program behind the driver, on socket buffers: every driver can, slowest
    Skb,
}

/// `--steer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Steer {
    /// Nothing
    None,
    /// Flow rules for TCP to our listeners, or from our targets; for several queues the NIC needs RSS contexts.
    /// Pings and stray ports of addresses that only synmill has are answered on --queues alone
    Ntuple,
    /// The RSS table, so that all TCP comes to --queues; what is the kernel's is passed on to it. ARP comes to queue 0 all the same
    Rss,
}

/// `--control`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlSocket {
    /// There is to be none.
    None,
    /// There.
    At(PathBuf),
}

/// `--rss-key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashKey(pub Vec<u8>);

/// `--queues`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queues {
    /// All that are active.
    All,
    /// Exactly these.
    Only(Numbers),
}

/// Reads the process's arguments.
///
/// # Errors
/// [`Stop`] when there is nothing to run: help was asked for, or the usage was wrong.
pub fn parse<I, T>(arguments: I) -> Result<Cli, Stop>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    Cli::try_parse_from(arguments).map_err(|error| {
        if error.use_stderr() {
            Stop::Usage(one_line(&error))
        } else {
            Stop::Text(error.render().to_string())
        }
    })
}

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Help or version, to be printed to standard output as it is.
    #[error("{0}")]
    Text(String),
    /// One line for standard error: what is wrong and how to fix it.
    #[error("{0}")]
    Usage(String),
}

/// clap's message without its frame of usage and hints.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let words: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let line = words.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    match error.kind() {
        clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "a command is missing: write `synmill serve ...`, `synmill bench ...`, `synmill conns`, or `synmill --help`".into()
        }
        clap::error::ErrorKind::ValueValidation | clap::error::ErrorKind::InvalidValue => line.into(),
        _ => format!("{line} (see `{} --help`)", command(&text)),
    }
}

/// The command that a message's line of usage is about.
fn command(message: &str) -> String {
    let usage = message.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("synmill");
    let is_name = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    usage.split(' ').take_while(is_name).collect::<Vec<_>>().join(" ")
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    // Such a text may be another address as well: one without a port.
    if let Some((ip, port)) = text.rsplit_once(':')
        && let (Ok(ip), Ok(port @ 1..)) = (ip.parse::<Ipv6Addr>(), port.parse())
    {
        return Err(format!("an IPv6 address needs brackets: write {}", SocketAddr::new(ip.into(), port)));
    }
    if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Err(format!("the port is missing: write {}", SocketAddr::new(ip, 80)));
    }
    text.parse().map_err(|_| {
        "not an address and port: write 192.0.2.1:80 or [2001:db8::1]:80, a port from 1 to 65535".to_owned()
    })
}

fn parse_queues(text: &str) -> Result<Queues, String> {
    if text == "all" { Ok(Queues::All) } else { text.parse().map(Queues::Only) }
}

fn parse_control(text: &str) -> Result<ControlSocket, String> {
    match text {
        "" => Err("write a path, or `none`".into()),
        "none" => Ok(ControlSocket::None),
        path => Ok(ControlSocket::At(path.into())),
    }
}

fn parse_key(text: &str) -> Result<HashKey, String> {
    let byte = |part: &str| {
        let is_byte = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_byte.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    let key: Option<Vec<u8>> = text.split(':').map(byte).collect();
    match key {
        Some(key) if key.iter().any(|&byte| byte != 0) => Ok(HashKey(key)),
        Some(_) => Err("all zero, it would spread nothing: give another key".into()),
        None => {
            Err("write bytes in hex with colons between, as ethtool -x shows the key: 6d:5a:56:...".into())
        }
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        _ => (text, 1),
    };
    let number: Option<usize> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "write a whole number, with K for 1000 or M for 1000000, such as 500K".into())
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a whole number and a unit: 500ms, 30s, 5m or 1h".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or_else(wrong)
}
