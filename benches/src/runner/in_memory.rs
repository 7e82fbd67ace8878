//! The benches in memory: targets of benches/benches.

use anyhow::Result;
use synmill_benches::rows::{Row, read_file};
use synmill_benches::scratch::Folder;
use synmill_lab::{Interrupt, cargo};

/// A bench in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct InMemory {
    /// The name of the target, and of its rows.
    pub(super) name: &'static str,
    pub(super) question: &'static str,
    /// Units of the plot; none stands for those of all rows but ratios.
    pub(super) plots: &'static [&'static str],
}

pub(super) const ALL: [InMemory; 7] = [
    InMemory {
        name: "conn_rate",
        question: "How long does the engine take for a connection of 3 + 3 packets, by how many others are resident? Responder and opener, in memory, on one core.",
        plots: &["ns_per_connection", "ns_per_request"],
    },
    InMemory {
        name: "memory",
        question: "How many bytes does an idle established connection take, all in, by how many there are, and how long is a worker's longest turn while they come? IPv4 and IPv6.",
        plots: &["bytes_per_connection", "us"],
    },
    InMemory {
        name: "micro",
        question: "What do parsing, checksums, hashing, look-ups, timers and emitting take, each by itself?",
        plots: &[],
    },
    InMemory {
        name: "smoltcp",
        question: "How long do synmill's engine and smoltcp's take for a connection of the same frames, in memory?",
        plots: &["ns_per_connection"],
    },
    InMemory {
        name: "instructions",
        question: "How many instructions does the engine take for a connection and for a request? The same in every run: by callgrind.",
        plots: &[],
    },
    InMemory {
        name: "reader",
        question: "What does it cost a loaded worker that another thread reads all of its connections, over and over?",
        plots: &["ns_per_connection"],
    },
    InMemory {
        name: "gaps",
        question: "How even are the gaps between the SYNs of a generator, by the rate that it is asked for?",
        plots: &["us_from_asked_gap"],
    },
];

/// Runs a bench and returns its rows.
pub(super) fn measure(interrupt: &Interrupt, bench: &InMemory, quick: bool) -> Result<Vec<Row>> {
    let folder = Folder::new("bench")?;
    let file = folder.file("rows.json");
    let mut command = cargo(["bench", "--package", "synmill-benches", "--bench", bench.name, "--", "--json"]);
    command.arg(&file).args(quick.then_some("--quick"));
    interrupt.run(&mut command)?;
    read_file(&file, bench.name)
}
