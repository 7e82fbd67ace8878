//! CPU time in the window, and its share per connection.

use serde::Serialize;

use super::interval::Moment;
use crate::face::report::{per_s, tenth};
use crate::host::machine::cpu::{CoreTicks, TICKS_PER_S};

/// CPU time in the window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CpuUse {
    /// Length of the window.
    pub window_s: f64,
    /// The workers' cores.
    pub cores: Vec<CoreUse>,
    /// The whole process.
    pub process: ProcessUse,
    /// Busy time of the workers' cores, for all processes, per connection closed in the window. `None` if no connection was
    /// established or closed, or if the window is too short for the clock's ticks.
    pub ns_per_connection: Option<f64>,
}

/// CPU time of a core, in percent of the window. A hypervisor gave the rest to other guests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CoreUse {
    /// The core's number.
    pub core: usize,
    /// In user space.
    pub user_percent: f64,
    /// In the kernel.
    pub system_percent: f64,
    /// In interrupts, mostly soft ones.
    pub softirq_percent: f64,
    /// Idle.
    pub idle_percent: f64,
}

/// CPU time of all threads of the process.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ProcessUse {
    /// In user space.
    pub user_s: f64,
    /// In the kernel.
    pub system_s: f64,
}

impl CoreUse {
    /// Returns a core's CPU time between two moments.
    ///
    /// The kernel measures idle and stolen time, and samples the rest at each tick. A thread that sleeps and wakes with the
    /// ticks is in all samples or in none. So the sampled parts share the time that idleness and the hypervisor leave.
    fn between(before: &CoreTicks, after: &CoreTicks, window_s: f64) -> Self {
        let grown = |part: fn(&CoreTicks) -> u64| part(after).saturating_sub(part(before));
        let [idle, steal] =
            [grown(|core| core.idle), grown(|core| core.steal)].map(|ticks| per_s(ticks, window_s));
        let left = (100.0 - idle - steal).max(0.0);
        // Without a tick the time belongs to nobody that is known.
        let share = match grown(CoreTicks::busy) {
            0 => 0.0,
            ticks => left / ticks as f64,
        };
        let percent = |part| tenth(grown(part) as f64 * share);
        Self {
            core: after.core,
            user_percent: percent(|core| core.user),
            system_percent: percent(|core| core.system),
            softirq_percent: percent(|core| core.interrupts),
            idle_percent: tenth(idle),
        }
    }

    fn busy_percent(&self) -> f64 {
        self.user_percent + self.system_percent + self.softirq_percent
    }
}

impl CpuUse {
    /// Returns the CPU time between two moments. `established` and `closed` are the connections of that time.
    pub(super) fn between(begin: &Moment, end: &Moment, established: u64, closed: u64) -> Self {
        let window_s = end.at.saturating_sub(begin.at).as_secs_f64();
        let seconds = |after: u64, before: u64| after.saturating_sub(before) as f64 / TICKS_PER_S as f64;
        let pairs = end.cpu.cores.iter().zip(&begin.cpu.cores);
        let cores: Vec<CoreUse> =
            pairs.map(|(after, before)| CoreUse::between(before, after, window_s)).collect();
        let busy_s: f64 = cores.iter().map(|core| core.busy_percent() / 100.0 * window_s).sum();
        // Refused connections close, too, but the cores' work is not theirs.
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
