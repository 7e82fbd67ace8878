//! A stateless answer to a TCP segment, written over it. Knows header bytes without options; never a connection, a
//! device or time.
//!
//! It is no endpoint: it checks nothing, retransmits nothing and forgets everything. What it sends is what a client
//! that loses nothing needs to be content with, for as little work as can be: the ceiling that an endpoint is measured
//! against.

use synmill_engine::proto::Flags;

/// Our initial sequence number, the same for every connection: so an acknowledgement of it alone is the handshake's
/// last.
const ISS: u32 = 0x5359_4e00;
/// What the handshake's last segment acknowledges.
const SYN_ACKED: u32 = ISS + 1;
/// The window that we announce, unscaled.
const WINDOW: [u8; 2] = [0xff, 0xff];
/// Bytes of the TCP header, without options and with the MSS alone.
const HEADER_LEN: usize = 20;
const SYN_HEADER_LEN: usize = 24;
/// Where the TCP header starts, without VLAN tags, IPv4 options and IPv6 extension headers.
const TCP_V4: usize = 14 + 20;
const TCP_V6: usize = 14 + 40;
const TCP: u8 = 6;

/// What is said over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// FIN at once after the handshake.
    Close,
    /// The same HTTP/1.1 response to whatever text comes, with FIN on it.
    Http {
        /// Bytes of the response's body.
        body_len: usize,
    },
}

/// An answer that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reflected {
    /// Bytes of the frame.
    pub len: usize,
    /// It answers a SYN.
    pub is_syn: bool,
}

/// Writes answers.
#[derive(Clone, Debug)]
pub struct Reflector {
    closes: bool,
    text: Vec<u8>,
    text_sum: u64,
    mss: [u16; 2],
}

impl Reflector {
    /// For an interface whose largest IP packet is of `mtu` bytes. `None` if the response does not fit into one.
    #[must_use]
    pub fn new(service: Service, mtu: usize) -> Option<Self> {
        let (closes, text) = match service {
            Service::Close => (true, Vec::new()),
            Service::Http { body_len } => (false, response(body_len)),
        };
        let mss = |headers: usize| u16::try_from(mtu.checked_sub(headers)?).ok();
        let mss = [mss(40)?, mss(60)?];
        let fits = text.len() <= usize::from(mss[1]);
        fits.then(|| Self { closes, text_sum: sum(&text), text, mss })
    }

    /// Answers the frame in the first `len` bytes of `buffer`, in place, or `None` where there is nothing to answer.
    /// Only lengths are checked, and that it is TCP without VLAN tags, IPv4 options or IPv6 extension headers.
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

    /// The segment starts at `START`, and ends at `end`.
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

        let [s0, s1, s2, s3] = reply.seq.to_be_bytes();
        let [a0, a1, a2, a3] = reply.ack.to_be_bytes();
        let [w0, w1] = WINDOW;
        let [m0, m1] = self.mss[usize::from(START == TCP_V6)].to_be_bytes();
        let offset = (header_len as u8 / 4) << 4;
        let written: [u8; SYN_HEADER_LEN] = [
            header[2],
            header[3],
            header[0],
            header[1],
            s0,
            s1,
            s2,
            s3,
            a0,
            a1,
            a2,
            a3,
            offset,
            reply.flags.0,
            w0,
            w1,
            0,
            0,
            0,
            0,
            // The option MSS: kind, length, value.
            2,
            4,
            m0,
            m1,
        ];
        let header = &mut frame[START..text_start];
        header.copy_from_slice(&written[..header_len]);
        frame[text_start..].copy_from_slice(reply.text);

        let tcp_len = end - START;
        let addresses = if START == TCP_V4 { &frame[26..34] } else { &frame[22..54] };
        let text_sum = if reply.text.is_empty() { 0 } else { self.text_sum };
        // A multiple of 4 bytes: a text behind it starts a word of its own.
        let total = sum(addresses) + sum(&written[..header_len]) + text_sum + u64::from(TCP) + tcp_len as u64;
        frame[START + 16..START + 18].copy_from_slice(&(!fold(total)).to_be_bytes());
        Some(Reflected { len: end, is_syn })
    }

    /// The answer to a segment, from nothing but the segment.
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
        // What they acknowledge is where we go on: nothing that we sent is remembered.
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

/// What to write.
struct Reply<'a> {
    flags: Flags,
    seq: u32,
    ack: u32,
    text: &'a [u8],
}

/// An HTTP/1.1 response with a body of `body_len` bytes, the last one on its connection.
fn response(body_len: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {body_len}\r\nConnection: close\r\n\r\n");
    let mut text = head.into_bytes();
    text.resize(text.len() + body_len, b'x');
    text
}

/// Turns link and IP header around, for a frame of the length it has now. Addresses that change places leave a checksum
/// as it is.
#[inline]
fn swap_ends<const START: usize>(frame: &mut [u8]) {
    swap::<6>(frame, 0, 6);
    if START == TCP_V4 {
        let old = u16::from_be_bytes([frame[16], frame[17]]);
        let new = (frame.len() - 14) as u16;
        let checksum = u16::from_be_bytes([frame[24], frame[25]]);
        // RFC 1624 section 3, equation 3.
        let updated = !fold(u64::from(!checksum) + u64::from(!old) + u64::from(new));
        frame[16..18].copy_from_slice(&new.to_be_bytes());
        frame[24..26].copy_from_slice(&updated.to_be_bytes());
        swap::<4>(frame, 26, 30);
    } else {
        let payload_len = (frame.len() - TCP_V6) as u16;
        frame[18..20].copy_from_slice(&payload_len.to_be_bytes());
        swap::<16>(frame, 22, 38);
    }
}

/// Exchanges `N` bytes at `a` with those at `b`.
#[inline]
fn swap<const N: usize>(frame: &mut [u8], a: usize, b: usize) {
    let mut held = [0; N];
    held.copy_from_slice(&frame[a..a + N]);
    frame.copy_within(b..b + N, a);
    frame[b..b + N].copy_from_slice(&held);
}

/// The one's-complement sum of 16-bit words, not folded yet (RFC 1071 section 2 (C)).
#[inline]
fn sum(bytes: &[u8]) -> u64 {
    let (steps, rest) = bytes.as_chunks::<4>();
    let whole: u64 = steps.iter().map(|&step| u64::from(u32::from_be_bytes(step))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    whole + u64::from(u32::from_be_bytes(last))
}

/// Folded to 16 bits.
#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}
