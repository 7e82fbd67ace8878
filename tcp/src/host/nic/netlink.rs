//! Questions to rtnetlink.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use synmill_engine::flow::Prefix;

/// Finds the first value in a list that matches a pattern, and takes a part of it.
macro_rules! first {
    ($list:expr, $($pattern:pat => $value:expr),+) => {
        $list.into_iter().find_map(|item| match item {
            $($pattern => Some($value),)+
            _ => None,
        })
    };
}
pub(super) use first;

/// Returns the link message of interface number `index`; `None` if this network namespace has no such interface.
pub(super) fn link_message(index: u32) -> io::Result<Option<LinkMessage>> {
    let mut request = LinkMessage::default();
    request.header.index = index;
    match ask(RouteNetlinkMessage::GetLink(request), 0) {
        Ok(messages) => Ok(first!(messages, RouteNetlinkMessage::NewLink(link) => link)),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the name of a link.
pub(super) fn name(link: &LinkMessage) -> Option<&str> {
    first!(&link.attributes, LinkAttribute::IfName(name) => name.as_str())
}

/// Returns the name of interface number `index`, or the number itself if the interface is gone.
pub(super) fn name_of(index: u32) -> io::Result<String> {
    let link = link_message(index)?;
    Ok(link.as_ref().and_then(name).map_or_else(|| index.to_string(), str::to_owned))
}

/// Returns the addresses of all interfaces: the interface's number, the address, its subnet.
pub(super) fn addresses() -> io::Result<Vec<(u32, IpAddr, Prefix)>> {
    let mut addresses = Vec::new();
    for message in ask(RouteNetlinkMessage::GetAddress(AddressMessage::default()), NLM_F_DUMP)? {
        let RouteNetlinkMessage::NewAddress(address) = message else { continue };
        // On a point-to-point link `Address` is the peer's and `Local` is ours.
        let local = first!(&address.attributes, AddressAttribute::Local(ip) => *ip);
        let ip = local.or_else(|| first!(&address.attributes, AddressAttribute::Address(ip) => *ip));
        let subnet = |ip| Prefix::new(ip, address.header.prefix_len).unwrap_or(Prefix::host(ip));
        addresses.extend(ip.map(|ip| (address.header.index, ip, subnet(ip.into()))));
    }
    Ok(addresses)
}

/// Most datagrams of one dump: 32 KiB each, far more than any machine's interfaces need.
const MAX_DATAGRAMS: usize = 4096;

/// Returns the kernel's answer to `request`: all messages with [`NLM_F_DUMP`], one message without it, none if `NLM_F_ACK` asks only
/// for success.
pub(super) fn ask(request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
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
                // An acknowledgement is an error of code 0.
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok(messages),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
        }
        if flags & NLM_F_DUMP == 0 {
            return Ok(messages);
        }
    }
    Err(io::Error::other("the kernel's answer does not end"))
}
