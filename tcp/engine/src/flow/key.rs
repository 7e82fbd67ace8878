//! A connection's name: two addresses and two ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IPv6 address, or an IPv4 address mapped into `::ffff:0:0/96` (RFC 4291 section 2.5.5.2). Two numbers in network order hold it,
/// so that comparison, hash and checksum work a word at a time.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    high: u64,
    low: u64,
}

/// The lower half of the mapped prefix `::ffff:0:0/96`.
const MAPPED: u64 = 0xffff << 32;

impl Address {
    /// Returns the address with these four octets.
    #[must_use]
    #[inline]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self::v4_of(u32::from_be_bytes(octets))
    }

    /// Returns the IPv4 address with this number.
    #[must_use]
    #[inline]
    pub(crate) const fn v4_of(bits: u32) -> Self {
        Self { high: 0, low: MAPPED | bits as u64 }
    }

    /// Returns the address with these sixteen octets.
    #[must_use]
    #[inline]
    pub const fn v6(octets: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(octets);
        Self { high: (bits >> 64) as u64, low: bits as u64 }
    }

    /// Returns the address with these [`Address::halves`].
    #[inline]
    pub(crate) const fn from_halves([high, low]: [u64; 2]) -> Self {
        Self { high, low }
    }

    /// Returns the upper and the lower half as numbers.
    #[must_use]
    #[inline]
    pub const fn halves(&self) -> [u64; 2] {
        [self.high, self.low]
    }

    /// Returns the number of an IPv4 address, `None` for IPv6.
    #[must_use]
    #[inline]
    pub(crate) const fn v4_bits(&self) -> Option<u32> {
        if self.is_v4() { Some(self.low as u32) } else { None }
    }

    /// Returns the four octets of an IPv4 address, `None` for IPv6.
    #[must_use]
    #[inline]
    pub const fn as_v4(&self) -> Option<[u8; 4]> {
        if self.is_v4() { Some((self.low as u32).to_be_bytes()) } else { None }
    }

    /// Is this an IPv4 address?
    #[must_use]
    #[inline]
    pub const fn is_v4(&self) -> bool {
        self.high == 0 && self.low >> 32 == 0xffff
    }

    /// Returns all 128 bits as a number.
    #[must_use]
    #[inline]
    pub(crate) const fn bits(&self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    /// Are the first `len` bits equal? For an IPv4 prefix `len` is its own length plus 96.
    #[must_use]
    pub const fn shares_prefix(&self, other: &Self, len: u8) -> bool {
        (self.bits() ^ other.bits()).leading_zeros() >= len as u32
    }

    /// Returns all sixteen octets, in the mapped form for IPv4.
    #[must_use]
    #[inline]
    pub const fn octets(&self) -> [u8; 16] {
        self.bits().to_be_bytes()
    }

    /// Returns the standard library's address, IPv4 unmapped.
    #[must_use]
    pub fn to_ip(self) -> IpAddr {
        match self.as_v4() {
            Some(octets) => Ipv4Addr::from(octets).into(),
            None => Ipv6Addr::from(self.octets()).into(),
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

/// A connection's name, seen from this end.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
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

impl FlowKey {
    /// The length of the longest name, in bytes.
    pub const NAME_MAX: usize = 36;

    /// Writes the name to `into` and returns its bytes, unique to it. The two families differ in the number of bytes.
    #[inline]
    pub fn name<'a>(&self, into: &'a mut [u8; Self::NAME_MAX]) -> &'a [u8] {
        let ports = u32::from(self.local_port) << 16 | u32::from(self.remote_port);
        if let (Some(local), Some(remote)) = (self.local.v4_bits(), self.remote.v4_bits()) {
            // One store: the hash loads a whole word, and would stall on two.
            let addresses = u64::from(local) << 32 | u64::from(remote);
            into[..8].copy_from_slice(&addresses.to_be_bytes());
            into[8..12].copy_from_slice(&ports.to_be_bytes());
            return &into[..12];
        }
        into[..16].copy_from_slice(&self.local.octets());
        into[16..32].copy_from_slice(&self.remote.octets());
        into[32..].copy_from_slice(&ports.to_be_bytes());
        into
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = SocketAddr::new(self.local.to_ip(), self.local_port);
        let remote = SocketAddr::new(self.remote.to_ip(), self.remote_port);
        write!(f, "{local} <- {remote}")
    }
}
