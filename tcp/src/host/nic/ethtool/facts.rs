//! A driver's facts about an interface: name, queues, offloads, and means of steering.

use std::fs;
use std::io;

use super::request::{Channels, DriverInfo, Ethtool, Nic, Value, ask};
use super::{hash, rules};

/// Settings (`ethtool -k`) that change what a program sees of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// `large-receive-offload`: several segments arrive as one packet.
    pub lro: bool,
    /// `rx-vlan-offload`: the NIC takes the VLAN tag off.
    pub strips_vlan: bool,
}

/// Active queues, in each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Receive queues.
    pub rx: usize,
    /// Transmit queues.
    pub tx: usize,
}

/// A NIC's means to send packets to certain queues.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Help {
    /// The NIC has flow rules (`ethtool -n`). Which kinds it takes shows only when one is set.
    pub has_rules: bool,
    /// Entries of the RSS table (`ethtool -x`); 0 without one.
    pub table_len: usize,
    /// Bytes of the RSS key; 0 if the driver shows none.
    pub key_len: usize,
    /// Errors of the driver's answers, other than that it has no such thing. A driver that fails counts as one without.
    pub errors: String,
}

/// `ETHTOOL_GDRVINFO`, `ETHTOOL_GFLAGS`, `ETHTOOL_SFLAGS` and `ETHTOOL_GCHANNELS` of linux/ethtool.h.
const GET_DRIVER: u32 = 0x03;
pub(crate) const GET_FLAGS: u32 = 0x25;
pub(crate) const SET_FLAGS: u32 = 0x26;
const GET_CHANNELS: u32 = 0x3c;
/// `ETH_FLAG_RXVLAN`, `ETH_FLAG_LRO` and `ETH_FLAG_NTUPLE`.
const RX_VLAN: u32 = 1 << 8;
const LRO: u32 = 1 << 15;
pub(crate) const NTUPLE: u32 = 1 << 27;

/// Returns the command that gives interface `name` of this driver `count` queues each way.
#[must_use]
pub fn set_queues(name: &str, driver: &str, count: usize) -> String {
    // veth knows no combined channels.
    if driver == "veth" {
        format!("ethtool -L {name} rx {count} tx {count}")
    } else {
        format!("ethtool -L {name} combined {count}")
    }
}

/// Returns the driver's name, empty if it has none.
///
/// # Errors
/// The kernel's.
pub fn driver(name: &str) -> io::Result<String> {
    let request = DriverInfo { command: GET_DRIVER, driver: [0; 32], rest: [0; 160] };
    let Some(info) = ask(&Nic(name.into()), request)? else { return Ok(String::new()) };
    let length = info.driver.iter().position(|&byte| byte == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..length]).into_owned())
}

/// Returns the settings of `name`; none of them are on where the driver does not say.
pub(crate) fn offloads(name: &str) -> io::Result<Offloads> {
    let flags = flags(&Nic(name.into()))?;
    Ok(Offloads { lro: flags & LRO != 0, strips_vlan: flags & RX_VLAN != 0 })
}

fn flags(nic: &dyn Ethtool) -> io::Result<u32> {
    Ok(ask(nic, Value { command: GET_FLAGS, data: 0 })?.map_or(0, |flags| flags.data))
}

/// Returns whether flow rules are in force (`ethtool -k`: `ntuple-filters`).
pub(crate) fn has_ntuple(nic: &dyn Ethtool) -> io::Result<bool> {
    Ok(flags(nic)? & NTUPLE != 0)
}

/// Puts flow rules in force, or out of it.
pub(crate) fn set_ntuple(nic: &dyn Ethtool, on: bool) -> io::Result<()> {
    let others = flags(nic)? & !NTUPLE;
    let data = if on { others | NTUPLE } else { others };
    nic.carry(&mut Value { command: SET_FLAGS, data })
}

/// Returns the NIC's means to send packets to certain queues. A failure is no error here: a run may not need them.
pub(crate) fn help(nic: &dyn Ethtool) -> Help {
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

/// Returns the active queues of `name`. Attaching a program may change them. A driver without channels is asked by its queues in
/// sysfs; without those it has one queue.
///
/// # Errors
/// The kernel's.
pub fn queues(name: &str, index: u32) -> io::Result<Queues> {
    let request = Channels { command: GET_CHANNELS, ..Channels::default() };
    if let Some(channels) = ask(&Nic(name.into()), request)? {
        let (rx, tx) = (channels.rx + channels.combined, channels.tx + channels.combined);
        if rx > 0 && tx > 0 {
            return Ok(Queues { rx: rx as usize, tx: tx as usize });
        }
    }
    // The mounted sysfs may be another namespace's, where the same name is another interface.
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
    use super::super::fake::{Fake, Takes};
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
