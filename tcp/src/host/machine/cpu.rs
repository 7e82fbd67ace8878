//! CPU time from /proc, in clock ticks of 10 ms (USER_HZ is 100 on Linux).

use std::fs;

/// Clock ticks per second. A tick in a second is one percent.
pub const TICKS_PER_S: u64 = 100;

/// CPU time used since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Ticks of each worker's thread, user and system.
    pub workers: Vec<u64>,
    /// Ticks of each worker's core.
    pub cores: Vec<CoreTicks>,
    /// Ticks of the whole process.
    pub process: ProcessTicks,
}

/// Ticks of a core since the boot, for all processes (proc_stat(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreTicks {
    /// The core's number.
    pub core: usize,
    /// Processes in user space, those with a nice value included.
    pub user: u64,
    /// Processes in the kernel.
    pub system: u64,
    /// Hard and soft interrupts: the kernel's work for all packets.
    pub interrupts: u64,
    /// Soft interrupts alone.
    pub softirq: u64,
    /// Idle, or waiting for a disk.
    pub idle: u64,
    /// Time that the hypervisor gave to other guests.
    pub steal: u64,
}

/// Ticks that all threads of this process used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessTicks {
    /// In user space.
    pub user: u64,
    /// In the kernel, for this process.
    pub system: u64,
}

impl Cpu {
    /// Reads /proc for the workers' threads and cores. A thread or core that /proc does not have counts 0.
    #[must_use]
    pub fn read(threads: &[u32], cores: &[usize]) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ticks = |path: &str| task_ticks(&read(path)).unwrap_or_default();
        let stat = read("/proc/stat");
        let thread = |tid: &u32| {
            let ProcessTicks { user, system } = ticks(&format!("/proc/self/task/{tid}/stat"));
            user + system
        };
        let core =
            |&core: &usize| core_ticks(&stat, core).unwrap_or(CoreTicks { core, ..CoreTicks::default() });
        Self {
            workers: threads.iter().map(thread).collect(),
            cores: cores.iter().map(core).collect(),
            process: ticks("/proc/self/stat"),
        }
    }
}

impl CoreTicks {
    /// Returns all ticks but the idle and the stolen ones.
    #[must_use]
    pub const fn busy(&self) -> u64 {
        self.user + self.system + self.interrupts
    }
}

/// Parses `utime` and `stime` of proc_pid_stat(5): the 14th and 15th field. They are counted from the end of the name, which
/// may contain any character.
fn task_ticks(stat: &str) -> Option<ProcessTicks> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11).map(str::parse);
    Some(ProcessTicks { user: fields.next()?.ok()?, system: fields.next()?.ok()? })
}

/// Parses a core's line of proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal. User and nice include the time
/// of guests.
fn core_ticks(stat: &str, core: usize) -> Option<CoreTicks> {
    let name = format!("cpu{core}");
    let mut lines = stat.lines().map(str::split_ascii_whitespace);
    let fields = lines.find_map(|mut fields| (fields.next() == Some(name.as_str())).then_some(fields))?;
    let ticks: Vec<u64> = fields.map_while(|field| field.parse().ok()).collect();
    let &[user, nice, system, idle, iowait, irq, softirq, steal, ..] = ticks.as_slice() else { return None };
    let (user, interrupts, idle) = (user + nice, irq + softirq, idle + iowait);
    Some(CoreTicks { core, user, system, interrupts, softirq, idle, steal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_by_field() {
        let stat = "42 (synmill ) w0) R 1 1 1 0 -1 4194560 100 0 0 0 700 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(task_ticks(stat), Some(ProcessTicks { user: 700, system: 50 }));
        assert_eq!(task_ticks("42 (x"), None);
        let stat = "cpu  1 2 3 4 5 6 7 8\ncpu1 11 12 13 14 15 16 17 18\ncpu10 1 1 1 1 1 1 99 1\ncpu3 1 2 3\n";
        let one =
            CoreTicks { core: 1, user: 23, system: 13, interrupts: 33, softirq: 17, idle: 29, steal: 18 };
        assert_eq!(core_ticks(stat, 1), Some(one));
        assert_eq!(core_ticks(stat, 10).map(|ticks| ticks.softirq), Some(99));
        assert_eq!((core_ticks(stat, 2), core_ticks(stat, 3)), (None, None));
        assert_eq!(one.busy(), 69);
    }

    #[test]
    fn what_is_not_there_is_zero() {
        let cpu = Cpu::read(&[u32::MAX], &[0, usize::MAX]);
        assert_eq!(cpu.workers, [0]);
        assert!(cpu.cores[0].busy() + cpu.cores[0].idle > 0);
        assert_eq!(cpu.cores[1], CoreTicks { core: usize::MAX, ..CoreTicks::default() });
    }
}
