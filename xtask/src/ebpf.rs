//! `cargo xtask ebpf`: builds the XDP program's object, or checks that the committed one is as new as its sources.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use synmill_lab::{Words as _, workspace};
use synmill_xdp_ebpf::SOURCES_MARK;

/// The committed object's path from the workspace's root.
pub(crate) const OBJECT: &str = "xdp-ebpf/object/steer.bpf.o";

const TARGET: &str = "bpfel-unknown-none";

/// The compiler of Debian's packages, and the release that is known to work.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_RELEASE: &str = "rustc 1.96.";

/// Installs the linker for a nightly toolchain, whose LLVM the linker's release supports.
const NIGHTLY_LINKER: &str = "cargo install bpf-linker";

/// Installs the linker for Debian's compiler.
const DEBIAN_LINKER: &str =
    "LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --no-default-features --features llvm-22";

/// Builds [`OBJECT`]. With `check` it builds nothing, needs no eBPF toolchain, and fails if the object is older than its sources.
pub(crate) fn run(check: bool) -> Result<()> {
    let root = workspace();
    let committed = root.join(OBJECT);
    if !check {
        return write(&committed);
    }
    let object = fs::read(&committed).with_context(|| format!("{OBJECT}: run `cargo xtask ebpf`"))?;
    ensure!(
        carries(&object, &mark(&root)?),
        "{OBJECT} is older than its sources in xdp-ebpf/: run `cargo xtask ebpf` and commit it"
    );
    Ok(())
}

/// Builds the object and writes it to `output`.
pub(crate) fn write(output: &Path) -> Result<()> {
    let root = workspace();
    let mark = mark(&root)?;
    let built = build(&root, &mark)?;
    let object = fs::read(&built).with_context(|| format!("{}", built.display()))?;
    ensure!(carries(&object, &mark), "{} does not carry the hash of its sources", built.display());
    if let Some(folder) = output.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    fs::write(output, &object).with_context(|| format!("{}", output.display()))?;
    println!("{}: {} bytes", output.display(), object.len());
    Ok(())
}

/// Returns the mark in an object of the present sources.
fn mark(root: &Path) -> Result<String> {
    Ok(format!("{SOURCES_MARK}{}", sources_hash(root)?))
}

fn carries(object: &[u8], mark: &str) -> bool {
    object.windows(mark.len()).any(|window| window == mark.as_bytes())
}

/// Returns the SHA-256, in hexadecimal, of the object's sources: the package's sources and manifest by name and content, and the locked
/// versions of the eBPF crates.
fn sources_hash(root: &Path) -> Result<String> {
    let package = root.join("xdp-ebpf");
    let mut files = vec![package.join("Cargo.toml")];
    let mut folders = vec![package.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let name = file.strip_prefix(root).context("outside of the workspace")?;
        let content = fs::read(&file).with_context(|| format!("{}", file.display()))?;
        hash.update(format!("{} {}\n", name.display(), content.len()));
        hash.update(content);
    }
    let lock = fs::read_to_string(root.join("Cargo.lock")).context("Cargo.lock")?;
    for pin in pins(&lock) {
        hash.update(pin);
    }
    Ok(hash.finalize().iter().fold(String::new(), |mut hex, octet| {
        // Writing into a String cannot fail.
        let _ = write!(hex, "{octet:02x}");
        hex
    }))
}

/// Returns the lock file's lines about the crates in the object, without their dependencies: other crates' versions change those lines.
fn pins(lock: &str) -> impl Iterator<Item = &str> {
    lock.split("[[package]]\n").filter(|entry| is_ebpf(entry)).flat_map(|entry| {
        entry
            .lines()
            .filter(|line| ["name", "version", "checksum"].iter().any(|field| line.starts_with(field)))
    })
}

fn is_ebpf(entry: &str) -> bool {
    entry.starts_with("name = \"aya-ebpf") || entry.starts_with("name = \"aya-build")
}

/// Builds the program with the first toolchain that is installed, and returns the object's path.
fn build(root: &Path, mark: &str) -> Result<PathBuf> {
    let (mut cargo, linker) = if nightly_has_sources() {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo"]);
        (command, NIGHTLY_LINKER)
    } else if debian_has_sources() {
        let mut command = Command::new("cargo");
        // A stable compiler builds its own library for another target only with this.
        command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
        (command, DEBIAN_LINKER)
    } else {
        bail!(
            "no compiler for eBPF: install one of these two
  rustup toolchain install nightly --component rust-src && {NIGHTLY_LINKER}
  sudo apt-get install rustc-web rust-web-src llvm-22-dev && {DEBIAN_LINKER}"
        );
    };
    ensure!(succeeds(Command::new("bpf-linker").arg("--version")), "bpf-linker is not on the PATH: {linker}");
    let folder = root.join("target/ebpf");
    cargo
        .args("build --quiet --locked --release --package synmill-xdp-ebpf --bin steer".words())
        .args(["--features", "program", "-Zbuild-std=core", "--target", TARGET])
        .args(["--config", "profile.release.lto=true", "--config", "profile.release.panic=\"abort\""])
        .args(["--config", "profile.release.debug=false", "--target-dir"])
        .arg(&folder)
        .current_dir(root)
        .env("SYNMILL_EBPF_SOURCES", mark)
        // The outer cargo has set these for its own toolchain.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = cargo.status().with_context(|| format!("{}", cargo.get_program().display()))?;
    ensure!(status.success(), "building the XDP program failed");
    Ok(folder.join(TARGET).join("release/steer"))
}

fn nightly_has_sources() -> bool {
    has_sources(Command::new("rustup").args(["run", "nightly", "rustc"]))
}

fn debian_has_sources() -> bool {
    let version = Command::new(DEBIAN_RUSTC).arg("--version").output();
    version.is_ok_and(|printed| printed.stdout.starts_with(DEBIAN_RELEASE.as_bytes()))
        && has_sources(&mut Command::new(DEBIAN_RUSTC))
}

/// Returns whether this compiler is installed, with its library's sources.
fn has_sources(rustc: &mut Command) -> bool {
    rustc.args(["--print", "sysroot"]).output().is_ok_and(|printed| {
        let sysroot = String::from_utf8_lossy(&printed.stdout);
        printed.status.success()
            && Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
    })
}

fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_object_is_as_new_as_its_sources() {
        run(true).unwrap();
    }

    #[test]
    fn only_the_ebpf_crates_are_pins() {
        let lock = "version = 4\n\n[[package]]\nname = \"aya\"\nversion = \"1\"\n\n\
                    [[package]]\nname = \"aya-build\"\nversion = \"2\"\ndependencies = [\n \"syn 2\",\n]\n\n\
                    [[package]]\nname = \"aya-ebpf-macros\"\nversion = \"3\"\nchecksum = \"c\"\n";
        let expected = [
            "name = \"aya-build\"",
            "version = \"2\"",
            "name = \"aya-ebpf-macros\"",
            "version = \"3\"",
            "checksum = \"c\"",
        ];
        assert!(pins(lock).eq(expected));
    }
}
