//! Counters of the kernel: segments sent again, packets of an interface, clock ticks of the cores. Knows files of /proc and
//! /sys; never what is measured with them.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{Lab, Side};

/// How often [`CoreWatch`] looks.
const EVERY: Duration = Duration::from_millis(500);

/// Segments that a side's kernel has sent again.
pub(super) fn retransmitted(lab: &Lab, side: Side) -> Result<u64> {
    tcp_counter(&lab.output(side, &["cat", "/proc/net/snmp"])?, "RetransSegs")
}

/// A counter of a side's end of the veth pair, such as `tx_packets`.
pub(super) fn packets(lab: &Lab, side: Side, name: &str) -> Result<u64> {
    let path = format!("/sys/class/net/{}/statistics/{name}", side.interface());
    lab.output(side, &["cat", &path])?.trim().parse().context(path)
}

/// Busy ticks and all ticks of a core.
pub(super) fn ticks(core: usize) -> Result<[u64; 2]> {
    core_ticks(&fs::read_to_string("/proc/stat").context("/proc/stat")?, core)
}

/// What a counter grew by.
#[expect(clippy::cast_precision_loss, reason = "counts of some minutes are far below 2^52")]
pub(super) fn after_minus(after: u64, before: u64) -> f64 {
    after.saturating_sub(before) as f64
}

/// How busy a core was between two readings, in percent.
pub(super) fn busy_percent(before: [u64; 2], after: [u64; 2]) -> f64 {
    100.0 * after_minus(after[0], before[0]) / after_minus(after[1], before[1])
}

/// A counter by its name in the two TCP lines of /proc/net/snmp.
fn tcp_counter(snmp: &str, name: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("/proc/net/snmp has no lines for TCP")?;
    let found = names.split(' ').zip(values.split(' ')).find(|(known, _)| *known == name);
    found.and_then(|(_, value)| value.parse().ok()).with_context(|| format!("/proc/net/snmp has no {name}"))
}

/// Busy ticks and all ticks of a core, from /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
fn core_ticks(stat: &str, core: usize) -> Result<[u64; 2]> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name));
    let line = line.with_context(|| format!("/proc/stat has no core {core}"))?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    ensure!(ticks.len() == 8, "/proc/stat says of core {core}: {line}");
    let all = ticks.iter().sum::<u64>();
    Ok([all - ticks[3] - ticks[4], all])
}

/// How busy a core is while something runs: the median of short intervals, which a slow start or end does not move.
pub(super) struct CoreWatch {
    core: usize,
    at: Instant,
    before: [u64; 2],
    percent: Vec<f64>,
}

impl CoreWatch {
    pub(super) fn start(core: usize) -> Result<Self> {
        Ok(Self { core, at: Instant::now(), before: ticks(core)?, percent: Vec::new() })
    }

    /// To be called often; reads when an interval is over.
    pub(super) fn look(&mut self) -> Result<()> {
        if self.at.elapsed() >= EVERY {
            let now = ticks(self.core)?;
            self.percent.push(busy_percent(self.before, now));
            (self.at, self.before) = (Instant::now(), now);
        }
        Ok(())
    }

    /// Not a number when no interval has passed.
    pub(super) fn median_percent(&self) -> f64 {
        median(self.percent.iter().copied())
    }
}

/// The median of the values that are numbers; of an even count, the upper of the two in the middle. Without any: not a number.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found() {
        let snmp = "Ip: A B\nIp: 1 2\nTcp: InSegs RetransSegs\nTcp: 3 4\n";
        assert_eq!(tcp_counter(snmp, "RetransSegs").unwrap(), 4);
        assert!(tcp_counter(snmp, "A").is_err());
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 2 3 4 5 6 7 8 0 0\ncpu10 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(core_ticks(stat, 1).unwrap(), [27, 36]);
        assert!(core_ticks(stat, 0).is_err());
        assert!((busy_percent([10, 100], [40, 200]) - 30.0).abs() < 1e-9);
    }

    #[test]
    fn the_median_leaves_out_what_is_no_number() {
        assert!((median([3.0, f64::NAN, 1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
        assert!((median([1.0, 2.0].into_iter()) - 2.0).abs() < 1e-9);
        assert!(median([f64::NAN].into_iter()).is_nan());
    }
}
