//! The XDP program that an interface has already, and how to get rid of it.

use aya::programs::loaded_programs;
use synmill_xdp_ebpf::{PROGRAM, PROGRAM_FRAGS};

/// The XDP program that an interface has already, as far as the kernel tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The kernel's number for the program, as `bpftool prog` shows it.
    pub id: Option<u32>,
    /// The program's name, if it has one.
    pub name: Option<String>,
}

impl Holder {
    /// The program of this number. The kernel tells its name only with CAP_SYS_ADMIN.
    #[must_use]
    pub fn find(id: u32) -> Self {
        let program = loaded_programs().flatten().find(|program| program.id() == id);
        let name = program.and_then(|program| program.name_as_str().map(str::to_owned));
        Self { id: Some(id), name: name.filter(|name| !name.is_empty()) }
    }

    /// Returns one line: the interface is taken, by which program, and how to free it.
    #[must_use]
    pub fn refuses(&self, interface: &str) -> String {
        let number = self.id.map_or_else(String::new, |id| format!(" {id}"));
        if self.name.as_deref().is_some_and(|name| [PROGRAM, PROGRAM_FRAGS].contains(&name)) {
            return format!(
                "{interface} is taken by another synmill serve or bench (XDP program{number}): stop that process (`pgrep -a synmill` \
                 lists them), or give every --listen to one serve"
            );
        }
        let name = self.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
        // Only the holder of a BPF link can detach its program. Asking the kernel for its links would hold each of them for a moment:
        // a link that its owner closes meanwhile would stay attached. So synmill does not ask.
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
