//! CPU time and losses of a stretch of time: the parts that the intervals of both reports share.

use serde::Serialize;

use super::{Named, tenth};
use crate::host::machine::cpu::Cpu;
use crate::text::grouped;
use synmill_engine::stats::Snapshot;

/// CPU time in an interval, in percent of its length.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Busy {
    /// Each worker's thread, user and system.
    pub worker_cpu_percent: Vec<f64>,
    /// Soft interrupts of each worker's core: the kernel's work for all packets.
    pub softirq_percent: Vec<f64>,
}

impl Busy {
    /// Returns the CPU time between two moments that are `seconds` apart.
    pub(super) fn between(before: &Cpu, after: &Cpu, seconds: f64) -> Self {
        let percent = |(after, before): (u64, u64)| tenth(after.saturating_sub(before) as f64 / seconds);
        let workers = after.workers.iter().copied().zip(before.workers.iter().copied());
        let cores = after.cores.iter().zip(&before.cores);
        Self {
            worker_cpu_percent: workers.map(percent).collect(),
            softirq_percent: cores.map(|(after, before)| percent((after.softirq, before.softirq))).collect(),
        }
    }

    /// Returns the percentages of the threads and those of the cores, each as a list of whole numbers.
    pub(super) fn lists(&self) -> [String; 2] {
        [&self.worker_cpu_percent, &self.softirq_percent]
            .map(|values| values.iter().map(|value| format!("{value:.0}")).collect::<Vec<_>>().join(" "))
    }
}

/// The counters of losses at the rings.
const RINGS: [&str; 9] = [
    "rx_ring_full",
    "fill_ring_empty",
    "rx_dropped",
    "tx_invalid",
    "tx_ring_full",
    "busy_poll_stalls",
    "tx_stalls",
    "no_free_frame",
    "no_transfer_record",
];

/// Returns the counters of losses at the rings, those that are 0 included.
pub(super) fn rings(counts: &Snapshot) -> impl Iterator<Item = (&'static str, u64)> + use<> {
    counts.counts().filter(|(name, _)| RINGS.contains(name))
}

/// Losses in an interval.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Losses {
    /// Segments retransmitted.
    pub retrans_segs: u64,
    /// Frames dropped, by reason; only reasons that occurred.
    pub drops: Named,
    /// Losses at the rings, by counter; only counters that grew.
    pub ring_losses: Named,
}

impl From<&Snapshot> for Losses {
    /// Takes the losses from the counts of one interval.
    fn from(counts: &Snapshot) -> Self {
        Self {
            retrans_segs: counts.retrans_segs,
            drops: counts.drops().filter(|&(_, count)| count > 0).collect(),
            ring_losses: rings(counts).filter(|&(_, count)| count > 0).collect(),
        }
    }
}

impl Losses {
    /// Returns `NAME COUNT` for each loss. `retransmitted` is the name of the segments retransmitted.
    pub(super) fn words(&self, retransmitted: &str) -> impl Iterator<Item = String> {
        let again =
            (self.retrans_segs > 0).then(|| format!("{retransmitted} {}", grouped(self.retrans_segs)));
        again.into_iter().chain(self.drops.words()).chain(self.ring_losses.words())
    }
}
