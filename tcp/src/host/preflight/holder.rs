//! Who has an interface's XDP program already, and how to get rid of it. Knows a name and a number; asks nobody.

use synmill_xdp_ebpf::{PROGRAM, PROGRAM_FRAGS};

/// The XDP program that an interface has already, as far as can be found out: that takes CAP_SYS_ADMIN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The kernel's number for it, as `bpftool prog` has it.
    pub id: Option<u32>,
    /// Its name, if it has one.
    pub name: Option<String>,
}

impl Holder {
    /// One line: the interface is taken, by whom, and what to do about it.
    #[must_use]
    pub fn refuses(&self, interface: &str) -> String {
        let number = self.id.map_or_else(String::new, |id| format!(" {id}"));
        if self.name.as_deref().is_some_and(|name| [PROGRAM, PROGRAM_FRAGS].contains(&name)) {
            return format!(
                "{interface} is taken by another synmill serve or bench (XDP program{number}): stop that one (`pgrep -a synmill` \
                 shows those that run), or give all --listen to one serve"
            );
        }
        let name = self.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
        // Only who holds the link can take away what hangs on one. Who asks the kernel for its links holds each of them for a moment, and
        // one that its owner gives up meanwhile stays attached: so nobody asks.
        let advice = format!(
            "stop its owner (`ip -details link show {interface}` may tell more), or, unless it is on a BPF link, ip link set {interface} \
             xdp off"
        );
        match self.id {
            Some(id) => format!("{interface} already has XDP program {id}{name}: {advice}"),
            None => format!("{interface} already has an XDP program{name}: {advice}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_one_that_helps() {
        let told = |name: Option<&str>| Holder { id: Some(7), name: name.map(str::to_owned) }.refuses("t0");
        for name in ["steer", "steer_frags"] {
            let line = told(Some(name));
            assert!(
                line.starts_with("t0 is taken by another synmill serve or bench (XDP program 7): "),
                "{line}"
            );
            assert!(!line.contains("xdp off"), "the kernel refuses that: {line}");
        }
        let line = told(Some("drop_all"));
        assert!(
            line.starts_with("t0 already has XDP program 7 (drop_all): stop its owner (`ip -details"),
            "{line}"
        );
        assert!(line.ends_with("unless it is on a BPF link, ip link set t0 xdp off"), "{line}");
        assert!(told(None).starts_with("t0 already has XDP program 7: stop its owner"));
        assert!(Holder::default().refuses("t0").starts_with("t0 already has an XDP program: stop its owner"));
    }
}
