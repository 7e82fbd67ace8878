//! A stateless answer to a TCP segment, written over it: the ceiling that an endpoint is measured against.
//!
//! It is no endpoint: it checks nothing, retransmits nothing and remembers nothing. Its answers satisfy a client that loses nothing, for
//! as little work as possible.

use synmill_engine::proto::Flags;

use crate::http::response;
use crate::sums::{fold, sum};

/// The initial sequence number of every connection. A segment that acknowledges no more than it is the handshake's last.
const ISS: u32 = 0x5359_4e00;
/// The acknowledgement number of the handshake's last segment.
const SYN_ACKED: u32 = ISS + 1;
/// Bytes of the TCP header without options.
const HEADER_LEN: usize = 20;
/// Bytes of the TCP header with the option MSS.
const SYN_HEADER_LEN: usize = 24;
/// The start of the TCP header without VLAN tags, IPv4 options and IPv6 extension headers.
const TCP_V4: usize = 14 + 20;
const TCP_V6: usize = 14 + 40;
const TCP: u8 = 6;

/// The service of every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// FIN after the handshake.
    Close,
    /// The same HTTP/1.1 response, with FIN on it, to any text.
    Http {
        /// Bytes of the response's body.
        body_len: usize,
    },
}

/// A written answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reflected {
    /// Bytes of the frame.
    pub len: usize,
    /// Whether it answers a SYN.
    pub is_syn: bool,
}

/// The writer of answers.
#[derive(Clone, Debug)]
pub struct Reflector {
    closes: bool,
    text: Vec<u8>,
    text_sum: u64,
    mss: [u16; 2],
}

impl Reflector {
    /// Returns a reflector for an interface of this MTU; none if the response does not fit into one packet.
    #[must_use]
    pub fn new(service: Service, mtu: usize) -> Option<Self> {
        let (closes, text) = match service {
            Service::Close => (true, Vec::new()),
            Service::Http { body_len } => (false, response(body_len, true)),
        };
        let mss = |headers: usize| u16::try_from(mtu.checked_sub(headers)?).ok();
        let mss = [mss(40)?, mss(60)?];
        let fits = text.len() <= usize::from(mss[1]);
        fits.then(|| Self { closes, text_sum: sum(&text), text, mss })
    }

    /// Answers the frame in the first `len` bytes of `buffer` in place; returns none if it needs no answer. It checks only lengths, and that
    /// the frame is TCP without VLAN tags, IPv4 options or IPv6 extension headers.
    #[inline]
    pub fn reflect(&self, buffer: &mut [u8], len: usize) -> Option<Reflected> {
        let head = buffer.first_chunk::<TCP_V4>()?;
        match [head[12], head[13], head[14]] {
            [0x08, 0x00, 0x45] if head[23] == TCP => {
                let end = 14 + usize::from(u16::from_be_bytes([head[16], head[17]]));
                self.answer::<TCP_V4>(buffer, end, len)
            }
            [0x86, 0xdd, _] if head[20] == TCP => {
                let end = TCP_V6 + usize::from(u16::from_be_bytes([head[18], head[19]]));
                self.answer::<TCP_V6>(buffer, end, len)
            }
            _ => None,
        }
    }

    /// Answers the segment that starts at `START` and ends at `end`.
    #[inline]
    fn answer<const START: usize>(&self, buffer: &mut [u8], end: usize, len: usize) -> Option<Reflected> {
        let header = *buffer.get(START..end.min(len))?.first_chunk::<HEADER_LEN>()?;
        let text_len = end.checked_sub(START + usize::from(header[12] >> 4) * 4)?;
        if end > len {
            return None;
        }
        let seq = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let ack = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let reply = self.decide(Flags(header[13]), seq, ack, text_len)?;

        let is_syn = reply.flags.has(Flags::SYN);
        let header_len = if is_syn { SYN_HEADER_LEN } else { HEADER_LEN };
        let text_start = START + header_len;
        let end = text_start + reply.text.len();
        let frame = buffer.get_mut(..end)?;
        swap_ends::<START>(frame);

        let mut written = [0; SYN_HEADER_LEN];
        written[..2].copy_from_slice(&header[2..4]);
        written[2..4].copy_from_slice(&header[..2]);
        written[4..8].copy_from_slice(&reply.seq.to_be_bytes());
        written[8..12].copy_from_slice(&reply.ack.to_be_bytes());
        written[12] = (header_len as u8 / 4) << 4;
        written[13] = reply.flags.0;
        written[14..16].copy_from_slice(&[0xff; 2]);
        // The option MSS: kind, length, value.
        written[20..22].copy_from_slice(&[2, 4]);
        written[22..].copy_from_slice(&self.mss[usize::from(START == TCP_V6)].to_be_bytes());
        let header = &mut frame[START..text_start];
        header.copy_from_slice(&written[..header_len]);
        frame[text_start..].copy_from_slice(reply.text);

        let tcp_len = end - START;
        let addresses = if START == TCP_V4 { &frame[26..34] } else { &frame[22..54] };
        let text_sum = if reply.text.is_empty() { 0 } else { self.text_sum };
        // The header is a multiple of 4 bytes, so the text's sum may be added.
        let total = sum(addresses) + sum(&written[..header_len]) + text_sum + u64::from(TCP) + tcp_len as u64;
        frame[START + 16..START + 18].copy_from_slice(&(!fold(total)).to_be_bytes());
        Some(Reflected { len: end, is_syn })
    }

    /// Returns the answer to a segment, which follows from the segment alone.
    #[inline]
    fn decide(&self, flags: Flags, seq: u32, ack: u32, text_len: usize) -> Option<Reply<'_>> {
        if flags.has_any(Flags::SYN.with(Flags::RST)) {
            let is_syn = !flags.has_any(Flags::RST.with(Flags::ACK));
            let syn_ack = Flags::SYN.with(Flags::ACK);
            return is_syn.then(|| Reply { flags: syn_ack, seq: ISS, ack: seq.wrapping_add(1), text: &[] });
        }
        if !flags.has(Flags::ACK) {
            return None;
        }
        // The answer starts at the segment's acknowledgement number: the reflector does not remember what it sent.
        let ends = seq.wrapping_add(text_len as u32 + u32::from(flags.has(Flags::FIN)));
        let fin = Flags::ACK.with(Flags::FIN);
        let (flags, text) = if text_len > 0 && !self.closes {
            (fin.with(Flags::PSH), &self.text[..])
        } else if ends != seq {
            (Flags::ACK, &[][..])
        } else if self.closes && ack == SYN_ACKED {
            (fin, &[][..])
        } else {
            return None;
        };
        Some(Reply { flags, seq: ack, ack: ends, text })
    }
}

/// An answer that is not written yet.
struct Reply<'a> {
    flags: Flags,
    seq: u32,
    ack: u32,
    text: &'a [u8],
}

/// Swaps the addresses of link and IP header, and sets the IP length to that of `frame`. Swapped addresses do not change a checksum.
#[inline]
fn swap_ends<const START: usize>(frame: &mut [u8]) {
    swap::<6>(frame, 0);
    if START == TCP_V4 {
        let old = u16::from_be_bytes([frame[16], frame[17]]);
        let new = (frame.len() - 14) as u16;
        let checksum = u16::from_be_bytes([frame[24], frame[25]]);
        // RFC 1624 section 3, equation 3.
        let updated = !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new));
        frame[16..18].copy_from_slice(&new.to_be_bytes());
        frame[24..26].copy_from_slice(&updated.to_be_bytes());
        swap::<4>(frame, 26);
    } else {
        let payload_len = (frame.len() - TCP_V6) as u16;
        frame[18..20].copy_from_slice(&payload_len.to_be_bytes());
        swap::<16>(frame, 22);
    }
}

/// Swaps `N` bytes at `start` with the `N` bytes behind them.
#[inline]
fn swap<const N: usize>(frame: &mut [u8], start: usize) {
    let (one, other) = frame[start..start + 2 * N].split_at_mut(N);
    one.swap_with_slice(other);
}
