//! The guest's file system: static programs, kernel modules, and the plan.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use synmill_lab::{Interrupt, cargo, output, prerequisites::program, target};

use crate::guest::{Driver, PLAN, Plan};
use crate::packages::{Kernel, lock};

/// The target of the guest's programs.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The machine's own programs that the guest gets, with their libraries.
const TOOLS: [&str; 3] = ["busybox", "ip", "ethtool"];
/// The folders of the guest's root.
const FOLDERS: [&str; 9] = ["bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var"];

/// Builds synmill statically, and packs it with the guest's first process and with tools. Returns the archive.
pub(crate) fn programs(interrupt: &Interrupt) -> Result<PathBuf> {
    let folder = target()?.join("vm");
    interrupt.run(&mut build(&folder)?)?;
    let _lock = lock(&folder)?;
    let archive = folder.join("programs.cpio.gz");
    pack(&archive, |root| {
        for name in FOLDERS {
            fs::create_dir(root.join(name)).with_context(|| format!("making /{name}"))?;
        }
        link("/run", &root.join("var/run"))?;
        let built = folder.join(TARGET).join("vm");
        copy(&built.join("synmill-guest"), &root.join("init"))?;
        for name in ["synmill", "synmill-kernel-server"] {
            copy(&built.join(name), &root.join("bin").join(name))?;
        }
        for name in TOOLS {
            let tool = program(name).with_context(|| format!("`{name}` is missing"))?;
            copy(&tool, &root.join("bin").join(name))?;
            for library in libraries(&tool)? {
                copy(Path::new(&library), &root.join(library.trim_start_matches('/')))?;
            }
        }
        // Every other tool is a link to busybox.
        for name in output(Command::new(root.join("bin/busybox")).arg("--list"))?.lines() {
            let applet = root.join("bin").join(name);
            if !applet.exists() {
                link("busybox", &applet)?;
            }
        }
        Ok(())
    })?;
    Ok(archive)
}

/// Writes the guest's initramfs: the archive of the programs, then one with the plan and its modules.
pub(crate) fn initramfs(
    programs: &Path,
    kernel: &Kernel,
    driver: Driver,
    plan: &Plan,
    into: &Path,
) -> Result<()> {
    let rest = into.with_extension("rest");
    pack(&rest, |root| {
        let folder = root.join("modules");
        fs::create_dir(&folder).context("making /modules")?;
        let mut modules = Modules::of(kernel, folder)?;
        // The driver of a virtio NIC does not depend on the driver of its bus.
        if matches!(driver, Driver::Virtio | Driver::VirtioCopy) {
            modules.add("virtio_pci")?;
        }
        modules.add(driver.module())?;
        modules.add("8021q")?;
        let order = modules.order.iter().map(|name| format!("/modules/{name}.ko"));
        let plan = Plan { modules: order.collect(), ..plan.clone() };
        let json = serde_json::to_vec(&plan).context("writing the plan")?;
        fs::write(root.join(PLAN.trim_start_matches('/')), json).context("writing the plan")
    })?;
    copy(programs, into)?;
    let mut whole = fs::File::options().append(true).open(into).context("appending to an archive")?;
    let mut rest_file = fs::File::open(&rest).context("reading an archive")?;
    io::copy(&mut rest_file, &mut whole).context("appending to an archive")?;
    fs::remove_file(rest).context("removing an archive")
}

/// Returns the command that builds the guest's programs, statically.
fn build(folder: &Path) -> Result<Command> {
    let mut flags = "-C target-feature=+crt-static".to_owned();
    // The libraries that libelf needs differ from system to system, and only a static build must name them.
    let libraries = output(Command::new("pkg-config").args(["--static", "--libs-only-l", "libelf"]))?;
    for library in libraries.split_whitespace().filter(|library| !["-lelf", "-lz"].contains(library)) {
        flags = flags + " -C link-arg=" + library;
    }
    let mut command = cargo(["build", "--profile", "vm", "--target", TARGET, "--target-dir"]);
    command.arg(folder).args(["-p", "synmill", "-p", "synmill-benches", "-p", "synmill-vm"]);
    for name in ["synmill", "synmill-kernel-server", "synmill-guest"] {
        command.args(["--bin", name]);
    }
    // This variable would override RUSTFLAGS.
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").env("RUSTFLAGS", flags);
    Ok(command)
}

/// Makes an archive of a folder that `fill` fills.
fn pack(archive: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let root = archive.with_extension("root");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    fill(&root).with_context(|| format!("filling {}", root.display()))?;
    // In steps, because a shell reports only the last failure of a pipe. The rename comes last, because another command may be reading
    // the old archive. Root owns every file in the guest.
    let steps = "find . >\"$0.list\" && cpio --quiet -o -H newc -R +0:+0 <\"$0.list\" >\"$0.cpio\" \
                 && gzip -1 -f \"$0.cpio\" && mv \"$0.cpio.gz\" \"$0\" && rm \"$0.list\"";
    output(Command::new("sh").args(["-c", steps]).arg(archive).current_dir(&root))?;
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))
}

/// A kernel's modules, and a selection of them in the order of loading.
struct Modules {
    /// All modules by name.
    files: HashMap<String, PathBuf>,
    /// The modules in the kernel's image.
    builtin: HashSet<String>,
    /// The folder of the unpacked modules.
    into: PathBuf,
    order: Vec<String>,
    release: String,
}

impl Modules {
    fn of(kernel: &Kernel, into: PathBuf) -> Result<Self> {
        let mut files = HashMap::new();
        let mut folders = vec![kernel.modules.join("kernel")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
                let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(name) = module(&path) {
                    files.insert(name, path);
                }
            }
        }
        let list = kernel.modules.join("modules.builtin");
        let list = fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
        let builtin = list.lines().filter_map(|line| module(Path::new(line))).collect();
        Ok(Self { files, builtin, into, order: Vec::new(), release: kernel.release.clone() })
    }

    fn add(&mut self, name: &str) -> Result<()> {
        if self.builtin.contains(name) || self.order.iter().any(|taken| taken == name) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else {
            bail!("kernel {} has no module {name}: the other flavour may have it", self.release);
        };
        let unpacked = self.into.join(format!("{name}.ko"));
        if file.extension().is_some_and(|extension| extension == "xz") {
            let packed = unpacked.with_extension("ko.xz");
            copy(file, &packed)?;
            output(Command::new("xz").arg("--decompress").arg(packed))?;
        } else {
            copy(file, &unpacked)?;
        }
        let object = fs::read(&unpacked).with_context(|| format!("reading {}", unpacked.display()))?;
        for needed in depends(&object).with_context(|| format!("{} is no module", file.display()))? {
            self.add(&needed)?;
        }
        self.order.push(name.to_owned());
        Ok(())
    }
}

/// Returns a module's name, as other modules write it, from its file's name.
fn module(path: &Path) -> Option<String> {
    let (name, _) = path.file_name()?.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}

/// Returns the modules that a module needs, from a string `depends=` of its section .modinfo.
fn depends(object: &[u8]) -> Option<Vec<String>> {
    let mut strings = object.split(|byte| *byte == 0);
    let list = str::from_utf8(strings.find_map(|string| string.strip_prefix(b"depends="))?).ok()?;
    Some(list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

/// Returns the paths of a program's libraries and of their loader. For a static program ldd fails, and there are none.
fn libraries(program: &Path) -> Result<Vec<String>> {
    let said = Command::new("ldd").arg(program).output().context("cannot start `ldd`")?;
    Ok(paths(&String::from_utf8_lossy(&said.stdout)).map(str::to_owned).collect())
}

fn paths(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':'))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("copying {} to {}", from.display(), to.display());
    fs::create_dir_all(to.parent().with_context(what)?).with_context(what)?;
    fs::copy(from, to).with_context(what).map(drop)
}

fn link(to: &str, at: &Path) -> Result<()> {
    symlink(to, at).with_context(|| format!("linking {} to {to}", at.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_needs() {
        let object = b"\x7fELF\x01\0license=GPL\0depends=i2c-algo-bit,dca\0name=igb\0";
        assert_eq!(depends(object).unwrap(), ["i2c_algo_bit", "dca"]);
        assert_eq!(depends(b"\0depends=\0").unwrap(), [""; 0]);
        assert_eq!(depends(b"\x7fELF\0"), None);
        assert_eq!(module(Path::new("kernel/drivers/i2c/i2c-algo-bit.ko.xz")).unwrap(), "i2c_algo_bit");
        assert_eq!(module(Path::new("kernel/modules.order")), None);
    }

    #[test]
    fn modules_are_loaded_after_those_that_they_need() {
        let folder = std::env::temp_dir().join(format!("synmill-modules-{}", std::process::id()));
        let (from, into) = (folder.join("kernel"), folder.join("into"));
        for (name, needs) in [("igb", "i2c-algo-bit,dca,ptp"), ("i2c-algo-bit", ""), ("dca", "i2c-algo-bit")]
        {
            fs::create_dir_all(&from).unwrap();
            fs::write(from.join(format!("{name}.ko")), format!("\0depends={needs}\0")).unwrap();
        }
        fs::write(folder.join("modules.builtin"), "kernel/drivers/ptp/ptp.ko\n").unwrap();
        let kernel = Kernel { release: "7.2".into(), image: PathBuf::new(), modules: folder.clone() };
        let mut modules = Modules::of(&kernel, into).unwrap();
        modules.add("igb").unwrap();
        modules.add("dca").unwrap();
        assert_eq!(modules.order, ["i2c_algo_bit", "dca", "igb"]);
        assert!(modules.add("8021q").unwrap_err().to_string().contains("no module 8021q"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn libraries_are_the_paths_that_ldd_names() {
        let said = "\tlinux-vdso.so.1 (0x1)\n\tlibmnl.so.0 => /lib/libmnl.so.0 (0x2)\n\t/lib64/ld-linux-x86-64.so.2 (0x3)\n";
        assert!(paths(said).eq(["/lib/libmnl.so.0", "/lib64/ld-linux-x86-64.so.2"]));
    }
}
