//! The host of guests: it prepares their kernels and programs, and boots them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{Interrupt, prerequisites, target};

use crate::guest::{Driver, Plan};
use crate::image;
use crate::machine::{self, BrokenBoot, INITRAMFS, Machine, Report};
use crate::packages::{Flavour, Kernel, Qemu, Store};
use crate::wires::Wires;

/// Boots of a guest after the first, if the kernel breaks before the guest's first process.
const RETRIES: usize = 2;

/// A guest as the user wants it.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) kernel: String,
    pub(crate) plan: Plan,
}

impl Wish {
    /// Returns a wish for one queue and the usual MTU.
    pub(crate) fn simple(driver: Driver, kernel: &str, only: &[&str]) -> Self {
        let only = only.iter().map(|&name| name.to_owned()).collect();
        let plan = Plan { driver, modules: Vec::new(), queues: 1, mtu: 1500, only, shell: false };
        Self { kernel: kernel.to_owned(), plan }
    }

    /// Refuses an impossible wish, before anything is fetched.
    pub(crate) fn check(&self) -> Result<()> {
        let Plan { driver, queues, .. } = self.plan;
        ensure!(
            queues == 1 || !matches!(driver, Driver::E1000e | Driver::Vmxnet3),
            "QEMU's {driver} receives on one queue only; --queues {queues} takes --driver virtio, virtio-copy or igb"
        );
        if Wires::of(&self.plan).need_root() {
            prerequisites::root(&format!("vm --driver {driver} --queues {queues}"))?;
        }
        Ok(())
    }
}

/// A guest that can boot.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) plan: Plan,
    pub(crate) kernel: Kernel,
    qemu: Qemu,
    /// QEMU's version.
    pub(crate) version: String,
}

/// The guests, and the programs that they boot.
#[derive(Debug)]
pub(crate) struct Host<'a> {
    interrupt: &'a Interrupt,
    /// One for each wish.
    pub(crate) guests: Vec<Guest>,
    programs: PathBuf,
}

impl<'a> Host<'a> {
    /// Fetches and builds all that these guests need.
    pub(crate) fn prepare(interrupt: &'a Interrupt, mirror: Option<&str>, wishes: Vec<Wish>) -> Result<Self> {
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
    pub(crate) fn run(&self, guest: &Guest) -> Result<Report> {
        retried(|| self.boot(guest, |machine| machine.run(self.interrupt)))
    }

    /// Opens a console in a guest.
    pub(crate) fn shell(&self, guest: &Guest) -> Result<()> {
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

/// Boots a guest again while its kernel breaks before the guest's first process, [`RETRIES`] times at most. Linux 7.3.4 did so
/// once: an emulated core met the breakpoint of the kernel's own text patching.
fn retried<T>(mut boot: impl FnMut() -> Result<T>) -> Result<T> {
    for retry in 1..=RETRIES {
        match boot() {
            Err(error) if error.is::<BrokenBoot>() => {
                println!("{error:#}\nThe guest boots again: retry {retry} of {RETRIES}");
            }
            done => return done,
        }
    }
    boot()
}

/// A folder for the files of one run, removed with its content when dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        let all = target()?.join("guests");
        // A killed run leaves its folder.
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
    use anyhow::anyhow;

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

    /// Boots until it is not `broken` times that the kernel breaks; returns the result and the number of boots.
    fn boots(broken: usize, otherwise: impl Fn() -> Result<()>) -> (Result<()>, usize) {
        let mut boots = 0;
        let result = retried(|| {
            boots += 1;
            if boots > broken { otherwise() } else { Err(BrokenBoot("Oops: int3".into()).into()) }
        });
        (result, boots)
    }

    #[test]
    fn a_kernel_that_breaks_before_the_first_process_boots_again_twice_at_most() {
        for (broken, expected) in [(0, 1), (1, 2), (2, 3)] {
            let (result, boots) = boots(broken, || Ok(()));
            assert!(result.is_ok() && boots == expected, "{broken} broken boots");
        }
        let (result, boots) = boots(3, || Ok(()));
        assert!(result.unwrap_err().is::<BrokenBoot>() && boots == 3);
    }

    #[test]
    fn another_failure_is_not_tried_again() {
        let (result, boots) = boots(1, || Err(anyhow!("the guest's kernel broke during test pair")));
        assert!(result.unwrap_err().to_string().contains("test pair") && boots == 2);
        // Context does not hide the broken boot.
        let mut boots = 0;
        let result: Result<()> = retried(|| {
            boots += 1;
            Err(anyhow::Error::from(BrokenBoot("Oops".into())).context("QEMU complains"))
        });
        assert!(result.is_err() && boots == 3);
    }
}
