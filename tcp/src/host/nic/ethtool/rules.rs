//! Flow rules: a rule sends packets to a queue, or spreads them over a context's queues, whatever their hash.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::request::{Class, ClassList, Ethtool, MAX_RULES, Spec, ask};

/// `ETHTOOL_GRXCLSRLCNT`, `ETHTOOL_GRXCLSRULE`, `ETHTOOL_GRXCLSRLALL`, `ETHTOOL_SRXCLSRLDEL` and `ETHTOOL_SRXCLSRLINS` of
/// linux/ethtool.h.
pub(crate) const COUNT_RULES: u32 = 0x2e;
pub(crate) const GET_RULE: u32 = 0x2f;
pub(crate) const LIST_RULES: u32 = 0x30;
pub(crate) const DELETE_RULE: u32 = 0x31;
pub(crate) const ADD_RULE: u32 = 0x32;
/// `RX_CLS_LOC_SPECIAL`: the driver finds a location for a rule at [`ANYWHERE`], `RX_CLS_LOC_ANY`.
pub(crate) const CHOOSES: u64 = 1 << 31;
pub(crate) const ANYWHERE: u32 = u32::MAX;
/// `TCP_V4_FLOW`, `TCP_V6_FLOW`, `IPV6_USER_FLOW` and `ETHER_FLOW`.
const TCP_V4: u32 = 0x01;
const TCP_V6: u32 = 0x05;
const IPV6: u32 = 0x0e;
const ETHER: u32 = 0x12;
/// `FLOW_RSS`: the rule names a context.
pub(crate) const BY_CONTEXT: u32 = 1 << 29;
/// IEEE 802 number and IANA protocol number.
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const PROTOCOL_ICMPV6: u8 = 58;

/// The packets of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// TCP to this address and port. The unspecified address stands for every address of its family.
    TcpTo(SocketAddr),
    /// TCP from this address and port.
    TcpFrom(SocketAddr),
    /// ARP.
    Arp,
    /// ICMPv6, which neighbour discovery is a part of.
    Icmpv6,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TcpTo(end) => write!(f, "TCP to {end}"),
            Self::TcpFrom(end) => write!(f, "TCP from {end}"),
            Self::Arp => f.write_str("ARP"),
            Self::Icmpv6 => f.write_str("ICMPv6"),
        }
    }
}

/// The destination of a rule's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A queue.
    Queue(u32),
    /// The queues of an RSS context.
    Context(u32),
}

/// A rule of the NIC.
pub(crate) struct Rule {
    /// Its number in the NIC's table.
    pub(crate) location: u32,
    /// `None`: the NIC sends the packets elsewhere, or drops them.
    pub(crate) action: Option<Action>,
    matched: Match,
}

impl Rule {
    /// Returns whether the rule is for exactly this flow.
    pub(crate) fn is_for(&self, flow: Flow) -> bool {
        self.matched == Match::of(flow)
    }
}

/// A flow in the form of `struct ethtool_rx_flow_spec`.
#[derive(Clone, PartialEq, Eq)]
struct Match {
    kind: u32,
    fields: [u8; 52],
    mask: [u8; 52],
}

impl Match {
    fn of(flow: Flow) -> Self {
        match flow {
            Flow::TcpTo(end) => Self::tcp(end, true),
            Flow::TcpFrom(end) => Self::tcp(end, false),
            // `struct ethhdr`: two addresses before the type.
            Flow::Arp => Self::any(ETHER).with(12, &ETHERTYPE_ARP),
            // `struct ethtool_usrip6_spec`: two addresses, four bytes of the next header and the traffic class before it.
            Flow::Icmpv6 => Self::any(IPV6).with(37, &[PROTOCOL_ICMPV6]),
        }
    }

    /// `struct ethtool_tcpip4_spec` or `ethtool_tcpip6_spec`: addresses and ports, the source's before the destination's.
    fn tcp(end: SocketAddr, to: bool) -> Self {
        let (kind, len) = if end.is_ipv4() { (TCP_V4, 4) } else { (TCP_V6, 16) };
        let (address, port) = if to { (len, 2 * len + 2) } else { (0, 2 * len) };
        let matched = Self::any(kind).with(port, &end.port().to_be_bytes());
        match end.ip() {
            ip if ip.is_unspecified() => matched,
            IpAddr::V4(ip) => matched.with(address, &ip.octets()),
            IpAddr::V6(ip) => matched.with(address, &ip.octets()),
        }
    }

    const fn any(kind: u32) -> Self {
        Self { kind, fields: [0; 52], mask: [0; 52] }
    }

    /// Adds bytes to match at a place.
    fn with(mut self, at: usize, bytes: &[u8]) -> Self {
        self.fields[at..at + bytes.len()].copy_from_slice(bytes);
        self.mask[at..at + bytes.len()].fill(u8::MAX);
        self
    }
}

/// Returns whether the driver has flow rules.
pub(super) fn has_rules(nic: &dyn Ethtool) -> io::Result<bool> {
    Ok(ask(nic, Class::new(COUNT_RULES))?.is_some())
}

/// The NIC's rules, and its room for more.
pub(crate) struct Table {
    pub(crate) rules: Vec<Rule>,
    /// The number of locations, unless the driver chooses.
    room: u32,
    chooses: bool,
}

impl Table {
    /// Reads the present rules.
    pub(crate) fn read(nic: &dyn Ethtool) -> io::Result<Self> {
        let mut count = Class::new(COUNT_RULES);
        nic.carry(&mut count)?;
        if count.count_or_context as usize > MAX_RULES {
            let line = format!("it has {} rules, and {MAX_RULES} are read", count.count_or_context);
            return Err(io::Error::other(line));
        }
        let mut list = Box::new(ClassList::new(LIST_RULES));
        list.count_or_context = count.count_or_context;
        nic.carry(&mut *list)?;
        let locations = list.locations.iter().take(list.count_or_context as usize);
        let rules = locations.map(|&location| read_rule(nic, location)).collect::<io::Result<_>>()?;
        let chooses = count.data & CHOOSES != 0;
        Ok(Self { rules, room: (list.data & !CHOOSES) as u32, chooses })
    }

    /// Adds a rule. Returns its location.
    ///
    /// # Errors
    /// The kernel's; ENOSPC if there is no room.
    pub(crate) fn add(&mut self, nic: &dyn Ethtool, flow: Flow, action: Action) -> io::Result<u32> {
        let is_free = |location: &u32| self.rules.iter().all(|rule| rule.location != *location);
        // From the end, behind the rules of others.
        let free = || (0..self.room).rev().find(is_free);
        let location = if self.chooses { Some(ANYWHERE) } else { free() };
        let location = location.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))?;
        let matched = Match::of(flow);
        let mut request = Class::new(ADD_RULE);
        let (kind, ring) = match action {
            Action::Queue(queue) => (matched.kind, queue.into()),
            Action::Context(context) => {
                request.count_or_context = context;
                (matched.kind | BY_CONTEXT, 0)
            }
        };
        let (fields, mask) = (matched.fields, matched.mask);
        request.rule = Spec { flow: kind, fields, mask, ring, location, ..request.rule };
        nic.carry(&mut request)?;
        let location = request.rule.location;
        self.rules.push(Rule { location, action: Some(action), matched });
        Ok(location)
    }
}

/// Removes a rule.
pub(crate) fn delete(nic: &dyn Ethtool, location: u32) -> io::Result<()> {
    let mut request = Class::new(DELETE_RULE);
    request.rule.location = location;
    nic.carry(&mut request)
}

fn read_rule(nic: &dyn Ethtool, location: u32) -> io::Result<Rule> {
    let mut request = Class::new(GET_RULE);
    request.rule.location = location;
    nic.carry(&mut request)?;
    let Spec { flow, fields, mask, ring, .. } = request.rule;
    let action = match u32::try_from(ring) {
        Ok(0) if flow & BY_CONTEXT != 0 => Some(Action::Context(request.count_or_context)),
        Ok(queue) if flow & BY_CONTEXT == 0 => Some(Action::Queue(queue)),
        _ => None,
    };
    // A rule with further fields (`FLOW_EXT`, `FLOW_MAC_EXT`) has another kind.
    Ok(Rule { location, action, matched: Match { kind: flow & !BY_CONTEXT, fields, mask } })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::mem::offset_of;

    use super::super::request::Request;
    use super::*;

    /// The offsets of linux/ethtool.h, counted by hand: 4 + 4 + 8 before the rule, 4 + 52 + 20 before its mask.
    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!((offset_of!(Class, flow), offset_of!(Class, data), offset_of!(Class, rule)), (4, 8, 16));
        assert_eq!((offset_of!(Class, count_or_context), offset_of!(ClassList, locations)), (184, 188));
        assert_eq!((offset_of!(Spec, fields), offset_of!(Spec, mask)), (4, 4 + 52 + 20));
        assert_eq!((offset_of!(Spec, ring), offset_of!(Spec, location), size_of::<Spec>()), (152, 160, 168));
    }

    /// Returns the bytes that are set, with their places. Each has a full mask, and nothing else has a mask.
    fn bytes(flow: Flow) -> (u32, Vec<(usize, u8)>) {
        let Match { kind, fields, mask } = Match::of(flow);
        let at = |place: &usize| mask[*place] != 0;
        assert!((0..52).all(|place| matches!((mask[place], fields[place]), (0xff, _) | (0, 0))));
        (kind, (0..52).filter(at).map(|place| (place, fields[place])).collect())
    }

    #[test]
    fn a_flow_is_matched_by_what_it_names_and_nothing_else() {
        let end = |text: &str| text.parse().unwrap();
        let v4 = |at: usize| [198, 18, 0, 2].into_iter().enumerate().map(move |(n, byte)| (at + n, byte));
        let with = |address: Vec<(usize, u8)>, at, port: [u8; 2]| {
            address.into_iter().chain([(at, port[0]), (at + 1, port[1])]).collect::<Vec<_>>()
        };
        let (to, from) = (Flow::TcpTo(end("198.18.0.2:8080")), Flow::TcpFrom(end("198.18.0.2:8080")));
        assert_eq!(bytes(to), (1, with(v4(4).collect(), 10, [0x1f, 0x90])));
        assert_eq!(bytes(from), (1, with(v4(0).collect(), 8, [0x1f, 0x90])));
        assert_eq!(bytes(Flow::TcpTo(end("0.0.0.0:80"))), (1, with(Vec::new(), 10, [0, 80])));
        let v6 = |at: usize| (0..16).map(|n| (at + n, if n == 0 { 0xfd } else { n as u8 })).collect();
        let text = "[fd01:203:405:607:809:a0b:c0d:e0f]:80";
        assert_eq!(bytes(Flow::TcpTo(end(text))), (5, with(v6(16), 34, [0, 80])));
        assert_eq!(bytes(Flow::TcpFrom(end(text))), (5, with(v6(0), 32, [0, 80])));
        assert_eq!(bytes(Flow::TcpTo(end("[::]:80"))), (5, with(Vec::new(), 34, [0, 80])));
        assert_eq!(bytes(Flow::Arp), (0x12, vec![(12, 8), (13, 6)]));
        assert_eq!(bytes(Flow::Icmpv6), (0x0e, vec![(37, 58)]));
    }

    /// A driver that keeps the requests to add a rule.
    struct Listener(RefCell<Vec<Class>>);

    impl Ethtool for Listener {
        fn name(&self) -> &str {
            "t0"
        }

        fn carry(&self, request: &mut dyn Request) -> io::Result<()> {
            let request: &mut dyn std::any::Any = request;
            let class = request.downcast_ref::<Class>().unwrap();
            self.0.borrow_mut().push(class.clone());
            Ok(())
        }
    }

    #[test]
    fn a_rule_names_a_queue_or_a_context() {
        let nic = Listener(RefCell::new(Vec::new()));
        let mut table = Table { rules: Vec::new(), room: 3, chooses: false };
        let flow = Flow::TcpTo("198.18.0.2:80".parse().unwrap());
        assert_eq!(table.add(&nic, flow, Action::Queue(5)).unwrap(), 2);
        assert_eq!(table.add(&nic, flow, Action::Context(7)).unwrap(), 1);
        table.chooses = true;
        assert_eq!(table.add(&nic, Flow::Arp, Action::Queue(0)).unwrap(), ANYWHERE);
        let sent = nic.0.into_inner();
        let told: Vec<_> = sent
            .iter()
            .map(|class| (class.command, class.rule.flow, class.rule.ring, class.count_or_context))
            .collect();
        assert_eq!(told, [(0x32, 1, 5, 0), (0x32, 0x2000_0001, 0, 7), (0x32, 0x12, 0, 0)]);
    }
}
