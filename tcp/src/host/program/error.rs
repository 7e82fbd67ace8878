//! The kernel's refusals of the XDP program, in words.

use std::error::Error as StdError;
use std::io;

use aya::maps::MapError;
use aya::programs::ProgramError;
use synmill_engine::device::Buffers;

use super::Holder;
use crate::host::Error;
use crate::host::machine::how_to_permit;
use crate::host::nic::{Interface, max_mtu};

/// EPERM: the process has neither root's rights nor the capabilities.
fn permission(action: &str) -> Error {
    let how = how_to_permit();
    format!(
        "not permitted to {action}: this needs the capabilities CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: {how}"
    )
    .into()
}

/// The object has no such program or map, or one of another type.
pub(super) fn incomplete(name: &str) -> Error {
    format!("the XDP object has no `{name}` as this version needs it: rebuild it with `cargo xtask ebpf`")
        .into()
}

/// The kernel or the loader refuses the object.
pub(super) fn of_load(error: &(impl StdError + 'static)) -> Error {
    let (line, text) = (one_line(error), error.to_string());
    // The verifier says so, beside EACCES, of what it grants only with CAP_PERFMON.
    let is_for_root = text.contains("prohibited for !root");
    match errno(error) {
        Some(libc::EPERM) => permission("load the XDP program"),
        Some(libc::EACCES) if is_for_root => permission("load the XDP program"),
        _ => {
            let reason = format!("{} {}", line.trim_end(), verdict(&text).unwrap_or_default());
            format!("the XDP program does not load: {}", reason.trim_end()).into()
        }
    }
}

/// The kernel refuses the program. Before Linux 5.18 it does not know packets of several buffers.
pub(super) fn of_load_for(buffers: Buffers, error: &(impl StdError + 'static)) -> Error {
    match (buffers, errno(error)) {
        (Buffers::Several, Some(libc::EINVAL)) => format!(
            "this kernel gives XDP no packets of several buffers: Linux 6.6 or newer is needed, or an MTU of at most {}",
            max_mtu(Buffers::One)
        )
        .into(),
        _ => of_load(error),
    }
}

/// A map with room for so many entries did not take or give one.
pub(super) fn of_map(map: &str, room: u32, error: &MapError) -> Error {
    match errno(error) {
        Some(libc::EPERM) => permission(&format!("use the map {map}")),
        _ => format!("the XDP program's map {map} (room for {room}) failed: {}", one_line(error)).into(),
    }
}

/// The kernel does not run the program on a packet of a test.
pub(super) fn of_test_run(error: &ProgramError) -> Error {
    format!("the kernel does not run the XDP program: {}", one_line(error)).into()
}

/// No interface of this network namespace has the name.
pub(super) fn unknown_interface(interface: &str) -> Error {
    format!("there is no interface {interface} here: `ip -brief link` lists those there are").into()
}

/// The kernel does not attach the program.
pub(super) fn of_attach(interface: &str, error: &ProgramError) -> Error {
    if matches!(error, ProgramError::UnknownInterface { .. }) {
        return unknown_interface(interface);
    }
    // Without its facts the message only says less.
    let facts = Interface::find(interface).ok();
    let mtu = facts.as_ref().map(|facts| facts.mtu);
    match errno(error) {
        Some(libc::EPERM) => permission(&format!("attach to {interface}")),
        // An interface takes one XDP program, in one mode.
        Some(libc::EBUSY | libc::EEXIST) => {
            let program = facts.and_then(|facts| facts.xdp_program);
            program.map_or_else(Holder::default, Holder::find).refuses(interface).into()
        }
        // A frame and XDP's headroom must fit one page, or the buffers that the driver has for a packet.
        Some(libc::ERANGE) => format!(
            "the MTU of {interface}{}, or of its peer if it is a veth, is too large for XDP in its driver: \
             `ip link set dev {interface} mtu 1500`, on both ends of a veth, which takes at most {} (pages of 4096 octets)",
            mtu.map_or_else(String::new, |mtu| format!(" ({mtu})")),
            max_mtu(Buffers::One)
        )
        .into(),
        Some(libc::EOPNOTSUPP) => Error::of_mode(no_native_xdp(interface, mtu)),
        Some(libc::ENOSPC | libc::ENOMEM) => Error::of_mode(format!(
            "{interface} has too few queues for XDP: raise them with `ethtool -L {interface} combined N` \
             (a veth needs as many receive queues as its peer has transmit queues)"
        )),
        _ => {
            let line = one_line(error);
            let reason = drivers_words(&line)
                .map_or_else(|| format!("{line}; the kernel log (dmesg) may say more"), str::to_owned);
            Error::of_mode(refused(interface, mtu, &reason))
        }
    }
}

/// The driver has no native XDP, or not with its present settings.
fn no_native_xdp(interface: &str, mtu: Option<usize>) -> String {
    let mtu = raised(mtu, " or with an MTU of");
    format!("the driver of {interface} has no native XDP, or not while LRO or GRO_HW are on{mtu}")
}

fn refused(interface: &str, mtu: Option<usize>, reason: &str) -> String {
    format!("{interface} does not take the XDP program{}: {reason}", raised(mtu, " with an MTU of"))
}

/// Names an MTU above Ethernet's own as a likely reason.
fn raised(mtu: Option<usize>, words: &str) -> String {
    mtu.filter(|&mtu| mtu > 1500).map_or_else(String::new, |mtu| format!("{words} {mtu}"))
}

/// Returns the kernel's number for an error from its chain of causes.
fn errno(error: &(dyn StdError + 'static)) -> Option<i32> {
    causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
}

/// Returns an error and its causes on one line, without the verifier's log.
fn one_line(error: &(dyn StdError + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error) {
        let text = cause.to_string();
        let first =
            text.split("Verifier output").next().and_then(|text| text.lines().next()).unwrap_or_default();
        if !first.is_empty() && !line.contains(first) {
            let separator = if line.is_empty() { "" } else { ": " };
            line.extend([separator, first]);
        }
    }
    line
}

/// Returns the driver's own words: a netlink answer has them in brackets and quotes.
fn drivers_words(line: &str) -> Option<&str> {
    let (_, quoted) = line.split_once("[\"")?;
    quoted.split_once("\"]").map(|(words, _)| words)
}

/// Returns the verifier's complaint: the last line of its log before the statistics.
fn verdict(text: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    let (_, log) = text.split_once("Verifier output: ")?;
    let says = |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start));
    log.lines().rev().map(str::trim).find(says)
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use aya::sys::SyscallError;

    use super::*;

    #[test]
    fn what_the_driver_says_is_told_without_its_wrapping() {
        let line = r#"netlink error: ["igb: The RX buffer size is too small for the frame size"]: Invalid argument (os error 22)"#;
        assert_eq!(drivers_words(line), Some("igb: The RX buffer size is too small for the frame size"));
        assert_eq!(drivers_words("netlink error: []: Invalid argument (os error 22)"), None);
    }

    #[test]
    fn only_a_refusal_that_another_mode_may_mend_goes_on() {
        let of_attach = |errno| {
            let io_error = io::Error::from_raw_os_error(errno);
            of_attach("synmill-none", &SyscallError { call: "bpf_link_create", io_error }.into())
        };
        for errno in [libc::EOPNOTSUPP, libc::ENOSPC, libc::ENOMEM, libc::EINVAL] {
            assert!(of_attach(errno).is_of_mode(), "{errno}");
        }
        for errno in [libc::EPERM, libc::EBUSY, libc::EEXIST, libc::ERANGE] {
            assert!(!of_attach(errno).is_of_mode(), "{errno}");
        }
    }

    #[test]
    fn a_large_mtu_is_named_where_it_may_be_the_reason() {
        let told = |mtu| no_native_xdp("t0", mtu);
        assert!(told(Some(3498)).ends_with("GRO_HW are on or with an MTU of 3498"), "{}", told(Some(3498)));
        assert!(told(Some(1500)).ends_with("GRO_HW are on") && told(None).ends_with("GRO_HW are on"));
        let refused = refused("t0", Some(3498), "too small");
        assert_eq!(refused, "t0 does not take the XDP program with an MTU of 3498: too small");
    }

    #[test]
    fn the_verifiers_verdict_is_found_before_its_statistics() {
        let text = "the BPF_PROG_LOAD syscall returned Invalid argument (os error 22). Verifier output: 0: R1=ctx()\n\
                    131: (0f) r3 += r8\nmath between pkt pointer and register\nverification time 20855 usec\n\
                    stack depth 96+0\nprocessed 210 insns (limit 1000000)\n";
        assert_eq!(verdict(text), Some("math between pkt pointer and register"));
        assert_eq!(verdict("the BPF_MAP_CREATE syscall failed"), None);
    }
}
