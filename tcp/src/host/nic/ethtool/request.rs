//! Ethtool's requests: their structures, and the ioctl that carries them.
#![allow(
    unsafe_code,
    reason = "ethtool's requests have no safe wrapper; the one block states what keeps it sound"
)]

use std::any::Any;
use std::io;
use std::os::fd::AsRawFd;

/// `struct ethtool_value`.
#[repr(C)]
pub(crate) struct Value {
    pub(crate) command: u32,
    pub(crate) data: u32,
}

/// `struct ethtool_drvinfo`.
#[repr(C)]
pub(crate) struct DriverInfo {
    pub(crate) command: u32,
    pub(crate) driver: [u8; 32],
    // Not read: version, firmware, bus, the eeprom's name, reserved bytes, and five counts.
    pub(crate) rest: [u8; 32 + 32 + 32 + 32 + 12 + 5 * 4],
}

/// `struct ethtool_channels`.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Channels {
    pub(crate) command: u32,
    // The most that there may be of each.
    pub(crate) most: [u32; 4],
    pub(crate) rx: u32,
    pub(crate) tx: u32,
    pub(crate) other: u32,
    pub(crate) combined: u32,
}

/// `struct ethtool_rxnfc`, with room for `N` locations of rules behind it.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Classes<const N: usize> {
    pub(crate) command: u32,
    pub(crate) flow: u32,
    pub(crate) data: u64,
    pub(crate) rule: Spec,
    // The number of locations, or of the rule's RSS context.
    pub(crate) count_or_context: u32,
    pub(crate) locations: [u32; N],
}

/// `struct ethtool_rx_flow_spec`.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Spec {
    pub(crate) flow: u32,
    pub(crate) fields: [u8; 52],
    // `struct ethtool_flow_ext`: never set.
    pub(crate) further_fields: [u8; 20],
    pub(crate) mask: [u8; 52],
    pub(crate) further_mask: [u8; 20],
    pub(crate) ring: u64,
    pub(crate) location: u32,
}

/// A request about one rule.
pub(crate) type Class = Classes<1>;
/// A request about all rules, with room for the most that are read.
pub(crate) type ClassList = Classes<MAX_RULES>;
pub(crate) const MAX_RULES: usize = 4095;

impl<const N: usize> Classes<N> {
    pub(crate) const fn new(command: u32) -> Self {
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

/// The most of an RSS table and key that is read, in words of four bytes: tables have up to some thousand entries, keys some ten words.
pub(crate) const MAX_HASH_WORDS: usize = 4096 + 64;

/// `struct ethtool_rxfh`, with room for what follows it: `table_len` words of the table, then `key_len` bytes of the key. The kernel
/// reads or writes that much and no more (`ethtool_get_rxfh`), so [`Hash::of`] lets both never exceed `words`.
#[derive(Clone)]
#[repr(C)]
pub(crate) struct Hash {
    pub(crate) command: u32,
    pub(crate) context: u32,
    pub(crate) table_len: u32,
    pub(crate) key_len: u32,
    pub(crate) function: u8,
    // `RXH_XFRM_*`: changes to the input before it is hashed.
    pub(crate) mixing: u8,
    reserved: [u8; 6],
    pub(crate) words: [u32; MAX_HASH_WORDS],
}

impl Hash {
    /// A request with a table and a key of these lengths behind it; `None` if there is no room for them.
    pub(crate) fn of(command: u32, context: u32, table_len: u32, key_len: u32) -> Option<Self> {
        let words = table_len as usize + (key_len as usize).div_ceil(4);
        (words <= MAX_HASH_WORDS).then_some(Self {
            command,
            context,
            table_len,
            key_len,
            function: 0,
            mixing: 0,
            reserved: [0; 6],
            words: [0; MAX_HASH_WORDS],
        })
    }

    /// Writes a table, and the bytes of a key behind it.
    pub(crate) fn write(&mut self, table: &[u32], key: &[u8]) {
        let (of_table, of_key) = self.words.split_at_mut(table.len());
        of_table.copy_from_slice(table);
        for (word, bytes) in of_key.iter_mut().zip(key.chunks(4)) {
            let mut four = [0; 4];
            four[..bytes.len()].copy_from_slice(bytes);
            *word = u32::from_ne_bytes(four);
        }
    }
}

/// A request structure of ethtool's: plain integers, its command first, no smaller than what the kernel writes for that command.
pub(crate) trait Request: Any {}
const _: () =
    assert!(size_of::<DriverInfo>() == 196 && size_of::<Channels>() == 36 && size_of::<Value>() == 8);
const _: () = assert!(size_of::<Class>() == 192 && size_of::<ClassList>() == 188 + 4 * MAX_RULES);
const _: () = assert!(size_of::<Hash>() == 24 + 4 * MAX_HASH_WORDS);
impl Request for DriverInfo {}
impl Request for Channels {}
impl Request for Value {}
impl Request for Class {}
impl Request for ClassList {}
impl Request for Hash {}

/// The end that carries requests: the kernel, or in tests a fake driver.
pub(crate) trait Ethtool {
    /// Returns the interface's name.
    fn name(&self) -> &str;

    /// Carries `request` to the driver, which writes its answer into it.
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

/// Asks a driver. Returns `None` if the driver does not know such requests.
pub(crate) fn ask<R: Request>(nic: &dyn Ethtool, mut request: R) -> io::Result<Option<R>> {
    match nic.carry(&mut request) {
        Ok(()) => Ok(Some(request)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => Ok(None),
        Err(error) => Err(error),
    }
}
