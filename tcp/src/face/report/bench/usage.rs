//! CPU time between two moments, and what of it a connection took.

use std::time::Duration;

use serde::Serialize;

use crate::face::report::{per_s, tenth};
use crate::host::machine::cpu::{CoreTicks, Cpu, TICKS_PER_S};
use synmill_engine::stats::Snapshot;

/// How things stood at a moment: all workers' counters together, and the CPU time.
#[derive(Clone, Debug, Default)]
pub struct Moment {
    /// Since the trial's start.
    pub at: Duration,
    /// The counters.
    pub counts: Snapshot,
    /// CPU time.
    pub cpu: Cpu,
}

/// CPU time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuUse {
    /// The time it was taken over: the window.
    pub window_s: f64,
    /// The workers' cores.
    pub cores: Vec<CoreUse>,
    /// The whole process.
    pub process: ProcessUse,
    /// Busy time of the workers' cores, whoever used it, over the connections that closed in the window; nothing if none did, if none
    /// was established, or if the time is too short for the clock's ticks.
    pub ns_per_connection: Option<f64>,
}

/// What a core did, in percent of the window. What is missing to 100 a hypervisor gave to others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CoreUse {
    /// Its number.
    pub core: usize,
    /// In user space.
    pub user_percent: f64,
    /// In the kernel.
    pub system_percent: f64,
    /// In interrupts, soft ones mostly.
    pub softirq_percent: f64,
    /// Nothing.
    pub idle_percent: f64,
}

/// CPU time of the process, all threads together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ProcessUse {
    /// In user space.
    pub user_s: f64,
    /// In the kernel.
    pub system_s: f64,
}

impl CoreUse {
    /// What the core was idle, and what a hypervisor took, is measured; the rest is looked at with each tick: who sleeps and wakes with
    /// the ticks is in all of them, or in none. So the rest shares what those two leave, as the ticks have it.
    fn between(before: &CoreTicks, after: &CoreTicks, window_s: f64) -> Self {
        let percent = |after: u64, before: u64| per_s(after.saturating_sub(before), window_s);
        let idle = percent(after.idle, before.idle);
        let left = (100.0 - idle - percent(after.steal, before.steal)).max(0.0);
        let ticks = after.busy().saturating_sub(before.busy());
        // In no tick at all, it is somebody's whom nothing is known of.
        let share = if ticks == 0 { 0.0 } else { left / ticks as f64 };
        let of = |after: u64, before: u64| tenth(after.saturating_sub(before) as f64 * share);
        Self {
            core: after.core,
            user_percent: of(after.user, before.user),
            system_percent: of(after.system, before.system),
            softirq_percent: of(after.interrupts, before.interrupts),
            idle_percent: tenth(idle),
        }
    }

    fn busy_percent(&self) -> f64 {
        self.user_percent + self.system_percent + self.softirq_percent
    }
}

impl CpuUse {
    /// What was used between two moments in which so many connections were established, and so many closed.
    pub(super) fn between(begin: &Moment, end: &Moment, established: u64, closed: u64) -> Self {
        let window_s = end.at.saturating_sub(begin.at).as_secs_f64();
        let seconds = |after: u64, before: u64| after.saturating_sub(before) as f64 / TICKS_PER_S as f64;
        let pairs = || end.cpu.cores.iter().zip(&begin.cpu.cores);
        let cores: Vec<CoreUse> =
            pairs().map(|(after, before)| CoreUse::between(before, after, window_s)).collect();
        let busy_s: f64 = cores.iter().map(|core| core.busy_percent() / 100.0 * window_s).sum();
        // Refused ones close, too, but what the cores did is not theirs.
        let has_price = established > 0 && closed > 0 && busy_s > 0.0;
        let (after, before) = (end.cpu.process, begin.cpu.process);
        Self {
            window_s,
            cores,
            process: ProcessUse {
                user_s: seconds(after.user, before.user),
                system_s: seconds(after.system, before.system),
            },
            ns_per_connection: has_price.then(|| (busy_s * 1e9 / closed as f64).round()),
        }
    }
}
