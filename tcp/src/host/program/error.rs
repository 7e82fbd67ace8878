//! Why the XDP program could not be loaded or attached: the kernel's numbers in words. Knows errno values and `ip link`; never maps.

use std::error::Error;
use std::io;
use std::process::Command;

use aya::maps::MapError;
use aya::programs::ProgramError;
use serde::Deserialize;
use thiserror::Error;

use super::holder;
use crate::host::preflight::{Holder, how_to_permit, max_mtu};
use synmill_engine::device::Buffers;

/// What went wrong, and how to mend it, in one line each.
#[derive(Debug, Error)]
pub enum SteerError {
    /// EPERM: the process has neither root's rights nor the capabilities.
    #[error(
        "not permitted to {action}: this needs the capabilities CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: {}",
        how_to_permit()
    )]
    Permission {
        /// What was tried.
        action: String,
    },
    /// Older than Linux 5.9.
    #[error("this kernel has no bpf_link for XDP: Linux 5.9 or newer is needed")]
    KernelTooOld,
    /// EINVAL for the program that takes packets of several buffers: older than Linux 5.18.
    #[error(
        "this kernel gives XDP no packets of several buffers: Linux 6.6 or newer is needed, or an MTU of at most {}",
        max_mtu(Buffers::One)
    )]
    OneBuffer,
    /// The object cannot be read, or the kernel does not take its program or maps.
    #[error("the XDP program does not load: {reason}")]
    Object {
        /// The kernel's or the loader's words, on one line.
        reason: String,
    },
    /// The object has no such program or map, or one of another type.
    #[error("the XDP object has no `{name}` as this version needs it: rebuild it with `cargo xtask ebpf`")]
    Incomplete {
        /// The program or the map.
        name: &'static str,
    },
    /// A map did not take or give an entry.
    #[error("the XDP program's map {map} (room for {room}) failed: {reason}")]
    Map {
        /// The map.
        map: &'static str,
        /// How many entries it has room for.
        room: u32,
        /// The kernel's words.
        reason: String,
    },
    /// No interface of this name in this network namespace.
    #[error("there is no interface {interface} here: `ip -brief link` lists those there are")]
    UnknownInterface {
        /// As given.
        interface: String,
    },
    /// EBUSY or EEXIST: one interface takes one XDP program, in one mode.
    #[error("{}", holder.refuses(interface))]
    Occupied {
        /// The interface.
        interface: String,
        /// The other program.
        holder: Holder,
    },
    /// ERANGE: a frame and XDP's headroom have to fit into one page, or into as many buffers as there may be.
    #[error(
        "the MTU of {interface}{}, or of its peer if it is a veth, is too large for XDP in its driver: \
         `ip link set dev {interface} mtu 1500`, on both ends of a veth, which takes at most {} (pages of 4096 octets)",
        mtu.map_or_else(String::new, |mtu| format!(" ({mtu})")),
        max_mtu(Buffers::One)
    )]
    MtuTooLarge {
        /// The interface.
        interface: String,
        /// Its MTU now, if it can be found.
        mtu: Option<u32>,
    },
    /// EOPNOTSUPP: the driver has no native XDP, or not with its present settings.
    #[error(
        "the driver of {interface} has no native XDP, or not while LRO or GRO_HW are on{}",
        raised(*mtu, " or with an MTU of")
    )]
    NoNativeXdp {
        /// The interface.
        interface: String,
        /// Its MTU now, if it can be found.
        mtu: Option<u32>,
    },
    /// ENOSPC or ENOMEM: the device has too few queues for XDP.
    #[error(
        "{interface} has too few queues for XDP: raise them with `ethtool -L {interface} combined N` \
         (a veth needs as many receive queues as its peer has transmit queues)"
    )]
    TooFewQueues {
        /// The interface.
        interface: String,
    },
    /// Any other refusal.
    #[error("{interface} does not take the XDP program{}: {reason}", raised(*mtu, " with an MTU of"))]
    Refused {
        /// The interface.
        interface: String,
        /// Its MTU now, if it can be found.
        mtu: Option<u32>,
        /// The driver's words, or else the kernel's.
        reason: String,
    },
    /// The kernel did not run the program on a packet of ours.
    #[error("the kernel does not run the XDP program: {}", one_line(.0))]
    TestRun(ProgramError),
}

impl SteerError {
    pub(super) fn from_load(error: impl Error + 'static) -> Self {
        // The verifier's words, beside EACCES, for what it grants only with CAP_PERFMON.
        let is_for_root = error.to_string().contains("prohibited for !root");
        match errno(&error) {
            Some(libc::EACCES) if is_for_root => Self::Permission { action: "load the XDP program".into() },
            Some(libc::EPERM) => Self::Permission { action: "load the XDP program".into() },
            _ => {
                let (line, text) = (one_line(&error), error.to_string());
                let verdict = verdict(&text).unwrap_or_default();
                Self::Object { reason: format!("{} {verdict}", line.trim_end()).trim_end().into() }
            }
        }
    }

    /// [`SteerError::from_load`], where the kernel may not know what several buffers are.
    pub(super) fn from_load_for(buffers: Buffers, error: impl Error + 'static) -> Self {
        match (buffers, errno(&error)) {
            (Buffers::Several, Some(libc::EINVAL)) => Self::OneBuffer,
            _ => Self::from_load(error),
        }
    }

    pub(super) fn from_map(map: &'static str, room: u32, error: &MapError) -> Self {
        match errno(error) {
            Some(libc::EPERM) => Self::Permission { action: format!("use the map {map}") },
            _ => Self::Map { map, room, reason: one_line(error) },
        }
    }

    pub(super) fn from_attach(interface: &str, error: &ProgramError) -> Self {
        let interface = interface.to_owned();
        if matches!(error, ProgramError::UnknownInterface { .. }) {
            return Self::UnknownInterface { interface };
        }
        let mtu = || link_shown(&interface).and_then(|link| link.mtu);
        match errno(error) {
            Some(libc::EPERM) => Self::Permission { action: format!("attach to {interface}") },
            Some(libc::EBUSY | libc::EEXIST) => {
                let shown = link_shown(&interface).and_then(|link| link.xdp?.prog);
                Self::Occupied {
                    holder: shown.map_or_else(Holder::default, |prog| holder(prog.id)),
                    interface,
                }
            }
            Some(libc::ERANGE) => Self::MtuTooLarge { mtu: mtu(), interface },
            Some(libc::EOPNOTSUPP) => Self::NoNativeXdp { mtu: mtu(), interface },
            Some(libc::ENOSPC | libc::ENOMEM) => Self::TooFewQueues { interface },
            _ => {
                let line = one_line(error);
                let reason = drivers_words(&line)
                    .map_or_else(|| format!("{line}; the kernel log (dmesg) may say more"), str::to_owned);
                Self::Refused { mtu: mtu(), interface, reason }
            }
        }
    }
}

/// A likely reason, where the MTU is not Ethernet's own.
fn raised(mtu: Option<u32>, words: &str) -> String {
    mtu.filter(|&mtu| mtu > 1500).map_or_else(String::new, |mtu| format!("{words} {mtu}"))
}

/// What `ip -json -details link` shows of an interface, as far as it explains a refusal.
#[derive(Deserialize)]
struct LinkShown {
    mtu: Option<u32>,
    xdp: Option<XdpShown>,
}

#[derive(Deserialize)]
struct XdpShown {
    prog: Option<ProgramShown>,
}

#[derive(Deserialize)]
struct ProgramShown {
    id: u32,
}

/// Asks `ip`, which is there wherever interfaces are set up; without it the message only says less.
fn link_shown(interface: &str) -> Option<LinkShown> {
    let shown =
        Command::new("ip").args(["-json", "-details", "link", "show", "dev", interface]).output().ok()?;
    serde_json::from_slice::<Vec<LinkShown>>(&shown.stdout).ok()?.pop()
}

/// The system's number for an error, wherever in the chain of causes it is.
fn errno(error: &(dyn Error + 'static)) -> Option<i32> {
    causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
}

/// An error and its causes on one line, the verifier's log left out.
fn one_line(error: &(dyn Error + 'static)) -> String {
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

/// What the driver told the kernel besides the number: a netlink answer has it in brackets and quotes.
fn drivers_words(line: &str) -> Option<&str> {
    let (_, quoted) = line.split_once("[\"")?;
    quoted.split_once("\"]").map(|(words, _)| words)
}

/// The line of the verifier's log that says what it does not take: the last one before its statistics.
fn verdict(text: &str) -> Option<&str> {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    let (_, log) = text.split_once("Verifier output: ")?;
    let says = |line: &&str| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start));
    log.lines().rev().map(str::trim).find(says)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_says_is_told_without_its_wrapping() {
        let line = r#"netlink error: ["igb: The RX buffer size is too small for the frame size"]: Invalid argument (os error 22)"#;
        assert_eq!(drivers_words(line), Some("igb: The RX buffer size is too small for the frame size"));
        assert_eq!(drivers_words("netlink error: []: Invalid argument (os error 22)"), None);
    }

    #[test]
    fn a_large_mtu_is_named_where_it_may_be_the_reason() {
        let told = |mtu| SteerError::NoNativeXdp { interface: "t0".into(), mtu }.to_string();
        assert!(told(Some(3498)).ends_with("GRO_HW are on or with an MTU of 3498"), "{}", told(Some(3498)));
        assert!(told(Some(1500)).ends_with("GRO_HW are on") && told(None).ends_with("GRO_HW are on"));
        let refused =
            SteerError::Refused { interface: "t0".into(), mtu: Some(3498), reason: "too small".into() };
        assert_eq!(refused.to_string(), "t0 does not take the XDP program with an MTU of 3498: too small");
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
