//! Who has an interface's XDP program already, and how to get rid of it. Knows a name and a number; asks nobody.

use synmill_xdp_ebpf::{PROGRAM, PROGRAM_FRAGS};

/// The XDP program that an interface has already, as far as can be found out: that takes CAP_SYS_ADMIN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The kernel's number for it, as `bpftool prog` has it.
    pub id: Option<u32>,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Does it hang on a BPF link? Only who holds the link can take it away then.
    pub is_linked: Option<bool>,
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
        let advice = match self.is_linked {
            Some(true) => "stop the process that holds its BPF link (`bpftool link` shows it)".into(),
            Some(false) => format!("stop its owner, or ip link set {interface} xdp off"),
            None => format!(
                "stop its owner (`ip -details link show {interface}` may tell more), or, unless it is on a BPF link, \
                 ip link set {interface} xdp off"
            ),
        };
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
        let told = |name: Option<&str>, is_linked| {
            Holder { id: Some(7), name: name.map(str::to_owned), is_linked }.refuses("t0")
        };
        for name in ["steer", "steer_frags"] {
            let line = told(Some(name), Some(true));
            assert!(
                line.starts_with("t0 is taken by another synmill serve or bench (XDP program 7): "),
                "{line}"
            );
            assert!(!line.contains("xdp off"), "{line}");
        }
        let line = told(Some("drop_all"), Some(true));
        assert!(
            line.starts_with("t0 already has XDP program 7 (drop_all): stop the process that holds"),
            "{line}"
        );
        assert!(!line.contains("xdp off"), "the kernel refuses that: {line}");
        let line = told(None, Some(false));
        assert_eq!(line, "t0 already has XDP program 7: stop its owner, or ip link set t0 xdp off");
        assert!(told(None, None).contains("unless it is on a BPF link, ip link set t0 xdp off"));
        assert!(Holder::default().refuses("t0").starts_with("t0 already has an XDP program: stop its owner"));
    }
}
