//! Memory of the machine, and figures from rounds.

use std::fs;

use anyhow::{Context as _, Result};

use crate::rows::{Row, median};

/// Returns a value of a file such as /proc/meminfo, whose kB are 1024 bytes, in bytes.
///
/// # Errors
/// The file cannot be read, or has no such value.
pub fn proc_bytes(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    parse_bytes(&text, name).with_context(|| format!("{file} has no `{name}`"))
}

fn parse_bytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Whether memory for `needed` bytes and a tenth more is available. Otherwise prints that the bench leaves out the case.
///
/// # Errors
/// The kernel does not say.
pub fn is_room_for(needed: u64, case: &str) -> Result<bool> {
    let available = proc_bytes("/proc/meminfo", "MemAvailable")?;
    let fits = needed + needed / 10 <= available;
    if !fits {
        let gigabytes = |bytes: u64| bytes as f64 / 1e9;
        println!(
            "{case} is left out: it takes {:.1} GB and a tenth more, and {:.1} GB are available",
            gigabytes(needed),
            gigabytes(available)
        );
    }
    Ok(fits)
}

/// The figures of a case's rounds, in ns.
#[derive(Clone, Debug)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Measures `count` rounds.
    pub fn of(count: usize, round: impl FnMut() -> f64) -> Self {
        Self(std::iter::repeat_with(round).take(count).collect())
    }

    /// Returns the median.
    #[must_use]
    pub fn median(&self) -> f64 {
        median(self.0.iter().copied())
    }

    /// Returns the least.
    #[must_use]
    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Prints the median and the least, and returns the median as a row in `ns_per_WHAT`.
    pub fn row(&self, bench: &str, case: &str, what: &str) -> Row {
        let row = Row::new(bench, case, self.median(), &format!("ns_per_{what}"));
        println!(
            "{case:26} {:8.1} ns per {what} (least {:8.1}), {:6.2} M/s",
            row.value,
            self.least(),
            1e3 / row.value
        );
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let text = "MemTotal:       24 kB\nMemAvailable:   23461 kB\nHugePages_Total:       0\n";
        assert_eq!(parse_bytes(text, "MemAvailable"), Some(23_461 * 1024));
        assert_eq!(parse_bytes(text, "HugePages_Total"), None);
        assert_eq!(parse_bytes(text, "Mem"), None);
    }

    #[test]
    fn the_median_and_the_least_of_rounds() {
        let mut next = 4.0;
        let rounds = Rounds::of(3, || {
            next -= 1.0;
            next
        });
        assert_eq!((rounds.median(), rounds.least()), (2.0, 1.0));
    }
}
