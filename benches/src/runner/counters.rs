//! Counters of the kernel: packets of an interface, and clock ticks of the cores.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use synmill_benches::rows::median;
use synmill_lab::{Lab, Side};

/// The length of an interval of [`CoreWatch`].
const INTERVAL: Duration = Duration::from_millis(500);

/// Returns a counter of a side's interface, such as `tx_packets`.
pub(super) fn packets(lab: &Lab, side: Side, name: &str) -> Result<u64> {
    let path = format!("/sys/class/net/{}/statistics/{name}", side.interface());
    lab.output(side, &["cat", &path])?.trim().parse().context(path)
}

/// Returns a counter's increase.
#[expect(clippy::cast_precision_loss, reason = "counts of some minutes are far below 2^52")]
pub(super) fn increase(before: u64, after: u64) -> f64 {
    after.saturating_sub(before) as f64
}

/// Returns how busy a core was between two readings of its ticks, in percent.
fn busy_percent(before: [u64; 2], after: [u64; 2]) -> f64 {
    100.0 * increase(before[0], after[0]) / increase(before[1], after[1])
}

/// Returns a core's busy ticks and all its ticks.
fn ticks(core: usize) -> Result<[u64; 2]> {
    core_ticks(&fs::read_to_string("/proc/stat").context("/proc/stat")?, core)
}

/// Parses /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
fn core_ticks(stat: &str, core: usize) -> Result<[u64; 2]> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name));
    let line = line.with_context(|| format!("/proc/stat has no core {core}"))?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    ensure!(ticks.len() == 8, "/proc/stat has fewer than 8 times for core {core}: {line}");
    let all = ticks.iter().sum::<u64>();
    Ok([all - ticks[3] - ticks[4], all])
}

/// How busy a core is: the median of short intervals, which a slow start or end does not move.
pub(super) struct CoreWatch {
    core: usize,
    start: Instant,
    before: [u64; 2],
    percent: Vec<f64>,
}

impl CoreWatch {
    pub(super) fn start(core: usize) -> Result<Self> {
        Ok(Self { core, start: Instant::now(), before: ticks(core)?, percent: Vec::new() })
    }

    /// Reads the ticks if the interval is over. Call it often.
    pub(super) fn look(&mut self) -> Result<()> {
        if self.start.elapsed() >= INTERVAL {
            let now = ticks(self.core)?;
            self.percent.push(busy_percent(self.before, now));
            (self.start, self.before) = (Instant::now(), now);
        }
        Ok(())
    }

    /// Returns not a number before the end of the first interval.
    pub(super) fn median_percent(self) -> f64 {
        median(self.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 2 3 4 5 6 7 8 0 0\ncpu10 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(core_ticks(stat, 1).unwrap(), [27, 36]);
        assert!(core_ticks(stat, 0).is_err());
        assert!((busy_percent([10, 100], [40, 200]) - 30.0).abs() < 1e-9);
    }
}
