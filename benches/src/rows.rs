//! Figures as rows: the options of a bench in memory, the rows' table and file, and medians.
//!
//! `cargo xtask bench NAME` runs `cargo bench --package synmill-benches --bench NAME -- --json FILE`, and reads the rows from FILE.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use serde::{Deserialize, Serialize};

/// The options of every bench in memory.
#[derive(Clone, Debug, Default, Parser)]
#[command(about = "A benchmark in memory: needs no network, and no root")]
pub struct Options {
    /// Write the figures to this file, too: a JSON array of {bench, case, value, unit}
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Fewer and smaller cases: to see that it works, not to measure
    #[arg(long)]
    pub quick: bool,
    /// `cargo bench` passes it to every target.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Returns the options of this process; ends it if they are wrong.
    #[must_use]
    pub fn of_process() -> Self {
        Self::parse()
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The bench's name: that of its target or scenario.
    pub bench: String,
    /// What was measured, such as `responder/1000000`.
    pub case: String,
    /// How much.
    pub value: f64,
    /// The unit of the value, such as `ns_per_connection`.
    pub unit: String,
    /// The least and the most of one round, in a lab.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
}

impl Row {
    /// Returns a figure without a range.
    pub fn new(bench: &str, case: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { bench: bench.to_owned(), case: case.into(), value, unit: unit.to_owned(), range: None }
    }
}

/// Writes the rows to the file that `options` name, if any.
///
/// # Errors
/// See [`write_file`].
pub fn write(options: &Options, rows: &[Row]) -> Result<()> {
    options.json.as_deref().map_or(Ok(()), |file| write_file(file, rows))
}

/// Writes the rows to a file.
///
/// # Errors
/// A row's value is no number, or the file cannot be written.
pub fn write_file(file: &Path, rows: &[Row]) -> Result<()> {
    for row in rows {
        ensure!(row.value.is_finite(), "the value of `{}` of {} is {}", row.case, row.bench, row.value);
    }
    let text = serde_json::to_string_pretty(rows).context("writing JSON")?;
    fs::write(file, text + "\n").with_context(|| file.display().to_string())
}

/// Reads the rows of a bench from a file.
///
/// # Errors
/// The file cannot be read, has no rows, or has a row of another bench.
pub fn read_file(file: &Path, bench: &str) -> Result<Vec<Row>> {
    let text = fs::read_to_string(file).with_context(|| format!("`{bench}` wrote no rows"))?;
    parse(&text, bench).with_context(|| format!("the rows of `{bench}` in {}", file.display()))
}

fn parse(text: &str, bench: &str) -> Result<Vec<Row>> {
    let rows: Vec<Row> = serde_json::from_str(text)?;
    ensure!(!rows.is_empty(), "there are none");
    for row in &rows {
        ensure!(row.bench == bench, "`{}` is of the bench `{}`", row.case, row.bench);
    }
    Ok(rows)
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

/// Returns the decimal places that leave three digits or more.
fn places(value: f64) -> usize {
    match value.abs() {
        100.0.. => 1,
        10.0.. => 2,
        _ => 3,
    }
}

/// Returns the median of the values that are numbers; of an even count, the upper of the two in the middle; of none, not a number.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cargo_passes_is_understood() {
        let options =
            Options::try_parse_from(["conn_rate", "--json", "a.json", "--quick", "--bench"]).unwrap();
        assert_eq!((options.json.as_deref(), options.quick), (Some(Path::new("a.json")), true));
        assert!(Options::try_parse_from(["conn_rate", "--rounds", "3"]).is_err());
    }

    #[test]
    fn a_row_has_the_keys_that_programs_read() {
        let row = Row::new("lab", "serve", 2.5, "connections/s");
        let want = json!({"bench": "lab", "case": "serve", "value": 2.5, "unit": "connections/s"});
        assert_eq!(serde_json::to_value(&row).unwrap(), want);
        let ranged = serde_json::to_value(Row { range: Some([2.0, 3.0]), ..row }).unwrap();
        assert_eq!(ranged["range"], json!([2.0, 3.0]));
    }

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
        let rows = [Row::new("b", "c", 1.5, "ns")];
        write_file(&file, &rows).unwrap();
        let read = read_file(&file, "b").unwrap();
        fs::remove_file(&file).unwrap();
        assert_eq!(read, rows);
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!(median([]).is_nan());
    }

    #[test]
    fn the_median_leaves_out_what_is_no_number() {
        assert!((median([3.0, f64::NAN, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!(median([f64::NAN]).is_nan());
    }
}
