//! The floors of each crate: the one list of which module may import which.

/// A crate's floors, lowest first. A floor is a line of modules; a module stands for all modules in it that have no line of their
/// own. A module may import from its own floor and from lower ones. The crate's root may import everything.
pub(super) struct Floors {
    /// The crate's root, from the workspace's folder.
    pub(super) root: &'static str,
    pub(super) floors: &'static [&'static str],
}

/// All crates with floors. Manifests keep crates apart; these lists are about the modules in them.
pub(super) const ALL: &[Floors] = &[
    Floors {
        root: "tcp/engine/src/lib.rs",
        floors: &[
            "time hint sync names random",
            "stats",
            "flow proto",
            "wire service",
            "device",
            "endpoint",
            "worker generator",
        ],
    },
    Floors { root: "tcp/src/lib.rs", floors: &["text", "host", "face"] },
    Floors {
        root: "xtask/lab/src/lib.rs",
        floors: &["wait command schema report", "process", "interrupt lab", "prerequisites synmill"],
    },
    Floors {
        root: "xtask/vm/src/lib.rs",
        floors: &["guest console", "monitor packages wires", "machine image", "host", "matrix"],
    },
    Floors {
        root: "xtask/vm/src/bin/guest/main.rs",
        floors: &["report", "harness", "broken busy faults ladder mtu pair peers spare steering vlan"],
    },
];
