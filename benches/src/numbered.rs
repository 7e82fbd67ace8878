//! Full TCP segments with numbers, for a sender without TCP.
//!
//! The sequence number counts segments, not bytes. So a receiver sees lost segments, and a number repeats after 2^32 segments. In every
//! other way it is a segment as an endpoint sends it in the middle of a stream, checksums included.

use std::net::SocketAddrV4;

use synmill_engine::flow::{Address, FlowKey};
use synmill_engine::proto::{Flags, Segment, SeqNum, WireWindow};
use synmill_engine::wire::{self, Link, Mac};

use crate::sums::{fold, sum};

/// Bytes of the headers of Ethernet, IPv4 and TCP, without options.
pub const HEADERS: usize = 14 + 20 + 20;
const TCP: usize = 14 + 20;
const NUMBER: usize = TCP + 4;
const CHECKSUM: usize = TCP + 16;

/// The segment of number 0, from which all others are made.
#[derive(Clone, Debug)]
pub struct Template {
    frame: Vec<u8>,
    /// The folded sum under its TCP checksum.
    sum: u16,
    /// That sum without the text.
    headers: u16,
}

/// Writes the number into `frame`, and the checksum; `sum` is that of everything but the number.
#[inline]
fn number_it(frame: &mut [u8], number: u32, sum: u16) {
    frame[NUMBER..NUMBER + 4].copy_from_slice(&number.to_be_bytes());
    let checksum = !fold(u64::from(sum) + u64::from(number));
    frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum.to_be_bytes());
}

impl Template {
    /// Returns a segment that fills an IPv4 packet of `mtu` bytes.
    ///
    /// # Panics
    /// The MTU is below 41 or above 65535.
    #[must_use]
    pub fn new([source, destination]: [Mac; 2], [from, to]: [SocketAddrV4; 2], mtu: usize) -> Self {
        let mut frame = vec![0; 14 + mtu];
        for (at, byte) in frame[HEADERS..].iter_mut().enumerate() {
            *byte = at as u8;
        }
        let address = |address: SocketAddrV4| Address::v4(address.ip().octets());
        let key = FlowKey {
            local: address(from),
            remote: address(to),
            local_port: from.port(),
            remote_port: to.port(),
        };
        let text_len = u16::try_from(mtu - 40).expect("an MTU that IPv4 knows");
        let window = WireWindow(0xffff);
        let segment = Segment { ack: SeqNum(1), flags: Flags::ACK, window, text_len, ..Segment::default() };
        wire::emit(&mut frame, &Link { destination, source, tags: Default::default() }, &key, &segment);
        let sum_of_all = !u16::from_be_bytes([frame[CHECKSUM], frame[CHECKSUM + 1]]);
        // The complement subtracts (RFC 1071 section 1).
        let headers = fold(u64::from(sum_of_all) + u64::from(!fold(sum(&frame[HEADERS..]))));
        Self { frame, sum: sum_of_all, headers }
    }

    /// Returns the bytes of the frame.
    #[must_use]
    pub const fn frame_len(&self) -> usize {
        self.frame.len()
    }

    /// Makes `frame`, of [`Template::frame_len`] bytes, the segment of this number. A frame that holds a segment already keeps its text.
    #[inline]
    pub fn write(&self, frame: &mut [u8], number: u32) {
        if frame[..NUMBER] != self.frame[..NUMBER] {
            frame.copy_from_slice(&self.frame);
        }
        number_it(frame, number, self.sum);
    }

    /// Makes `frame` the segment of this number, and writes and sums up its text, as a sender of new text has to.
    #[inline]
    pub fn write_anew(&self, frame: &mut [u8], number: u32) {
        frame.copy_from_slice(&self.frame);
        let sum = fold(u64::from(self.headers) + sum(&frame[HEADERS..]));
        number_it(frame, number, sum);
    }
}

/// Returns the number of a received segment and the bytes of its text; none if its headers are not whole.
#[must_use]
pub fn read(frame: &[u8]) -> Option<(u32, usize)> {
    let text = frame.len().checked_sub(HEADERS)?;
    let number = frame[NUMBER..NUMBER + 4].try_into().ok()?;
    Some((u32::from_be_bytes(number), text))
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
