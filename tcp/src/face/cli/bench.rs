//! The options of `synmill bench`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{ArgGroup, Args, ValueEnum};

use super::rings::{OUTPUT, Rings};
use super::values::{parse_address, parse_count, parse_duration};
use crate::text::parse_range;
use synmill_engine::flow::Prefix;
use synmill_engine::generator::{CloseBy, Load};
use synmill_engine::service::{BODY_MAX, Invalid, parse_size};

/// The options of `synmill bench`, as given.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER, group(ArgGroup::new("load").required(true).args(["rate", "concurrency", "search"])))]
pub struct Bench {
    /// Address and port to connect to; repeatable, connections go to each in turn. IPv6 in brackets
    #[arg(long, required = true, value_name = "ADDR:PORT", value_parser = parse_address)]
    pub target: Vec<SocketAddr>,

    /// Addresses to connect from, such as 198.19.0.0/16; repeatable.
    /// No host may have them: synmill answers for them, and the kernel sees none of their TCP
    #[arg(long, required = true, value_name = "CIDR")]
    pub source: Vec<Prefix>,

    /// Ports to connect from
    #[arg(long, value_name = "FIRST-LAST", default_value = "1024-65535", value_parser = parse_ports)]
    pub source_ports: RangeInclusive<u16>,

    /// Connections held at once, all workers together, TIME-WAIT included; K is 1000, M is 1000000
    /// [default: as many as the load needs]
    #[arg(long, value_name = "COUNT", value_parser = parse_count)]
    pub max_connections: Option<usize>,

    /// Connections to open per second, evenly spaced, whatever their outcome; K is 1000, M is 1000000.
    /// `max`: as many as possible
    #[arg(long, help_heading = LOAD, value_name = "N[/s]|max", value_parser = parse_rate)]
    pub rate: Option<Load>,

    /// Connections to keep open: the end of one begins the next; K is 1000, M is 1000000
    #[arg(long, help_heading = LOAD, value_name = "N", value_parser = parse_count)]
    pub concurrency: Option<usize>,

    /// Search for the highest rate at which no more than --loss of the connections fail or retransmit
    #[arg(long, help_heading = LOAD)]
    pub search: bool,

    /// With --search: the share of connections that may fail or retransmit, such as 0.001 or 0.1% [default: 0]
    #[arg(long, help_heading = LOAD, value_name = "SHARE", value_parser = parse_share)]
    pub loss: Option<f64>,

    /// Work of a connection: connect, request, http or hold; see below
    #[arg(long, help_heading = WORKLOAD, hide_possible_values = true, value_name = "WORKLOAD", default_value = "connect")]
    pub workload: Workload,

    /// request, http: requests over each connection, one after the other
    #[arg(long, help_heading = WORKLOAD, value_name = "N", default_value = "1", value_parser = parse_count)]
    pub requests: usize,

    /// request, http: the bytes to send, by their number or as a file's content, up to 16M
    /// [default: 64 for request, nothing for http]
    #[arg(long, help_heading = WORKLOAD, value_name = "SIZE|FILE")]
    pub payload: Option<PathBuf>,

    /// request, http: bytes of each answer; of http's answer without its head
    /// [default: the payload's number for request, any number for http]
    #[arg(long, help_heading = WORKLOAD, value_name = "SIZE", value_parser = parse_expect)]
    pub expect: Option<u64>,

    /// http: the path to request [default: /]
    #[arg(long, help_heading = WORKLOAD, value_name = "PATH")]
    pub path: Option<String>,

    /// The end that closes a connection: ours with fin or rst, or the peer
    /// [default: peer for http, fin for the others]
    #[arg(long, help_heading = WORKLOAD, value_name = "HOW", hide_possible_values = true, value_parser = close_parser())]
    pub close: Option<CloseBy>,

    /// Send each acknowledgement, text and FIN in a segment of its own, as textbooks draw them
    #[arg(long, help_heading = WORKLOAD)]
    pub no_piggyback: bool,

    /// Time to rise to the load in even steps; does not count
    #[arg(long, help_heading = TIMES, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    pub ramp: Duration,

    /// Time under the whole load that does not count yet
    #[arg(long, help_heading = TIMES, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    pub warmup: Duration,

    /// Time that counts; with --search, of each trial
    #[arg(long, help_heading = TIMES, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub duration: Duration,

    /// Time for open connections to end after that, before they are reset
    #[arg(long, help_heading = TIMES, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub drain: Duration,

    /// Time for a handshake or an answer, before the connection has failed
    #[arg(long, help_heading = TIMES, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// Time before addresses and ports are used again after our close (TIME-WAIT, 2 MSL)
    #[arg(long, help_heading = TIMES, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub time_wait: Duration,

    /// The interface, and the output.
    #[command(flatten)]
    pub rings: Rings,

    /// Write the latencies to this file, as an HdrHistogram log
    #[arg(long, help_heading = OUTPUT, value_name = "FILE")]
    pub hdr: Option<PathBuf>,
}

/// Headings of the help.
const LOAD: &str = "Load, exactly one of --rate, --concurrency and --search";
const WORKLOAD: &str = "Workload";
const TIMES: &str = "Times, in ms, s, m or h";

const AFTER: &str = "\
Workloads:
  connect   open, close
  request   open; send --payload and wait for --expect bytes, --requests times; close
  http      open; request --path over HTTP/1.1, --requests times, by POST if there is a --payload; close
  hold      open; stay open until the end
  SIZE is in bytes: K is 1024, M and G are powers of it; COUNT and N are numbers: K is 1000, M its square

Examples:
  synmill bench --interface eth1 --target 192.0.2.1:80 --source 198.19.0.0/16 --rate 100K
  synmill bench --interface eth1 --target 192.0.2.1:7 --source 198.19.0.0/16 --concurrency 10K --workload request
  synmill bench --interface eth1 --target '[2001:db8::1]:80' --source 2001:db8:19::/64 --search --workload http

Exit status: 0 done, 1 a failure at run time, 2 wrong usage, 3 the run is not as requested: it missed the rate by more
than 1 %, more than 1 % of the connections failed or were cut at the end, a search found no rate, a signal ended the run,
or the accounts do not close.";

/// The value of `--workload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Open and close.
    Connect,
    /// Send bytes, and receive an answer.
    Request,
    /// HTTP/1.1.
    Http,
    /// Open and stay open.
    Hold,
}

fn close_parser() -> impl clap::builder::TypedValueParser<Value = CloseBy> {
    PossibleValuesParser::new(["fin", "rst", "peer"]).map(|text| match text.as_str() {
        "fin" => CloseBy::Fin,
        "rst" => CloseBy::Rst,
        _ => CloseBy::Peer,
    })
}

fn parse_ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = parse_range(text)
        .filter(|&(first, last)| text.contains('-') && first > 0 && last > 0)
        .ok_or("write two ports from 1 to 65535, such as 1024-65535")?;
    if first > last {
        return Err(format!("the range {text} runs backwards: write {last}-{first}"));
    }
    Ok(first..=last)
}

fn parse_rate(text: &str) -> Result<Load, String> {
    if text == "max" {
        return Ok(Load::Max);
    }
    parse_count(text.strip_suffix("/s").unwrap_or(text))
        .map(|rate| Load::Rate(rate as u64))
        .map_err(|_| "write connections a second, such as 1000, 50K or 2M/s, or `max`".into())
}

fn parse_share(text: &str) -> Result<f64, String> {
    let (number, whole) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let share: Option<f64> = number.parse().ok().map(|number: f64| number / whole);
    share.filter(|share| share.is_finite()).ok_or_else(|| "write a share such as 0.001 or 0.1%".into())
}

fn parse_expect(text: &str) -> Result<u64, Invalid> {
    parse_size("--expect", text, BODY_MAX)
}
