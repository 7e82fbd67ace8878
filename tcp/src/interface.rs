//! What the kernel says about a network interface, and which groups it is a member of. Knows rtnetlink, ethtool and memberships; never
//! packets or configuration.
#![allow(
    unsafe_code,
    reason = "ethtool's requests have no safe wrapper; the one block states what keeps it sound"
)]

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::wire::Mac;

/// An interface at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number in this network namespace.
    pub index: u32,
    /// Its Ethernet address; `None` for an interface without one.
    pub mac: Option<Mac>,
    /// The largest IP packet, in bytes.
    pub mtu: usize,
    /// Switched on (IFF_UP).
    pub up: bool,
    /// There is a carrier (IFF_LOWER_UP): the other end is there and on.
    pub carrier: bool,
    /// Its addresses, each with its prefix length in bits.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The addresses of the host's other interfaces, each with its interface's name.
    pub elsewhere: Vec<(IpAddr, String)>,
    /// There are VLAN interfaces on top of it.
    pub carries_vlans: bool,
    /// What its driver does to packets before anyone sees them.
    pub offloads: Offloads,
    /// The active queues.
    pub queues: Queues,
    /// The driver's name as ethtool shows it; empty if it has none.
    pub driver: String,
    /// The identifier of the XDP program attached to it.
    pub xdp_program: Option<u32>,
}

/// Settings (`ethtool -k`) that change what a program sees of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// `large-receive-offload`: several segments arrive as one packet.
    pub lro: bool,
    /// `rx-vlan-offload`: the VLAN tag is taken off.
    pub strips_vlan: bool,
}

/// Active queues, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queues {
    /// Receive queues.
    pub rx: usize,
    /// Transmit queues.
    pub tx: usize,
}

/// Why there are no facts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No interface has the name.
    #[error("no interface {name} in this network namespace: there are {}", there.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        there: Vec<String>,
    },
    /// The kernel did not answer, or not as expected.
    #[error("asking the kernel about interfaces: {0}")]
    Kernel(#[from] io::Error),
}

impl Interface {
    /// The interface called `name`, as it is now.
    ///
    /// # Errors
    /// [`Error::Unknown`] with the names there are, or what rtnetlink said.
    pub fn find(name: &str) -> Result<Self, Error> {
        let mut there = Vec::new();
        let mut links = Vec::new();
        for message in ask(RouteNetlinkMessage::GetLink(LinkMessage::default()), NLM_F_DUMP)? {
            let RouteNetlinkMessage::NewLink(link) = message else { continue };
            let Some(called) = link.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            }) else {
                continue;
            };
            there.push(called);
            links.push(link);
        }
        let Some(place) = there.iter().position(|called| called == name) else {
            return Err(Error::Unknown { name: name.into(), there });
        };
        let mut interface = Self::of(name, &links[place]);
        interface.carries_vlans = links.iter().any(|link| is_vlan_on(link, interface.index));
        for (index, address, prefix_len) in addresses()? {
            if index == interface.index {
                interface.addresses.push((address, prefix_len));
            } else if let Some(other) = links.iter().position(|link| link.header.index == index) {
                interface.elsewhere.push((address, there[other].clone()));
            }
        }
        interface.offloads = offloads(name)?;
        interface.queues = queues(name, interface.index)?;
        interface.driver = driver(name)?;
        Ok(interface)
    }

    /// What rtnetlink says of the link itself.
    fn of(name: &str, link: &LinkMessage) -> Self {
        let mut interface = Self {
            name: name.into(),
            index: link.header.index,
            mac: None,
            mtu: 0,
            up: link.header.flags.contains(LinkFlags::Up),
            carrier: link.header.flags.contains(LinkFlags::LowerUp),
            addresses: Vec::new(),
            elsewhere: Vec::new(),
            carries_vlans: false,
            offloads: Offloads::default(),
            queues: Queues { rx: 1, tx: 1 },
            driver: String::new(),
            xdp_program: None,
        };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Address(bytes) if link.header.link_layer_type == LinkLayerType::Ether => {
                    interface.mac = Mac::try_from(bytes.as_slice()).ok();
                }
                LinkAttribute::Mtu(mtu) => interface.mtu = *mtu as usize,
                LinkAttribute::Xdp(attributes) => {
                    interface.xdp_program = attributes.iter().find_map(|attribute| match attribute {
                        LinkXdp::ProgId(id) if *id != 0 => Some(*id),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        interface
    }
}

/// Is this link a VLAN interface on top of interface number `index`?
fn is_vlan_on(link: &LinkMessage, index: u32) -> bool {
    let is_vlan = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.contains(&LinkInfo::Kind(InfoKind::Vlan)),
        _ => false,
    };
    link.attributes.contains(&LinkAttribute::Link(index)) && link.attributes.iter().any(is_vlan)
}

/// Whether an interface can carry packets at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// On, with a carrier.
    Up,
    /// On, without a carrier.
    NoCarrier,
    /// Switched off.
    Down,
    /// Not in this network namespace any more.
    Gone,
}

/// The state of interface number `index`.
///
/// # Errors
/// What rtnetlink said.
pub fn link(index: u32) -> io::Result<Link> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    match ask(RouteNetlinkMessage::GetLink(request), 0) {
        Ok(messages) => {
            let flags = messages.iter().find_map(|message| match message {
                RouteNetlinkMessage::NewLink(link) => Some(link.header.flags),
                _ => None,
            });
            Ok(match flags {
                None => Link::Gone,
                Some(flags) if !flags.contains(LinkFlags::Up) => Link::Down,
                Some(flags) if !flags.contains(LinkFlags::LowerUp) => Link::NoCarrier,
                Some(_) => Link::Up,
            })
        }
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Link::Gone),
        Err(error) => Err(error),
    }
}

/// The multicast group that is asked for the Ethernet address of `address` (RFC 4291 section 2.7.1).
#[must_use]
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, u16::from_be_bytes([0xff, a]), u16::from_be_bytes([b, c]))
}

/// Makes the host a member of `group`, of link scope, on interface number `index` for as long as the socket is open. The
/// interface's filter then lets the group's frames in, and the kernel reports the membership to switches (RFC 3810).
///
/// # Errors
/// What the kernel said: without IPv6 on the interface there is no membership.
pub fn join(index: u32, group: Ipv6Addr) -> io::Result<UdpSocket> {
    // Bound to the group itself: nothing that is sent to an address of the host's ends up here.
    let socket = UdpSocket::bind(SocketAddrV6::new(group, 0, 0, index))?;
    socket.join_multicast_v6(&group, index)?;
    Ok(socket)
}

/// The addresses of all interfaces: the interface's number, the address, its prefix length in bits.
fn addresses() -> io::Result<Vec<(u32, IpAddr, u8)>> {
    let mut addresses = Vec::new();
    for message in ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)? {
        let RouteNetlinkMessage::NewAddress(address) = message else { continue };
        // On a point-to-point link `Address` is the peer's and `Local` is ours.
        let local = address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
        let ip = local.or_else(|| {
            address.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            })
        });
        addresses.extend(ip.map(|ip| (address.header.index, ip, address.header.prefix_len)));
    }
    Ok(addresses)
}

/// The most datagrams of one dump: 32 KiB each, far beyond any machine's interfaces.
const MAX_DATAGRAMS: usize = 4096;

/// What the kernel says to `request`: with [`NLM_F_DUMP`] all there is, without it one message.
fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let bad = |error: netlink_packet_core::DecodeError| {
        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
    };
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = NetlinkMessage::from(request);
    request.header.flags = NLM_F_REQUEST | flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut messages = Vec::new();
    for _ in 0..MAX_DATAGRAMS {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(bad)?;
            // Messages are aligned to four bytes (NLMSG_ALIGN).
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length.max(4)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(message) => messages.push(message),
                NetlinkPayload::Done(_) => return Ok(messages),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        if flags & NLM_F_DUMP == 0 {
            return Ok(messages);
        }
    }
    Err(io::Error::other("the kernel's list of interfaces does not end"))
}

/// `ETHTOOL_GDRVINFO`, `ETHTOOL_GFLAGS` and `ETHTOOL_GCHANNELS` of linux/ethtool.h.
const GET_DRIVER: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
const GET_CHANNELS: u32 = 0x3c;
/// `ETH_FLAG_RXVLAN` and `ETH_FLAG_LRO`.
const RX_VLAN: u32 = 1 << 8;
const LRO: u32 = 1 << 15;

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    // version, firmware, bus, eeprom's name, reserved, and five counts: not read.
    rest: [u8; 32 + 32 + 32 + 32 + 12 + 5 * 4],
}

/// `struct ethtool_channels`.
#[repr(C)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// A request structure of ethtool's: plain integers, its command first, as large as the kernel's of that command.
trait Request {}
const _: () =
    assert!(size_of::<DriverInfo>() == 196 && size_of::<Channels>() == 36 && size_of::<Value>() == 8);
impl Request for DriverInfo {}
impl Request for Channels {}
impl Request for Value {}

/// Asks the driver of `name`; `None` if it does not answer such requests.
fn ethtool<R: Request>(name: &str, mut request: R) -> io::Result<Option<R>> {
    // Any socket carries the request; this one takes no address.
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    let mut ifr_name = [0; libc::IFNAMSIZ];
    // The last byte stays 0.
    for (to, from) in ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut request).cast() };
    let mut ifreq = libc::ifreq { ifr_name, ifr_ifru };
    // SAFETY: SIOCETHTOOL reads and writes the structure that `ifru_data` points to, whose layout its first field names.
    // `Request` is only implemented for structures of exactly that layout (sizes asserted above), `request` lives until
    // the call returns, and any bytes are valid for its integers.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut ifreq) };
    if result == 0 {
        return Ok(Some(request));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EINVAL) => Ok(None),
        _ => Err(error),
    }
}

/// The line that gives interface `name` of this driver `count` queues each way.
#[must_use]
pub fn set_queues(name: &str, driver: &str, count: usize) -> String {
    // veth knows no combined channels.
    if driver == "veth" {
        format!("ethtool -L {name} rx {count} tx {count}")
    } else {
        format!("ethtool -L {name} combined {count}")
    }
}

/// The driver's name, empty if it has none.
///
/// # Errors
/// What the kernel said.
pub fn driver(name: &str) -> io::Result<String> {
    let request = DriverInfo { command: GET_DRIVER, driver: [0; 32], rest: [0; 160] };
    let Some(info) = ethtool(name, request)? else { return Ok(String::new()) };
    let length = info.driver.iter().position(|&byte| byte == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..length]).into_owned())
}

fn offloads(name: &str) -> io::Result<Offloads> {
    let flags = ethtool(name, Value { command: GET_FLAGS, data: 0 })?.map_or(0, |flags| flags.data);
    Ok(Offloads { lro: flags & LRO != 0, strips_vlan: flags & RX_VLAN != 0 })
}

/// The active queues of `name`. Attaching a program can change them: ask again then.
///
/// # Errors
/// What the kernel said; a driver without channels is asked by its queues in sysfs, and has one queue without those.
pub fn queues(name: &str, index: u32) -> io::Result<Queues> {
    let request = Channels {
        command: GET_CHANNELS,
        max_rx: 0,
        max_tx: 0,
        max_other: 0,
        max_combined: 0,
        rx: 0,
        tx: 0,
        other: 0,
        combined: 0,
    };
    if let Some(channels) = ethtool(name, request)? {
        let (rx, tx) = (channels.rx + channels.combined, channels.tx + channels.combined);
        if rx > 0 && tx > 0 {
            return Ok(Queues { rx: rx as usize, tx: tx as usize });
        }
    }
    // sysfs can be another namespace's, where the same name is another interface.
    let folder = format!("/sys/class/net/{name}");
    let shown = fs::read_to_string(format!("{folder}/ifindex")).ok();
    if shown.and_then(|text| text.trim().parse().ok()) != Some(index) {
        return Ok(Queues { rx: 1, tx: 1 });
    }
    let count = |prefix: &str| -> io::Result<usize> {
        let names = fs::read_dir(format!("{folder}/queues"))?.filter_map(Result::ok);
        Ok(names.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).count().max(1))
    };
    Ok(Queues { rx: count("rx-")?, tx: count("tx-")? })
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
            assert!(lo.addresses.contains(&(Ipv4Addr::LOCALHOST.into(), 8)));
        }
        assert!(lo.elsewhere.iter().all(|(address, name)| !address.is_loopback() && name != "lo"));
        assert!(!lo.offloads.lro && !lo.carries_vlans);
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
