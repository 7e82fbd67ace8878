//! What the two sides of `cargo xtask vm` say to each other: the plan that the host gives, the lines that the guest reports. Knows no
//! QEMU, and no test.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The plan's place in the guest's file system.
pub const PLAN: &str = "/plan.json";
/// The guest's serial line for its report; the first one is the kernel's console.
pub const REPORT: &str = "/dev/ttyS1";
/// The network back ends of the client's and of the server's NIC, as the monitor's `set_link` has them.
pub const WIRES: [&str; 2] = ["wire-client", "wire-server"];
/// The NICs, as the monitor's `device_del` has them.
pub const NICS: [&str; 2] = ["nic-client", "nic-server"];
/// Their Ethernet addresses, by which the guest knows them.
pub const MACS: [&str; 2] = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"];

/// Longest wait of a test for one thing: emulated cores are slow, and others use the machine, too.
pub const WAIT: Duration = Duration::from_secs(120);

/// A NIC that QEMU emulates, and its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// virtio-net whose memory goes through the IOMMU's interface, as zero-copy needs it.
    Virtio,
    /// virtio-net as it is without being asked: copy only.
    VirtioCopy,
    /// Intel 82576.
    Igb,
    /// Intel 82574: no native XDP.
    E1000e,
    /// VMware's.
    Vmxnet3,
}

impl Driver {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Virtio, Self::VirtioCopy, Self::Igb, Self::E1000e, Self::Vmxnet3];

    /// As the command line has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::VirtioCopy => "virtio-copy",
            Self::Igb => "igb",
            Self::E1000e => "e1000e",
            Self::Vmxnet3 => "vmxnet3",
        }
    }

    /// The kernel's modules for it, without those that they need themselves.
    #[must_use]
    pub const fn module(self) -> &'static str {
        match self {
            Self::Virtio | Self::VirtioCopy => "virtio_net",
            Self::Igb => "igb",
            Self::E1000e => "e1000e",
            Self::Vmxnet3 => "vmxnet3",
        }
    }

    /// Does it run a program before the kernel makes a packet of what came?
    #[must_use]
    pub const fn has_native_xdp(self) -> bool {
        !matches!(self, Self::E1000e)
    }

    /// Does it bind without copying, under this kernel?
    #[must_use]
    pub fn has_zero_copy(self, kernel: Version) -> bool {
        match self {
            // Until then its pages were not mapped beforehand.
            Self::Virtio => kernel >= Version(6, 13),
            Self::Igb => kernel >= Version(6, 14),
            Self::VirtioCopy | Self::E1000e | Self::Vmxnet3 => false,
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kernel's version, as far as drivers depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// From a release such as `6.12.107+deb13-cloud-amd64`.
    ///
    /// # Errors
    /// It does not start with two numbers.
    pub fn of(release: &str) -> Result<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self(major, minor)),
            _ => anyhow::bail!("`{release}` is not a kernel's release"),
        }
    }
}

/// What the guest is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The NICs' kind.
    pub driver: Driver,
    /// Modules to load, in this order: paths in the guest.
    pub modules: Vec<String>,
    /// Queues of each NIC.
    pub queues: u32,
    /// MTU of both NICs, in bytes.
    pub mtu: u32,
    /// Tests whose names contain one of these; all when there is none.
    pub only: Vec<String>,
    /// A console instead of tests.
    pub shell: bool,
}

/// A line of the guest's report that is meant for the host; every other line is meant for the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// A test begins: what goes wrong from here on is its own.
    Begin(String),
    /// A command for QEMU's monitor (`set_link wire-server off`, `device_del nic-server`). There is no answer: the guest sees what it does.
    Monitor(String),
    /// A row of the table of modes.
    Row(Row),
    /// The end: tests that passed and that failed.
    End {
        /// Passed.
        passed: usize,
        /// Failed.
        failed: usize,
    },
}

/// What starts such a line.
const MARK: &str = "@vm ";

impl Message {
    /// The line, without its end.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn line(&self) -> Result<String> {
        Ok(MARK.to_owned() + &serde_json::to_string(self).context("writing a message")?)
    }

    /// The message of a line; `None` if the line is the user's.
    ///
    /// # Errors
    /// It is marked as a message, and is none.
    pub fn parse(line: &str) -> Result<Option<Self>> {
        let Some(json) = line.strip_prefix(MARK) else { return Ok(None) };
        serde_json::from_str(json).map(Some).with_context(|| format!("the guest reported `{line}`"))
    }
}

/// What one mode does with one driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The mode asked for: `zerocopy`, `copy`, `skb`, `auto`.
    pub mode: String,
    /// The mode in force; `None` if it was refused.
    pub bound: Option<String>,
    /// The program runs in the driver.
    pub native: bool,
    /// The device writes into our memory.
    pub zero_copy: bool,
    /// Connections that were opened, used and closed with equal accounts at both ends.
    pub connections: Option<u64>,
    /// What was refused, lost, or not as it should be; empty if nothing.
    pub errors: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_back_from_its_line() {
        for message in [
            Message::Begin("pair".into()),
            Message::Monitor("set_link wire-server off".into()),
            Message::End { passed: 3, failed: 0 },
            Message::Row(Row {
                mode: "auto".into(),
                bound: Some("copy".into()),
                native: true,
                zero_copy: false,
                connections: Some(400),
                errors: String::new(),
            }),
        ] {
            let line = message.line().unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(Message::parse(&line).unwrap(), Some(message));
        }
        assert_eq!(Message::parse("test pair ... ok").unwrap(), None);
        assert!(Message::parse("@vm {\"end\":").is_err());
    }

    #[test]
    fn a_release_has_a_version() {
        assert_eq!(Version::of("6.12.107+deb13-cloud-amd64").unwrap(), Version(6, 12));
        assert!(Version::of("7.2").unwrap() > Version(6, 13));
        assert!(Version::of("newest").is_err());
    }
}
