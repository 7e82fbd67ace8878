//! Is there memory for what is asked for? Knows what the kernel says is available; never what connections are made of.

use std::fs;
use std::path::Path;

use super::Place;
use crate::text::grouped;
use synmill_engine::device::{Buffers, kept_frames, queue_bytes};

/// Bytes that this process may still take, as far as is known: what the machine has, and what its control groups leave.
pub(super) fn available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(parse_meminfo);
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    machine.into_iter().chain(ROOTS.iter().filter_map(|root| groups_leave(&groups, Path::new(root)))).min()
}

/// Where control groups are mounted by custom, and the same as the machine's first process sees it: `ip netns exec` mounts another /sys.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/proc/1/root/sys/fs/cgroup"];

/// `MemAvailable` of proc_meminfo(5), in bytes.
fn parse_meminfo(text: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024))
}

/// The files of a control group, by their version.
struct Files {
    limit: &'static str,
    taken: &'static str,
    /// The line of `memory.stat` with the cache of files that makes room when memory is asked for, groups inside included.
    cache: &'static str,
}

/// cgroups(7); Linux, Documentation/admin-guide/cgroup-v2.rst.
const V2: Files = Files { limit: "memory.max", taken: "memory.current", cache: "inactive_file " };
/// Documentation/admin-guide/cgroup-v1/memory.rst. Without a limit it is one beyond all memory.
const V1: Files =
    Files { limit: "memory.limit_in_bytes", taken: "memory.usage_in_bytes", cache: "total_inactive_file " };

/// What the limits of a process's groups leave it, in bytes: of both versions, mounted at `root`.
fn groups_leave(groups: &str, root: &Path) -> Option<u64> {
    let group = |line: &str| {
        let (hierarchy, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(":/")?;
        if hierarchy == "0" {
            return V2.leave(root, path);
        }
        let has_memory = controllers.split(',').any(|controller| controller == "memory");
        if has_memory { V1.leave(&root.join("memory"), path) } else { None }
    };
    groups.lines().filter_map(group).min()
}

impl Files {
    /// What a group and those around it leave. One that is not to be seen (a container's own may stand for the root) is passed over.
    fn leave(&self, root: &Path, path: &str) -> Option<u64> {
        let leaves = |group: &Path| {
            let read = |file: &str| fs::read_to_string(group.join(file)).ok();
            let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
            let stat = read("memory.stat").unwrap_or_default();
            let cache = stat.lines().find_map(|line| line.strip_prefix(self.cache)?.parse().ok());
            let taken = number(self.taken)?.saturating_sub(cache.unwrap_or(0));
            Some(number(self.limit)?.saturating_sub(taken))
        };
        let own = root.join(path);
        own.ancestors().take_while(|group| group.starts_with(root)).filter_map(leaves).min()
    }
}

/// What a run must have, as far as memory goes.
pub(super) struct Wanted<'a> {
    /// Connections held at once, all workers together.
    pub(super) connections: usize,
    /// An option that asks for so many of them, if there is one.
    pub(super) least: Option<(&'a str, usize)>,
    /// The workers.
    pub(super) workers: &'a [Place],
    /// How packets lie in the driver's memory.
    pub(super) buffers: Buffers,
    /// The interface's MTU in bytes.
    pub(super) mtu: usize,
}

impl Wanted<'_> {
    /// Bytes for so many connections, the frames of all queues included; `worker` says what one worker takes for its share of the
    /// connections and for the frames that it may keep.
    fn bytes(&self, connections: usize, worker: &impl Fn(usize, usize) -> usize) -> u64 {
        let each = |place: &Place| {
            let queues = place.queues.len();
            worker(connections.div_ceil(self.workers.len()), queues * kept_frames(self.buffers))
                + queues * queue_bytes(self.buffers, self.mtu)
        };
        self.workers.iter().map(|place| each(place) as u64).sum()
    }

    /// Refuses what does not fit. Where nothing is known of the memory the kernel decides.
    pub(super) fn check(
        &self,
        available: Option<u64>,
        worker: impl Fn(usize, usize) -> usize,
    ) -> Result<(), String> {
        let needed = self.bytes(self.connections, &worker);
        let Some(available) = available.filter(|&available| available < needed) else { return Ok(()) };
        // The first that is too many lies above `most`.
        let (mut most, mut too_many) = (0, self.connections);
        while most + 1 < too_many {
            let middle = most.midpoint(too_many);
            if self.bytes(middle, &worker) <= available { most = middle } else { too_many = middle }
        }
        let most = rounded(most);
        let help = match self.least {
            _ if most.0 < self.workers.len() => "free some memory".into(),
            Some((option, least)) if most.0 < least => {
                format!("give at most {option} {0} --max-connections {0}", most.1)
            }
            _ => format!("give at most --max-connections {}", most.1),
        };
        Err(format!(
            "room for {} connections needs {} bytes of memory, and {} are available: {help}",
            grouped(self.connections as u64),
            grouped(needed),
            grouped(available)
        ))
    }
}

/// Rounded down to two digits or more, and as one types it.
fn rounded(count: usize) -> (usize, String) {
    match count {
        10_000_000.. => (count / 1_000_000 * 1_000_000, format!("{}M", count / 1_000_000)),
        10_000.. => (count / 1000 * 1000, format!("{}K", count / 1000)),
        _ => (count, count.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal:       24576000 kB\nMemFree:         1000000 kB\nMemAvailable:   16000000 kB\n";

    fn places(count: usize) -> Vec<Place> {
        (0..count).map(|core| Place { core, queues: vec![core] }).collect()
    }

    /// A hundred bytes a connection, none for frames.
    fn check(
        connections: usize,
        least: Option<(&str, usize)>,
        workers: usize,
        available: u64,
    ) -> Result<(), String> {
        let frames = (workers * queue_bytes(Buffers::One, 1500)) as u64;
        Wanted { connections, least, workers: &places(workers), buffers: Buffers::One, mtu: 1500 }
            .check(Some(available + frames), |slots, _| 100 * slots)
    }

    #[test]
    fn memory_that_is_available_is_read_in_bytes() {
        assert_eq!(parse_meminfo(MEMINFO), Some(16_384_000_000));
        assert_eq!(parse_meminfo("MemTotal: 1 kB\n"), None);
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn the_narrowest_group_counts_and_its_cache_does_not() {
        let root = std::env::temp_dir().join(format!("synmill-groups-{}", std::process::id()));
        let inner = root.join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        let write = |folder: &Path, max: &str, current: &str| {
            fs::write(folder.join("memory.max"), max).unwrap();
            fs::write(folder.join("memory.current"), current).unwrap();
        };
        write(&inner, "max\n", "5000\n");
        assert_eq!(groups_leave("1:cpu:/x\n0::/outer/inner\n", &root), None);
        write(&root.join("outer"), "9000\n", "6000\n");
        assert_eq!(groups_leave("0::/outer/inner\n", &root), Some(3000));
        fs::write(root.join("outer/memory.stat"), "anon 1\ninactive_file 2500\n").unwrap();
        assert_eq!(groups_leave("0::/outer/inner\n", &root), Some(5500));
        write(&inner, "4000\n", "5000\n");
        assert_eq!(groups_leave("0::/outer/inner\n", &root), Some(0));
        assert_eq!(groups_leave("4:memory:/outer\n", &root), None);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn groups_of_the_first_version_count_too() {
        let root = std::env::temp_dir().join(format!("synmill-groups-v1-{}", std::process::id()));
        let own = root.join("memory/own");
        fs::create_dir_all(&own).unwrap();
        let write = |folder: &Path, file: &str, text: &str| fs::write(folder.join(file), text).unwrap();
        write(&own, "memory.limit_in_bytes", "9000\n");
        write(&own, "memory.usage_in_bytes", "6000\n");
        write(&own, "memory.stat", "inactive_file 1\ntotal_inactive_file 500\n");
        let groups = "9:name=systemd:/own\n4:hugetlb,memory:/own\n0::/\n";
        assert_eq!(groups_leave(groups, &root), Some(3500));
        assert_eq!(groups_leave("4:cpu:/own\n", &root), None);
        // A container sees its own group where the root is mounted, and its name outside.
        let outside = "4:memory:/docker/0123/own\n";
        assert_eq!(groups_leave(outside, &root), None);
        write(&root.join("memory"), "memory.limit_in_bytes", "5000\n");
        write(&root.join("memory"), "memory.usage_in_bytes", "4000\n");
        assert_eq!(groups_leave(outside, &root), Some(1000));
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_fits_is_let_through_and_what_is_refused_says_how_much_fits() {
        assert_eq!(check(1_000_000, None, 1, 100_000_000), Ok(()));
        assert_eq!(check(1_000_000, None, 2, 100_000_000), Ok(()));
        let table = [
            (1_000_000, None, 1, 99_999_999, "--max-connections 999K"),
            (100_000_000, None, 2, 5_012_345_678, "--max-connections 50M"),
            (1_000_000, None, 1, 123_456, "--max-connections 1234"),
            (1_000_000, None, 2, 150, "free some memory"),
            (1000, Some(("--concurrency", 800)), 1, 90_000, "at most --max-connections 900"),
            (
                1000,
                Some(("--concurrency", 800)),
                1,
                70_000,
                "at most --concurrency 700 --max-connections 700",
            ),
        ];
        for (connections, least, workers, available, part) in table {
            let line = check(connections, least, workers, available).expect_err(part);
            assert!(line.ends_with(part), "says: {line}\n not: {part}");
        }
        let line = check(1_000_000, None, 1, 1000).unwrap_err();
        assert_eq!(
            line,
            "room for 1,000,000 connections needs 133,554,432 bytes of memory, and 33,555,432 are available: \
             give at most --max-connections 10"
        );
    }

    #[test]
    fn where_nothing_is_known_nothing_is_refused() {
        let wanted = Wanted {
            connections: usize::MAX >> 20,
            least: None,
            workers: &places(1),
            buffers: Buffers::One,
            mtu: 1500,
        };
        assert_eq!(wanted.check(None, |slots, _| 100 * slots), Ok(()));
    }
}
