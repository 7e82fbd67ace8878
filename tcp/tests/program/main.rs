//! The XDP program, packet by packet, as BPF_PROG_TEST_RUN runs it in the kernel: each packet's action, and the one counter that it
//! moves. Needs root.
//!
//! `SYNMILL_EBPF_OBJECT` names another object than the committed one.

mod attach;
mod packets;

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::net::sockopt::set_xdp_rx_ring_size;
use socket2::{Domain, Socket, Type};
use synmill::host::program::Program;
use synmill_engine::device::Buffers;
use synmill_engine::flow::{Address, Prefix};
use synmill_xdp_ebpf::Outcome::{self, *};

use packets::*;

const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

/// Both forms of the program, with filled maps, and with a socket on queue 0 or without.
struct Forms {
    forms: [Program; 2],
    sockets: Vec<OwnedFd>,
}

impl Forms {
    fn load() -> Self {
        let mut program = Self::without_socket();
        for form in &mut program.forms {
            let socket = xsk();
            form.set_socket(0, socket.as_fd()).unwrap();
            program.sockets.push(socket);
        }
        program
    }

    fn without_socket() -> Self {
        let forms = [Buffers::One, Buffers::Several].map(|buffers| Self::filled(load(buffers)));
        Self { forms, sockets: Vec::new() }
    }

    fn filled(mut form: Program) -> Program {
        for (address, port) in [
            (Address::v4(HOST_V4), EXACT),
            (Address::v6(HOST_V6), EXACT),
            (Address::v4([0; 4]), WILDCARD_V4),
            (Address::v6([0; 16]), WILDCARD_V6),
        ] {
            form.add_listener(address, port).unwrap();
        }
        form.add_owned("198.19.0.0/16".parse().unwrap()).unwrap();
        form.add_owned(Prefix::new(Address::v6(OWNED_V6), 64).unwrap()).unwrap();
        form
    }

    /// Checks for both forms that a packet moves the outcome's counter by one, and has the outcome's action.
    #[track_caller]
    fn check(&mut self, name: &str, packet: &[u8], expected: Outcome) {
        for form in &mut self.forms {
            Self::check_form(form, name, packet, expected);
        }
    }

    #[track_caller]
    fn check_form(form: &mut Program, name: &str, packet: &[u8], expected: Outcome) {
        let counts = |form: &Program| BTreeMap::from_iter(form.counts().unwrap());
        let before = counts(form);
        let action = form.test_run(packet).unwrap();
        let after = counts(form);
        let moved: BTreeMap<_, _> = after
            .iter()
            .map(|(name, count)| (*name, count - before[name]))
            .filter(|(_, by)| *by != 0)
            .collect();
        assert_eq!(moved, BTreeMap::from([(expected.name(), 1)]), "{name}: {packet:02x?}");
        let expected_action = if expected.is_steered() { XDP_REDIRECT } else { XDP_PASS };
        assert_eq!(action, expected_action, "{name}");
    }

    #[track_caller]
    fn check_all(&mut self, table: &[(&str, Vec<u8>, Outcome)]) {
        for (name, packet, expected) in table {
            self.check(name, packet, *expected);
        }
    }
}

/// Loads the object under test, for packets that lie in such buffers.
fn load(buffers: Buffers) -> Program {
    let object = std::env::var_os("SYNMILL_EBPF_OBJECT").map(PathBuf::from).map(|path| {
        std::fs::read(&path).unwrap_or_else(|error| panic!("SYNMILL_EBPF_OBJECT={}: {error}", path.display()))
    });
    match Program::load(MAC, buffers, object.as_deref()) {
        Ok(program) => program,
        Err(error) => panic!("{error} (these tests need root)"),
    }
}

/// An AF_XDP socket that the map takes: it has an RX ring and belongs to no interface.
fn xsk() -> OwnedFd {
    let socket = Socket::new(Domain::from(libc::AF_XDP), Type::RAW, None).expect("an AF_XDP socket");
    set_xdp_rx_ring_size(&socket, 64).expect("an RX ring");
    socket.into()
}

#[test]
fn tcp_is_ours_by_destination_and_port() {
    Forms::load().check_all(&[
        ("v4, exact", v4(HOST_V4, TCP, &tcp(EXACT)), TcpSteered),
        ("v4, another address", v4(OTHER_V4, TCP, &tcp(EXACT)), PassedNotOurs),
        ("v4, another port", v4(HOST_V4, TCP, &tcp(NOBODY)), PassedNotOurs),
        ("v4, port with its octets swapped", v4(HOST_V4, TCP, &tcp(EXACT.swap_bytes())), PassedNotOurs),
        ("v4, wildcard", v4(HOST_V4, TCP, &tcp(WILDCARD_V4)), TcpSteered),
        ("v4, wildcard, another address", v4(OTHER_V4, TCP, &tcp(WILDCARD_V4)), TcpSteered),
        ("v4, wildcard of the other family", v4(HOST_V4, TCP, &tcp(WILDCARD_V6)), PassedNotOurs),
        ("v4, owned, any port", v4(OWNED_V4, TCP, &tcp(NOBODY)), TcpSteered),
        ("v4, first owned", v4([198, 19, 0, 0], TCP, &tcp(NOBODY)), TcpSteered),
        ("v4, last owned", v4([198, 19, 255, 255], TCP, &tcp(NOBODY)), TcpSteered),
        ("v4, just not owned", v4(NOT_OWNED_V4, TCP, &tcp(NOBODY)), PassedNotOurs),
        ("v6, exact", v6(HOST_V6, &[], TCP, &tcp(EXACT)), TcpSteered),
        ("v6, another address", v6(OTHER_V6, &[], TCP, &tcp(EXACT)), PassedNotOurs),
        ("v6, another port", v6(HOST_V6, &[], TCP, &tcp(NOBODY)), PassedNotOurs),
        ("v6, wildcard", v6(OTHER_V6, &[], TCP, &tcp(WILDCARD_V6)), TcpSteered),
        ("v6, wildcard of the other family", v6(HOST_V6, &[], TCP, &tcp(WILDCARD_V4)), PassedNotOurs),
        ("v6, owned, any port", v6(OWNED_V6, &[], TCP, &tcp(NOBODY)), TcpSteered),
        ("v6, just not owned", v6(NOT_OWNED_V6, &[], TCP, &tcp(NOBODY)), PassedNotOurs),
        (
            "v6, a mapped address on the wire is the IPv4 listener's",
            v6(*b"\0\0\0\0\0\0\0\0\0\0\xff\xff\xc6\x12\0\x02", &[], TCP, &tcp(EXACT)),
            TcpSteered,
        ),
    ]);
}

/// A promiscuous interface and a bridge's port see frames for other stations. None of them is ours, whatever its content.
#[test]
fn frames_for_other_stations_stay_with_the_kernel() {
    const BROADCAST: [u8; 6] = [0xff; 6];
    const ALL_NODES: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    const SOLICITED: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 9];
    let mut program = Forms::load();
    let asked_of_us = [
        ("v4, exact", v4(HOST_V4, TCP, &tcp(EXACT)), TcpSteered),
        ("v4, wildcard", v4(OTHER_V4, TCP, &tcp(WILDCARD_V4)), TcpSteered),
        ("v4, owned", v4(OWNED_V4, TCP, &tcp(NOBODY)), TcpSteered),
        ("v6, exact", v6(HOST_V6, &[], TCP, &tcp(EXACT)), TcpSteered),
        ("v6, wildcard", v6(OTHER_V6, &[], TCP, &tcp(WILDCARD_V6)), TcpSteered),
        ("VLAN", ethernet(&[0x8100], 0x0800, &ipv4(HOST_V4, TCP, 0, 0, &tcp(EXACT))), TcpSteered),
        ("echo", v4(OWNED_V4, ICMP, &icmp(8, 0)), EchoSteered),
        ("echo, v6", v6(OWNED_V6, &[], ICMPV6, &icmp(128, 0)), EchoSteered),
        ("unreachable", v4(OWNED_V4, ICMP, &icmp(3, 1)), ErrorSteered),
        ("unreachable, v6", v6(OWNED_V6, &[], ICMPV6, &icmp(1, 0)), ErrorSteered),
    ];
    for (name, frame, outcome) in asked_of_us {
        program.check(name, &frame, outcome);
        // Every octet of the address counts.
        for at in 0..MAC.len() {
            let mut station = MAC;
            station[at] ^= 0x80;
            program.check(name, &to_station(station, frame.clone()), PassedOtherMac);
        }
        for station in [OTHER_MAC, BROADCAST, ALL_NODES, [0; 6]] {
            program.check(name, &to_station(station, frame.clone()), PassedOtherMac);
        }
    }
    let arp = |target| ethernet(&[], 0x0806, &arp(1, target));
    let solicit = |target| v6(SOLICITED_NODE, &[], ICMPV6, &solicitation(target));
    program.check_all(&[
        ("ARP to all", to_station(BROADCAST, arp(OWNED_V4)), NeighbourSteered),
        ("ARP to us", arp(OWNED_V4), NeighbourSteered),
        ("ARP to another", to_station(OTHER_MAC, arp(OWNED_V4)), PassedOtherMac),
        ("ARP to all, the host's", to_station(BROADCAST, arp(HOST_V4)), PassedNotOurs),
        ("solicitation to its group", to_station(SOLICITED, solicit(OWNED_V6)), NeighbourSteered),
        ("solicitation to all", to_station(BROADCAST, solicit(OWNED_V6)), NeighbourSteered),
        ("solicitation to us", solicit(OWNED_V6), NeighbourSteered),
        ("solicitation to another", to_station(OTHER_MAC, solicit(OWNED_V6)), PassedOtherMac),
        ("solicitation to its group, the host's", to_station(SOLICITED, solicit(HOST_V6)), PassedNotOurs),
        ("not ours, to another", to_station(OTHER_MAC, v4(HOST_V4, TCP, &tcp(NOBODY))), PassedOtherMac),
        ("UDP to another", to_station(OTHER_MAC, v4(HOST_V4, UDP, &udp(EXACT))), PassedOtherProtocol),
    ]);
}

#[test]
fn without_a_socket_on_the_queue_packets_stay_with_the_kernel() {
    Forms::without_socket().check_all(&[
        ("tcp", v4(HOST_V4, TCP, &tcp(EXACT)), PassedNoSocket),
        ("arp", ethernet(&[], 0x0806, &arp(1, OWNED_V4)), PassedNoSocket),
        ("echo", v6(OWNED_V6, &[], ICMPV6, &icmp(128, 0)), PassedNoSocket),
        ("unreachable", v4(OWNED_V4, ICMP, &icmp(3, 1)), PassedNoSocket),
        ("not ours", v4(HOST_V4, TCP, &tcp(NOBODY)), PassedNotOurs),
    ]);
}

#[test]
fn up_to_two_tags_are_walked_over() {
    let mut program = Forms::load();
    let packets = [
        (0x0800, ipv4(HOST_V4, TCP, 0, 0, &tcp(EXACT)), TcpSteered),
        (0x86dd, ipv6(HOST_V6, &[], TCP, &tcp(EXACT)), TcpSteered),
        (0x0806, arp(1, OWNED_V4), NeighbourSteered),
    ];
    for (ethertype, packet, ours) in packets {
        let tagged = |tags: &[u16]| ethernet(tags, ethertype, &packet);
        program.check_all(&[
            ("VLAN", tagged(&[0x8100]), ours),
            ("service VLAN", tagged(&[0x88a8]), ours),
            ("QinQ", tagged(&[0x88a8, 0x8100]), ours),
            ("two customer tags", tagged(&[0x8100, 0x8100]), ours),
            ("three tags", tagged(&[0x88a8, 0x8100, 0x8100]), PassedNotIp),
        ]);
    }
    let service = ipv4(OTHER_V4, TCP, 0, 0, &tcp(NOBODY));
    program.check("VLAN, not ours", &ethernet(&[0x8100], 0x0800, &service), PassedNotOurs);
}

#[test]
fn ipv4_headers() {
    let v4 = |packet: Vec<u8>| ethernet(&[], 0x0800, &packet);
    let changed = |at: usize, to: u8| {
        let mut packet = ipv4(HOST_V4, TCP, 0, 0, &tcp(EXACT));
        packet[at] = to;
        v4(packet)
    };
    let padded = [ipv4(HOST_V4, TCP, 0, 0, &tcp(EXACT)), vec![0; 18]].concat();
    Forms::load().check_all(&[
        ("4 octets of options", v4(ipv4(HOST_V4, TCP, 4, 0, &tcp(EXACT))), TcpSteered),
        ("40 octets of options", v4(ipv4(HOST_V4, TCP, 40, 0, &tcp(EXACT))), TcpSteered),
        ("options, not ours", v4(ipv4(HOST_V4, TCP, 40, 0, &tcp(NOBODY))), PassedNotOurs),
        ("padding of the link behind it", v4(padded), TcpSteered),
        ("do not fragment", v4(ipv4(HOST_V4, TCP, 0, 0x4000, &tcp(EXACT))), TcpSteered),
        ("reserved flag", v4(ipv4(HOST_V4, TCP, 0, 0x8000, &tcp(EXACT))), TcpSteered),
        ("first fragment", v4(ipv4(HOST_V4, TCP, 0, 0x2000, &tcp(EXACT))), PassedFragment),
        ("middle fragment", v4(ipv4(HOST_V4, TCP, 0, 0x2010, &tcp(EXACT))), PassedFragment),
        ("last fragment", v4(ipv4(HOST_V4, TCP, 0, 0x0010, &tcp(EXACT))), PassedFragment),
        ("fragment of an echo", v4(ipv4(OWNED_V4, ICMP, 0, 0x2000, &icmp(8, 0))), PassedFragment),
        ("version 5", changed(0, 0x55), PassedMalformed),
        ("version 6", changed(0, 0x65), PassedMalformed),
        ("header of 16 octets", changed(0, 0x44), PassedMalformed),
        ("no header", changed(0, 0x40), PassedMalformed),
        ("header beyond the packet", changed(0, 0x4f), PassedMalformed),
        ("total length below the header's", changed(3, 19), PassedMalformed),
        ("total length that cuts the ports off", changed(3, 22), PassedMalformed),
        ("total length that cuts TCP's header", changed(3, 39), PassedMalformed),
        ("total length of the headers alone", changed(3, 40), TcpSteered),
        ("total length beyond the frame", changed(3, 43), PassedMalformed),
        ("total length far beyond the frame", changed(2, 0xff), PassedMalformed),
    ]);
}

#[test]
fn ipv6_extension_headers() {
    let ours = |headers: &[(u8, Vec<u8>)]| v6(HOST_V6, headers, TCP, &tcp(EXACT));
    let options = (DESTINATION_OPTIONS, extension(0));
    let long = v6(HOST_V6, &[(DESTINATION_OPTIONS, extension(255))], TCP, &tcp(EXACT));
    let mut beyond = ours(&[(HOP_BY_HOP, extension(0))]);
    beyond[14 + 40 + 1] = 4;
    let mut far_beyond = beyond.clone();
    far_beyond[14 + 40 + 1] = 255;
    let mut version = ours(&[]);
    version[14] = 0x40;
    let mut longer = ours(&[]);
    longer[14 + 5] += 1;
    let mut shorter = ours(&[]);
    shorter[14 + 5] = 19;
    let mut without_length = ours(&[]);
    without_length[14 + 5] = 0;
    let padded = [ours(&[]), vec![0; 6]].concat();
    Forms::load().check_all(&[
        ("hop-by-hop", ours(&[(HOP_BY_HOP, extension(0))]), TcpSteered),
        ("hop-by-hop, 24 octets", ours(&[(HOP_BY_HOP, extension(2))]), TcpSteered),
        ("destination options", ours(std::slice::from_ref(&options)), TcpSteered),
        ("destination options, 2048 octets", long, TcpSteered),
        ("routing, no segments left", ours(&[(ROUTING, routing(0))]), TcpSteered),
        ("routing, a segment left", ours(&[(ROUTING, routing(1))]), PassedNotOurs),
        (
            "all four of RFC 8200",
            ours(&[(HOP_BY_HOP, extension(1)), options.clone(), (ROUTING, routing(0)), options.clone()]),
            TcpSteered,
        ),
        ("five", ours(&vec![options.clone(); 5]), PassedExtensionHeaders),
        ("fifty", ours(&vec![options.clone(); 50]), PassedExtensionHeaders),
        ("first fragment", ours(&[(FRAGMENT, fragment(0, true))]), PassedFragment),
        ("middle fragment", ours(&[(FRAGMENT, fragment(100, true))]), PassedFragment),
        ("last fragment", ours(&[(FRAGMENT, fragment(100, false))]), PassedFragment),
        ("atomic fragment", ours(&[(FRAGMENT, fragment(0, false))]), PassedFragment),
        ("fragment behind options", ours(&[options.clone(), (FRAGMENT, fragment(0, true))]), PassedFragment),
        (
            "fragment behind four headers",
            ours(&[vec![options.clone(); 4], vec![(FRAGMENT, fragment(0, true))]].concat()),
            PassedFragment,
        ),
        ("authentication header", ours(&[(AUTHENTICATION, extension(1))]), PassedOtherProtocol),
        ("no next header", v6(HOST_V6, &[], NO_NEXT_HEADER, &[]), PassedOtherProtocol),
        ("options, not ours", v6(HOST_V6, &[options], TCP, &tcp(NOBODY)), PassedNotOurs),
        ("header longer than its packet", beyond, PassedMalformed),
        ("header far longer than its packet", far_beyond, PassedMalformed),
        ("nothing behind the header", v6(HOST_V6, &[(HOP_BY_HOP, extension(0))], TCP, &[]), PassedMalformed),
        ("header cut short", v6(HOST_V6, &[], DESTINATION_OPTIONS, &[6, 0, 0, 0]), PassedMalformed),
        ("padding of the link behind it", padded, TcpSteered),
        ("version 4", version, PassedMalformed),
        ("payload length beyond the frame", longer, PassedMalformed),
        ("payload length that cuts TCP's header", shorter, PassedMalformed),
        ("jumbogram", without_length, PassedMalformed),
    ]);
}

#[test]
fn what_is_never_ours_stays_with_the_kernel() {
    let other_hardware = {
        let mut packet = arp(1, OWNED_V4);
        packet[1] = 6;
        packet
    };
    Forms::load().check_all(&[
        ("UDP to a listener's port", v4(HOST_V4, UDP, &udp(EXACT)), PassedOtherProtocol),
        ("UDP to an owned address", v4(OWNED_V4, UDP, &udp(EXACT)), PassedOtherProtocol),
        ("UDP over IPv6", v6(HOST_V6, &[], UDP, &udp(EXACT)), PassedOtherProtocol),
        ("ICMP fragmentation needed", v4(OWNED_V4, ICMP, &icmp(3, 4)), PassedOtherProtocol),
        ("ICMP source quench", v4(OWNED_V4, ICMP, &icmp(4, 0)), PassedOtherProtocol),
        ("ICMP redirect", v4(OWNED_V4, ICMP, &icmp(5, 1)), PassedOtherProtocol),
        ("ICMP time exceeded", v4(OWNED_V4, ICMP, &icmp(11, 0)), PassedOtherProtocol),
        ("ICMP parameter problem", v4(OWNED_V4, ICMP, &icmp(12, 0)), PassedOtherProtocol),
        ("ICMPv6 packet too big", v6(OWNED_V6, &[], ICMPV6, &icmp(2, 0)), PassedOtherProtocol),
        ("ICMPv6 time exceeded", v6(OWNED_V6, &[], ICMPV6, &icmp(3, 0)), PassedOtherProtocol),
        ("ICMPv6 parameter problem", v6(OWNED_V6, &[], ICMPV6, &icmp(4, 0)), PassedOtherProtocol),
        ("ICMP's type 1", v4(OWNED_V4, ICMP, &icmp(1, 0)), PassedOtherProtocol),
        ("ICMPv6's unreachable in IPv4", v4(OWNED_V4, ICMPV6, &icmp(1, 0)), PassedOtherProtocol),
        ("ICMP's unreachable in IPv6", v6(OWNED_V6, &[], ICMP, &icmp(3, 1)), PassedOtherProtocol),
        ("ICMP echo reply", v4(OWNED_V4, ICMP, &icmp(0, 0)), PassedOtherProtocol),
        ("ICMPv6 in IPv4", v4(OWNED_V4, ICMPV6, &icmp(128, 0)), PassedOtherProtocol),
        ("ICMP in IPv6", v6(OWNED_V6, &[], ICMP, &icmp(8, 0)), PassedOtherProtocol),
        ("neighbour advertisement", v6(OWNED_V6, &[], ICMPV6, &icmp(136, 0)), PassedOtherProtocol),
        ("ARP reply", ethernet(&[], 0x0806, &arp(2, OWNED_V4)), PassedOtherProtocol),
        ("ARP for other hardware", ethernet(&[], 0x0806, &other_hardware), PassedOtherProtocol),
        ("LLDP", ethernet(&[], 0x88cc, &[0; 46]), PassedNotIp),
        ("IEEE 802.3 length", ethernet(&[], 46, &[0; 46]), PassedNotIp),
    ]);
}

#[test]
fn owned_addresses_are_resolved_and_pinged() {
    let solicit = |to, target| v6(to, &[], ICMPV6, &solicitation(target));
    Forms::load().check_all(&[
        ("ARP, owned", ethernet(&[], 0x0806, &arp(1, OWNED_V4)), NeighbourSteered),
        ("ARP, the host's", ethernet(&[], 0x0806, &arp(1, HOST_V4)), PassedNotOurs),
        ("ARP, just not owned", ethernet(&[], 0x0806, &arp(1, NOT_OWNED_V4)), PassedNotOurs),
        ("solicitation, owned", solicit(SOLICITED_NODE, OWNED_V6), NeighbourSteered),
        ("solicitation to the address itself", solicit(OWNED_V6, OWNED_V6), NeighbourSteered),
        ("solicitation, the same group, not owned", solicit(SOLICITED_NODE, NOT_OWNED_V6), PassedNotOurs),
        ("solicitation, the host's", solicit(SOLICITED_NODE, HOST_V6), PassedNotOurs),
        ("solicitation to an owned address for another", solicit(OWNED_V6, HOST_V6), PassedNotOurs),
        ("echo, owned", v4(OWNED_V4, ICMP, &icmp(8, 0)), EchoSteered),
        ("echo, the host's", v4(HOST_V4, ICMP, &icmp(8, 0)), PassedNotOurs),
        ("echo with a code", v4(OWNED_V4, ICMP, &icmp(8, 1)), PassedOtherProtocol),
        ("ICMPv6 echo, owned", v6(OWNED_V6, &[], ICMPV6, &icmp(128, 0)), EchoSteered),
        ("ICMPv6 echo, the host's", v6(HOST_V6, &[], ICMPV6, &icmp(128, 0)), PassedNotOurs),
        (
            "ICMPv6 echo behind options",
            v6(OWNED_V6, &[(DESTINATION_OPTIONS, extension(0))], ICMPV6, &icmp(128, 0)),
            EchoSteered,
        ),
    ]);
}

/// The program does not read what the message is about; user space does.
#[test]
fn owned_addresses_hear_of_unreachable_destinations() {
    let mut program = Forms::load();
    for code in 0..=255 {
        let expected = if code == 4 { PassedOtherProtocol } else { ErrorSteered };
        program.check(&format!("code {code}"), &v4(OWNED_V4, ICMP, &icmp(3, code)), expected);
        let expected = ErrorSteered;
        program.check(&format!("v6, code {code}"), &v6(OWNED_V6, &[], ICMPV6, &icmp(1, code)), expected);
    }
    let (unreachable, unreachable_v6) = (icmp(3, 1), icmp(1, 0));
    let options = [(DESTINATION_OPTIONS, extension(0))];
    program.check_all(&[
        ("v4, the host's", v4(HOST_V4, ICMP, &unreachable), PassedNotOurs),
        ("v4, just not owned", v4(NOT_OWNED_V4, ICMP, &unreachable), PassedNotOurs),
        ("v6, the host's", v6(HOST_V6, &[], ICMPV6, &unreachable_v6), PassedNotOurs),
        ("v6, just not owned", v6(NOT_OWNED_V6, &[], ICMPV6, &unreachable_v6), PassedNotOurs),
        ("v4, options", ethernet(&[], 0x0800, &ipv4(OWNED_V4, ICMP, 40, 0, &unreachable)), ErrorSteered),
        ("v6, behind options", v6(OWNED_V6, &options, ICMPV6, &unreachable_v6), ErrorSteered),
        ("VLAN", ethernet(&[0x8100], 0x0800, &ipv4(OWNED_V4, ICMP, 0, 0, &unreachable)), ErrorSteered),
        ("fragment", ethernet(&[], 0x0800, &ipv4(OWNED_V4, ICMP, 0, 0x2000, &unreachable)), PassedFragment),
        ("nothing behind its header", v4(OWNED_V4, ICMP, &unreachable[..8]), ErrorSteered),
        ("half its header", v4(OWNED_V4, ICMP, &unreachable[..7]), PassedMalformed),
        ("v6, half its header", v6(OWNED_V6, &[], ICMPV6, &unreachable_v6[..7]), PassedMalformed),
    ]);
}

/// The kernel's test run needs an Ethernet header. A shorter packet never reaches a program.
#[test]
fn every_truncation_is_malformed() {
    let mut program = Forms::load();
    let headers = [(HOP_BY_HOP, extension(1)), (ROUTING, routing(0)), (DESTINATION_OPTIONS, extension(0))];
    let packets = [
        ("v4", v4(HOST_V4, TCP, &tcp(EXACT)), TcpSteered),
        ("v4, options", ethernet(&[0x8100], 0x0800, &ipv4(HOST_V4, TCP, 12, 0, &tcp(EXACT))), TcpSteered),
        ("v6", v6(HOST_V6, &[], TCP, &tcp(EXACT)), TcpSteered),
        (
            "v6, headers",
            ethernet(&[0x88a8, 0x8100], 0x86dd, &ipv6(HOST_V6, &headers, TCP, &tcp(EXACT))),
            TcpSteered,
        ),
        ("arp", ethernet(&[0x8100], 0x0806, &arp(1, OWNED_V4)), NeighbourSteered),
        ("solicitation", v6(SOLICITED_NODE, &[], ICMPV6, &solicitation(OWNED_V6)), NeighbourSteered),
        ("echo", v4(OWNED_V4, ICMP, &icmp(8, 0)), EchoSteered),
        ("echo, v6", v6(OWNED_V6, &[], ICMPV6, &icmp(128, 0)), EchoSteered),
        ("unreachable", v4(OWNED_V4, ICMP, &icmp(3, 1)), ErrorSteered),
        ("unreachable, v6", v6(OWNED_V6, &[], ICMPV6, &icmp(1, 0)), ErrorSteered),
    ];
    for (name, packet, whole) in packets {
        for len in 14..packet.len() {
            program.check(&format!("{name}, {len} octets"), &packet[..len], PassedMalformed);
        }
        program.check(name, &packet, whole);
    }
}

/// Every value of a length field, one of which is true of the packet: of the others only those are ours that leave room for
/// TCP's header and do not go beyond the frame, which the link may pad.
#[test]
fn length_fields_that_lie_are_never_steered() {
    let mut program = Forms::load();
    let mut sweep = |name: &str, frame: &[u8], at: usize, fits: std::ops::RangeInclusive<u16>| {
        for len in (0..=u16::MAX).filter(|len| *len < 512 || len.count_ones() == 1 || len.leading_ones() > 7)
        {
            let mut frame = frame.to_vec();
            frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
            let expected = if fits.contains(&len) { TcpSteered } else { PassedMalformed };
            program.check(&format!("{name} {len}"), &frame, expected);
        }
    };
    let segment = tcp(EXACT);
    let options = [(DESTINATION_OPTIONS, extension(1))];
    sweep("total length", &v4(HOST_V4, TCP, &segment), 14 + 2, 40..=42);
    let with_options = ethernet(&[0x8100], 0x0800, &ipv4(HOST_V4, TCP, 12, 0, &segment));
    sweep("total length, options", &with_options, 18 + 2, 52..=54);
    sweep("payload length", &v6(HOST_V6, &[], TCP, &segment), 14 + 4, 20..=22);
    sweep("payload length, options", &v6(HOST_V6, &options, TCP, &segment), 14 + 4, 36..=38);

    for words in 0..=15 {
        let mut packet = ipv4(HOST_V4, TCP, 12, 0, &segment);
        packet[0] = 0x40 | words;
        // A shorter header leaves the options in the place of the ports, a longer one too little of TCP's.
        let expected = match words {
            8 => TcpSteered,
            5..8 => PassedNotOurs,
            _ => PassedMalformed,
        };
        program.check(&format!("header of {words} words"), &ethernet(&[], 0x0800, &packet), expected);
    }
    for units in 0..=255 {
        let mut packet = ipv6(HOST_V6, &options, TCP, &segment);
        packet[40 + 1] = units;
        let expected = match units {
            1 => TcpSteered,
            0 => PassedNotOurs,
            _ => PassedMalformed,
        };
        program.check(&format!("extension of {units} units"), &ethernet(&[], 0x86dd, &packet), expected);
    }
}

/// Any octets: each packet counts once, and the program never fails.
#[test]
fn noise_counts_once_too() {
    let mut program = Forms::load();
    let seeds = [
        v4(HOST_V4, TCP, &tcp(EXACT)),
        v6(HOST_V6, &[(HOP_BY_HOP, extension(1)), (ROUTING, routing(0))], TCP, &tcp(EXACT)),
        ethernet(&[0x88a8, 0x8100], 0x0806, &arp(1, OWNED_V4)),
        v6(SOLICITED_NODE, &[], ICMPV6, &solicitation(OWNED_V6)),
        v4(OWNED_V4, ICMP, &icmp(3, 1)),
        v6(OWNED_V6, &[], ICMPV6, &icmp(1, 0)),
    ];
    let mut runs = 0;
    for seed in seeds {
        for at in 12..seed.len() {
            for value in [0, 1, 4, 43, 44, 60, 0x45, 0x81, 0xff] {
                let mut packet = seed.clone();
                packet[at] = value;
                for form in &mut program.forms {
                    form.test_run(&packet).unwrap();
                }
                runs += 1;
            }
        }
    }
    for form in &program.forms {
        assert_eq!(form.counts().unwrap().iter().map(|(_, count)| count).sum::<u64>(), runs);
    }
}

#[test]
fn maps_say_what_does_not_fit() {
    let mut form = load(Buffers::One);
    form.add_owned(Prefix::host(Address::v4(HOST_V4))).unwrap();
    form.add_owned(Prefix::host(Address::v6(HOST_V6))).unwrap();
    let socket = xsk();
    let error = form.set_socket(synmill_xdp_ebpf::MAX_QUEUES, socket.as_fd()).unwrap_err();
    assert!(error.to_string().starts_with("the XDP program's map XSKS (room for 1024) failed: "), "{error}");
    let error = Program::load(MAC, Buffers::One, Some(b"no object")).err().unwrap();
    assert!(error.to_string().starts_with("the XDP program does not load: "), "{error}");
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
}

#[test]
fn a_packet_of_several_buffers_is_ours_as_a_whole() {
    let mut program = Forms::load();
    for len in [4000, 9000] {
        let mut text = tcp(EXACT);
        text.resize(len, 7);
        let v4 = ethernet(&[], 0x0800, &ipv4(HOST_V4, TCP, 0, 0, &text));
        let v6 = ethernet(&[0x8100], 0x86dd, &ipv6(HOST_V6, &[], TCP, &text));
        let [_, several] = &mut program.forms;
        for packet in [v4, v6] {
            Forms::check_form(several, "whole", &packet, TcpSteered);
            Forms::check_form(several, "cut off", &packet[..packet.len() - 1], PassedMalformed);
        }
    }
}
