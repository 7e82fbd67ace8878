//! `synmill conns`'s own options. Knows no socket.

use std::path::PathBuf;

use clap::Args;

use super::parse_count;
use crate::face::conns::{Sort, StateName};
use synmill_engine::flow::Prefix;

/// The options of `synmill conns`, as given.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER)]
pub struct Conns {
    /// Connections in this state only, such as established or time-wait; several with commas, or repeated
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<StateName>,

    /// Connections with this peer only, or with peers in this prefix; several with commas, or repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub peer: Vec<Prefix>,

    /// Only so many: the first in the order of --sort; K is 1000 [default: all, as they come]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub top: Option<usize>,

    /// With --top: the most of what comes first; of those alike the oldest [default: retransmissions]
    #[arg(long, value_name = "WHAT", requires = "top")]
    pub sort: Option<Sort>,

    /// A line of JSON for each connection
    #[arg(long)]
    pub json: bool,

    /// The endpoint of this process [default: the only one that runs]
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// The endpoint with this socket, which it was given with --control
    #[arg(long, value_name = "PATH", conflicts_with = "pid")]
    pub socket: Option<PathBuf>,
}

const AFTER: &str = "\
States:
  syn-sent, syn-received (syn-recv), established (estab), fin-wait-1, fin-wait-2, close-wait, closing, last-ack, time-wait

A connection that is open all the time is listed once; one that begins or ends meanwhile may be missing.

Examples:
  synmill conns
  synmill conns --state established,close-wait --peer 198.19.0.0/16
  synmill conns --top 10 --sort rtt --json

Exit status: 0 all of them are listed, 1 no endpoint or not all, 2 wrong usage.";
