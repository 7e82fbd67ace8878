//! Questions and orders to an interface's driver. Knows ethtool's requests; never rtnetlink.
//!
//! They go by ioctl: netlink has no flow rules, and sets the RSS table only since Linux 6.17. No crate has either.
//!
//! - [`hash`]: how packets are spread by a hash (RSS).
//! - [`rules`]: which packets are not spread, but sent somewhere by a rule.
#![allow(
    unsafe_code,
    reason = "ethtool's requests have no safe wrapper; the one block states what keeps it sound"
)]

#[cfg(test)]
pub(super) mod fake;
pub(super) mod hash;
pub(super) mod rules;

use std::any::Any;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;

/// Settings (`ethtool -k`) that change what a program sees of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// `large-receive-offload`: several segments arrive as one packet.
    pub lro: bool,
    /// `rx-vlan-offload`: the VLAN tag is taken off.
    pub strips_vlan: bool,
}

/// Active queues, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Receive queues.
    pub rx: usize,
    /// Transmit queues.
    pub tx: usize,
}

/// What a NIC can do about which queue gets a packet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Help {
    /// It has flow rules (`ethtool -n`); of which kind shows only when one is set.
    pub has_rules: bool,
    /// Entries of its RSS table (`ethtool -x`); 0 without one.
    pub table_len: usize,
    /// Bytes of its RSS key; 0 if it has none to show.
    pub key_len: usize,
    /// Errors other than those of a driver that has none; it counts as one. Empty if there were none.
    pub errors: String,
}

/// `ETHTOOL_GDRVINFO`, `ETHTOOL_GFLAGS`, `ETHTOOL_SFLAGS` and `ETHTOOL_GCHANNELS` of linux/ethtool.h.
const GET_DRIVER: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const GET_CHANNELS: u32 = 0x3c;
/// `ETH_FLAG_RXVLAN`, `ETH_FLAG_LRO` and `ETH_FLAG_NTUPLE`.
const RX_VLAN: u32 = 1 << 8;
const LRO: u32 = 1 << 15;
const NTUPLE: u32 = 1 << 27;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    // version, firmware, bus, eeprom's name, reserved, and five counts: not read.
    rest: [u8; 32 + 32 + 32 + 32 + 12 + 5 * 4],
}

/// `struct ethtool_channels`.
#[repr(C)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_rxnfc`, with room for `N` locations of rules behind it.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Classes<const N: usize> {
    command: u32,
    flow: u32,
    data: u64,
    rule: Spec,
    // As many locations as there are or there is room for, or the rule's RSS context.
    count_or_context: u32,
    locations: [u32; N],
}

/// `struct ethtool_rx_flow_spec`.
#[derive(Clone)]
#[repr(C)]
struct Spec {
    flow: u32,
    fields: [u8; 52],
    // `struct ethtool_flow_ext`: never set.
    further_fields: [u8; 20],
    mask: [u8; 52],
    further_mask: [u8; 20],
    ring: u64,
    location: u32,
}

/// Requests of one rule, and the room in a request for all: the most rules that are read.
type Class = Classes<1>;
type ClassList = Classes<MAX_RULES>;
const MAX_RULES: usize = 4095;

impl<const N: usize> Classes<N> {
    const fn new(command: u32) -> Self {
        let (fields, further) = ([0; 52], [0; 20]);
        let rule = Spec {
            flow: 0,
            fields,
            further_fields: further,
            mask: fields,
            further_mask: further,
            ring: 0,
            location: 0,
        };
        Self { command, flow: 0, data: 0, rule, count_or_context: 0, locations: [0; N] }
    }
}

/// A request structure of ethtool's: plain integers, its command first, no smaller than what the kernel writes for that command.
pub(crate) trait Request: Any {}
const _: () =
    assert!(size_of::<DriverInfo>() == 196 && size_of::<Channels>() == 36 && size_of::<Value>() == 8);
const _: () = assert!(size_of::<Class>() == 192 && size_of::<ClassList>() == 188 + 4 * MAX_RULES);
impl Request for DriverInfo {}
impl Request for Channels {}
impl Request for Value {}
impl Request for Class {}
impl Request for ClassList {}

/// Who has requests done: the kernel, or in tests what stands in for a driver.
pub(crate) trait Ethtool {
    /// The interface's name.
    fn name(&self) -> &str;

    /// Has `request` done; what the driver answers stands in it then.
    fn carry(&self, request: &mut dyn Request) -> io::Result<()>;
}

/// An interface of this network namespace.
#[derive(Clone, Debug)]
pub(crate) struct Nic(pub(crate) String);

impl Ethtool for Nic {
    fn name(&self) -> &str {
        &self.0
    }

    fn carry(&self, request: &mut dyn Request) -> io::Result<()> {
        // Any socket carries the request; this one takes no address.
        let socket = std::os::unix::net::UnixDatagram::unbound()?;
        let mut ifr_name = [0; libc::IFNAMSIZ];
        // The last byte stays 0.
        for (to, from) in ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(self.0.bytes()) {
            *to = from as libc::c_char;
        }
        let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut *request).cast() };
        let mut ifreq = libc::ifreq { ifr_name, ifr_ifru };
        // SAFETY: SIOCETHTOOL reads and writes the structure that `ifru_data` points to, whose layout its first field names.
        // `Request` is only implemented for structures of that layout and at least that size (asserted above; `Hash` and
        // `Classes` also say how much may follow), `request` lives until the call returns, and any bytes are valid for its
        // integers.
        let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut ifreq) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Asks a driver; `None` if it does not answer such requests.
fn ask<R: Request>(nic: &dyn Ethtool, mut request: R) -> io::Result<Option<R>> {
    match nic.carry(&mut request) {
        Ok(()) => Ok(Some(request)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The line that gives interface `name` of this driver `count` queues each way.
#[must_use]
pub fn set_queues(name: &str, driver: &str, count: usize) -> String {
    // veth knows no combined channels.
    if driver == "veth" {
        format!("ethtool -L {name} rx {count} tx {count}")
    } else {
        format!("ethtool -L {name} combined {count}")
    }
}

/// The driver's name, empty if it has none.
///
/// # Errors
/// What the kernel said.
pub fn driver(name: &str) -> io::Result<String> {
    let request = DriverInfo { command: GET_DRIVER, driver: [0; 32], rest: [0; 160] };
    let Some(info) = ask(&Nic(name.into()), request)? else { return Ok(String::new()) };
    let length = info.driver.iter().position(|&byte| byte == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..length]).into_owned())
}

/// The settings of `name`; a driver that does not say has none of them.
pub(super) fn offloads(name: &str) -> io::Result<Offloads> {
    let flags = flags(&Nic(name.into()))?;
    Ok(Offloads { lro: flags & LRO != 0, strips_vlan: flags & RX_VLAN != 0 })
}

fn flags(nic: &dyn Ethtool) -> io::Result<u32> {
    Ok(ask(nic, Value { command: GET_FLAGS, data: 0 })?.map_or(0, |flags| flags.data))
}

/// Are flow rules in force (`ethtool -k`: `ntuple-filters`)?
pub(crate) fn has_ntuple(nic: &dyn Ethtool) -> io::Result<bool> {
    Ok(flags(nic)? & NTUPLE != 0)
}

/// Puts flow rules in force, or out of it.
pub(crate) fn set_ntuple(nic: &dyn Ethtool, on: bool) -> io::Result<()> {
    let others = flags(nic)? & !NTUPLE;
    let data = if on { others | NTUPLE } else { others };
    nic.carry(&mut Value { command: SET_FLAGS, data })
}

/// What it can do about which queue gets a packet. No answer is an error: who does not want its help is to go on without.
pub(super) fn help(nic: &dyn Ethtool) -> Help {
    let mut errors = Vec::new();
    let mut failed = |what, error| errors.push(format!("asked for its {what}: {error}"));
    let has_rules = rules::has_rules(nic).unwrap_or_else(|error| {
        failed("flow rules", error);
        false
    });
    let lengths = hash::lengths(nic).unwrap_or_else(|error| {
        failed("RSS table", error);
        None
    });
    let (table_len, key_len) = lengths.unwrap_or_default();
    Help { has_rules, table_len, key_len, errors: errors.join(", ") }
}

/// The active queues of `name`. Attaching a program can change them: ask again then.
///
/// # Errors
/// What the kernel said; a driver without channels is asked by its queues in sysfs, and has one queue without those.
pub fn queues(name: &str, index: u32) -> io::Result<Queues> {
    let request = Channels {
        command: GET_CHANNELS,
        max_rx: 0,
        max_tx: 0,
        max_other: 0,
        max_combined: 0,
        rx: 0,
        tx: 0,
        other: 0,
        combined: 0,
    };
    if let Some(channels) = ask(&Nic(name.into()), request)? {
        let (rx, tx) = (channels.rx + channels.combined, channels.tx + channels.combined);
        if rx > 0 && tx > 0 {
            return Ok(Queues { rx: rx as usize, tx: tx as usize });
        }
    }
    // sysfs can be another namespace's, where the same name is another interface.
    let folder = format!("/sys/class/net/{name}");
    let shown = fs::read_to_string(format!("{folder}/ifindex")).ok();
    if shown.and_then(|text| text.trim().parse().ok()) != Some(index) {
        return Ok(Queues { rx: 1, tx: 1 });
    }
    let count = |prefix: &str| -> io::Result<usize> {
        let names = fs::read_dir(format!("{folder}/queues"))?.filter_map(Result::ok);
        Ok(names.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).count().max(1))
    };
    Ok(Queues { rx: count("rx-")?, tx: count("tx-")? })
}

#[cfg(test)]
mod tests {
    use super::fake::{Fake, Takes};
    use super::*;

    #[test]
    fn a_driver_that_fails_to_answer_has_no_help() {
        let able = Help { has_rules: true, table_len: 8, key_len: 40, errors: String::new() };
        assert_eq!(help(&Fake::new(|_| {})), able);
        let unable = Fake::new(|state| {
            (state.takes, state.table, state.key) = (Takes::None, Vec::new(), Vec::new());
        });
        assert_eq!(help(&unable), Help::default());
        let broken = help(&Fake::new(|state| state.broken = Some(libc::EIO)));
        assert!(!broken.has_rules && broken.table_len == 0, "{broken:?}");
        let [rules, table] = ["asked for its flow rules: Input", "asked for its RSS table: Input"];
        assert!(broken.errors.contains(rules) && broken.errors.contains(table), "{broken:?}");
    }
}
