//! The floors of each package: the one list of what may import what.

/// A package's floors, lowest first. A floor is a line of modules; a module stands for all modules in it that have no line of
/// their own. A module may import from its own floor and from lower ones. A package's root may import everything.
pub(super) struct Floors {
    pub(super) package: &'static str,
    pub(super) floors: &'static [&'static str],
}

/// All packages with floors. Packages are kept apart by their manifests; these lists are about the modules in them.
pub(super) const ALL: &[Floors] = &[
    Floors {
        package: "synmill-engine",
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
    Floors { package: "synmill", floors: &["text", "host", "face"] },
    Floors {
        package: "synmill-lab",
        floors: &["wait command schema report", "process", "interrupt lab", "prerequisites synmill"],
    },
    Floors {
        package: "synmill-vm",
        floors: &[
            "guest console",
            "monitor packages wires",
            "machine image",
            "host",
            "matrix",
            // Those of the guest, a binary of its own.
            "report",
            "harness",
            "broken busy faults ladder mtu pair peers spare steering vlan",
        ],
    },
];
