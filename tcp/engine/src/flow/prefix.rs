//! A prefix of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Address;

/// All addresses of one family that begin with the same bits (RFC 4632 section 3.1, RFC 4291 section 2.3). The bits behind the
/// length are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Prefix {
    first: Address,
    len: u8,
}

impl Prefix {
    /// The prefix of `len` bits that contains `address`; `None` if an address of that family has fewer bits.
    #[must_use]
    pub const fn new(address: Address, len: u8) -> Option<Self> {
        if len > Self::host(address).len {
            return None;
        }
        let whole = Self { first: address, len };
        let behind = 128 - whole.mapped_len() as u32;
        let network = if behind == 128 { 0 } else { u128::MAX << behind };
        Some(Self { first: Address::v6((address.bits() & network).to_be_bytes()), len })
    }

    /// The prefix of one address.
    #[must_use]
    pub const fn host(address: Address) -> Self {
        Self { first: address, len: if address.is_v4() { 32 } else { 128 } }
    }

    /// The first of the addresses.
    #[must_use]
    pub const fn first(&self) -> Address {
        self.first
    }

    /// The number of bits that the addresses share: 0 to 32 for IPv4, 0 to 128 for IPv6.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a prefix's length counts bits, not elements")]
    pub const fn len(&self) -> u8 {
        self.len
    }

    /// The number of bits that [`Address::octets`] of all addresses share: 96 to 128 for IPv4.
    #[must_use]
    pub const fn mapped_len(&self) -> u8 {
        if self.first.is_v4() { 96 + self.len } else { self.len }
    }

    /// Returns whether the prefix holds one address only.
    #[must_use]
    pub const fn is_host(&self) -> bool {
        self.mapped_len() == 128
    }

    /// Returns whether `address` is one of the addresses.
    #[must_use]
    pub const fn contains(&self, address: Address) -> bool {
        address.is_v4() == self.first.is_v4() && address.shares_prefix(&self.first, self.mapped_len())
    }

    /// Returns whether both prefixes have an address in common.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        if self.len <= other.len { self.contains(other.first) } else { other.contains(self.first) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first.to_ip(), self.len)
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

    /// Parses a prefix such as `198.19.0.0/16`, or one address.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let wrong = || "write addresses such as 198.19.0.0/16, fd00:19::/64 or 198.19.0.1".to_owned();
        let given: IpAddr = address.parse().map_err(|_| wrong())?;
        let bits = if given.is_ipv4() { 32 } else { 128 };
        let address = Address::from(given);
        let host = Self::host(address);
        let len = len.map_or(Ok(bits), str::parse::<u8>).map_err(|_| wrong())?;
        if len > bits {
            return Err(format!("an address has {bits} bits: write {given}/{bits} or less"));
        }
        // A mapped address is an IPv4 address.
        let prefix = len.checked_sub(bits - host.len).and_then(|len| Self::new(address, len));
        let Some(prefix) = prefix else {
            return Err(format!("the prefix holds IPv4 addresses and others: write {host} or less"));
        };
        if prefix.first == address {
            Ok(prefix)
        } else {
            let (ip, len) = (address.to_ip(), prefix.len);
            Err(format!("{ip} has bits behind the first {len}: write {prefix}, or {ip} alone"))
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
    }

    #[test]
    fn a_subnet_starts_at_its_first_address() {
        let check = |text: &str, len, expected: &str| {
            let address = text.parse::<IpAddr>().unwrap();
            let prefix = Prefix::new(address.into(), len).unwrap();
            assert_eq!((prefix.first().to_ip(), prefix.len()), (expected.parse::<IpAddr>().unwrap(), len));
            assert!(prefix.contains(address.into()));
        };
        check("198.18.0.77", 24, "198.18.0.0");
        check("198.18.0.77", 26, "198.18.0.64");
        check("198.18.0.77", 32, "198.18.0.77");
        check("198.18.0.77", 0, "0.0.0.0");
        check("fd00:18::77", 64, "fd00:18::");
        check("fd00:18::77", 128, "fd00:18::77");
        check("fd00:18::77", 0, "::");
        for (text, too_long) in [("198.19.0.0", 33), ("fd00::", 129)] {
            assert_eq!(Prefix::new(text.parse::<IpAddr>().unwrap().into(), too_long), None);
        }
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
