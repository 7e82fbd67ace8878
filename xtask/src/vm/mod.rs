//! `cargo xtask vm`: synmill on NICs that QEMU emulates, zero-copy among them. Knows the order of things; never how each is done.

#[allow(dead_code, reason = "called once there is a machine to boot")]
mod image;
mod machine;
#[allow(dead_code, reason = "called once there is a machine to boot")]
mod packages;

use anyhow::{Result, bail};
use clap::Args;
use xtask::guest::Driver;

/// What to run, and on what.
#[derive(Args, Debug)]
pub(crate) struct Vm {
    /// The NICs' kind.
    #[arg(long, default_value = "virtio")]
    driver: Driver,
    /// Debian's kernel: the newest whose version starts so.
    #[arg(long, value_name = "VERSION", default_value = "7.2")]
    kernel: String,
    /// Queues of each NIC.
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
}

/// Runs it.
pub(crate) fn perform(command: &Vm) -> Result<()> {
    crate::prerequisites::ensure(&crate::process::Interrupt::install()?, &[crate::prerequisites::VM])?;
    bail!("not built yet: {command:?}")
}
