//! Receive side scaling: the hash's key, the table of queues by hash, and further tables for flow rules (contexts).

use std::io;
use std::ops::Deref;
use std::str::FromStr;

use super::request::{Class, Ethtool, Hash, Nic, ask};

/// How a NIC spreads packets over its queues (receive side scaling).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RssTable {
    /// The hash function's key, in bytes as they are applied.
    pub key: Vec<u8>,
    /// The receive queue of each hash value, by the value modulo the table's length.
    pub table: Vec<u32>,
    /// The hash is Toeplitz's over source address, destination address, source port and destination port, in the packet's order.
    /// Otherwise the NIC hashes by another function, or mixes the input first.
    pub is_toeplitz: bool,
}

/// The key of a NIC's hash: at least one byte is not zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashKey(Vec<u8>);

impl Deref for HashKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for HashKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let byte = |part: &str| {
            let is_byte = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_byte.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        match text.split(':').map(byte).collect::<Option<Vec<u8>>>() {
            Some(key) if key.iter().any(|&byte| byte != 0) => Ok(Self(key)),
            Some(_) => Err("all zero, it would spread nothing: give another key"),
            None => Err("write bytes in hex with colons between, as ethtool -x shows the key: 6d:5a:56:..."),
        }
    }
}

/// `ETHTOOL_GRXFH`, `ETHTOOL_GRXRINGS`, `ETHTOOL_GRSSH` and `ETHTOOL_SRSSH` of linux/ethtool.h.
pub(crate) const GET_HASHED_FIELDS: u32 = 0x29;
pub(crate) const GET_RINGS: u32 = 0x2d;
pub(crate) const GET_HASH: u32 = 0x46;
pub(crate) const SET_HASH: u32 = 0x47;
/// `ETH_RXFH_CONTEXT_ALLOC`: the driver makes a context.
pub(crate) const NEW_CONTEXT: u32 = u32::MAX;
/// `TCP_V4_FLOW` and `TCP_V6_FLOW`.
const TCP_FLOWS: [u32; 2] = [0x01, 0x05];
/// `RXH_IP_SRC`, `RXH_IP_DST`, `RXH_L4_B_0_1` and `RXH_L4_B_2_3`: addresses and ports, and nothing else.
const ADDRESSES_AND_PORTS: u64 = 0b1111 << 4;
/// `ETH_RSS_HASH_TOP`.
const TOEPLITZ: u8 = 1;

/// The spread of packets without a rule, or of those of a context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Queues by hash.
    pub(crate) table: Vec<u32>,
    /// Empty without a key, all zero if the driver does not show it.
    pub(crate) key: Vec<u8>,
    function: u8,
    mixing: u8,
}

impl Setting {
    /// Reads the driver's answer.
    fn read(hash: &Hash) -> Option<Self> {
        let (table, rest) = hash.words.split_at_checked(hash.table_len as usize)?;
        let key = rest.iter().flat_map(|word| word.to_ne_bytes()).take(hash.key_len as usize);
        Some(Self { table: table.to_vec(), key: key.collect(), function: hash.function, mixing: hash.mixing })
    }
}

/// Returns the entries of the table and the bytes of the key; `None` without either.
pub(super) fn lengths(nic: &dyn Ethtool) -> io::Result<Option<(usize, usize)>> {
    // Without room for anything the driver answers with the lengths alone.
    let Some(request) = Hash::of(GET_HASH, 0, 0, 0) else { return Ok(None) };
    Ok(ask(nic, request)?.map(|answer| (answer.table_len as usize, answer.key_len as usize)))
}

/// Returns the setting for all packets (context 0) or of a context; `None` without a table.
pub(crate) fn setting(nic: &dyn Ethtool, context: u32) -> io::Result<Option<Setting>> {
    let Some((table_len, key_len)) = lengths(nic)? else { return Ok(None) };
    let Some(request) = Hash::of(GET_HASH, context, table_len as u32, key_len as u32) else {
        return Ok(None);
    };
    let setting = ask(nic, request)?.and_then(|answer| Setting::read(&answer));
    Ok(setting.filter(|setting| !setting.table.is_empty()))
}

/// Sets the table, and the key unless it is empty. Everything else stays as it was in `before`.
pub(crate) fn set(nic: &dyn Ethtool, table: &[u32], key: &[u8], before: &Setting) -> io::Result<()> {
    order(nic, 0, Some(table), key, before.mixing).map(|_| ())
}

/// Lets the driver fill the table with its default. This order never has a key: before Linux 6.11 the kernel looks for the key behind a
/// table of the full length, though the order has no table, and sets the bytes there.
pub(crate) fn reset(nic: &dyn Ethtool, before: &Setting) -> io::Result<()> {
    order(nic, 0, None, &[], before.mixing).map(|_| ())
}

/// Makes a context with this table for flow rules. Returns its number.
pub(crate) fn add_context(nic: &dyn Ethtool, table: &[u32]) -> io::Result<u32> {
    order(nic, NEW_CONTEXT, Some(table), &[], 0)
}

/// Removes a context that no flow rule names.
pub(crate) fn delete_context(nic: &dyn Ethtool, context: u32) -> io::Result<()> {
    order(nic, context, None, &[], 0).map(|_| ())
}

/// Sets a table; without one, the default table, or a context's end (`ethtool_set_rxfh`). Returns the context's number.
fn order(nic: &dyn Ethtool, context: u32, table: Option<&[u32]>, key: &[u8], mixing: u8) -> io::Result<u32> {
    let table = table.unwrap_or_default();
    let too_long = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut request =
        Hash::of(SET_HASH, context, table.len() as u32, key.len() as u32).ok_or_else(too_long)?;
    request.mixing = mixing;
    request.write(table, key);
    nic.carry(&mut request)?;
    Ok(request.context)
}

/// Returns whether this is the kernel's default table: the queues in turn.
pub(crate) fn is_default(nic: &dyn Ethtool, table: &[u32]) -> io::Result<bool> {
    let rings = ask(nic, Class::new(GET_RINGS))?.map_or(0, |answer| answer.data);
    Ok(rings > 0 && (0..).zip(table).all(|(entry, &queue)| entry % rings == u64::from(queue)))
}

/// Returns how `name` spreads TCP over its receive queues, by this context of its flow rules, or 0 for all other packets.
///
/// Returns `None` where that is unknown: the driver has no such table, does not show it (the key needs CAP_NET_ADMIN) or fails to answer,
/// or it hashes TCP over IPv4 or IPv6 by other fields than addresses and ports.
#[must_use]
pub fn rss(name: &str, context: u32) -> Option<RssTable> {
    read_rss(&Nic(name.into()), context).ok().flatten()
}

fn read_rss(nic: &dyn Ethtool, context: u32) -> io::Result<Option<RssTable>> {
    let Some(common) = setting(nic, 0)? else { return Ok(None) };
    for flow in TCP_FLOWS {
        let request = Class { flow, ..Class::new(GET_HASHED_FIELDS) };
        if ask(nic, request)?.is_none_or(|answer| answer.data != ADDRESSES_AND_PORTS) {
            return Ok(None);
        }
    }
    let is_shown = |setting: &Setting| setting.key.iter().any(|&byte| byte != 0);
    let own = match context {
        0 => Some(common.clone()),
        _ => setting(nic, context)?,
    };
    let Some(own) = own else { return Ok(None) };
    // A context need not have a key and a function of its own.
    let hash = if is_shown(&own) { own.clone() } else { common };
    let is_toeplitz = hash.function == TOEPLITZ && hash.mixing == 0;
    Ok(is_shown(&hash).then_some(RssTable { key: hash.key, table: own.table, is_toeplitz }))
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::super::fake::{Fake, State};
    use super::*;

    #[test]
    fn the_hash_is_read_behind_its_lengths() {
        let mut hash = Hash::of(GET_HASH, 0, 3, 6).unwrap();
        (hash.function, hash.mixing) = (TOEPLITZ, 1);
        let key = [[1, 2, 3, 4], [5, 6, 7, 8]].map(u32::from_ne_bytes);
        hash.words[..5].copy_from_slice(&[0, 1, 2, key[0], key[1]]);
        let key = vec![1, 2, 3, 4, 5, 6];
        let setting = Setting { table: vec![0, 1, 2], key, function: TOEPLITZ, mixing: 1 };
        assert_eq!(Setting::read(&hash), Some(setting));
        assert!(Hash::of(GET_HASH, 0, 4096, 257).is_none());
        assert!(Hash::of(GET_HASH, 0, u32::MAX, u32::MAX).is_none());
    }

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!((offset_of!(Hash, context), offset_of!(Hash, table_len)), (4, 8));
        assert_eq!((offset_of!(Hash, key_len), offset_of!(Hash, function)), (12, 16));
        assert_eq!((offset_of!(Hash, mixing), offset_of!(Hash, words)), (17, 24));
    }

    #[test]
    fn what_a_generator_can_foretell_is_read() {
        let read = |change: fn(&mut State), context| {
            let nic = Fake::new(|state| {
                state.contexts = Some([(7, vec![2; 8])].into());
                change(state);
            });
            read_rss(&nic, context).unwrap()
        };
        let table = |table: &[u32], is_toeplitz| {
            Some(RssTable { key: (1..=40).collect(), table: table.to_vec(), is_toeplitz })
        };
        let spread = [0, 1, 2, 3, 0, 1, 2, 3];
        assert_eq!(read(|_| {}, 0), table(&spread, true));
        // By the key of all, over its own queues.
        assert_eq!(read(|_| {}, 7), table(&[2; 8], true));
        // ETH_RSS_HASH_CRC32, no function told, and RXH_XFRM_SYM_XOR.
        assert_eq!(read(|state| state.function = 4, 0), table(&spread, false));
        assert_eq!(read(|state| state.function = 0, 7), table(&[2; 8], false));
        assert_eq!(read(|state| state.mixing = 1, 0), table(&spread, false));
        // A key that is not shown, no key, no table, and addresses alone.
        assert_eq!(read(|state| state.key = vec![0; 40], 0), None);
        assert_eq!(read(|state| state.key = Vec::new(), 7), None);
        assert_eq!(read(|state| state.table = Vec::new(), 0), None);
        assert_eq!(read(|state| state.hashed_fields = 0x30, 0), None);
    }

    #[test]
    fn an_interface_without_a_table_has_none() {
        assert_eq!(rss("lo", 0), None);
    }
}
