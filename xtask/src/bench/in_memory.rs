//! The benches without a network: targets of benches/benches. Knows their names, and what cargo and they are told; never how they
//! measure.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{Interrupt, cargo, prerequisites};

use super::archive::Row;
use super::stage::Folder;

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct InMemory {
    /// Of the target, and of its rows.
    pub(super) name: &'static str,
    pub(super) question: &'static str,
    /// Units whose figures are drawn; without any, those of all rows but ratios.
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

/// Runs it; its rows.
pub(super) fn measure(interrupt: &Interrupt, bench: &InMemory, quick: bool) -> Result<Vec<Row>> {
    prerequisites::ensure(interrupt, &[prerequisites::BUILD])?;
    let folder = Folder::new()?;
    let file = folder.file("rows.json");
    let mut command = cargo(["bench", "--package", "synmill-benches", "--bench", bench.name, "--", "--json"]);
    command.arg(&file).args(quick.then_some("--quick"));
    interrupt.run(&mut command)?;
    let text = fs::read_to_string(&file).with_context(|| format!("`{}` wrote no rows", bench.name))?;
    parse(&text, bench.name).with_context(|| format!("the rows that `{}` wrote", bench.name))
}

fn parse(text: &str, name: &str) -> Result<Vec<Row>> {
    let rows: Vec<Row> = serde_json::from_str(text)?;
    ensure!(!rows.is_empty(), "there are none");
    for row in &rows {
        ensure!(row.bench == name, "`{}` is of the bench `{}`", row.case, row.bench);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_back() {
        let text = r#"[{"bench": "memory", "case": "established-v4/1000", "value": 80, "unit": "bytes_per_connection"}]"#;
        let want = [Row::new("memory", "established-v4/1000", 80.0, "bytes_per_connection")];
        assert_eq!(parse(text, "memory").unwrap(), want);
    }

    #[test]
    fn rows_that_are_missing_or_of_another_bench_are_refused() {
        for (text, said) in [
            ("[]", "none"),
            (r#"[{"bench": "lab", "case": "serve", "value": 1, "unit": "s"}]"#, "`lab`"),
            (r#"[{"bench": "memory", "case": "a", "value": null, "unit": "s"}]"#, "null"),
        ] {
            let error = format!("{:#}", parse(text, "memory").unwrap_err());
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
