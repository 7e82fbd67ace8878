//! Where a packet to a target goes: the kernel's routes and its neighbour table. Knows addresses; never what is sent to them.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE};
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Interface;
use super::netlink::{ask, name_of};
use synmill_engine::wire::Mac;

/// How often the neighbour table is looked at.
const POLL: Duration = Duration::from_millis(10);
/// The port of RFC 863, where nothing is expected of a datagram.
const DISCARD: u16 = 9;

/// Why nothing can be sent to a target.
#[derive(Debug, thiserror::Error)]
pub enum NextHopError {
    /// A multicast, broadcast or unspecified address.
    #[error("{target} is not the address of one host: give a unicast address as target")]
    NotUnicast {
        /// Whom to send to.
        target: IpAddr,
    },
    /// An IPv6 address of link scope: there is a route to it on each interface, and a connection's key names none.
    #[error("{target} is a link-local address: give a global or unique local address of that host as target")]
    LinkLocal {
        /// Whom to send to.
        target: IpAddr,
    },
    /// The target is this host: the kernel answers itself, and no interface sees a packet.
    #[error("{target} is an address of this host: give one of another host as target")]
    Own {
        /// Whom to send to.
        target: IpAddr,
    },
    /// No route leads to it.
    #[error(
        "no route to {target}: ip route add {target} dev {interface}, or ip route add {target} via GATEWAY dev {interface}"
    )]
    NoRoute {
        /// Whom to send to.
        target: IpAddr,
        /// From where.
        interface: String,
    },
    /// The route is there to refuse.
    #[error("the route to {target} is of type {kind}: find it with ip {} route show match {target}, and remove it",
        if target.is_ipv4() { "-4" } else { "-6" })]
    Refused {
        /// Whom to send to.
        target: IpAddr,
        /// The route's type as ip-route(8) calls it.
        kind: &'static str,
    },
    /// The route goes another way.
    #[error("the route to {target} is through {there}, not {interface}: give --interface {there}")]
    Elsewhere {
        /// Whom to send to.
        target: IpAddr,
        /// The interface asked for.
        interface: String,
        /// The route's.
        there: String,
    },
    /// The next hop has not told its Ethernet address.
    #[error("{} does not answer on {interface}: is the host up?",
        if hop == target { hop.to_string() } else { format!("{hop}, the gateway to {target},") })]
    Silent {
        /// Whom to send to.
        target: IpAddr,
        /// Whom the packet is for on the link: the target or a gateway.
        hop: IpAddr,
        /// From where.
        interface: String,
    },
    /// The kernel did not answer, or not as expected.
    #[error("asking the kernel for the way to the target: {0}")]
    Kernel(#[from] io::Error),
}

/// The Ethernet address that a packet to `target` is sent to: the target's own or a gateway's. If the kernel does not
/// know it, the kernel is made to ask on the link (this needs CAP_NET_ADMIN), and has `patience` to find out.
///
/// # Errors
/// [`NextHopError`]: one line, what is wrong and how to fix it.
pub fn next_hop(interface: &Interface, target: IpAddr, patience: Duration) -> Result<Mac, NextHopError> {
    check_target(target)?;
    let hop = route(interface, target)?;
    let deadline = Instant::now() + patience;
    let mut asked = false;
    loop {
        match neighbour(interface.index, hop)? {
            Neighbour::Known { mac, is_stale } => {
                if is_stale && may_ask(interface, hop) {
                    // The address is good to use; confirming it is a favour to the next who asks.
                    let _ = make_kernel_ask(interface.index, hop);
                }
                return Ok(mac);
            }
            Neighbour::Asked if asked => {}
            Neighbour::Asked | Neighbour::Unknown => {
                match hop {
                    IpAddr::V6(hop) if !may_ask(interface, hop.into()) => {
                        make_kernel_send(interface.index, hop)?;
                    }
                    _ => make_kernel_ask(interface.index, hop)?,
                }
                asked = true;
            }
        }
        if Instant::now() >= deadline {
            return Err(NextHopError::Silent { target, hop, interface: interface.name.clone() });
        }
        thread::sleep(POLL);
    }
}

/// What is wrong with a target whatever the routes are.
fn check_target(target: IpAddr) -> Result<(), NextHopError> {
    let is_broadcast = matches!(target, IpAddr::V4(target) if target.is_broadcast());
    if target.is_multicast() || target.is_unspecified() || is_broadcast {
        return Err(NextHopError::NotUnicast { target });
    }
    match target {
        IpAddr::V6(address) if address.is_unicast_link_local() => Err(NextHopError::LinkLocal { target }),
        _ => Ok(()),
    }
}

/// Whom a packet to `target` is for on the link, as the kernel's routes and rules have it now.
fn route(interface: &Interface, target: IpAddr) -> Result<IpAddr, NextHopError> {
    let mut request = RouteMessage::default();
    request.header = RouteHeader {
        address_family: family(target),
        destination_prefix_length: if target.is_ipv4() { 32 } else { 128 },
        ..RouteHeader::default()
    };
    request.attributes.push(RouteAttribute::Destination(target.into()));
    let answer = match ask(RouteNetlinkMessage::GetRoute(request), 0) {
        Ok(messages) => messages,
        Err(error) => return Err(refusal(interface, target, error)),
    };
    let found = answer.into_iter().find_map(|message| match message {
        RouteNetlinkMessage::NewRoute(route) => Some(route),
        _ => None,
    });
    match found {
        Some(route) => hop_of(&route, interface, target),
        None => Err(no_route(interface, target)),
    }
}

fn no_route(interface: &Interface, target: IpAddr) -> NextHopError {
    NextHopError::NoRoute { target, interface: interface.name.clone() }
}

/// A route that refuses is reported as the error that a sender would see (`fib_props` of net/ipv4/fib_semantics.c,
/// `ip6_rt_type_to_error` of net/ipv6/route.c).
fn refusal(interface: &Interface, target: IpAddr, error: io::Error) -> NextHopError {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EAGAIN) => no_route(interface, target),
        Some(libc::EINVAL) => NextHopError::Refused { target, kind: "blackhole" },
        Some(libc::EHOSTUNREACH) => NextHopError::Refused { target, kind: "unreachable" },
        Some(libc::EACCES) => NextHopError::Refused { target, kind: "prohibit" },
        _ => NextHopError::Kernel(error),
    }
}

/// Whom a packet on this route is for: its gateway, or the target itself.
fn hop_of(route: &RouteMessage, interface: &Interface, target: IpAddr) -> Result<IpAddr, NextHopError> {
    match route.header.kind {
        RouteType::Unicast => {}
        RouteType::Local | RouteType::Anycast => return Err(NextHopError::Own { target }),
        RouteType::Broadcast | RouteType::Multicast => return Err(NextHopError::NotUnicast { target }),
        RouteType::BlackHole => return Err(NextHopError::Refused { target, kind: "blackhole" }),
        RouteType::Unreachable => return Err(NextHopError::Refused { target, kind: "unreachable" }),
        RouteType::Prohibit => return Err(NextHopError::Refused { target, kind: "prohibit" }),
        _ => return Err(no_route(interface, target)),
    }
    let output = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    match output {
        Some(index) if index == interface.index => {}
        Some(index) => {
            let there = name_of(index)?;
            return Err(NextHopError::Elsewhere { target, interface: interface.name.clone(), there });
        }
        None => return Err(no_route(interface, target)),
    }
    let gateway = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        // A gateway of the other family (RFC 5549).
        RouteAttribute::Via(RouteVia::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Via(RouteVia::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    Ok(gateway.unwrap_or(target))
}

/// What the kernel's neighbour table says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbour {
    /// Its Ethernet address. Stale: it was right, and nothing has confirmed it for a while.
    Known { mac: Mac, is_stale: bool },
    /// The kernel is asking for it.
    Asked,
    /// Not there, or the kernel has asked in vain.
    Unknown,
}

/// The entry of `hop` in the neighbour table of interface number `index`.
fn neighbour(index: u32, hop: IpAddr) -> io::Result<Neighbour> {
    match ask(RouteNetlinkMessage::GetNeighbour(neighbour_message(index, hop)), 0) {
        Ok(messages) => {
            let entry = messages.iter().find_map(|message| match message {
                RouteNetlinkMessage::NewNeighbour(entry) => Some(entry),
                _ => None,
            });
            Ok(entry.map_or(Neighbour::Unknown, read_entry))
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Neighbour::Unknown),
        Err(error) => Err(error),
    }
}

fn read_entry(entry: &NeighbourMessage) -> Neighbour {
    let is_stale = match entry.header.state {
        NeighbourState::Incomplete => return Neighbour::Asked,
        NeighbourState::Stale => true,
        NeighbourState::Reachable
        | NeighbourState::Delay
        | NeighbourState::Probe
        | NeighbourState::Permanent
        | NeighbourState::Noarp => false,
        _ => return Neighbour::Unknown,
    };
    let mac = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => Mac::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    mac.map_or(Neighbour::Unknown, |mac| Neighbour::Known { mac, is_stale })
}

fn neighbour_message(index: u32, hop: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header = NeighbourHeader { family: family(hop), ifindex: index, ..NeighbourHeader::default() };
    message.attributes.push(NeighbourAttribute::Destination(hop.into()));
    message
}

/// Can the kernel ask for `hop` of itself? Its neighbour solicitations start from the interface's link-local address,
/// unless a packet that waits has another (`ndisc_send_ns` of net/ipv6/ndisc.c): an interface without one sends none.
fn may_ask(interface: &Interface, hop: IpAddr) -> bool {
    let is_link_local =
        |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    hop.is_ipv4() || interface.addresses.iter().any(|(address, _)| is_link_local(address))
}

/// Makes the kernel ask on the link for `hop`, or confirm what it knows.
fn make_kernel_ask(index: u32, hop: IpAddr) -> io::Result<()> {
    let mut message = neighbour_message(index, hop);
    message.header.flags = NeighbourFlags::Use;
    ask(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_ACK).map(drop)
}

/// The same where [`may_ask`] is false: an empty datagram waits for the answer, and its source is what the kernel asks
/// from.
fn make_kernel_send(index: u32, hop: Ipv6Addr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    socket.send_to(&[], SocketAddrV6::new(hop, DISCARD, 0, index)).map(drop)
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

#[cfg(test)]
mod tests {
    use synmill_engine::flow::Prefix;

    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    fn interface(addresses: &[(&str, u8)]) -> Interface {
        let with_subnet = |&(text, bits): &(&str, u8)| {
            let ip: IpAddr = text.parse().unwrap();
            (ip, Prefix::new(ip.into(), bits).unwrap())
        };
        let addresses = addresses.iter().map(with_subnet).collect();
        Interface { index: 7, addresses, ..Interface::unknown("smc0") }
    }

    #[test]
    fn a_target_is_one_host_beyond_the_link() {
        let check = |target: &str, expected: &str| {
            let said = check_target(target.parse().unwrap()).map_err(|error| error.to_string());
            assert!(said.clone().err().unwrap_or_default().contains(expected), "{target}: {said:?}");
            assert_eq!(said.is_ok(), expected.is_empty(), "{target}");
        };
        check("198.18.0.2", "");
        check("fd00:18::2", "");
        // A gateway may be link-local, and so may an IPv4 target: its routes name one interface.
        check("169.254.1.1", "");
        check("0.0.0.0", "unicast");
        check("::", "unicast");
        check("224.0.0.1", "unicast");
        check("255.255.255.255", "unicast");
        check("ff02::1", "unicast");
        check("fe80::1", "link-local");
    }

    #[test]
    fn a_refusal_is_told_from_the_kernels_error() {
        let check = |errno: i32, expected: &str| {
            let target = "203.0.113.9".parse().unwrap();
            let said = refusal(&interface(&[]), target, io::Error::from_raw_os_error(errno)).to_string();
            assert!(said.contains(expected), "{errno}: {said}");
            assert!(!said.contains('\n'));
        };
        check(libc::ENETUNREACH, "no route to 203.0.113.9: ip route add 203.0.113.9 dev smc0");
        check(libc::EAGAIN, "no route to");
        check(libc::EINVAL, "blackhole");
        check(libc::EHOSTUNREACH, "unreachable");
        check(libc::EACCES, "prohibit: find it with ip -4 route show match 203.0.113.9");
        check(libc::EPERM, "Operation not permitted");
    }

    #[test]
    fn a_route_leads_to_its_gateway_or_to_the_target() {
        let target: IpAddr = "203.0.113.9".parse().unwrap();
        let check = |kind, more: Vec<RouteAttribute>, expected: Result<&str, &str>| {
            let mut message = RouteMessage::default();
            message.header.kind = kind;
            message.attributes = more;
            match (hop_of(&message, &interface(&[]), target), expected) {
                (Ok(hop), Ok(expected)) => assert_eq!(hop, expected.parse::<IpAddr>().unwrap()),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (said, _) => panic!("{kind:?}: {said:?} instead of {expected:?}"),
            }
        };
        let ours = || RouteAttribute::Oif(7);
        let gateway = |address: &str| RouteAttribute::Gateway(address.parse::<IpAddr>().unwrap().into());
        check(RouteType::Unicast, vec![ours()], Ok("203.0.113.9"));
        check(RouteType::Unicast, vec![gateway("198.18.0.254"), ours()], Ok("198.18.0.254"));
        let via = RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap()));
        check(RouteType::Unicast, vec![via, ours()], Ok("fe80::1"));
        check(RouteType::Unicast, vec![], Err("no route"));
        check(RouteType::Throw, vec![ours()], Err("no route"));
        check(RouteType::Local, vec![ours()], Err("an address of this host"));
        check(RouteType::Broadcast, vec![ours()], Err("unicast"));
        check(RouteType::Multicast, vec![ours()], Err("unicast"));
        check(RouteType::BlackHole, vec![], Err("blackhole"));
        check(RouteType::Unreachable, vec![], Err("unreachable"));
        check(RouteType::Prohibit, vec![], Err("prohibit"));
    }

    #[test]
    fn an_entry_is_usable_by_its_state_and_address() {
        let check = |state, address: &[u8], expected| {
            let mut entry = neighbour_message(7, "198.18.0.2".parse().unwrap());
            entry.header.state = state;
            entry.attributes.push(NeighbourAttribute::LinkLayerAddress(address.to_vec()));
            assert_eq!(read_entry(&entry), expected, "{state}");
        };
        let known = |is_stale| Neighbour::Known { mac: MAC, is_stale };
        check(NeighbourState::Reachable, &MAC, known(false));
        check(NeighbourState::Delay, &MAC, known(false));
        check(NeighbourState::Probe, &MAC, known(false));
        check(NeighbourState::Permanent, &MAC, known(false));
        check(NeighbourState::Noarp, &MAC, known(false));
        check(NeighbourState::Stale, &MAC, known(true));
        check(NeighbourState::Incomplete, &MAC, Neighbour::Asked);
        check(NeighbourState::Failed, &MAC, Neighbour::Unknown);
        check(NeighbourState::None, &MAC, Neighbour::Unknown);
        check(NeighbourState::Reachable, &[0; 8], Neighbour::Unknown);
    }

    #[test]
    fn the_kernel_solicits_neighbours_from_a_link_local_address() {
        let check = |hop: &str, addresses: &[(&str, u8)], expected| {
            assert_eq!(may_ask(&interface(addresses), hop.parse().unwrap()), expected, "{hop}");
        };
        check("198.18.0.2", &[("198.18.0.1", 24)], true);
        check("fd00:18::2", &[("fd00:18::1", 64)], false);
        check("fd00:18::2", &[("fd00:18::1", 64), ("fe80::2", 64)], true);
    }

    #[test]
    fn a_silent_gateway_is_called_one() {
        let silent = |hop: &str| {
            let (target, interface) = ("203.0.113.9".parse().unwrap(), "smc0".into());
            NextHopError::Silent { target, hop: hop.parse().unwrap(), interface }.to_string()
        };
        assert_eq!(silent("203.0.113.9"), "203.0.113.9 does not answer on smc0: is the host up?");
        assert!(silent("198.18.0.254").starts_with("198.18.0.254, the gateway to 203.0.113.9, does not"));
    }
}
