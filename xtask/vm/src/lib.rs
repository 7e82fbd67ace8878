//! `cargo xtask vm`: synmill on NICs that QEMU emulates, zero-copy among them. Knows the order of things; never how each is done.

mod console;
pub mod guest;
mod image;
mod machine;
mod matrix;
mod monitor;
mod packages;
mod wires;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use synmill_lab::{Interrupt, prerequisites, target};

use crate::guest::{Driver, Plan};
use crate::machine::{INITRAMFS, Machine, Report};
use crate::packages::{Flavour, Kernel, Qemu, Store};
use crate::wires::Wires;

/// What to run, and on what.
///
/// Kernels and their modules are Debian's packages, fetched once into a cache and never installed. Nothing here takes root, but several queues
/// of virtio-net do: their wires are TAP devices.
#[derive(Args, Debug)]
pub struct Vm {
    /// The NICs' kind.
    #[arg(long, default_value = "virtio")]
    driver: Driver,
    /// Debian's kernel: the newest whose version starts so.
    #[arg(long, value_name = "VERSION", default_value = "7")]
    kernel: String,
    /// Queues of each NIC; more than one with virtio, virtio-copy (these take root then) and igb.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4))]
    queues: u32,
    /// MTU of both NICs, in bytes.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=3498))]
    mtu: u32,
    /// Only the tests whose names contain this; may be repeated.
    #[arg(long, value_name = "NAME")]
    test: Vec<String>,
    /// A console in the guest, its two NICs in the lab's namespaces, instead of tests.
    #[arg(long, conflicts_with_all = ["test", "all"])]
    shell: bool,
    /// Every driver with every kernel: a table of modes, which docs/drivers.md takes over.
    #[arg(long, conflicts_with_all = ["driver", "kernel", "queues", "mtu", "test"])]
    all: bool,
    /// Where Debian's packages come from, instead of where this machine has its own from.
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
}

/// Runs it.
pub fn perform(command: &Vm) -> Result<()> {
    let mirror = command.mirror.as_deref();
    if command.all {
        return matrix::perform(&Interrupt::install()?, mirror);
    }
    let wish = Wish {
        kernel: command.kernel.clone(),
        plan: Plan {
            driver: command.driver,
            modules: Vec::new(),
            queues: command.queues,
            mtu: command.mtu,
            only: command.test.clone(),
            shell: command.shell,
        },
    };
    wish.check()?;
    let interrupt = Interrupt::install()?;
    let mut host = Host::prepare(&interrupt, mirror, vec![wish])?;
    let Some(guest) = host.guests.pop() else { return Ok(()) };
    if command.shell {
        return host.shell(&guest);
    }
    conclude(&host.run(&guest)?)
}

/// What continuous integration runs, as root: zero-copy, the same on two queues, and a kernel that cannot have it.
pub fn continuous(interrupt: &Interrupt) -> Result<()> {
    let wishes = [("7", 1, &[][..]), ("7", 2, &["pair"]), ("6.12", 1, &[])];
    let wish = |(kernel, queues, only)| {
        let mut wish = Wish::simple(Driver::Virtio, kernel, only);
        wish.plan.queues = queues;
        wish
    };
    let host = Host::prepare(interrupt, None, wishes.map(wish).into())?;
    for guest in &host.guests {
        conclude(&host.run(guest)?)?;
    }
    Ok(())
}

/// The closing line, and the verdict.
fn conclude(report: &Report) -> Result<()> {
    println!("{} passed, {} failed", report.passed, report.failed);
    match report {
        Report { passed: 0, failed: 0, .. } => {
            bail!("no test for this driver and these queues has such a name")
        }
        Report { failed: 0, .. } => Ok(()),
        Report { failed, .. } => bail!("{failed} of the guest's tests failed"),
    }
}

/// A guest as asked for.
#[derive(Debug)]
struct Wish {
    kernel: String,
    plan: Plan,
}

impl Wish {
    /// One queue, and an ordinary MTU.
    fn simple(driver: Driver, kernel: &str, only: &[&str]) -> Self {
        let only = only.iter().map(|&name| name.to_owned()).collect();
        let plan = Plan { driver, modules: Vec::new(), queues: 1, mtu: 1500, only, shell: false };
        Self { kernel: kernel.to_owned(), plan }
    }

    /// Refuses what cannot be, before anything is fetched.
    fn check(&self) -> Result<()> {
        let Plan { driver, queues, .. } = self.plan;
        if queues > 1 && matches!(driver, Driver::E1000e | Driver::Vmxnet3) {
            bail!(
                "QEMU's {driver} receives on one queue only; --queues {queues} takes --driver virtio, virtio-copy or igb"
            );
        }
        if Wires::of(&self.plan).need_root() {
            prerequisites::root(&format!("vm --driver {driver} --queues {queues}"))?;
        }
        Ok(())
    }
}

/// A guest that can boot.
#[derive(Debug)]
struct Guest {
    plan: Plan,
    kernel: Kernel,
    qemu: Qemu,
    /// QEMU's version.
    version: String,
}

/// All that guests boot from.
#[derive(Debug)]
struct Host<'a> {
    interrupt: &'a Interrupt,
    guests: Vec<Guest>,
    programs: PathBuf,
}

impl<'a> Host<'a> {
    /// Fetches and builds all that these guests need.
    fn prepare(interrupt: &'a Interrupt, mirror: Option<&str>, wishes: Vec<Wish>) -> Result<Self> {
        prerequisites::ensure(interrupt, &[prerequisites::BUILD, prerequisites::VM])?;
        let store = Store::open(interrupt, mirror)?;
        let guest = |Wish { kernel, plan }| {
            let (flavour, qemu) = match plan.driver {
                Driver::Virtio | Driver::VirtioCopy => (Flavour::Cloud, Qemu::of_host()),
                Driver::E1000e | Driver::Vmxnet3 => (Flavour::Whole, Qemu::of_host()),
                Driver::Igb => (Flavour::Whole, store.qemu()?),
            };
            let kernel = store.kernel(&kernel, flavour)?;
            let version = machine::version(&qemu)?;
            Ok(Guest { plan, kernel, qemu, version })
        };
        let guests = wishes.into_iter().map(guest).collect::<Result<_>>()?;
        Ok(Self { interrupt, guests, programs: image::programs(interrupt)? })
    }

    /// Runs a guest to its end.
    fn run(&self, guest: &Guest) -> Result<Report> {
        self.boot(guest, |machine| machine.run(self.interrupt))
    }

    /// Gives the user a console in a guest.
    fn shell(&self, guest: &Guest) -> Result<()> {
        println!("`poweroff -f` ends the guest, and so does Ctrl-A X");
        self.boot(guest, |machine| machine.shell(self.interrupt))
    }

    fn boot<T>(&self, guest: &Guest, action: impl FnOnce(Machine<'_>) -> Result<T>) -> Result<T> {
        let Guest { plan, kernel, qemu, version } = guest;
        let Plan { driver, queues, mtu, .. } = *plan;
        let s = if queues == 1 { "" } else { "s" };
        println!("{driver}, Linux {}, {queues} queue{s}, MTU {mtu}, QEMU {version}", kernel.release);
        let folder = Folder::make()?;
        image::initramfs(&self.programs, kernel, driver, plan, &folder.0.join(INITRAMFS))?;
        action(Machine { qemu, kernel, folder: &folder.0, plan })
    }
}

impl Qemu {
    /// The one that is installed.
    fn of_host() -> Self {
        Self { program: "qemu-system-x86_64".into(), modules: None, data: Vec::new() }
    }
}

/// A folder for the files of one run, removed with all that is in it.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        let all = target()?.join("guests");
        // What a killed run has left.
        for entry in fs::read_dir(&all).into_iter().flatten().flatten() {
            let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_process(&name) && !Path::new("/proc").join(&name).exists() {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let path = all.join(std::process::id().to_string());
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_queue_is_not_given_two() {
        let mut wish = Wish::simple(Driver::E1000e, "7.2", &[]);
        wish.check().unwrap();
        wish.plan.queues = 2;
        let error = wish.check().unwrap_err().to_string();
        assert!(error.contains("e1000e") && !error.contains('\n'), "{error}");
        wish.plan.driver = Driver::Igb;
        wish.check().unwrap();
    }

    #[test]
    fn a_run_that_tested_nothing_did_not_pass() {
        let report = |passed, failed| Report { passed, failed, rows: Vec::new() };
        assert!(conclude(&report(1, 0)).is_ok());
        assert!(conclude(&report(1, 1)).is_err());
        assert!(conclude(&report(0, 0)).is_err());
    }
}
