//! The options of `synmill conns`.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::values::parse_count;
use crate::face::conns::{Sort, StateName};
use synmill_engine::flow::Prefix;

/// The options of `synmill conns`, as given.
#[derive(Args, Clone, Debug)]
#[command(after_help = AFTER)]
pub struct Conns {
    /// Only connections in this state, such as established or time-wait; several with commas, or repeated
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<StateName>,

    /// Only connections with this peer, or with peers in this prefix; several with commas, or repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub peer: Vec<Prefix>,

    /// At most this many, the first in the order of --sort; K is 1000 [default: all, in no order]
    #[arg(long, value_name = "N", value_parser = parse_count)]
    pub top: Option<usize>,

    /// With --top: the order, highest first; of equal connections the oldest is first [default: retransmissions]
    #[arg(long, value_name = "WHAT", requires = "top")]
    pub sort: Option<Sort>,

    /// A line of JSON for each connection
    #[arg(long)]
    pub json: bool,

    /// The endpoint of this process [default: the only one that runs]
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,

    /// The endpoint with this socket, set by its --control
    #[arg(long, value_name = "PATH", conflicts_with = "pid")]
    pub socket: Option<PathBuf>,
}

impl ValueEnum for Sort {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Retransmissions, Self::Unacked, Self::Rtt, Self::Age]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Retransmissions => ("retransmissions", "Retransmitted segments"),
            Self::Unacked => ("unacked", "Sequence numbers sent and not acknowledged"),
            Self::Rtt => ("rtt", "Smoothed round-trip time"),
            Self::Age => ("age", "Time since the connection was opened"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}

const AFTER: &str = "\
States:
  syn-sent, syn-received (syn-recv), established (estab), fin-wait-1, fin-wait-2, close-wait, closing, last-ack, time-wait

A connection that is open from the beginning to the end of the list is in it once; one that opens or closes meanwhile may be missing.

Examples:
  synmill conns
  synmill conns --state established,close-wait --peer 198.19.0.0/16
  synmill conns --top 10 --sort rtt --json

Exit status: 0 all of them are listed, 1 no endpoint or not all, 2 wrong usage.";
