//! `cargo xtask vm`: synmill on NICs that QEMU emulates, zero-copy among them.

mod console;
pub mod guest;
mod host;
mod image;
mod machine;
mod matrix;
mod monitor;
mod packages;
mod wires;

use anyhow::{Result, bail};
use clap::Args;
use synmill_lab::Interrupt;

use crate::guest::{Driver, Plan};
use crate::host::{Host, Wish};
use crate::machine::Report;

/// Virtual machines to test on.
///
/// Kernels and their modules are Debian's packages, fetched once into a cache and never installed. It takes no root, except for
/// several queues of virtio-net, whose wires are TAP devices.
#[derive(Args, Debug)]
pub struct Vm {
    /// The kind of the NICs.
    #[arg(long, default_value = "virtio")]
    driver: Driver,
    /// Debian's kernel: the newest one whose version starts so.
    #[arg(long, value_name = "VERSION", default_value = "7")]
    kernel: String,
    /// Queues of each NIC; more than one with virtio, virtio-copy (both take root then) and igb.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4))]
    queues: u32,
    /// MTU of both NICs, in bytes.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=3498))]
    mtu: u32,
    /// Runs only the tests whose names contain this; may be repeated.
    #[arg(long, value_name = "NAME")]
    test: Vec<String>,
    /// Opens a console in the guest instead of running tests, with its two NICs in the lab's namespaces.
    #[arg(long, conflicts_with_all = ["test", "all"])]
    shell: bool,
    /// Runs every driver with every kernel, and writes the table of modes into docs/drivers.md.
    #[arg(long, conflicts_with_all = ["driver", "kernel", "queues", "mtu", "test"])]
    all: bool,
    /// The mirror of Debian's packages [default: the machine's own].
    #[arg(long, value_name = "URI")]
    mirror: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A test failed, or a guest cannot be prepared or booted.
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
    let host = Host::prepare(&interrupt, mirror, vec![wish])?;
    let guest = &host.guests[0];
    if command.shell { host.shell(guest) } else { conclude(&host.run(guest)?) }
}

/// Runs the guests of continuous integration, as root: zero-copy, zero-copy on two queues, and a kernel without it.
///
/// # Errors
/// A test failed, or a guest cannot be prepared or booted.
pub fn continuous(interrupt: &Interrupt) -> Result<()> {
    let wishes = [("7", 1, &[][..]), ("7", 2, &["pair"]), ("6.12", 1, &[])];
    let wish = |(kernel, queues, only)| {
        let mut wish = Wish::simple(Driver::Virtio, kernel, only);
        wish.plan.queues = queues;
        wish
    };
    let host = Host::prepare(interrupt, None, wishes.map(wish).into())?;
    host.guests.iter().try_for_each(|guest| conclude(&host.run(guest)?))
}

/// Prints the closing line, and fails if a test failed or none ran.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_tested_nothing_did_not_pass() {
        let report = |passed, failed| Report { passed, failed, rows: Vec::new() };
        assert!(conclude(&report(1, 0)).is_ok());
        assert!(conclude(&report(1, 1)).is_err());
        assert!(conclude(&report(0, 0)).is_err());
    }
}
