//! What names a connection: two addresses and two ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An IPv6 address, or an IPv4 address mapped into `::ffff:0:0/96` (RFC 4291 section 2.5.5.2): one shape for both. Two numbers in
/// the order of the wire, so that it is compared, hashed and summed a word at a time.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    high: u64,
    low: u64,
}

/// What stands in front of a mapped IPv4 address in the lower half.
const MAPPED: u64 = 0xffff << 32;

impl Address {
    /// From an IPv4 address's four octets.
    #[must_use]
    #[inline]
    pub const fn v4(octets: [u8; 4]) -> Self {
        Self::v4_of(u32::from_be_bytes(octets))
    }

    /// From an IPv4 address as a number.
    #[must_use]
    #[inline]
    pub(crate) const fn v4_of(bits: u32) -> Self {
        Self { high: 0, low: MAPPED | bits as u64 }
    }

    /// From an IPv6 address's sixteen octets.
    #[must_use]
    #[inline]
    pub const fn v6(octets: [u8; 16]) -> Self {
        let bits = u128::from_be_bytes(octets);
        Self { high: (bits >> 64) as u64, low: bits as u64 }
    }

    /// From both halves, see [`Address::halves`].
    #[inline]
    pub(crate) const fn from_halves([high, low]: [u64; 2]) -> Self {
        Self { high, low }
    }

    /// The upper and the lower half as numbers.
    #[must_use]
    #[inline]
    pub const fn halves(&self) -> [u64; 2] {
        [self.high, self.low]
    }

    /// The IPv4 address as a number, if this is one.
    #[must_use]
    #[inline]
    pub(crate) const fn v4_bits(&self) -> Option<u32> {
        if self.is_v4() { Some(self.low as u32) } else { None }
    }

    /// The four octets, if this is an IPv4 address.
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

    /// All 128 bits as a number.
    #[must_use]
    #[inline]
    pub(crate) const fn bits(&self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    /// Are the first `len` bits the same? For an IPv4 prefix that is the prefix's own length and 96.
    #[must_use]
    pub const fn shares_prefix(&self, other: &Self, len: u8) -> bool {
        (self.bits() ^ other.bits()).leading_zeros() >= len as u32
    }

    /// All sixteen octets, in the mapped form for IPv4.
    #[must_use]
    #[inline]
    pub const fn octets(&self) -> [u8; 16] {
        self.bits().to_be_bytes()
    }

    /// As the standard library has it, IPv4 unmapped.
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

/// A connection's name as this end sees it.
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
    /// The longest name, in bytes.
    pub const NAME_MAX: usize = 36;

    /// The name as bytes, written to `into`: as few as tell it from every other of its family, and the families by their number.
    #[inline]
    pub fn name<'a>(&self, into: &'a mut [u8; Self::NAME_MAX]) -> &'a [u8] {
        let ports = u32::from(self.local_port) << 16 | u32::from(self.remote_port);
        if let (Some(local), Some(remote)) = (self.local.v4_bits(), self.remote.v4_bits()) {
            // In one piece: it is read as a word, which would wait for two.
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
