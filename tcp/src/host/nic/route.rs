//! The next hop to a target, by the kernel's routes and its neighbour table.

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
use super::netlink::{ask, first, name_of};
use crate::host::Error;
use synmill_engine::wire::Mac;

/// Time between two looks at the neighbour table.
const POLL: Duration = Duration::from_millis(10);
/// The port of RFC 863, whose service discards datagrams.
const DISCARD: u16 = 9;

/// The kernel did not answer, or not as expected.
fn kernel(error: impl Into<io::Error>) -> Error {
    format!("asking the kernel for the way to the target: {}", error.into()).into()
}

/// Returns the Ethernet address that a packet to `target` is sent to: the target's own or a gateway's. If the kernel does not know it,
/// `next_hop` makes the kernel ask on the link (this needs CAP_NET_ADMIN), and waits for `patience`.
///
/// # Errors
/// One line: why nothing can be sent to the target, and how to fix it.
pub fn next_hop(interface: &Interface, target: IpAddr, patience: Duration) -> Result<Mac, Error> {
    check_target(target)?;
    let hop = route(interface, target)?;
    let deadline = Instant::now() + patience;
    let mut asked = false;
    loop {
        match neighbour(interface.index, hop).map_err(kernel)? {
            Neighbour::Known { mac, is_stale } => {
                if is_stale && may_ask(interface, hop) {
                    // The address is good to use. Its confirmation only helps others.
                    let _ = make_kernel_ask(interface.index, hop);
                }
                return Ok(mac);
            }
            Neighbour::Asked if asked => {}
            Neighbour::Asked | Neighbour::Unknown => {
                let made = match hop {
                    IpAddr::V6(hop) if !may_ask(interface, hop.into()) => {
                        make_kernel_send(interface.index, hop)
                    }
                    _ => make_kernel_ask(interface.index, hop),
                };
                made.map_err(kernel)?;
                asked = true;
            }
        }
        if Instant::now() >= deadline {
            return Err(silent(interface, target, hop));
        }
        thread::sleep(POLL);
    }
}

/// The next hop has not told its Ethernet address.
fn silent(interface: &Interface, target: IpAddr, hop: IpAddr) -> Error {
    let gateway = if hop == target { String::new() } else { format!(", the gateway to {target},") };
    format!("{hop}{gateway} does not answer on {}: is the host up?", interface.name).into()
}

/// Refuses a target that no route can lead to.
fn check_target(target: IpAddr) -> Result<(), Error> {
    let is_broadcast = matches!(target, IpAddr::V4(target) if target.is_broadcast());
    if target.is_multicast() || target.is_unspecified() || is_broadcast {
        return Err(not_unicast(target));
    }
    match target {
        // Each interface has a route to it, and a connection's key names no interface.
        IpAddr::V6(address) if address.is_unicast_link_local() => Err(format!(
            "{target} is a link-local address: give a global or unique local address of that host as target"
        )
        .into()),
        _ => Ok(()),
    }
}

fn not_unicast(target: IpAddr) -> Error {
    format!("{target} is not the address of one host: give a unicast address as target").into()
}

/// Returns the next hop to `target` on the link, by the kernel's present routes and rules.
fn route(interface: &Interface, target: IpAddr) -> Result<IpAddr, Error> {
    let mut request = RouteMessage::default();
    request.header = RouteHeader {
        address_family: family(target),
        destination_prefix_length: if target.is_ipv4() { 32 } else { 128 },
        ..RouteHeader::default()
    };
    request.attributes.push(RouteAttribute::Destination(target.into()));
    let answer =
        ask(RouteNetlinkMessage::GetRoute(request), 0).map_err(|error| refusal(interface, target, error))?;
    let found = first!(answer, RouteNetlinkMessage::NewRoute(route) => route);
    hop_of(&found.ok_or_else(|| no_route(interface, target))?, interface, target)
}

fn no_route(interface: &Interface, target: IpAddr) -> Error {
    let route = format!("ip route add {target}");
    let name = &interface.name;
    format!("no route to {target}: {route} dev {name}, or {route} via GATEWAY dev {name}").into()
}

/// A route of this type of ip-route(8) refuses.
fn refused(target: IpAddr, kind: &str) -> Error {
    let family = if target.is_ipv4() { "-4" } else { "-6" };
    format!(
        "the route to {target} is of type {kind}: find it with ip {family} route show match {target}, and remove it"
    )
    .into()
}

/// The kernel reports a route that refuses as the error that a sender would see (`fib_props` of net/ipv4/fib_semantics.c,
/// `ip6_rt_type_to_error` of net/ipv6/route.c).
fn refusal(interface: &Interface, target: IpAddr, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENETUNREACH | libc::EAGAIN) => no_route(interface, target),
        Some(libc::EINVAL) => refused(target, "blackhole"),
        Some(libc::EHOSTUNREACH) => refused(target, "unreachable"),
        Some(libc::EACCES) => refused(target, "prohibit"),
        _ => kernel(error),
    }
}

/// Returns the next hop of a route: its gateway, or the target itself.
fn hop_of(route: &RouteMessage, interface: &Interface, target: IpAddr) -> Result<IpAddr, Error> {
    match route.header.kind {
        RouteType::Unicast => {}
        // The kernel itself answers, and no interface sees a packet.
        RouteType::Local | RouteType::Anycast => {
            return Err(
                format!("{target} is an address of this host: give one of another host as target").into()
            );
        }
        RouteType::Broadcast | RouteType::Multicast => return Err(not_unicast(target)),
        RouteType::BlackHole => return Err(refused(target, "blackhole")),
        RouteType::Unreachable => return Err(refused(target, "unreachable")),
        RouteType::Prohibit => return Err(refused(target, "prohibit")),
        _ => return Err(no_route(interface, target)),
    }
    match first!(&route.attributes, RouteAttribute::Oif(index) => *index) {
        Some(index) if index == interface.index => {}
        Some(index) => {
            let (there, name) = (name_of(index).map_err(kernel)?, &interface.name);
            return Err(format!(
                "the route to {target} is through {there}, not {name}: give --interface {there}"
            )
            .into());
        }
        None => return Err(no_route(interface, target)),
    }
    let gateway = first!(
        &route.attributes,
        RouteAttribute::Gateway(RouteAddress::Inet(address)) => IpAddr::V4(*address),
        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => IpAddr::V6(*address),
        // A gateway of the other family (RFC 5549).
        RouteAttribute::Via(RouteVia::Inet(address)) => IpAddr::V4(*address),
        RouteAttribute::Via(RouteVia::Inet6(address)) => IpAddr::V6(*address)
    );
    Ok(gateway.unwrap_or(target))
}

/// The state of an address in the kernel's neighbour table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Neighbour {
    /// Its Ethernet address. A stale address was right, and nothing has confirmed it for a while.
    Known { mac: Mac, is_stale: bool },
    /// The kernel is asking for it.
    Asked,
    /// The table has no entry, or the kernel has asked in vain.
    Unknown,
}

/// Returns the state of `hop` in the neighbour table of interface number `index`.
fn neighbour(index: u32, hop: IpAddr) -> io::Result<Neighbour> {
    match ask(RouteNetlinkMessage::GetNeighbour(neighbour_message(index, hop)), 0) {
        Ok(messages) => {
            let entry = first!(&messages, RouteNetlinkMessage::NewNeighbour(entry) => entry);
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
    let bytes = first!(&entry.attributes, NeighbourAttribute::LinkLayerAddress(bytes) => bytes);
    let mac = bytes.and_then(|bytes| Mac::try_from(bytes.as_slice()).ok());
    mac.map_or(Neighbour::Unknown, |mac| Neighbour::Known { mac, is_stale })
}

fn neighbour_message(index: u32, hop: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header = NeighbourHeader { family: family(hop), ifindex: index, ..NeighbourHeader::default() };
    message.attributes.push(NeighbourAttribute::Destination(hop.into()));
    message
}

/// Returns whether the kernel can ask for `hop` by itself. It sends neighbour solicitations from the interface's link-local address,
/// unless a waiting packet has another (`ndisc_send_ns` of net/ipv6/ndisc.c). An interface without such an address sends none.
fn may_ask(interface: &Interface, hop: IpAddr) -> bool {
    let is_link_local =
        |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    hop.is_ipv4() || interface.addresses.iter().any(|(address, _)| is_link_local(address))
}

/// Makes the kernel ask for `hop` on the link, or confirm its address.
fn make_kernel_ask(index: u32, hop: IpAddr) -> io::Result<()> {
    let mut message = neighbour_message(index, hop);
    message.header.flags = NeighbourFlags::Use;
    ask(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_ACK).map(drop)
}

/// Makes the kernel ask for `hop` where [`may_ask`] is false: an empty datagram waits for the answer, and the kernel asks from the
/// datagram's source.
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
        Interface { name: "smc0".into(), index: 7, addresses, ..Interface::default() }
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
            let target = "203.0.113.9".parse().unwrap();
            silent(&interface(&[]), target, hop.parse().unwrap()).to_string()
        };
        assert_eq!(silent("203.0.113.9"), "203.0.113.9 does not answer on smc0: is the host up?");
        assert!(silent("198.18.0.254").starts_with("198.18.0.254, the gateway to 203.0.113.9, does not"));
    }
}
