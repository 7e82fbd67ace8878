//! The engine builds anywhere: nothing that it depends on needs a C compiler, a C library or Linux's own interfaces.

use std::process::Command;

/// Packages that compile or link C, that generate bindings, or that belong to the host and the command line.
const FORBIDDEN: &[&str] = &[
    "aya",
    "bindgen",
    "cc",
    "clang-sys",
    "clap",
    "cmake",
    "libbpf-sys",
    "libelf-sys",
    "libxdp-sys",
    "netlink-sys",
    "nix",
    "openssl-sys",
    "pkg-config",
    "rustix",
    "socket2",
    "tokio",
    "xsk-rs",
];
/// Beginnings of the names of such packages.
const FORBIDDEN_FAMILIES: &[&str] = &["aya-", "libbpf", "netlink-", "synmill-xdp"];

/// Returns the dependency tree of the engine, its tests and its build: the depth and the name of each package.
fn tree() -> Vec<(usize, String)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--package", env!("CARGO_PKG_NAME"), "--edges", "normal,build,dev"])
        .args(["--no-dedupe", "--prefix", "depth", "--format", " {p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names are UTF-8");
    let package = |line: &str| {
        let (depth, package) = line.split_once(' ')?;
        Some((depth.parse().ok()?, package.split(' ').next()?.to_owned()))
    };
    text.lines().filter_map(package).collect()
}

/// Returns the path from the engine to each package for which `is_forbidden` holds.
fn paths(tree: &[(usize, String)], is_forbidden: impl Fn(&str) -> bool) -> Vec<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut found = Vec::new();
    for (depth, name) in tree {
        path.truncate(*depth);
        path.push(name);
        if is_forbidden(name) {
            found.push(path.join(" -> "));
        }
    }
    found
}

#[test]
fn the_engine_needs_no_c_and_no_host() {
    let forbidden = |name: &str| {
        FORBIDDEN.contains(&name) || FORBIDDEN_FAMILIES.iter().any(|family| name.starts_with(family))
    };
    let tree = tree();
    assert!(tree.len() > 5 && tree[0].1 == "synmill-engine", "{tree:?}");
    assert_eq!(paths(&tree, forbidden), [""; 0]);
    assert!(!paths(&tree, |name| name == "crossbeam").is_empty(), "the search finds a package that is there");
}
