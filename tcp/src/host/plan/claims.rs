//! The addresses and ports that a run takes from the kernel and from the network.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use synmill_engine::flow::Prefix;

use crate::host::machine::Machine;
use crate::host::nic::{Flow, Interface};

/// The work of the workers.
#[derive(Clone, Debug)]
pub enum Role {
    /// They serve connections to these listeners.
    Listen(Vec<SocketAddr>),
    /// They open connections.
    Generate {
        /// The addresses to connect from.
        sources: Vec<Prefix>,
        /// The addresses and ports to connect to.
        targets: Vec<SocketAddr>,
        /// The number of connections that are open at a time, if the load is one.
        concurrency: Option<usize>,
    },
}

/// The claims of a role.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Addresses and ports whose TCP the program steers.
    pub(super) listeners: Vec<SocketAddr>,
    /// Addresses that only synmill has.
    pub(super) owned: Vec<Prefix>,
    /// The TCP that must come to the workers' queues.
    pub(super) flows: Vec<Flow>,
    /// Surprises that are no errors, a line each.
    pub(super) notes: Vec<String>,
}

impl Claims {
    /// The claims of a role.
    ///
    /// # Errors
    /// One line: the address or port that is somebody else's, and how to fix it.
    pub(super) fn of(role: &Role, interface: &Interface, machine: &Machine) -> Result<Self, String> {
        match role {
            Role::Listen(listeners) => Self::of_listeners(listeners, interface, machine),
            Role::Generate { sources, targets, .. } => {
                check_addresses(sources, targets, interface)?;
                Ok(Self {
                    listeners: Vec::new(),
                    owned: sources.clone(),
                    flows: targets.iter().map(|&target| Flow::TcpFrom(target)).collect(),
                    notes: sources.iter().filter_map(|source| source_note(source, interface)).collect(),
                })
            }
        }
    }

    /// An address that the kernel does not have is ours.
    fn of_listeners(
        listeners: &[SocketAddr],
        interface: &Interface,
        machine: &Machine,
    ) -> Result<Self, String> {
        let mut claims = Self { listeners: listeners.to_vec(), ..Self::default() };
        let here = interface.addresses.iter().map(|&(ip, _)| ip);
        let kernels: Vec<IpAddr> = here.chain(interface.elsewhere.iter().map(|&(ip, _)| ip)).collect();
        for &listener in listeners {
            let owned = Prefix::host(listener.ip().into());
            if listener.ip().is_unspecified() || kernels.contains(&listener.ip()) {
                check_free(listener, &kernels, machine.is_in_use)?;
            } else if !claims.owned.contains(&owned) {
                claims.owned.push(owned);
            }
        }
        claims.flows = listeners.iter().map(|&listener| Flow::TcpTo(listener)).collect();
        for &listener in listeners {
            let is_owned = claims.owned.contains(&Prefix::host(listener.ip().into()));
            claims.notes.extend(listener_notes(listener, is_owned, interface, machine));
        }
        Ok(claims)
    }
}

/// Refuses a listener whose port a socket of the kernel's has: steering would take the socket's packets, and the workers would reset its
/// connections. The unspecified address takes from sockets of all the kernel's addresses but loopback's, for which no packet arrives.
fn check_free(
    listener: SocketAddr,
    kernels: &[IpAddr],
    is_in_use: fn(SocketAddr) -> bool,
) -> Result<(), String> {
    let (ip, port) = (listener.ip(), listener.port());
    let is_meant = |there: &IpAddr| {
        *there == ip || ip.is_unspecified() && there.is_ipv4() == ip.is_ipv4() && !there.is_loopback()
    };
    if kernels.iter().filter(|there| is_meant(there)).any(|&there| is_in_use(SocketAddr::new(there, port))) {
        return Err(format!(
            "{listener} is in use: a socket of the kernel's TCP has it (see `ss -tanp sport = :{port}`): stop its owner, or choose \
             another port"
        ));
    }
    Ok(())
}

fn listener_notes(
    listener: SocketAddr,
    is_owned: bool,
    interface: &Interface,
    machine: &Machine,
) -> Vec<String> {
    let mut notes = Vec::new();
    let (name, ip, port) = (&interface.name, listener.ip(), listener.port());
    if ip.is_unspecified() {
        if !interface.addresses.iter().any(|(other, _)| other.is_ipv4() == ip.is_ipv4()) {
            notes.push(format!(
                "{name} has no address for --listen {listener}: only packets routed to it by others arrive"
            ));
        }
        if if ip.is_ipv4() { machine.forwards.0 } else { machine.forwards.1 } {
            notes.push(format!(
                "this host forwards packets, and --listen {listener} takes those to port {port} of any host: \
                 name an address instead"
            ));
        }
    }
    if let Some((_, other)) = interface.elsewhere.iter().find(|(there, _)| *there == ip) {
        notes.push(format!(
            "{ip} is an address of {other}: the kernel answers for it, and packets to it have to find their way to {name}"
        ));
    }
    if machine.may_take(port) && !is_owned {
        notes.push(format!(
            "--listen {listener}: the kernel may take port {port} for a connection of its own, whose answers would come here: \
             add {port} to sysctl net.ipv4.ip_local_reserved_ports"
        ));
    }
    notes
}

/// Refuses the kernel's own addresses at either end of a connection.
fn check_addresses(sources: &[Prefix], targets: &[SocketAddr], interface: &Interface) -> Result<(), String> {
    let name = &interface.name;
    let here = interface.addresses.iter().map(|(address, _)| (*address, name));
    let elsewhere = interface.elsewhere.iter().map(|(address, name)| (*address, name));
    for (address, owner) in here.chain(elsewhere) {
        if let Some(source) = sources.iter().find(|source| source.contains(address.into())) {
            return Err(format!(
                "--source {source} holds {address}, which the kernel has on {owner}: give addresses that nobody has, \
                 such as a part of it without {address}"
            ));
        }
        if let Some(target) = targets.iter().find(|target| target.ip() == address) {
            return Err(format!(
                "--target {target} is this host's own, on {owner}, and packets to it never leave by {name}: \
                 give another host's"
            ));
        }
    }
    Ok(())
}

/// Returns the obstacle between a source and its answers, and how to fix it.
fn source_note(source: &Prefix, interface: &Interface) -> Option<String> {
    let name = &interface.name;
    if let Some((_, subnet)) = interface.addresses.iter().find(|(_, subnet)| subnet.overlaps(source)) {
        let address =
            not_a_hosts(subnet).into_iter().flatten().find(|&address| source.contains(address.into()))?;
        return Some(format!(
            "--source {source} holds {address}, which is no host's in {subnet}: connections from it fail; give a prefix without it"
        ));
    }
    let same_family = |(ip, _): &&(IpAddr, Prefix)| ip.is_ipv4() == source.first().is_v4();
    // A link-local address leads here, too, but only from this link: any other comes first.
    let ours: Vec<IpAddr> = interface.addresses.iter().filter(same_family).map(|&(ip, _)| ip).collect();
    let is_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let way = match ours.iter().find(|&ip| !is_local(ip)).or(ours.first()) {
        Some(ip) if is_local(ip) => format!("via {ip} dev <its interface>"),
        Some(ip) => format!("via {ip}"),
        None => "dev <its interface>".into(),
    };
    Some(format!(
        "--source {source} is in no subnet of {name}: answers come only if the target, or the router to it, has a route; \
         there: ip route add {source} {way}"
    ))
}

/// Returns a subnet's own address and its broadcast address (RFC 1122 section 3.2.1.3). Only IPv4 has them, and only a subnet of more than
/// two addresses (RFC 3021).
fn not_a_hosts(subnet: &Prefix) -> Option<[IpAddr; 2]> {
    match subnet.first().to_ip() {
        IpAddr::V4(first) if subnet.len() < 31 => {
            let last = Ipv4Addr::from_bits(first.to_bits() | u32::MAX >> subnet.len());
            Some([first.into(), last.into()])
        }
        _ => None,
    }
}
