//! The user's choices about an interface and the workers at it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::host::nic::spread::Steering;
use crate::text::Numbers;

/// How a run takes an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The interface's name.
    pub interface: String,
    /// The queues to use.
    pub queues: Queues,
    /// The settings of the NIC that bring packets to the queues. The plan adds the flows.
    pub steering: Steering,
    /// The number of workers; `None` for one per queue.
    pub workers: Option<usize>,
    /// The workers' cores; `None` for those that the process may run on.
    pub cores: Option<Numbers>,
    /// How to reach the driver.
    pub mode: Mode,
    /// Poll the driver from the workers' own system calls.
    pub busy_poll: bool,
    /// The file for all frames received and sent.
    pub pcap: Option<PathBuf>,
}

/// A choice of receive queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Queues {
    /// All active queues.
    #[default]
    All,
    /// These queues.
    Only(Numbers),
}

impl FromStr for Queues {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::Only) }
    }
}

/// How packets get from the driver to the rings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The first of the others that the driver can do.
    #[default]
    Auto,
    /// The program in the driver; the device writes into our memory.
    ZeroCopy,
    /// The program in the driver; the kernel copies packets.
    Copy,
    /// The program behind the driver, on socket buffers.
    Skb,
}

impl Mode {
    /// Automatic choice, then the modes from the fastest.
    pub const ALL: [Self; 4] = [Self::Auto, Self::ZeroCopy, Self::Copy, Self::Skb];

    /// Returns the mode's name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ZeroCopy => "zerocopy",
            Self::Copy => "copy",
            Self::Skb => "skb",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
