//! The memory that this process may still take.

use std::fs;
use std::path::Path;

/// Returns the bytes that this process may still take, as far as is known: by the machine, and by the limits of its control groups.
pub(super) fn available_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = meminfo_bytes(&meminfo, "MemAvailable:");
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    machine.into_iter().chain(ROOTS.iter().filter_map(|root| groups_leave(&groups, Path::new(root)))).min()
}

/// The usual mount point of control groups, here and for the machine's first process: `ip netns exec` mounts another /sys.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/proc/1/root/sys/fs/cgroup"];

/// Returns the value of a line of proc_meminfo(5), in bytes.
pub(crate) fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024))
}

/// The files of a control group, by their version.
struct Files {
    limit: &'static str,
    taken: &'static str,
    /// The line of `memory.stat` with the file cache that the kernel drops when memory is short, inner groups included.
    cache: &'static str,
}

/// cgroups(7); Linux, Documentation/admin-guide/cgroup-v2.rst.
const V2: Files = Files { limit: "memory.max", taken: "memory.current", cache: "inactive_file " };
/// Documentation/admin-guide/cgroup-v1/memory.rst. A group without a limit shows a number beyond all memory.
const V1: Files =
    Files { limit: "memory.limit_in_bytes", taken: "memory.usage_in_bytes", cache: "total_inactive_file " };

/// Returns the bytes that the limits of a process's groups leave it, for groups of both versions mounted at `root`.
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
    /// Returns the bytes that a group and those around it leave. A group that is not visible (a container may see its own as the root) does
    /// not count.
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

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal:       24576000 kB\nMemFree:         1000000 kB\nMemAvailable:   16000000 kB\n";

    #[test]
    fn memory_that_is_available_is_read_in_bytes() {
        assert_eq!(meminfo_bytes(MEMINFO, "MemAvailable:"), Some(16_384_000_000));
        assert_eq!(meminfo_bytes("MemTotal: 1 kB\n", "MemAvailable:"), None);
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
}
