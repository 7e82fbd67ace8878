//! The TCP header, RFC 9293 section 3.1.

use std::hint::cold_path;

use super::bytes::{room, words_of};
use super::checksum::Sum;
use super::datagram::{Datagram, HOP_LIMIT, TCP};
use super::ethernet::{self, Link};
use super::ip::{self, Family};
use super::options;
use super::packet::TcpPacket;
use crate::flow::FlowKey;
use crate::hint::{mostly, seldom};
use crate::proto::{Flags, Options, Segment, SeqNum, WireWindow};
use crate::stats::DropReason;

/// Bytes of a header without options.
pub(super) const HEADER_LEN: usize = 20;

/// Bytes of the IP and TCP headers without options, over IPv4 and over IPv6.
pub const SHORTEST_HEADERS: [usize; 2] =
    [Family::V4.header_len() + HEADER_LEN, Family::V6.header_len() + HEADER_LEN];

/// The six control bits of [`Flags`]. CWR, ECE and the reserved bits are ignored (RFC 9293 section 3.1).
const CONTROL_BITS: u8 = 0x3f;

/// Options of the parser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// Accept a TCP checksum field that holds only the pseudo-header's sum: a virtual device leaves the rest to hardware. Nothing
    /// checks the text of such a packet.
    pub accept_partial_checksums: bool,
}

/// Checks all of a segment that needs no state, and writes it to `packet`, which has its link header already. Inlined once for each
/// family, so that the compiler knows where the datagram's fields come from.
#[inline(always)]
pub(super) fn parse(
    datagram: &Datagram<'_>,
    checks: Checks,
    packet: &mut TcpPacket,
) -> Result<(), DropReason> {
    // A segment to a group, of IP or of Ethernet, is for no host (RFC 9293 section 3.9.2.3).
    if seldom(ethernet::is_group(&packet.link.destination) || !datagram.is_between_hosts) {
        return Err(DropReason::Martian);
    }
    let bytes = datagram.payload;
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        cold_path();
        return Err(DropReason::Truncated);
    };
    let words @ [ports, seq, ack, state, _] = words_of(header);
    let header_len = (state >> 28) as usize * 4;
    // A header length that is too short wraps around, and then is beyond any text.
    let Some((options, text)) = rest.split_at_checked(header_len.wrapping_sub(HEADER_LEN)) else {
        cold_path();
        return Err(DropReason::TcpHeader);
    };
    let segment = &mut packet.segment;
    segment.seq = SeqNum(seq);
    segment.ack = SeqNum(ack);
    segment.flags = Flags((state >> 16) as u8 & CONTROL_BITS);
    segment.window = WireWindow(state as u16);
    segment.text_len = text.len() as u16;
    let are_options = options::parse(options, segment.flags.has(Flags::SYN), &mut segment.options);

    // The sum takes the words as they were read. An IP payload is at most 65,535 bytes long.
    let pseudo = Sum::pseudo_header(&datagram.source, &datagram.destination, TCP, bytes.len() as u16);
    let of_options = are_options.unwrap_or_else(|_| Sum::ZERO.bytes(options));
    let mut sum = pseudo.words(words).with(of_options);
    if !text.is_empty() {
        sum = sum.bytes(text);
    }
    packet.partial_checksum = false;
    if seldom(!sum.is_valid()) {
        let is_partial = checks.accept_partial_checksums && pseudo.folded() == [header[16], header[17]];
        if !is_partial {
            return Err(DropReason::TcpChecksum);
        }
        packet.partial_checksum = true;
    }

    packet.key = FlowKey {
        local: datagram.destination,
        remote: datagram.source,
        local_port: ports as u16,
        remote_port: (ports >> 16) as u16,
    };
    check_ports(&packet.key)?;
    check_flags(packet.segment.flags)?;
    are_options?;
    // Link header, IP header and eight extension headers are shorter than 20,000 bytes.
    packet.text_start = (datagram.payload_start + header_len) as u16;
    Ok(())
}

/// Checks that neither port is 0, and that the segment is not from its own destination.
#[inline]
pub(super) fn check_ports(key: &FlowKey) -> Result<(), DropReason> {
    if seldom(key.local_port == 0 || key.remote_port == 0) {
        return Err(DropReason::PortZero);
    }
    if seldom(key.local_port == key.remote_port && key.local == key.remote) {
        return Err(DropReason::Land);
    }
    Ok(())
}

/// The combinations of control bits that no peer may send, one bit for each of 64: none at all, SYN with FIN or RST, FIN without
/// ACK.
const FORBIDDEN: u64 = {
    let (mut forbidden, mut bits) = (0, 0);
    while bits <= CONTROL_BITS {
        let flags = Flags(bits);
        let syn_and_end = flags.has(Flags::SYN) && flags.has_any(Flags::FIN.with(Flags::RST));
        if bits == 0 || syn_and_end || flags.has(Flags::FIN) && !flags.has(Flags::ACK) {
            forbidden |= 1 << bits;
        }
        bits += 1;
    }
    forbidden
};

#[inline]
const fn check_flags(flags: Flags) -> Result<(), DropReason> {
    if seldom(FORBIDDEN >> flags.0 & 1 != 0) {
        return Err(if flags.0 == 0 { DropReason::FlagsNone } else { DropReason::FlagsInvalid });
    }
    Ok(())
}

/// The lengths of a segment's headers, which are known before there is a frame to write them to.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    family: Family,
    options: options::Layout,
    network: usize,
}

impl Layout {
    /// Returns the layout of a segment with `options` from `key.local` to `key.remote`.
    #[must_use]
    #[inline]
    pub fn of(link: &Link, key: &FlowKey, options: &Options) -> Self {
        Self {
            family: Family::of(&key.local, &key.remote),
            options: options::Layout::of(options),
            network: ethernet::header_len(link),
        }
    }

    /// Returns the bytes before the text.
    #[must_use]
    #[inline]
    pub const fn header_len(&self) -> usize {
        self.network + self.family.header_len() + HEADER_LEN + self.options.len()
    }

    /// Writes the headers of the segment whose layout this is, as [`emit`] does. Returns the frame's length.
    ///
    /// # Panics
    /// If headers and text do not fit into `frame`, or not into an IP datagram: the caller chose the text's length.
    #[inline(always)]
    pub fn emit(&self, frame: &mut [u8], link: &Link, key: &FlowKey, segment: &Segment) -> usize {
        let text_len = usize::from(segment.text_len);
        let header_len = HEADER_LEN + self.options.len();
        let length = header_len + text_len;
        let start = self.network + self.family.header_len();
        let fits = start + length <= frame.len() && start + length <= usize::from(u16::MAX);
        assert!(mostly(fits), "no room for {text_len} bytes of text");
        let ends = [&key.local, &key.remote];
        let (pseudo, rest) = ip::emit(frame, link, self.family, ends, TCP, HOP_LIMIT, length as u16);

        // The sum takes the words from registers: loading bytes that were just stored would stall.
        let (header, rest) = room::<HEADER_LEN>(rest);
        let (options, text) = rest.split_at_mut(self.options.len());
        let ports = u32::from(key.local_port) << 16 | u32::from(key.remote_port);
        let offset = header_len as u32 / 4;
        let flags = u32::from(segment.flags.0 & CONTROL_BITS);
        let state = offset << 28 | flags << 16 | u32::from(segment.window.0);
        let words = [ports, segment.seq.0, segment.ack.0, state, 0];
        let mut sum = pseudo.words(words).with(self.options.emit(options, &segment.options));
        if text_len > 0 {
            sum = sum.bytes(&text[..text_len]);
        }
        let [c0, c1] = sum.checksum();
        header[..4].copy_from_slice(&ports.to_be_bytes());
        header[4..8].copy_from_slice(&segment.seq.0.to_be_bytes());
        header[8..12].copy_from_slice(&segment.ack.0.to_be_bytes());
        header[12..16].copy_from_slice(&state.to_be_bytes());
        header[16..].copy_from_slice(&[c0, c1, 0, 0]);
        start + length
    }
}

/// Returns the bytes before the text of a segment with `options` from `key.local` to `key.remote`.
#[must_use]
#[inline]
pub fn header_len(link: &Link, key: &FlowKey, options: &Options) -> usize {
    Layout::of(link, key, options).header_len()
}

/// Writes all headers of `segment` from `key.local` to `key.remote` and their checksums, in front of the text, which is at
/// [`header_len`] already. Returns the frame's length, without padding to Ethernet's minimum.
///
/// # Panics
/// If headers and text do not fit into `frame`, or not into an IP datagram: the caller chose the text's length.
#[inline]
pub fn emit(frame: &mut [u8], link: &Link, key: &FlowKey, segment: &Segment) -> usize {
    Layout::of(link, key, &segment.options).emit(frame, link, key, segment)
}
