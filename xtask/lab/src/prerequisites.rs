//! The packages of Debian and Ubuntu that the machine must have, and their installation.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;

use crate::command::{Words as _, cargo};
use crate::interrupt::Interrupt;

/// A package, and its proof: a program, or a file by its absolute path.
pub type Need = (&'static str, &'static str);

/// The build of synmill with libxdp.
pub const BUILD: &[Need] = &[
    ("clang", "clang"),
    ("libelf-dev", "/usr/include/libelf.h"),
    ("zlib1g-dev", "/usr/include/zlib.h"),
    ("m4", "m4"),
    ("pkg-config", "pkg-config"),
];

/// The lab and its demonstration.
pub const LAB: &[Need] = &[("iproute2", "ip"), ("ethtool", "ethtool"), ("curl", "curl")];

/// The end-to-end tests, besides the lab.
pub const TESTS: &[Need] = &[
    ("iputils-ping", "ping"),
    ("tcpdump", "tcpdump"),
    ("nftables", "nft"),
    ("util-linux", "setpriv"),
    ("wrk", "wrk"),
];

/// Measurements, besides the lab.
pub const PEERS: &[Need] = &[("util-linux", "taskset")];

/// The count of instructions.
pub const INSTRUCTIONS: &[Need] = &[("valgrind", "valgrind")];

/// The comparison with nginx, besides the lab.
pub const BENCH: &[Need] = &[("nginx-light", "nginx"), ("wrk", "wrk"), ("util-linux", "taskset")];

/// The keys of Debian's packages.
pub const DEBIAN_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Virtual machines: QEMU, the programs of guests, and the tools that fetch and unpack kernels.
pub const VM: &[Need] = &[
    ("qemu-system-x86", "qemu-system-x86_64"),
    ("busybox-static", "busybox"),
    ("iproute2", "ip"),
    ("ethtool", "ethtool"),
    ("cpio", "cpio"),
    ("xz-utils", "xz"),
    ("apt", "apt-get"),
    ("dpkg", "dpkg"),
    ("debian-archive-keyring", DEBIAN_KEYS),
];

/// The build of the XDP object without a nightly toolchain: a recent rustc with its library's sources, and the LLVM for bpf-linker.
pub const EBPF: &[Need] = &[
    ("rustc-web", "/usr/share/doc/rustc-web"),
    ("rust-web-src", "/usr/share/doc/rust-web-src"),
    ("llvm-22-dev", "/usr/share/doc/llvm-22-dev"),
];

/// Fails unless this process is root.
///
/// # Errors
/// It is not root; the error holds the command to type.
pub fn root(command: &str) -> Result<()> {
    // sudo resets PATH and HOME, by which rustup finds its toolchains.
    ensure!(
        geteuid().is_root(),
        "`cargo xtask {command}` makes network namespaces and AF_XDP sockets, and that takes root; \
         type: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {command}"
    );
    Ok(())
}

/// Installs missing packages, if this process is root on Debian or Ubuntu.
///
/// # Errors
/// Packages are missing; the error holds the command to type.
pub fn ensure(interrupt: &Interrupt, needs: &[&[Need]]) -> Result<()> {
    let missing = || -> Vec<&str> {
        let is_met = |proof: &str| program(proof).is_some();
        needs.iter().copied().flatten().filter(|need| !is_met(need.1)).map(|need| need.0).collect()
    };
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    ensure!(
        program("apt-get").is_some(),
        "missing: {names} (the names of Debian's packages); install them by this system's names, and try again"
    );
    ensure!(
        geteuid().is_root(),
        "missing: {names}; type: sudo apt-get update && sudo apt-get install --yes --no-install-recommends {names}"
    );
    eprintln!("Installing missing packages: {names}");
    for arguments in ["update", &format!("--yes --no-install-recommends install {names}")] {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet").args(arguments.words());
        interrupt.run(&mut command)?;
    }
    let still = missing().join(" ");
    ensure!(still.is_empty(), "apt-get has installed {still}, and their files are still missing");
    Ok(())
}

/// Installs bpf-linker from source, against the LLVM of [`EBPF`].
///
/// # Errors
/// Its build failed, or cargo's bin folder is not on PATH.
pub fn ensure_bpf_linker(interrupt: &Interrupt) -> Result<()> {
    ensure_crate(interrupt, "bpf-linker", "--version ^0.13 --no-default-features --features llvm-22")
}

/// Installs mdbook from source, without its web server and its search.
///
/// # Errors
/// Its build failed, or cargo's bin folder is not on PATH.
pub fn ensure_mdbook(interrupt: &Interrupt) -> Result<()> {
    ensure_crate(interrupt, "mdbook", "--version =0.5.4 --no-default-features")
}

/// Installs the program of a crate, unless there is one.
fn ensure_crate(interrupt: &Interrupt, name: &str, options: &str) -> Result<()> {
    if program(name).is_some() {
        return Ok(());
    }
    // Only bpf-linker reads the variable.
    let install = format!("install --locked {name} {options}");
    interrupt.run(cargo(install.words()).env("LLVM_PREFIX", "/usr/lib/llvm-22"))?;
    let installed = program(name).map(drop);
    installed
        .with_context(|| format!("{name} is installed, and is not on PATH: add cargo's bin folder to it"))
}

/// Returns the path of a program, or of a file with an absolute path, if it exists. Users' PATH often lacks the system folders, so
/// they are searched as well.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    // Joined to a folder, an absolute path stays as it is.
    let mut files = env::split_paths(&path).chain(system).map(|folder| folder.join(name));
    files.find(|file| file.is_file() || (name.starts_with('/') && file.exists()))
}
