//! CPU time between two moments, and what of it a connection took.

use serde::Serialize;

use super::{Moment, per_s};
use crate::report::cpu::TICKS_PER_S;
use crate::report::tenth;

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

impl CpuUse {
    /// What was used between two moments in which so many connections were established, and so many closed.
    pub(super) fn between(begin: &Moment, end: &Moment, established: u64, closed: u64) -> Self {
        let window_s = end.at.saturating_sub(begin.at).as_secs_f64();
        let percent = |after: u64, before: u64| tenth(per_s(after.saturating_sub(before), window_s));
        let seconds = |after: u64, before: u64| after.saturating_sub(before) as f64 / TICKS_PER_S as f64;
        let pairs = || end.cpu.cores.iter().zip(&begin.cpu.cores);
        let cores = pairs().map(|(after, before)| CoreUse {
            core: after.core,
            user_percent: percent(after.user, before.user),
            system_percent: percent(after.system, before.system),
            softirq_percent: percent(after.interrupts, before.interrupts),
            idle_percent: percent(after.idle, before.idle),
        });
        let busy_s: f64 = pairs().map(|(after, before)| seconds(after.busy(), before.busy())).sum();
        // Refused ones close, too, but what the cores did is not theirs.
        let has_price = established > 0 && closed > 0 && busy_s > 0.0;
        let (after, before) = (end.cpu.process, begin.cpu.process);
        Self {
            window_s,
            cores: cores.collect(),
            process: ProcessUse {
                user_s: seconds(after.user, before.user),
                system_s: seconds(after.system, before.system),
            },
            ns_per_connection: has_price.then(|| (busy_s * 1e9 / closed as f64).round()),
        }
    }
}
