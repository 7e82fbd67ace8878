//! Bytes to values and back: Ethernet, VLAN, ARP, IPv4, IPv6, ICMP, TCP and their checksums.

mod arp;
mod bytes;
mod checksum;
mod datagram;
mod ethernet;
mod icmp;
mod ip;
mod ipv4;
mod ipv6;
mod ndp;
mod options;
mod packet;
mod parse;
mod tcp;
#[cfg(test)]
mod tests;

pub use arp::answer_arp;
pub use ethernet::{
    HEADER_LEN as ETHERNET_HEADER, LONGEST_HEADER as LONGEST_ETHERNET_HEADER, Link, Mac, Tag,
};
pub use icmp::answer_echo;
pub use ndp::answer_neighbour;
pub use packet::{ArpRequest, EchoRequest, NeighbourSolicitation, Packet, TcpPacket, Unreachable};
pub use parse::{parse, parse_into};
pub use tcp::{Checks, Layout, SHORTEST_HEADERS, emit, header_len};
