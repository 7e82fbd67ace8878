//! The engine's instructions for a connection: a figure that is the same in every run.
//!
//! `cargo bench --package synmill-benches --bench instructions -- --check` fails if a figure is more than 3 % above that in
//! benches/instructions.json; `--record` writes that file. Each case runs under valgrind's callgrind, in a process of its own. It counts the
//! instructions of this program with the standard library. The C library is left out: its copying loops differ between processors.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use synmill_benches::callgrind;
use synmill_benches::engine::{Batches, Dialogue, Family, Opener, Requests, Responder, Setup};
use synmill_benches::rows::{self, Options, Row};

const BENCH: &str = "instructions";
/// The environment variable with the case of a process under valgrind.
const CASE: &str = "SYNMILL_INSTRUCTIONS_CASE";
/// A larger rise fails the check; after a larger fall the figures should be recorded.
const TOLERANCE: f64 = 0.03;
/// Connections that stay: few enough for valgrind's speed, in a table of more than a few lines.
const RESIDENT: usize = 10_000;
/// Connections or requests of a case.
const COUNTED: u64 = 20_000;

#[derive(Debug, Parser)]
#[command(about = "Counts the engine's instructions for each connection, by callgrind")]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Fail if a figure is more than 3 % above the recorded one
    #[arg(long)]
    check: bool,
    /// Write the figures to benches/instructions.json
    #[arg(long, conflicts_with = "check")]
    record: bool,
}

/// The cases and their units.
const CASES: [(&str, &str); 5] = [
    ("responder", "connection"),
    ("responder-v6", "connection"),
    ("request", "request"),
    ("generator", "connection"),
    ("generator-http", "connection"),
];

/// Does the engine's part of a batch, in which callgrind counts.
#[inline(never)]
fn counted(batches: &mut impl Batches) {
    batches.turn();
    // Without it the call could become a jump, which leaves this function.
    std::hint::black_box(());
}

/// Does connections or requests, and prints their number.
fn count(batches: &mut impl Batches) {
    let mut done = 0;
    while done < COUNTED {
        batches.prepare();
        counted(batches);
        done += batches.collect();
    }
    println!("{done}");
}

/// Performs a case in the process under valgrind.
fn perform(case: &str) -> Result<()> {
    let responder = |family| {
        let mut responder = Responder::new(Setup::of(family, RESIDENT));
        responder.fill();
        responder.warm();
        responder
    };
    let opener = |dialogue| {
        let mut opener = Opener::new(dialogue, RESIDENT as u64);
        opener.fill();
        let mut done = 0;
        while done < COUNTED {
            done += opener.batch();
        }
        opener
    };
    match case {
        "responder" => count(&mut responder(Family::V4)),
        "responder-v6" => count(&mut responder(Family::V6)),
        "request" => count(&mut Requests::new(&mut responder(Family::V4))),
        "generator" => count(&mut opener(Dialogue::Connect)),
        "generator-http" => count(&mut opener(Dialogue::Http)),
        _ => bail!("there is no case `{case}`"),
    }
    Ok(())
}

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}

/// Compares with the recorded figures.
fn check(rows: &[Row]) -> Result<()> {
    let file = recorded();
    let name = file.display();
    let text = fs::read_to_string(&file).with_context(|| name.to_string())?;
    let known: Vec<Row> = serde_json::from_str(&text).with_context(|| name.to_string())?;
    ensure!(known.len() == rows.len(), "{name} has {} figures, and there are {}", known.len(), rows.len());
    let mut risen = Vec::new();
    for row in rows {
        let was = known.iter().find(|known| known.case == row.case && known.unit == row.unit);
        let was = was.with_context(|| format!("{name} has no `{}`", row.case))?.value;
        let by = row.value / was - 1.0;
        let said = format!("{}: {:.1}, recorded {was:.1}: {:+.1} %", row.case, row.value, by * 100.0);
        println!("{said}");
        if by > TOLERANCE {
            risen.push(said);
        } else if by < -TOLERANCE {
            println!("  That is less: record it with --record, so that it stays.");
        }
    }
    ensure!(
        risen.is_empty(),
        "more instructions than recorded, by over {:.0} %. If that is worth it, run with --record and say why in the commit:\n{}",
        TOLERANCE * 100.0,
        risen.join("\n")
    );
    println!("No figure has risen by more than {:.0} %.", TOLERANCE * 100.0);
    Ok(())
}

fn main() -> Result<()> {
    if let Ok(case) = std::env::var(CASE) {
        return perform(&case);
    }
    let Arguments { options, check: checks, record } = Arguments::parse();
    let mut found = Vec::new();
    for (case, what) in CASES {
        let counts = callgrind::count(CASE, case, "*instructions::counted*")?;
        let each = |instructions: u64| instructions as f64 / counts.done as f64;
        println!(
            "{case:16} {:8.1} instructions per {what}, and {:6.1} of the C library",
            each(counts.own),
            each(counts.others)
        );
        let tenths = (each(counts.own) * 10.0).round() / 10.0;
        found.push(Row::new(BENCH, case, tenths, &format!("instructions_per_{what}")));
    }
    rows::write(&options, &found)?;
    if record {
        rows::write_file(&recorded(), &found)?;
    }
    if checks { check(&found) } else { Ok(()) }
}
