//! A prefix of addresses, as `--source` names it. Knows bits; never who has the addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// All addresses that begin with the same bits (RFC 4632 section 3.1, RFC 4291 section 2.3). The bits behind them are zero, and
/// an IPv4 address is never in IPv6's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// The first of the addresses.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits the addresses share: 0 to 32 for IPv4, 0 to 128 for IPv6.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a prefix's length counts bits, not elements")]
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// The prefix of `len` bits that `address` is in; a longer one than its family has is the address alone.
    #[must_use]
    pub fn around(address: IpAddr, len: u8) -> Self {
        let address = address.to_canonical();
        let len = len.min(bits(address));
        let behind = u32::from(bits(address) - len);
        let address = match address {
            IpAddr::V4(v4) => {
                Ipv4Addr::from_bits(v4.to_bits() & u32::MAX.checked_shl(behind).unwrap_or(0)).into()
            }
            IpAddr::V6(v6) => {
                Ipv6Addr::from_bits(v6.to_bits() & u128::MAX.checked_shl(behind).unwrap_or(0)).into()
            }
        };
        Self { address, len }
    }

    /// Is it one of the addresses?
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self::around(address, self.len).address == self.address
    }

    /// Is any address in both?
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.len <= other.len { self.contains(other.address) } else { other.contains(self.address) }
    }
}

/// The bits of an address of this one's family.
const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|line| format!("{text}: {line}"))
    }
}

impl FromStr for Prefix {
    type Err = String;

    /// `198.19.0.0/16`, or one address.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let wrong = || "write addresses such as 198.19.0.0/16, fd00:19::/64 or 198.19.0.1".to_owned();
        let given: IpAddr = address.parse().map_err(|_| wrong())?;
        let address = given.to_canonical();
        let mapped = bits(given) - bits(address);
        let len = len.map_or(Ok(bits(given)), str::parse::<u8>).map_err(|_| wrong())?;
        if len > bits(given) {
            return Err(format!("an address has {0} bits: write {given}/{0} or less", bits(given)));
        }
        let Some(len) = len.checked_sub(mapped) else {
            return Err(format!("these are IPv4 addresses and more: write {address}/32 or less"));
        };
        let prefix = Self::around(address, len);
        if prefix.address == address {
            Ok(prefix)
        } else {
            Err(format!("{address} has bits behind the first {len}: write {prefix}, or {address} alone"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_reads_as_it_is_written() {
        for text in ["198.19.0.0/16", "0.0.0.0/0", "::/0", "fd00:19::/64", "198.19.0.1/32"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        assert_eq!(prefix("fd00:19::1").to_string(), "fd00:19::1/128");
        assert_eq!(prefix("::ffff:198.19.0.0/112"), prefix("198.19.0.0/16"));
        assert_eq!(Prefix::around("198.18.0.2".parse().unwrap(), 24), prefix("198.18.0.0/24"));
    }

    #[test]
    fn what_is_no_prefix_is_told_how_to_be_one() {
        let table = [
            ("198.19.0.0/33", "198.19.0.0/32 or less"),
            ("fd00::/129", "fd00::/128 or less"),
            ("198.19.0.1/16", "write 198.19.0.0/16"),
            ("::ffff:198.19.0.0/95", "198.19.0.0/32 or less"),
            ("198.19.0.0/", "write addresses such as"),
            ("198.19.0.0/-1", "write addresses such as"),
            ("198.19.0.0/16/16", "write addresses such as"),
            ("198.19/16", "write addresses such as"),
        ];
        for (text, part) in table {
            let line = text.parse::<Prefix>().expect_err(text);
            assert!(line.contains(part), "{text}: {line}");
        }
    }

    #[test]
    fn prefixes_overlap_when_one_is_in_the_other() {
        let table = [
            ("198.19.0.0/16", "198.19.3.0/24", true),
            ("198.19.0.0/16", "198.18.0.0/16", false),
            ("0.0.0.0/0", "198.18.0.0/16", true),
            ("::/0", "198.18.0.0/16", false),
            ("fd00:19::/64", "fd00:19::1", true),
            ("fd00:19::/64", "fd00:19:0:1::/64", false),
        ];
        for (one, other, expected) in table {
            assert_eq!(prefix(one).overlaps(&prefix(other)), expected, "{one} and {other}");
            assert_eq!(prefix(other).overlaps(&prefix(one)), expected, "{other} and {one}");
        }
    }
}
