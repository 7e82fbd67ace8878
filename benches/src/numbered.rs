//! Full TCP segments with numbers, as plain as can be. Knows header bytes; never a connection, a device or time.
//!
//! The sequence number counts segments, not bytes: so a receiver sees what was lost, and four thousand million go by before one comes
//! again. Else it is a segment as an endpoint would send it in the middle of a stream, checksums included.

use std::net::SocketAddrV4;

use synmill_engine::wire::Mac;

/// Ethernet, IPv4 and TCP, none with options.
pub const HEADERS: usize = 14 + 20 + 20;
const IP: usize = 14;
const TCP: usize = IP + 20;
const NUMBER: usize = TCP + 4;
const CHECKSUM: usize = TCP + 16;
/// ACK and nothing else.
const ACK: u8 = 0x10;
const TCP_PROTOCOL: u8 = 6;

/// The segment of number 0; all others are made of it.
#[derive(Clone, Debug)]
pub struct Template {
    frame: Vec<u8>,
    /// The sum under its TCP checksum, folded.
    sum: u16,
    /// That without the text.
    headers: u16,
}

/// Puts in the number, and the checksum of all that is under `sum` and of the number.
#[inline]
fn number_it(frame: &mut [u8], number: u32, sum: u16) {
    frame[NUMBER..NUMBER + 4].copy_from_slice(&number.to_be_bytes());
    let checksum = !fold(u32::from(sum) + (number >> 16) + (number & 0xffff));
    frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
}

impl Template {
    /// A segment that fills an IPv4 packet of `mtu` bytes.
    ///
    /// # Panics
    /// If the MTU is below 41 or above 65535: it has been asked of an interface.
    #[must_use]
    pub fn new([source_mac, to_mac]: [Mac; 2], [source, to]: [SocketAddrV4; 2], mtu: usize) -> Self {
        let mut frame = vec![0; 14 + mtu];
        frame[..6].copy_from_slice(&to_mac);
        frame[6..12].copy_from_slice(&source_mac);
        frame[12..14].copy_from_slice(&0x0800_u16.to_be_bytes());

        let length = u16::try_from(mtu).expect("an MTU that IPv4 knows");
        let ip = &mut frame[IP..TCP];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&length.to_be_bytes());
        ip[6] = 0x40; // Don't fragment.
        ip[8] = 64;
        ip[9] = TCP_PROTOCOL;
        ip[12..16].copy_from_slice(&source.ip().octets());
        ip[16..20].copy_from_slice(&to.ip().octets());
        let checksum = !fold(sum(ip));
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let addresses = sum(&ip[12..20]);

        let tcp = &mut frame[TCP..];
        tcp[..2].copy_from_slice(&source.port().to_be_bytes());
        tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
        tcp[8..12].copy_from_slice(&1_u32.to_be_bytes());
        tcp[12] = 5 << 4;
        tcp[13] = ACK;
        tcp[14..16].copy_from_slice(&[0xff, 0xff]);
        for (at, byte) in tcp[20..].iter_mut().enumerate() {
            *byte = at as u8;
        }
        let pseudo = addresses + u32::from(TCP_PROTOCOL) + u32::from(length - 20);
        let headers = fold(pseudo + sum(&tcp[..20]));
        let sum = fold(pseudo + sum(tcp));
        Self { frame, sum, headers }
    }

    /// Bytes of the frame.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        self.frame.len()
    }

    /// Makes `frame`, of [`Template::frame_len`] bytes, the segment of this number. One that was made here before keeps its text.
    #[inline]
    pub fn write(&self, frame: &mut [u8], number: u32) {
        if frame[..NUMBER] != self.frame[..NUMBER] {
            frame.copy_from_slice(&self.frame);
        }
        number_it(frame, number, self.sum);
    }

    /// The same with its text written and summed up, as one has to whose text is new.
    #[inline]
    pub fn write_anew(&self, frame: &mut [u8], number: u32) {
        frame.copy_from_slice(&self.frame);
        let sum = fold64(u64::from(self.headers) + sum_of_many(&frame[HEADERS..]));
        number_it(frame, number, sum);
    }
}

/// The number of a received segment and the bytes of its text, if it is a whole one.
#[must_use]
pub fn read(frame: &[u8]) -> Option<(u32, usize)> {
    let text = frame.len().checked_sub(HEADERS)?;
    let number = frame[NUMBER..NUMBER + 4].try_into().ok()?;
    Some((u32::from_be_bytes(number), text))
}

/// Of 16-bit words; an odd byte is the high one of the last.
fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    words.sum()
}

/// The same, faster: four bytes a step, in the machine's order, which one turn puts right in the end (RFC 1071 section 2 (B)).
#[inline]
fn sum_of_many(bytes: &[u8]) -> u64 {
    let (steps, rest) = bytes.as_chunks::<4>();
    let many: u64 = steps.iter().map(|step| u64::from(u32::from_ne_bytes(*step))).sum();
    u64::from(u16::from_be_bytes(fold64(many).to_ne_bytes())) + u64::from(sum(rest))
}

/// To 16 bits, with end-around carry.
#[inline]
const fn fold64(sum: u64) -> u16 {
    let once = (sum & 0xffff_ffff) + (sum >> 32);
    fold(fold((once & 0xffff_ffff) as u32) as u32 + (once >> 32) as u32)
}

/// To 16 bits, with end-around carry.
#[inline]
const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use synmill_engine::wire::{Checks, Packet, parse};

    use super::*;

    fn template(mtu: usize) -> Template {
        let addresses = ["198.18.0.2:80", "198.18.0.1:9"].map(|text| text.parse().unwrap());
        Template::new([[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]], addresses, mtu)
    }

    #[test]
    fn every_number_is_a_right_segment() {
        for mtu in [41, 1500, 1501, 3498, 9000] {
            let template = template(mtu);
            for number in [0, 1, 0xffff, 0x1_0000, 0xdead_beef, u32::MAX] {
                let mut frame = vec![0xaa; template.frame_len()];
                // Written over another, too.
                for write in [Template::write, Template::write_anew, Template::write] {
                    template.write(&mut frame, 7);
                    write(&template, &mut frame, number);
                    let Ok(Packet::Tcp(packet)) = parse(&frame, Checks::default()) else {
                        panic!("number {number} at MTU {mtu} is no right segment");
                    };
                    assert_eq!(packet.segment.seq.0, number);
                    assert_eq!(read(&frame), Some((number, mtu - 40)));
                }
            }
        }
    }

    #[test]
    fn what_is_shorter_than_its_headers_has_no_number() {
        assert_eq!(read(&[0; HEADERS - 1]), None);
    }
}
