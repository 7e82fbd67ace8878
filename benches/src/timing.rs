//! What the benches in memory need of the machine: cores of their own, room, and figures from rounds. Knows threads and /proc; never
//! what is measured.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use core_affinity::CoreId;

use crate::rows::{Row, median};

/// Keeps this thread on the `nth` core of those that are allowed; the first is number 0.
///
/// # Errors
/// There are not so many.
pub fn pin(nth: usize) -> Result<()> {
    // A thread that is pinned sees its own core alone: ask before.
    let cores = core_affinity::get_core_ids().context("the kernel does not say on which cores we may run")?;
    let core =
        cores.get(nth).with_context(|| format!("there are {} cores, {} are needed", cores.len(), nth + 1))?;
    pin_to(*core)
}

/// Keeps this thread on a core.
///
/// # Errors
/// It is not allowed.
pub fn pin_to(core: CoreId) -> Result<()> {
    ensure!(core_affinity::set_for_current(core), "core {} cannot be had", core.id);
    Ok(())
}

/// The number after a name in one of /proc's files of such lines, there in kB; in bytes.
///
/// # Errors
/// The file, or why it cannot be read.
pub fn proc_bytes(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| file.to_owned())?;
    parse_bytes(&text, name).with_context(|| format!("{file} has no `{name}`"))
}

fn parse_bytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Is there memory for `needed` bytes, and a tenth more? Says what is left out, when there is not.
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

/// The figures of a case's rounds, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Of `count` rounds.
    pub fn of(count: usize, round: impl FnMut() -> f64) -> Self {
        Self(std::iter::repeat_with(round).take(count).collect())
    }

    /// The one in the middle.
    #[must_use]
    pub fn median(&self) -> f64 {
        median(self.0.clone())
    }

    /// The least: what it takes when nothing disturbs.
    #[must_use]
    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The median as a row in `ns_per_` what is counted; and says it, with the least beside it.
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
