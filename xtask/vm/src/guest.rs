//! The words between the host and the guest of `cargo xtask vm`: the host's plan, and the guest's report.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// The plan's path in the guest.
pub const PLAN: &str = "/plan.json";
/// The guest's serial port for its report; the kernel's console is the first port.
pub const REPORT: &str = "/dev/ttyS1";
/// The names of the client's and the server's network back end, for the monitor's `set_link`.
pub const WIRES: [&str; 2] = ["wire-client", "wire-server"];
/// The names of the client's and the server's NIC, for the monitor's `device_del`.
pub const NICS: [&str; 2] = ["nic-client", "nic-server"];
/// The Ethernet addresses of the client's and the server's NIC, by which the guest finds them.
pub const MACS: [&str; 2] = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"];

/// Longest wait of a test for one event: emulated cores are slow, and the host may be busy.
pub const WAIT: Duration = Duration::from_secs(120);

/// A kind of NIC that QEMU emulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// virtio-net whose memory the driver maps beforehand, as zero-copy needs it.
    Virtio,
    /// virtio-net with QEMU's defaults: copy only.
    VirtioCopy,
    /// Intel 82576.
    Igb,
    /// Intel 82574: no native XDP.
    E1000e,
    /// VMware's vmxnet3.
    Vmxnet3,
}

impl Driver {
    /// All kinds.
    pub const ALL: [Self; 5] = [Self::Virtio, Self::VirtioCopy, Self::Igb, Self::E1000e, Self::Vmxnet3];

    /// Returns its name on the command line.
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

    /// Returns the kernel's module for it.
    #[must_use]
    pub const fn module(self) -> &'static str {
        match self {
            Self::Virtio | Self::VirtioCopy => "virtio_net",
            Self::Igb => "igb",
            Self::E1000e => "e1000e",
            Self::Vmxnet3 => "vmxnet3",
        }
    }

    /// Returns whether the driver itself runs XDP programs.
    #[must_use]
    pub const fn has_native_xdp(self) -> bool {
        !matches!(self, Self::E1000e)
    }

    /// Returns whether it has zero-copy under this kernel.
    #[must_use]
    pub fn has_zero_copy(self, kernel: Version) -> bool {
        match self {
            // Older drivers do not map their pages beforehand.
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

/// The first two numbers of a kernel's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// Reads it from a release such as `6.12.107+deb13-cloud-amd64`.
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

/// The host's plan for the guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The kind of both NICs.
    pub driver: Driver,
    /// The paths of the kernel modules in the guest, in the order of loading.
    pub modules: Vec<String>,
    /// Queues of each NIC.
    pub queues: u32,
    /// MTU of both NICs, in bytes.
    pub mtu: u32,
    /// The guest runs the tests whose names contain one of these; all if it is empty.
    pub only: Vec<String>,
    /// The guest opens a console instead of running tests.
    pub shell: bool,
}

/// A line of the guest's report for the host; every other line is for the user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// The guest's first process runs: the kernel has booted.
    Started,
    /// A test begins; a failure from here on is this test's.
    Begin(String),
    /// A command for QEMU's monitor (`set_link wire-server off`, `device_del nic-server`). It has no answer; the guest sees its effect.
    Monitor(String),
    /// A row of the table of modes.
    Row(Row),
    /// The tests have ended.
    End {
        /// Tests that passed.
        passed: usize,
        /// Tests that failed.
        failed: usize,
    },
}

/// The start of a message's line.
const MARK: &str = "@vm ";

impl Message {
    /// Returns the message's line without a line end.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn line(&self) -> Result<String> {
        Ok(MARK.to_owned() + &serde_json::to_string(self).context("writing a message")?)
    }

    /// Reads the message of a line; `None` if the line is for the user.
    ///
    /// # Errors
    /// The line has the mark of a message and is none.
    pub fn parse(line: &str) -> Result<Option<Self>> {
        let Some(json) = line.strip_prefix(MARK) else { return Ok(None) };
        serde_json::from_str(json).map(Some).with_context(|| format!("the guest reported `{line}`"))
    }
}

/// The result of one mode with one driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The requested mode: `zerocopy`, `copy`, `skb`, `auto`.
    pub mode: String,
    /// The mode in force; `None` if synmill refused it.
    pub bound: Option<String>,
    /// The XDP program runs in the driver.
    pub native: bool,
    /// The device writes into synmill's memory.
    pub zero_copy: bool,
    /// Connections that both ends account for alike.
    pub connections: Option<u64>,
    /// The refusal or the failure; empty if all is well.
    pub errors: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_back_from_its_line() {
        for message in [
            Message::Started,
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
