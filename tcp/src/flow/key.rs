//! What names a connection: two addresses and two ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IPv6 address, or an IPv4 address mapped into `::ffff:0:0/96` (RFC 4291 section 2.5.5.2): one shape for both.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Address([u8; 16]);

impl Address {
    /// From an IPv4 address's four octets.
    #[must_use]
    #[inline]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// From an IPv6 address's sixteen octets.
    #[must_use]
    #[inline]
    pub const fn v6(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The four octets, if this is an IPv4 address.
    #[must_use]
    #[inline]
    pub fn as_v4(&self) -> Option<[u8; 4]> {
        match self.0 {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
            _ => None,
        }
    }

    /// Is this an IPv4 address?
    #[must_use]
    #[inline]
    pub fn is_v4(&self) -> bool {
        self.as_v4().is_some()
    }

    /// Are the first `len` bits the same? For an IPv4 prefix that is the prefix's own length and 96.
    #[must_use]
    pub const fn shares_prefix(&self, other: &Self, len: u8) -> bool {
        let difference = u128::from_be_bytes(self.0) ^ u128::from_be_bytes(other.0);
        difference.leading_zeros() >= len as u32
    }

    /// All sixteen octets, in the mapped form for IPv4.
    #[must_use]
    #[inline]
    pub const fn octets(&self) -> [u8; 16] {
        self.0
    }

    /// As the standard library has it, IPv4 unmapped.
    #[must_use]
    pub fn to_ip(self) -> IpAddr {
        match self.as_v4() {
            Some(octets) => Ipv4Addr::from(octets).into(),
            None => Ipv6Addr::from(self.0).into(),
        }
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::v4(address.octets()),
            IpAddr::V6(address) => Self::v6(address.octets()),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// A connection's name as this end sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Our address.
    pub local: Address,
    /// The peer's address.
    pub remote: Address,
    /// Our port.
    pub local_port: u16,
    /// The peer's port.
    pub remote_port: u16,
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = SocketAddr::new(self.local.to_ip(), self.local_port);
        let remote = SocketAddr::new(self.remote.to_ip(), self.remote_port);
        write!(f, "{local} <- {remote}")
    }
}
