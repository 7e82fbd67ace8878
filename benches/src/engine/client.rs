//! A client of many connections that never loses a packet. It stores one sequence number for each; all else follows from the connection's
//! number.

use synmill_engine::flow::{Address, FlowKey};
use synmill_engine::proto::{Flags, SeqNum, Timestamps};
use synmill_engine::time::Instant;

use super::segments::{segment, write};

/// The request of a connection that ends with it.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: synmill\r\nConnection: close\r\n\r\n";
/// A request of a connection that stays.
const KEEP_ALIVE: &[u8] = b"GET / HTTP/1.1\r\nHost: synmill\r\n\r\n";
const HOSTS: u64 = 1 << 16;
const PORTS: u64 = 60_000;
const FIRST_PORT: u16 = 1024;
/// Bytes before a TCP header without VLAN tags, IPv4 options and IPv6 extension headers.
const V4_HEADERS: usize = 34;
const V6_HEADERS: usize = 54;

/// The IP version of all packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The client. Each connection below `resident` has a name of its own. All others take the rest of the names in turn.
pub struct Client {
    family: Family,
    network: u8,
    resident: u64,
    /// By name, the next sequence number of the server.
    nxt: Box<[SeqNum]>,
    heard: Heard,
}

/// Counts of the server's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Packets.
    pub packets: u64,
    /// Packets with text.
    pub texts: u64,
}

impl Client {
    /// Returns a client with this many names, `resident` of which are of connections that stay. Clients of different networks (0 to 9) share
    /// no name.
    ///
    /// # Panics
    /// The network has fewer names, or no name is left for connections that do not stay.
    #[must_use]
    pub fn new(family: Family, network: u8, resident: usize, names: usize) -> Self {
        assert!(names as u64 <= HOSTS * PORTS && network < 10, "{names} names in network {network}");
        assert!(resident < names, "{names} names for {resident} that stay");
        // The kernel would map memory of zeros at the first write only.
        let nxt = vec![SeqNum(1); names].into_boxed_slice();
        Self { family, network, resident: resident as u64, nxt, heard: Heard::default() }
    }

    /// Returns the counts so far.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.heard
    }

    /// Returns its bytes of memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        size_of_val(&*self.nxt)
    }

    /// Returns the number of a connection's name, and how many connections had it before.
    fn place(&self, number: u64) -> (usize, u32) {
        match number.checked_sub(self.resident) {
            None => (number as usize, 0),
            Some(number) => {
                let shared = self.nxt.len() as u64 - self.resident;
                ((self.resident + number % shared) as usize, (number / shared) as u32)
            }
        }
    }

    /// Returns a name, from the client's end.
    fn key(&self, place: usize) -> FlowKey {
        let host = (place as u64 / PORTS) as u16;
        let [high, low] = host.to_be_bytes();
        let (local, remote) = match self.family {
            Family::V4 => (Address::v4([198, 19 + self.network, high, low]), Address::v4([198, 18, 0, 2])),
            Family::V6 => {
                let mut local = [0xfd, 0, 0, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, high, low];
                let mut remote = local;
                remote[3] = 0x18;
                remote[13..].copy_from_slice(&[0, 0, 2]);
                local[8] = 2 + self.network;
                (Address::v6(local), Address::v6(remote))
            }
        };
        let local_port = FIRST_PORT + (place as u64 % PORTS) as u16;
        FlowKey { local, remote, local_port, remote_port: 80 }
    }

    fn write(
        &self,
        number: u64,
        now: Instant,
        flags: Flags,
        (at, text): (u32, &[u8]),
        frame: &mut [u8],
    ) -> usize {
        let (place, lap) = self.place(number);
        // A name's next connection has a later number.
        let iss = SeqNum((place as u32).wrapping_mul(0x9E37_79B1)) + lap.wrapping_mul(0x10_0000);
        let ack = if flags.has(Flags::ACK) { self.nxt[place] } else { SeqNum(0) };
        // The client's clock is the server's, so an echo is never old.
        let times = Timestamps { value: now.millis().0.wrapping_add(77), echo: now.millis().0 };
        write(frame, &self.key(place), segment(flags, iss + at, ack, times), text)
    }

    /// Writes a SYN.
    pub fn syn(&self, number: u64, now: Instant, frame: &mut [u8]) -> usize {
        self.write(number, now, Flags::SYN, (0, b""), frame)
    }

    /// Writes the handshake's last segment.
    pub fn ack(&self, number: u64, now: Instant, frame: &mut [u8]) -> usize {
        self.write(number, now, Flags::ACK, (1, b""), frame)
    }

    /// Writes the handshake's last segment with a request that asks the server to close.
    pub fn request(&self, number: u64, now: Instant, frame: &mut [u8]) -> usize {
        self.write(number, now, Flags::ACK.with(Flags::PSH), (1, REQUEST), frame)
    }

    /// Writes the `nth` request of a connection that stays; the first is number 0. It acknowledges the response before it.
    pub fn ask(&self, number: u64, nth: u32, now: Instant, frame: &mut [u8]) -> usize {
        let at = 1 + nth * KEEP_ALIVE.len() as u32;
        self.write(number, now, Flags::ACK.with(Flags::PSH), (at, KEEP_ALIVE), frame)
    }

    /// Writes the FIN behind [`Client::request`], which acknowledges the server's.
    pub fn fin(&self, number: u64, now: Instant, frame: &mut [u8]) -> usize {
        self.write(number, now, Flags::FIN.with(Flags::ACK), (1 + REQUEST.len() as u32, b""), frame)
    }

    /// Takes a packet of the server.
    ///
    /// # Panics
    /// It is an RST, or no packet of the server: the engine is wrong.
    pub fn hear(&mut self, packet: &[u8]) {
        let (start, host) = match self.family {
            Family::V4 => (V4_HEADERS, u16::from_be_bytes([packet[32], packet[33]])),
            Family::V6 => (V6_HEADERS, u16::from_be_bytes([packet[52], packet[53]])),
        };
        let tcp = &packet[start..];
        let port = u16::from_be_bytes([tcp[2], tcp[3]]);
        let seq = SeqNum(u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]));
        let flags = Flags(tcp[13]);
        assert!(!flags.has(Flags::RST), "the engine reset port {port} of host {host}");
        let text = tcp.len() - usize::from(tcp[12] >> 4) * 4;
        let len = text as u32 + u32::from(flags.has(Flags::SYN)) + u32::from(flags.has(Flags::FIN));
        let place = u64::from(host) * PORTS + u64::from(port - FIRST_PORT);
        self.nxt[place as usize] = seq + len;
        self.heard.packets += 1;
        self.heard.texts += u64::from(text > 0);
    }
}
