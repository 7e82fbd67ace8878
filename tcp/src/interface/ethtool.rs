//! Questions to an interface's driver. Knows ethtool's requests; never rtnetlink.
#![allow(
    unsafe_code,
    reason = "ethtool's requests have no safe wrapper; the one block states what keeps it sound"
)]

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

/// `ETHTOOL_GDRVINFO`, `ETHTOOL_GFLAGS` and `ETHTOOL_GCHANNELS` of linux/ethtool.h.
const GET_DRIVER: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
const GET_CHANNELS: u32 = 0x3c;
/// `ETH_FLAG_RXVLAN` and `ETH_FLAG_LRO`.
const RX_VLAN: u32 = 1 << 8;
const LRO: u32 = 1 << 15;

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

/// A request structure of ethtool's: plain integers, its command first, as large as the kernel's of that command.
trait Request {}
const _: () =
    assert!(size_of::<DriverInfo>() == 196 && size_of::<Channels>() == 36 && size_of::<Value>() == 8);
impl Request for DriverInfo {}
impl Request for Channels {}
impl Request for Value {}

/// Asks the driver of `name`; `None` if it does not answer such requests.
fn ethtool<R: Request>(name: &str, mut request: R) -> io::Result<Option<R>> {
    // Any socket carries the request; this one takes no address.
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    // The last byte stays 0.
    for (to, from) in ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut request).cast() };
    let mut ifreq = libc::ifreq { ifr_name, ifr_ifru };
    // SAFETY: SIOCETHTOOL reads and writes the structure that `ifru_data` points to, whose layout its first field names.
    // `Request` is only implemented for structures of exactly that layout (sizes asserted above), `request` lives until
    // the call returns, and any bytes are valid for its integers.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut ifreq) };
    if result == 0 {
        return Ok(Some(request));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EINVAL) => Ok(None),
        _ => Err(error),
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
    let Some(info) = ethtool(name, request)? else { return Ok(String::new()) };
    let length = info.driver.iter().position(|&byte| byte == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..length]).into_owned())
}

/// The settings of `name`; a driver that does not say has none of them.
pub(super) fn offloads(name: &str) -> io::Result<Offloads> {
    let flags = ethtool(name, Value { command: GET_FLAGS, data: 0 })?.map_or(0, |flags| flags.data);
    Ok(Offloads { lro: flags & LRO != 0, strips_vlan: flags & RX_VLAN != 0 })
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
    if let Some(channels) = ethtool(name, request)? {
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
