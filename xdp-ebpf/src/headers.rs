//! Headers from Ethernet up to the ports: which station a packet is for, what it asks for, and of whom. Knows layouts; never what is ours.
//!
//! Every access is made in the way the verifier follows: a cursor that moves forward, one comparison with the packet's end, then
//! loads at constant offsets. A cursor that moves by what a packet says asks for CAP_PERFMON.

use core::hint::black_box;

use synmill_xdp_ebpf::{Address, MAX_EXTENSION_HEADERS, Outcome, Station, mapped};

/// What a packet that may be ours asks for.
#[derive(Clone, Copy)]
pub(crate) enum Asks {
    /// A TCP segment to an address and a port in network order, over IPv4 or IPv6.
    Tcp { to: Address, port: u16, is_v4: bool },
    /// Address resolution of `target`, by ARP or neighbour discovery.
    Neighbour { target: Address },
    /// An echo request.
    Echo { to: Address },
    /// Nothing: news that a destination is unreachable, for the sender `to`.
    Error { to: Address },
}

const ETHERNET_LEN: usize = 14;
const TAG_LEN: usize = 4;
const IPV4_LEN: usize = 20;
const IPV6_LEN: usize = 40;
const ARP_LEN: usize = 28;
const TCP_LEN: usize = 20;
const ICMP_LEN: usize = 8;
const SOLICITATION_LEN: usize = 24;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;

const PROTOCOL_HOP_BY_HOP: u8 = 0;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ROUTING: u8 = 43;
const PROTOCOL_FRAGMENT: u8 = 44;
const PROTOCOL_ICMPV6: u8 = 58;
const PROTOCOL_DESTINATION_OPTIONS: u8 = 60;

/// A place in the packet, and its end, or that of its first buffer and the octets in further ones.
#[derive(Clone, Copy)]
struct Cursor {
    at: usize,
    end: usize,
    beyond: usize,
}

impl Cursor {
    /// Are there `len` octets from here on, in the first buffer?
    #[inline(always)]
    fn has(self, len: usize) -> bool {
        self.at + len <= self.end
    }

    /// Are there as many octets as a length field of two octets says, in all buffers? The optimiser must not know that this is what is asked here, or
    /// it drops later questions whose answer follows from this one; the verifier cannot follow it there. Nor may it know that the mask
    /// changes nothing: Linux 6.12's verifier forgets the bounds of a number when its octets are swapped.
    #[inline(always)]
    fn has_said(self, len: usize) -> bool {
        self.has(black_box(len.saturating_sub(self.beyond)) & 0xffff)
    }

    #[inline(always)]
    fn skip(self, len: usize) -> Self {
        Self { at: self.at + len, ..self }
    }

    /// What stands `offset` octets further on. `T` is made of octets and aligned to at most two of them.
    ///
    /// # Safety
    /// [`Cursor::has`] said that the octets are there. Every header before this place has an even length and the kernel
    /// starts frames at even addresses, so two octets are aligned.
    #[inline(always)]
    unsafe fn get<T: Copy>(self, offset: usize) -> T {
        // SAFETY: as the caller promises; the verifier proves it again.
        unsafe { *((self.at + offset) as *const T) }
    }

    /// # Safety
    /// As [`Cursor::get`].
    #[inline(always)]
    unsafe fn u16(self, offset: usize) -> u16 {
        // SAFETY: as the caller promises.
        u16::from_be(unsafe { self.get(offset) })
    }

    /// # Safety
    /// As [`Cursor::get`].
    #[inline(always)]
    unsafe fn v4(self, offset: usize) -> Address {
        // SAFETY: as the caller promises.
        mapped(unsafe { self.get(offset) })
    }
}

/// Which station the packet is for and what it asks for, or why it cannot be ours: from `start` to `end`, with so many octets
/// more in further buffers.
#[inline(always)]
pub(crate) fn parse(start: usize, end: usize, beyond: usize) -> Result<(Station, Asks), Outcome> {
    let mut cursor = Cursor { at: start, end, beyond };
    if !cursor.has(ETHERNET_LEN) {
        return Err(Outcome::PassedMalformed);
    }
    // SAFETY: checked.
    let (station, mut ethertype) = unsafe { (cursor.get(0), cursor.u16(12)) };
    cursor = cursor.skip(ETHERNET_LEN);
    for _ in 0..2 {
        if !matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN) {
            break;
        }
        if !cursor.has(TAG_LEN) {
            return Err(Outcome::PassedMalformed);
        }
        // SAFETY: checked.
        ethertype = unsafe { cursor.u16(2) };
        cursor = cursor.skip(TAG_LEN);
    }
    let asks = match ethertype {
        ETHERTYPE_IPV4 => ipv4(cursor)?,
        ETHERTYPE_IPV6 => ipv6(cursor)?,
        ETHERTYPE_ARP => arp(cursor)?,
        _ => return Err(Outcome::PassedNotIp),
    };
    Ok((station, asks))
}

/// RFC 826: a request for an IPv4 address over Ethernet.
#[inline(always)]
fn arp(cursor: Cursor) -> Result<Asks, Outcome> {
    if !cursor.has(ARP_LEN) {
        return Err(Outcome::PassedMalformed);
    }
    // SAFETY: checked.
    let (hardware, protocol, lengths, operation) =
        unsafe { (cursor.u16(0), cursor.u16(2), cursor.u16(4), cursor.u16(6)) };
    if hardware != 1 || protocol != ETHERTYPE_IPV4 || lengths != 0x0604 || operation != 1 {
        return Err(Outcome::PassedOtherProtocol);
    }
    // SAFETY: checked.
    let target = unsafe { cursor.v4(24) };
    Ok(Asks::Neighbour { target })
}

/// RFC 791.
#[inline(always)]
fn ipv4(cursor: Cursor) -> Result<Asks, Outcome> {
    if !cursor.has(IPV4_LEN) {
        return Err(Outcome::PassedMalformed);
    }
    // SAFETY: checked.
    let (version_and_len, total, fragment, protocol, to) =
        unsafe { (cursor.get::<u8>(0), cursor.u16(2), cursor.u16(6), cursor.get::<u8>(9), cursor.v4(16)) };
    let header = usize::from(version_and_len & 0xf) * 4;
    let total = usize::from(total);
    if version_and_len >> 4 != 4 || header < IPV4_LEN || total < header || !cursor.has_said(total) {
        return Err(Outcome::PassedMalformed);
    }
    // More fragments, or an offset.
    if fragment & 0x3fff != 0 {
        return Err(Outcome::PassedFragment);
    }
    let cursor = cursor.skip(header);
    let len = total - header;
    match protocol {
        PROTOCOL_TCP => tcp(cursor, len, to, true),
        PROTOCOL_ICMP => icmp(cursor, len, to),
        _ => Err(Outcome::PassedOtherProtocol),
    }
}

/// RFC 8200.
#[inline(always)]
fn ipv6(cursor: Cursor) -> Result<Asks, Outcome> {
    if !cursor.has(IPV6_LEN) {
        return Err(Outcome::PassedMalformed);
    }
    // SAFETY: checked.
    let (version, len, mut next, to) =
        unsafe { (cursor.get::<u8>(0), cursor.u16(4), cursor.get::<u8>(6), cursor.get(24)) };
    let mut cursor = cursor.skip(IPV6_LEN);
    let mut len = usize::from(len);
    if version >> 4 != 6 || !cursor.has_said(len) {
        return Err(Outcome::PassedMalformed);
    }
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_walked(next) {
            break;
        }
        if len < 8 || !cursor.has(8) {
            return Err(Outcome::PassedMalformed);
        }
        // SAFETY: checked.
        let (following, units, segments_left) =
            unsafe { (cursor.get::<u8>(0), cursor.get::<u8>(1), cursor.get::<u8>(3)) };
        // Section 4.4: with segments left this is a stop on the way to another destination.
        if next == PROTOCOL_ROUTING && segments_left != 0 {
            return Err(Outcome::PassedNotOurs);
        }
        let header = (usize::from(units) + 1) * 8;
        if len < header {
            return Err(Outcome::PassedMalformed);
        }
        cursor = cursor.skip(header);
        len -= header;
        next = following;
    }
    match next {
        PROTOCOL_TCP => tcp(cursor, len, to, false),
        PROTOCOL_ICMPV6 => icmpv6(cursor, len, to),
        PROTOCOL_FRAGMENT => Err(Outcome::PassedFragment),
        _ if is_walked(next) => Err(Outcome::PassedExtensionHeaders),
        _ => Err(Outcome::PassedOtherProtocol),
    }
}

/// Is this an extension header of the common shape: next header, length in units of eight octets after the first eight?
#[inline(always)]
fn is_walked(next: u8) -> bool {
    matches!(next, PROTOCOL_HOP_BY_HOP | PROTOCOL_ROUTING | PROTOCOL_DESTINATION_OPTIONS)
}

/// RFC 9293 section 3.1, as far as the ports; a header that is cut short is not a segment.
#[inline(always)]
fn tcp(cursor: Cursor, len: usize, to: Address, is_v4: bool) -> Result<Asks, Outcome> {
    if len < TCP_LEN || !cursor.has(TCP_LEN) {
        return Err(Outcome::PassedMalformed);
    }
    // SAFETY: checked.
    let port = unsafe { cursor.get(2) };
    Ok(Asks::Tcp { to, port, is_v4 })
}

/// RFC 792: echo request; destination unreachable, but for "fragmentation needed", which is the kernel's as long as nobody else
/// lowers an MSS for it.
#[inline(always)]
fn icmp(cursor: Cursor, len: usize, to: Address) -> Result<Asks, Outcome> {
    if len < ICMP_LEN || !cursor.has(ICMP_LEN) {
        return Err(Outcome::PassedMalformed);
    }
    // SAFETY: checked.
    match unsafe { cursor.u16(0) } {
        0x0800 => Ok(Asks::Echo { to }),
        0x0304 => Err(Outcome::PassedOtherProtocol),
        0x0300..=0x03ff => Ok(Asks::Error { to }),
        _ => Err(Outcome::PassedOtherProtocol),
    }
}

/// RFC 4443 section 3.1: destination unreachable, but not "packet too big", which is the kernel's likewise; section 4.1: echo
/// request; RFC 4861 section 4.3: neighbour solicitation, which is sent to a multicast address and carries the one it asks for.
#[inline(always)]
fn icmpv6(cursor: Cursor, len: usize, to: Address) -> Result<Asks, Outcome> {
    if len < ICMP_LEN || !cursor.has(ICMP_LEN) {
        return Err(Outcome::PassedMalformed);
    }
    // SAFETY: checked.
    match unsafe { cursor.u16(0) } {
        0x8000 => Ok(Asks::Echo { to }),
        0x0100..=0x01ff => Ok(Asks::Error { to }),
        0x8700 => {
            if len < SOLICITATION_LEN || !cursor.has(SOLICITATION_LEN) {
                return Err(Outcome::PassedMalformed);
            }
            // SAFETY: checked.
            let target = unsafe { cursor.get(8) };
            Ok(Asks::Neighbour { target })
        }
        _ => Err(Outcome::PassedOtherProtocol),
    }
}
