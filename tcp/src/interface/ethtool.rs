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

/// How the NIC spreads packets over its queues (receive side scaling).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RssTable {
    /// The hash function's key, in bytes as they are applied.
    pub key: Vec<u8>,
    /// The receive queue of each hash value, by the value's low bits: value modulo the table's length.
    pub table: Vec<u32>,
    /// The hash is Toeplitz's over source address, destination address, source port and destination port, as they are in
    /// the packet. Otherwise it is another function, or its input is mixed first.
    pub is_toeplitz: bool,
}

/// `ETHTOOL_GDRVINFO`, `ETHTOOL_GFLAGS`, `ETHTOOL_GRXFH`, `ETHTOOL_GCHANNELS` and `ETHTOOL_GRSSH` of linux/ethtool.h.
const GET_DRIVER: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
const GET_HASHED_FIELDS: u32 = 0x29;
const GET_CHANNELS: u32 = 0x3c;
const GET_HASH: u32 = 0x46;
/// `ETH_FLAG_RXVLAN` and `ETH_FLAG_LRO`.
const RX_VLAN: u32 = 1 << 8;
const LRO: u32 = 1 << 15;
/// `TCP_V4_FLOW` and `TCP_V6_FLOW`.
const TCP_FLOWS: [u32; 2] = [0x01, 0x05];
/// `RXH_IP_SRC`, `RXH_IP_DST`, `RXH_L4_B_0_1` and `RXH_L4_B_2_3`: addresses and ports, and nothing else.
const ADDRESSES_AND_PORTS: u64 = 0b1111 << 4;
/// `ETH_RSS_HASH_TOP`.
const TOEPLITZ: u8 = 1;
/// The most of a table and key that is read, in words of four bytes: tables have up to some thousand entries, keys some
/// ten words.
const MAX_HASH_WORDS: usize = 4096 + 64;

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

/// `struct ethtool_rxnfc`, as far as `ETHTOOL_GRXFH` goes.
#[repr(C)]
struct HashedFields {
    command: u32,
    flow: u32,
    fields: u64,
    // A rule, its number, its context: not read.
    rest: [u64; 22],
}

/// `struct ethtool_rxfh`, with room for what follows it: `table_len` words of the table, then `key_len` bytes of the key.
/// The kernel writes that much and no more (`ethtool_get_rxfh`), so [`Hash::of`] lets the two never exceed `words`.
#[repr(C)]
struct Hash {
    command: u32,
    context: u32,
    table_len: u32,
    key_len: u32,
    function: u8,
    // RXH_XFRM_*: what is done to the input first.
    mixing: u8,
    reserved: [u8; 6],
    words: [u32; MAX_HASH_WORDS],
}

/// A request structure of ethtool's: plain integers, its command first, no smaller than what the kernel writes for that command.
trait Request {}
const _: () =
    assert!(size_of::<DriverInfo>() == 196 && size_of::<Channels>() == 36 && size_of::<Value>() == 8);
const _: () = assert!(size_of::<HashedFields>() == 192 && size_of::<Hash>() == 24 + 4 * MAX_HASH_WORDS);
impl Request for DriverInfo {}
impl Request for Channels {}
impl Request for Value {}
impl Request for HashedFields {}
impl Request for Hash {}

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
    // `Request` is only implemented for structures of that layout and at least that size (asserted above; `Hash` also
    // says how much may follow), `request` lives until the call returns, and any bytes are valid for its integers.
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

impl Hash {
    /// A request for so much; `None` where it has no room.
    fn of(table_len: u32, key_len: u32) -> Option<Self> {
        let words = table_len as usize + (key_len as usize).div_ceil(4);
        (words <= MAX_HASH_WORDS).then_some(Self {
            command: GET_HASH,
            context: 0,
            table_len,
            key_len,
            function: 0,
            mixing: 0,
            reserved: [0; 6],
            words: [0; MAX_HASH_WORDS],
        })
    }

    /// What the driver answered; `None` where it kept the key or the table to itself.
    fn read(&self) -> Option<RssTable> {
        let (table, rest) = self.words.split_at_checked(self.table_len as usize)?;
        let key: Vec<u8> =
            rest.iter().flat_map(|word| word.to_ne_bytes()).take(self.key_len as usize).collect();
        let is_readable = !table.is_empty() && key.iter().any(|&byte| byte != 0);
        let is_toeplitz = self.function == TOEPLITZ && self.mixing == 0;
        is_readable.then(|| RssTable { key, table: table.to_vec(), is_toeplitz })
    }
}

/// How `name` spreads TCP over its receive queues; `None` if that cannot be known: its driver has no such table or does
/// not show it (the key needs CAP_NET_ADMIN), or TCP over IPv4 or IPv6 is hashed by other fields than addresses and ports.
///
/// # Errors
/// What the kernel said.
pub fn rss(name: &str) -> io::Result<Option<RssTable>> {
    match read_rss(name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        result => result,
    }
}

fn read_rss(name: &str) -> io::Result<Option<RssTable>> {
    let ask = |table_len, key_len| match Hash::of(table_len, key_len) {
        Some(request) => ethtool(name, request),
        None => Ok(None),
    };
    // Without room for anything it answers with the lengths alone.
    let Some(lengths) = ask(0, 0)? else { return Ok(None) };
    for flow in TCP_FLOWS {
        let request = HashedFields { command: GET_HASHED_FIELDS, flow, fields: 0, rest: [0; 22] };
        if ethtool(name, request)?.is_none_or(|answer| answer.fields != ADDRESSES_AND_PORTS) {
            return Ok(None);
        }
    }
    Ok(ask(lengths.table_len, lengths.key_len)?.and_then(|hash| hash.read()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_read_behind_its_lengths() {
        let read = |function, mixing, key: [u8; 8]| {
            let mut hash = Hash::of(3, 6).unwrap();
            (hash.function, hash.mixing) = (function, mixing);
            let [a, b, c, d, e, f, g, h] = key;
            let key = [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])];
            hash.words[..5].copy_from_slice(&[0, 1, 2, key[0], key[1]]);
            hash.read()
        };
        let key = [1, 2, 3, 4, 5, 6, 7, 8];
        let table =
            |is_toeplitz| Some(RssTable { key: vec![1, 2, 3, 4, 5, 6], table: vec![0, 1, 2], is_toeplitz });
        assert_eq!(read(TOEPLITZ, 0, key), table(true));
        // ETH_RSS_HASH_CRC32, no function told, and RXH_XFRM_SYM_XOR.
        assert_eq!(read(4, 0, key), table(false));
        assert_eq!(read(0, 0, key), table(false));
        assert_eq!(read(TOEPLITZ, 1, key), table(false));
        assert_eq!(read(TOEPLITZ, 0, [0; 8]), None);
        assert_eq!(Hash::of(0, 40).unwrap().read(), None);
        assert_eq!(Hash::of(128, 0).unwrap().read(), None);
        assert!(Hash::of(4096, 257).is_none() && Hash::of(u32::MAX, u32::MAX).is_none());
    }

    #[test]
    fn an_interface_without_a_table_has_none() {
        assert_eq!(rss("lo").unwrap(), None);
    }
}
