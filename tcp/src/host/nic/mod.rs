//! A network interface: the kernel's facts about it, and the settings that a run makes and takes back.
//!
//! - [`route`]: the next hop to a target.
//! - [`spread`]: settings that bring packets to certain queues.

mod ethtool;
mod mtu;
mod netlink;
pub mod route;
pub mod spread;
mod statistics;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};

use super::Error;

use self::ethtool::facts::{help, offloads};
use self::ethtool::request::Nic;
use self::netlink::{addresses, ask, first, link_message};
use synmill_engine::flow::Prefix;
use synmill_engine::wire::Mac;

pub use self::ethtool::facts::{Help, Offloads, Queues, driver, queues, set_queues};
pub use self::ethtool::hash::{HashKey, RssTable, rss};
pub use self::ethtool::rules::Flow;
pub use self::mtu::{buffers, max_mtu, one_buffer_mtu};
pub use self::statistics::{Statistics, statistics};

/// The facts about an interface at a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// The name.
    pub name: String,
    /// The number in this network namespace.
    pub index: u32,
    /// The Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// The largest IP packet, in bytes.
    pub mtu: usize,
    /// The interface is switched on (IFF_UP).
    pub up: bool,
    /// There is a carrier (IFF_LOWER_UP): the other end of the link is there and on.
    pub carrier: bool,
    /// Its addresses, each with its subnet: the kernel looks for an address of a subnet on the link.
    pub addresses: Vec<(IpAddr, Prefix)>,
    /// The addresses of the host's other interfaces, each with its interface's name.
    pub elsewhere: Vec<(IpAddr, String)>,
    /// There are VLAN interfaces on top of this one.
    pub carries_vlans: bool,
    /// The driver's changes to packets before a program sees them.
    pub offloads: Offloads,
    /// The active queues.
    pub queues: Queues,
    /// The NIC's means to send packets to certain queues.
    pub help: Help,
    /// The driver's name as ethtool shows it, empty if it has none.
    pub driver: String,
    /// The identifier of the attached XDP program.
    pub xdp_program: Option<u32>,
}

impl Interface {
    /// The interface `name` as it is now.
    ///
    /// # Errors
    /// This network namespace has no such interface, or the kernel does not answer.
    pub fn find(name: &str) -> Result<Self, Error> {
        let failed = |error: io::Error| format!("asking the kernel about interfaces: {error}");
        let mut there = Vec::new();
        let mut links = Vec::new();
        for message in
            ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP).map_err(failed)?
        {
            let RouteNetlinkMessage::NewLink(link) = message else { continue };
            let Some(called) = netlink::name(&link).map(str::to_owned) else { continue };
            there.push(called);
            links.push(link);
        }
        let Some(place) = there.iter().position(|called| called == name) else {
            let there = there.join(", ");
            return Err(format!("no interface {name} in this network namespace: there are {there}").into());
        };
        let mut interface = Self::of(name, &links[place]);
        interface.carries_vlans = links.iter().any(|link| is_vlan_on(link, interface.index));
        for (index, address, subnet) in addresses().map_err(failed)? {
            if index == interface.index {
                interface.addresses.push((address, subnet));
            } else if let Some(other) = links.iter().position(|link| link.header.index == index) {
                interface.elsewhere.push((address, there[other].clone()));
            }
        }
        interface.read_again().map_err(failed)?;
        interface.help = help(&Nic(name.into()));
        interface.driver = driver(name).map_err(failed)?;
        Ok(interface)
    }

    /// Reads again the facts that an attachment may change: the queues (virtio-net), and LRO, which XDP excludes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read_again(&mut self) -> io::Result<()> {
        self.offloads = offloads(&self.name)?;
        self.queues = queues(&self.name, self.index)?;
        Ok(())
    }

    /// The facts of a link message.
    fn of(name: &str, link: &LinkMessage) -> Self {
        let mut interface = Self {
            index: link.header.index,
            up: link.header.flags.contains(LinkFlags::Up),
            carrier: link.header.flags.contains(LinkFlags::LowerUp),
            name: name.into(),
            ..Self::default()
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Address(bytes) if link.header.link_layer_type == LinkLayerType::Ether => {
                    interface.mac = Mac::try_from(bytes.as_slice()).ok();
                }
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu as usize,
                LinkAttribute::Xdp(attributes) => {
                    interface.xdp_program = first!(attributes, LinkXdp::ProgId(id @ 1..) => *id);
                }
                _ => {}
            }
        }
        interface
    }
}

/// Returns whether a link is a VLAN interface on top of interface number `index`.
fn is_vlan_on(link: &LinkMessage, index: u32) -> bool {
    let infos = first!(&link.attributes, LinkAttribute::LinkInfo(infos) => infos);
    link.attributes.contains(&LinkAttribute::Link(index))
        && infos.is_some_and(|infos| infos.contains(&LinkInfo::Kind(InfoKind::Vlan)))
}

/// An interface's ability to carry packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Switched on, with a carrier.
    Up,
    /// Switched on, without a carrier.
    NoCarrier,
    /// Switched off.
    Down,
    /// Removed, or moved to another network namespace.
    Gone,
}

/// Returns the state of interface number `index`.
///
/// # Errors
/// The kernel's.
pub fn link(index: u32) -> io::Result<Link> {
    Ok(match link_message(index)?.map(|link| link.header.flags) {
        None => Link::Gone,
        Some(flags) if !flags.contains(LinkFlags::Up) => Link::Down,
        Some(flags) if !flags.contains(LinkFlags::LowerUp) => Link::NoCarrier,
        Some(_) => Link::Up,
    })
}

/// Returns the multicast group that neighbours ask for the Ethernet address of `address` (RFC 4291 section 2.7.1).
#[must_use]
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, u16::from_be_bytes([0xff, a]), u16::from_be_bytes([b, c]))
}

/// Makes the host a member of `group`, of link scope, on interface number `index` until the socket is closed. The interface's filter
/// then lets the group's frames in, and the kernel reports the membership to switches (RFC 3810).
///
/// # Errors
/// The kernel's: without IPv6 on the interface there is no membership.
pub fn join(index: u32, group: Ipv6Addr) -> io::Result<UdpSocket> {
    // Bound to the group itself, the socket receives no packet for an address of the host.
    let socket = UdpSocket::bind(SocketAddrV6::new(group, 0, 0, index))?;
    socket.join_multicast_v6(&group, index)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_loopback_interface_is_described() {
        let lo = Interface::find("lo").unwrap();
        assert_eq!((lo.index, lo.mac, lo.driver.as_str()), (1, None, ""));
        assert!(lo.mtu >= 1500);
        assert_eq!(lo.queues, Queues { rx: 1, tx: 1 });
        if lo.up {
            assert!(lo.addresses.contains(&(Ipv4Addr::LOCALHOST.into(), "127.0.0.0/8".parse().unwrap())));
        }
        assert!(lo.elsewhere.iter().all(|(address, name)| !address.is_loopback() && name != "lo"));
        assert!(!lo.offloads.lro && !lo.carries_vlans);
    }

    #[test]
    fn what_an_attachment_changes_is_read_again() {
        let lo = Interface::find("lo").unwrap();
        let offloads = Offloads { lro: true, ..lo.offloads };
        let mut then = Interface { offloads, queues: Queues { rx: 7, tx: 7 }, ..lo.clone() };
        then.read_again().unwrap();
        assert_eq!(then, lo);
    }

    #[test]
    fn a_link_is_there_or_gone() {
        let lo = Interface::find("lo").unwrap();
        assert_eq!(link(lo.index).unwrap(), if lo.up { Link::Up } else { Link::Down });
        assert_eq!(link(0x7fff_fff0).unwrap(), Link::Gone);
    }

    #[test]
    fn the_solicited_node_group_ends_like_the_address() {
        let group = solicited_node("fd00:18::aabb:ccdd".parse().unwrap());
        assert_eq!(group.to_string(), "ff02::1:ffbb:ccdd");
    }

    #[test]
    fn an_unknown_interface_names_those_there_are() {
        let error = Interface::find("synmill-none").unwrap_err().to_string();
        assert!(error.contains("no interface synmill-none") && error.contains("lo"), "{error}");
    }
}
