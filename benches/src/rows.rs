//! What the benches in memory share: their options, their figures as rows, medians. Knows files and text; never what is measured.
//!
//! `cargo bench --package synmill-benches --bench NAME -- --json FILE` is what `cargo xtask bench NAME` runs, and FILE is what it
//! reads back: an array of rows.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde::{Deserialize, Serialize};

/// What every bench in memory understands.
#[derive(Clone, Debug, Default, Parser)]
#[command(about = "A benchmark in memory: needs no network, and no root")]
pub struct Options {
    /// Write the figures to this file, too: a JSON array of {bench, case, value, unit}
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Fewer and smaller cases: to see that it works, not to measure
    #[arg(long)]
    pub quick: bool,
    /// What `cargo bench` passes to every target.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Of this process; ends it when they are wrong.
    #[must_use]
    pub fn of_process() -> Self {
        Self::parse()
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Row {
    /// The bench's name: that of its target.
    pub bench: String,
    /// What was measured, such as `responder/1000000`.
    pub case: String,
    /// How much.
    pub value: f64,
    /// Of what, such as `ns_per_connection`.
    pub unit: String,
}

impl Row {
    /// A figure of this bench.
    pub fn new(bench: &str, case: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { bench: bench.to_owned(), case: case.into(), value, unit: unit.to_owned() }
    }
}

/// Writes the rows to the file that was asked for, if one was.
///
/// # Errors
/// The row whose value is no number, or why the file could not be written.
pub fn write(options: &Options, rows: &[Row]) -> Result<()> {
    match &options.json {
        Some(file) => write_file(file, rows),
        None => Ok(()),
    }
}

/// Writes the rows to a file.
///
/// # Errors
/// As [`write()`].
pub fn write_file(file: &Path, rows: &[Row]) -> Result<()> {
    for row in rows {
        ensure!(row.value.is_finite(), "the value of `{}` of {} is {}", row.case, row.bench, row.value);
    }
    let text = serde_json::to_string_pretty(rows).context("writing JSON")?;
    fs::write(file, text + "\n").with_context(|| file.display().to_string())
}

/// Prints the rows as a table of case, value and unit.
pub fn print(rows: &[Row]) {
    print!("{}", table(rows));
}

fn table(rows: &[Row]) -> String {
    let values: Vec<String> = rows.iter().map(|row| format!("{:.*}", places(row.value), row.value)).collect();
    let case_width = rows.iter().map(|row| row.case.len()).max().unwrap_or(0);
    let value_width = values.iter().map(String::len).max().unwrap_or(0);
    let line = |(row, value): (&Row, &String)| {
        format!("{:case_width$}  {value:>value_width$}  {}\n", row.case, row.unit)
    };
    rows.iter().zip(&values).map(line).collect()
}

/// Decimal places that leave three digits or more.
fn places(value: f64) -> usize {
    match value.abs() {
        100.0.. => 1,
        10.0.. => 2,
        _ => 3,
    }
}

/// The median; of an even count, the upper of the two in the middle. Without a value: not a number.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_passes_is_understood() {
        let options =
            Options::try_parse_from(["conn_rate", "--json", "a.json", "--quick", "--bench"]).unwrap();
        assert_eq!((options.json.as_deref(), options.quick), (Some(Path::new("a.json")), true));
        assert!(Options::try_parse_from(["conn_rate", "--rounds", "3"]).is_err());
    }

    #[test]
    fn a_table_is_aligned() {
        let rows =
            [Row::new("b", "responder/1000", 165.25, "ns_per_connection"), Row::new("b", "x", 3.5, "ns")];
        let want = "responder/1000  165.2  ns_per_connection\nx               3.500  ns\n";
        assert_eq!(table(&rows), want);
    }

    #[test]
    fn only_numbers_are_written() {
        let file = std::env::temp_dir().join(format!("synmill-rows-{}.json", std::process::id()));
        assert!(write_file(&file, &[Row::new("b", "c", f64::NAN, "ns")]).is_err());
        assert!(!file.exists());
        write_file(&file, &[Row::new("b", "c", 1.5, "ns")]).unwrap();
        let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(value, serde_json::json!([{"bench": "b", "case": "c", "value": 1.5, "unit": "ns"}]));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!(median(Vec::new()).is_nan());
    }
}
