//! The capabilities that a run needs.

/// Capabilities for AF_XDP, the program and its attachment: number in linux/capability.h, and name. Without `CAP_PERFMON` the verifier
/// refuses the program its variable packet offsets.
const NEEDED: [(u32, &str); 4] =
    [(13, "cap_net_raw"), (12, "cap_net_admin"), (CAP_BPF, "cap_bpf"), (CAP_PERFMON, "cap_perfmon")];
const CAP_BPF: u32 = 39;
const CAP_PERFMON: u32 = 38;
/// `CAP_SYS_ADMIN` stands in for those two.
const SYS_ADMIN: u32 = 21;

/// Returns the commands that grant all capabilities, locked memory beyond RLIMIT_MEMLOCK included.
#[must_use]
pub fn how_to_permit() -> String {
    let program =
        std::env::current_exe().map_or_else(|_| "PATH-OF-SYNMILL".into(), |path| path.display().to_string());
    format!(
        "run it with sudo, or once: sudo setcap {},cap_ipc_lock+ep {program}",
        NEEDED.map(|(_, name)| name).join(",")
    )
}

/// Checks effective capabilities, one bit each.
///
/// # Errors
/// One line: the missing capabilities, and how to get them.
pub fn check(effective: u64) -> Result<(), String> {
    let has = |number: u32| effective & (1 << number) != 0;
    let stood_in = |number| matches!(number, CAP_BPF | CAP_PERFMON) && has(SYS_ADMIN);
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|&&(number, _)| !has(number) && !stood_in(number))
        .map(|&(_, name)| name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("missing {}: {}", missing.join(", ").to_uppercase(), how_to_permit()))
}
