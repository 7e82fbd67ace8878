//! CPU time used, as /proc tells it.

use std::fs;

/// CPU time used so far, in clock ticks of 10 ms (USER_HZ is 100 on Linux).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Of each worker's thread.
    pub workers: Vec<u64>,
    /// Of each worker's core, in soft interrupts.
    pub softirq: Vec<u64>,
}

impl Cpu {
    /// Reads /proc for the workers' threads and cores; 0 for what is not there.
    #[must_use]
    pub fn read(threads: &[u32], cores: &[usize]) -> Self {
        let thread =
            |tid: &u32| fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap_or_default();
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            workers: threads.iter().map(|tid| thread_ticks(&thread(tid)).unwrap_or(0)).collect(),
            softirq: cores.iter().map(|&core| softirq_ticks(&stat, core).unwrap_or(0)).collect(),
        }
    }
}

/// `utime` and `stime` of proc_pid_stat(5): the 14th and 15th field, counted behind the name, which may hold anything.
fn thread_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

/// The seventh number of a core's line in proc_stat(5).
fn softirq_ticks(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core}");
    let line = stat.lines().find(|line| line.split_ascii_whitespace().next() == Some(name.as_str()))?;
    line.split_ascii_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_read_by_field() {
        let stat = "42 (synmill ) w0) R 1 1 1 0 -1 4194560 100 0 0 0 700 50 0 0 20 0 3 0 1 1 1";
        assert_eq!(thread_ticks(stat), Some(750));
        assert_eq!(thread_ticks("42 (x"), None);
        let stat = "cpu  1 2 3 4 5 6 7 8\ncpu1 11 12 13 14 15 16 17 18\ncpu10 1 1 1 1 1 1 99 1\n";
        assert_eq!(
            (softirq_ticks(stat, 1), softirq_ticks(stat, 10), softirq_ticks(stat, 2)),
            (Some(17), Some(99), None)
        );
    }
}
