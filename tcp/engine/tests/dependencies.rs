//! The engine builds anywhere: no package that it, its build or its tests depend on needs C, or belongs to the host.

use std::collections::{HashMap, HashSet};

/// The workspace's lock file: it has the dependencies of every kind, with all features that any member of the workspace uses.
const LOCK: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"));

/// Packages that compile or link C, that generate bindings, or that belong to the host, the command line and the fleet.
const FORBIDDEN: &str = "aya bindgen cc clang-sys clap cmake libbpf-sys libelf-sys libxdp-sys nix openssl-sys pkg-config rustix socket2 \
                         tokio xsk-rs";
/// Beginnings of the names of such packages.
const FORBIDDEN_FAMILIES: [&str; 4] = ["aya-", "libbpf", "netlink-", "synmill-xdp"];
/// loom needs C, and is only there with the feature `model`.
const OPTIONAL: &str = "loom";

/// Returns the names in the lock file, each with the names that it depends on.
fn packages() -> HashMap<&'static str, HashSet<&'static str>> {
    let mut packages = HashMap::<_, HashSet<_>>::new();
    for package in LOCK.split("[[package]]").skip(1) {
        let mut lines = package.lines().map(str::trim);
        let name = lines.find_map(|line| line.strip_prefix("name = ")).expect("a package has a name");
        // A dependency is a line of the array: its name, and its version if there are several.
        let dependencies = lines.filter_map(|line| line.strip_prefix('"')?.split([' ', '"']).next());
        packages.entry(name.trim_matches('"')).or_default().extend(dependencies);
    }
    packages
}

/// Returns the path from `name` to each package below it for which `is_wanted` holds. Each package is visited once.
fn paths(name: &'static str, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let packages = packages();
    let (mut seen, mut found, mut next) = (HashSet::from([OPTIONAL]), Vec::new(), vec![vec![name]]);
    while let Some(path) = next.pop() {
        let name = path[path.len() - 1];
        if !seen.insert(name) {
            continue;
        }
        if is_wanted(name) {
            found.push(path.join(" -> "));
        }
        next.extend(packages[name].iter().map(|dependency| [&path[..], &[*dependency]].concat()));
    }
    found
}

#[test]
fn the_engine_needs_no_c_and_no_host() {
    let is_forbidden = |name: &str| {
        FORBIDDEN.split_whitespace().any(|forbidden| name == forbidden)
            || FORBIDDEN_FAMILIES.iter().any(|family| name.starts_with(family))
    };
    assert_eq!(paths("synmill-engine", is_forbidden), [""; 0]);
    // The search finds packages that are there.
    assert_eq!(paths("synmill-engine", |name| name == "siphasher"), ["synmill-engine -> siphasher"]);
    assert!(paths("synmill", is_forbidden).iter().any(|path| path.ends_with("-> libxdp-sys")));
}
