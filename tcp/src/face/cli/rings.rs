//! The options of every command that takes an interface.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::values::ControlSocket;
use crate::host::nic::HashKey;
use crate::host::plan::{Mode, Queues};
use crate::text::Numbers;

/// The options of every command that takes an interface, as given.
#[derive(Args, Clone, Debug)]
pub struct Rings {
    /// Interface to use; every packet for other addresses and ports stays with the kernel
    #[arg(long, display_order = 0, value_name = "IF")]
    pub interface: String,

    /// Receive queues to use: `all`, or numbers and ranges such as 0-3 or 0,2.
    /// Without --steer every active queue must be among them
    #[arg(long, help_heading = RINGS, value_name = "QUEUES", default_value = "all")]
    pub queues: Queues,

    /// Settings of the NIC that bring packets to --queues, which may then leave queues to the kernel.
    /// The end of the run takes it back, but kill -9, SIGQUIT and a second Ctrl-C leave it behind (rules, an RSS context, ntuple
    /// on, table and key): notes at the start show how to undo it by hand
    #[arg(long, help_heading = RINGS, value_name = "HOW", default_value = "none")]
    pub steer: Steer,

    /// With --steer rss: the hash's key, as `ethtool -x` shows it; one key spreads packets alike in every run
    #[arg(long, help_heading = RINGS, value_name = "HEX")]
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

    /// Accept segments whose checksum is only the pseudo-header's sum: the kernel at a veth's other end sends them
    #[arg(long, help_heading = RINGS)]
    pub accept_partial_checksums: bool,

    /// Write the final report to this file, as JSON
    #[arg(long, help_heading = OUTPUT, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Write every frame received and sent to this file, as pcap, readable during the run; slow.
    /// Several workers write FILE.0, FILE.1 and so on
    #[arg(long, help_heading = OUTPUT, value_name = "FILE")]
    pub pcap: Option<PathBuf>,

    /// Socket where `synmill conns` asks for the live connections: its path, or `none`. Only the same user may use it
    /// [default: /run/synmill/PID.sock]
    #[arg(long, help_heading = OUTPUT, value_name = "PATH|none")]
    pub control: Option<ControlSocket>,

    /// No line a second; start, end and errors only
    #[arg(long, help_heading = OUTPUT)]
    pub quiet: bool,
}

/// Headings of the help.
const RINGS: &str = "Queues and workers";
pub(super) const OUTPUT: &str = "Output";

impl ValueEnum for Mode {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Auto => "The first of the others that the driver can do",
            Self::ZeroCopy => "Program in the driver; the device writes into our memory",
            Self::Copy => "Program in the driver; the kernel copies packets",
            Self::Skb => "Program behind the driver, on socket buffers: every driver can, slowest",
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

/// `--steer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Steer {
    /// Nothing
    None,
    /// Flow rules for TCP to our listeners, or from our targets; for several queues the NIC needs RSS contexts.
    /// Pings and stray ports of addresses that only synmill has are answered on --queues alone
    Ntuple,
    /// The RSS table: all TCP comes to --queues, and packets for the kernel are passed on to it. ARP still comes to queue 0
    Rss,
}
