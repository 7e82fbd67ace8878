//! What the machine must have, and how to get it. Knows packages of Debian and Ubuntu; never what they are used for.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::unistd::geteuid;

use crate::process::{Interrupt, cargo};

/// One package, and the file that shows it is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    package: &'static str,
    proof: Proof,
}

#[derive(Clone, Copy, Debug)]
enum Proof {
    Program(&'static str),
    File(&'static str),
}

impl Need {
    const fn program(package: &'static str, program: &'static str) -> Self {
        Self { package, proof: Proof::Program(program) }
    }

    const fn file(package: &'static str, file: &'static str) -> Self {
        Self { package, proof: Proof::File(file) }
    }

    fn is_met(&self) -> bool {
        match self.proof {
            Proof::Program(name) => program(name).is_some(),
            Proof::File(path) => Path::new(path).exists(),
        }
    }
}

/// To build synmill with libxdp.
pub(crate) const BUILD: &[Need] = &[
    Need::program("clang", "clang"),
    Need::file("libelf-dev", "/usr/include/libelf.h"),
    Need::file("zlib1g-dev", "/usr/include/zlib.h"),
    Need::program("m4", "m4"),
    Need::program("pkg-config", "pkg-config"),
];

/// For the lab and its demonstration.
pub(crate) const LAB: &[Need] =
    &[Need::program("iproute2", "ip"), Need::program("ethtool", "ethtool"), Need::program("curl", "curl")];

/// For the end-to-end tests, besides the lab.
pub(crate) const TESTS: &[Need] = &[
    Need::program("iputils-ping", "ping"),
    Need::program("tcpdump", "tcpdump"),
    Need::program("nftables", "nft"),
    Need::program("util-linux", "setpriv"),
    Need::program("wrk", "wrk"),
];

/// For measurements, besides the lab.
pub(crate) const PEERS: &[Need] = &[Need::program("util-linux", "taskset")];

/// To count instructions.
pub(crate) const INSTRUCTIONS: &[Need] = &[Need::program("valgrind", "valgrind")];

/// For the comparison with nginx, besides the lab.
pub(crate) const BENCH: &[Need] = &[
    Need::program("nginx-light", "nginx"),
    Need::program("wrk", "wrk"),
    Need::program("util-linux", "taskset"),
];

/// What Debian signs its packages with.
pub(crate) const DEBIAN_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// For virtual machines: QEMU, what is put into them, and what fetches and unpacks their kernels.
pub(crate) const VM: &[Need] = &[
    Need::program("qemu-system-x86", "qemu-system-x86_64"),
    Need::program("busybox-static", "busybox"),
    Need::program("iproute2", "ip"),
    Need::program("ethtool", "ethtool"),
    Need::program("cpio", "cpio"),
    Need::program("xz-utils", "xz"),
    Need::program("apt", "apt-get"),
    Need::program("dpkg", "dpkg"),
    Need::file("debian-archive-keyring", DEBIAN_KEYS),
];

/// To build the XDP object where there is no nightly toolchain: a rustc of a recent release with its library's sources,
/// and the LLVM that bpf-linker is built against.
pub(crate) const EBPF: &[Need] = &[
    Need::file("rustc-web", "/usr/share/doc/rustc-web"),
    Need::file("rust-web-src", "/usr/share/doc/rust-web-src"),
    Need::file("llvm-22-dev", "/usr/share/doc/llvm-22-dev"),
];

/// Fails at once, with what to type instead, when we are not root. sudo sets PATH and HOME anew, and rustup finds its
/// toolchains by them.
pub(crate) fn root(command: &str) -> Result<()> {
    if !geteuid().is_root() {
        bail!(
            "`cargo xtask {command}` makes network namespaces and AF_XDP sockets, and that takes root; \
             type: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {command}"
        );
    }
    Ok(())
}

/// Sees to it that every need is met: installs what is missing as root on Debian and Ubuntu, and says what to type
/// everywhere else.
pub(crate) fn ensure(interrupt: &Interrupt, needs: &[&[Need]]) -> Result<()> {
    let missing = || -> Vec<&str> {
        needs.iter().copied().flatten().filter(|need| !need.is_met()).map(|need| need.package).collect()
    };
    let packages = missing();
    if packages.is_empty() {
        return Ok(());
    }
    let names = packages.join(" ");
    if program("apt-get").is_none() {
        bail!(
            "missing: {names} (the names of Debian's packages); install what provides them here, and try again"
        );
    }
    if !geteuid().is_root() {
        bail!(
            "missing: {names}; type: sudo apt-get update && sudo apt-get install --yes --no-install-recommends {names}"
        );
    }
    eprintln!("Installing what is missing: {names}");
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    interrupt.run(apt_get().args(["--quiet", "update"]))?;
    interrupt
        .run(apt_get().args(["--quiet", "--yes", "--no-install-recommends", "install"]).args(&packages))?;
    let still = missing();
    if !still.is_empty() {
        bail!("apt-get installed {}, and what they should bring is not there", still.join(" "));
    }
    Ok(())
}

/// Installs bpf-linker from source, against the LLVM of [`EBPF`].
pub(crate) fn ensure_bpf_linker(interrupt: &Interrupt) -> Result<()> {
    ensure_crate(
        interrupt,
        "bpf-linker",
        &["--version", "^0.13", "--no-default-features", "--features", "llvm-22"],
    )
}

/// Installs mdbook from source, without its web server and its search.
pub(crate) fn ensure_mdbook(interrupt: &Interrupt) -> Result<()> {
    ensure_crate(interrupt, "mdbook", &["--version", "=0.5.4", "--no-default-features"])
}

/// Installs the program of a crate, unless there is one.
fn ensure_crate(interrupt: &Interrupt, name: &str, options: &[&str]) -> Result<()> {
    if program(name).is_some() {
        return Ok(());
    }
    // Only bpf-linker reads the variable.
    let mut install = cargo(["install", "--locked", name]);
    interrupt.run(install.args(options).env("LLVM_PREFIX", "/usr/lib/llvm-22"))?;
    program(name)
        .map(drop)
        .with_context(|| format!("{name} was installed and is not on PATH: add cargo's bin folder to it"))
}

/// Where a program is. The system folders are looked at too: PATH of an ordinary user often lacks them.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|file| file.is_file())
}
