//! The plan of `synmill serve`: whose addresses its listeners' are, and whether the kernel's TCP has their ports.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Socket, Type};

use super::memory::Wanted;
use super::{Machine, Plan};
use crate::face::config::Config;
use crate::host::nic::{Flow, Interface};
use synmill_engine::endpoint::memory_needed;
use synmill_engine::flow::Prefix;

impl Plan {
    /// The plan for listeners: an address that the kernel does not have is ours.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub fn serve<S>(config: &Config<S>, interface: &Interface, machine: &Machine) -> Result<Self, String> {
        let mut plan = Self::new(&config.rings, interface, machine)?;
        let here = interface.addresses.iter().map(|&(ip, _)| ip);
        let kernels: Vec<IpAddr> = here.chain(interface.elsewhere.iter().map(|&(ip, _)| ip)).collect();
        for listener in config.listeners() {
            let ip = listener.address.ip();
            let owned = Prefix::host(ip.into());
            if ip.is_unspecified() || kernels.contains(&ip) {
                check_free(listener.address, &kernels, machine.is_in_use)?;
            } else if !plan.owned.contains(&owned) {
                plan.owned.push(owned);
            }
        }
        plan.bring(config.listeners().iter().map(|listener| Flow::TcpTo(listener.address)), interface)?;
        let wanted = Wanted {
            connections: config.max_connections(),
            least: None,
            workers: &plan.workers,
            buffers: plan.buffers,
            mtu: interface.mtu,
        };
        wanted.check(machine.memory_bytes, memory_needed)?;
        plan.notes.extend(notes(config, interface, machine, &plan.owned));
        Ok(plan)
    }
}

/// What is steered to us is taken from the kernel's sockets, and its connections would be reset. The unspecified address takes from
/// those of all the kernel's addresses but loopback's, which no packet comes for.
fn check_free(
    address: SocketAddr,
    kernels: &[IpAddr],
    is_in_use: fn(SocketAddr) -> bool,
) -> Result<(), String> {
    let (ip, port) = (address.ip(), address.port());
    let is_meant = |there: &IpAddr| {
        *there == ip || ip.is_unspecified() && there.is_ipv4() == ip.is_ipv4() && !there.is_loopback()
    };
    if kernels.iter().filter(|there| is_meant(there)).any(|&there| is_in_use(SocketAddr::new(there, port))) {
        return Err(format!(
            "{address} is in use: a socket of the kernel's TCP has it (see `ss -tanp sport = :{port}`): stop its owner, or choose \
             another port"
        ));
    }
    Ok(())
}

/// Does the kernel refuse a server of its own TCP this address, because a socket has it? Other refusals say nothing of that.
pub(super) fn is_in_use(address: SocketAddr) -> bool {
    bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// Binds as servers do, so that connections in TIME-WAIT are not in the way, and lets go at once.
fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // An IPv6 address may still be looked for on the link.
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&address.into())
}

fn notes<S>(config: &Config<S>, interface: &Interface, machine: &Machine, owned: &[Prefix]) -> Vec<String> {
    let mut notes = Vec::new();
    let name = &interface.name;
    for listener in config.listeners() {
        let (address, ip) = (listener.address, listener.address.ip());
        if ip.is_unspecified() {
            let family = |other: &IpAddr| other.is_ipv4() == ip.is_ipv4();
            if !interface.addresses.iter().any(|(ip, _)| family(ip)) {
                notes.push(format!(
                    "{name} has no address for --listen {address}: only packets routed to it by others arrive"
                ));
            }
            if if ip.is_ipv4() { machine.forwards.0 } else { machine.forwards.1 } {
                notes.push(format!(
                    "this host forwards packets, and --listen {address} takes those to port {} of any host: \
                     name an address instead",
                    address.port()
                ));
            }
        }
        if let Some((_, other)) = interface.elsewhere.iter().find(|(there, _)| *there == ip) {
            notes.push(format!(
                "{ip} is an address of {other}: the kernel answers for it, and packets to it have to find their way to {name}"
            ));
        }
        if machine.may_take(address.port()) && !owned.contains(&Prefix::host(ip.into())) {
            notes.push(format!(
                "--listen {address}: the kernel may take port {0} for a connection of its own, whose answers would come here: \
                 add {0} to sysctl net.ipv4.ip_local_reserved_ports",
                address.port()
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::port_ranges;
    use super::super::tests::{config, interface, machine, notes};
    use super::*;

    #[test]
    fn an_address_the_kernel_does_not_have_is_owned_once() {
        let config =
            config("--listen 198.18.0.9:1 --listen 198.18.0.9:2 --listen [fd00:18::9]:1 --listen 0.0.0.0:3");
        let plan = Plan::serve(&config, &interface(), &machine(4)).unwrap();
        let owned: Vec<String> = plan.owned.iter().map(ToString::to_string).collect();
        assert_eq!(owned, ["198.18.0.9/32", "fd00:18::9/128"]);
    }

    #[test]
    fn what_the_kernels_tcp_has_is_refused() {
        let refused = |listen: &str, is_in_use: fn(SocketAddr) -> bool| {
            let machine = Machine { is_in_use, ..machine(4) };
            Plan::serve(&config(&format!("--listen {listen}")), &interface(), &machine).err()
        };
        let port_22: fn(SocketAddr) -> bool = |address| address.port() == 22;
        for listen in ["198.18.0.2:22", "198.19.0.1:22", "0.0.0.0:22"] {
            let line = refused(listen, port_22).expect(listen);
            let words = format!(
                "{listen} is in use: a socket of the kernel's TCP has it (see `ss -tanp sport = :22`): "
            );
            assert!(line.starts_with(&words), "{line}");
        }
        // Another port, an address that only we have, and a family that the kernel has no address of.
        for listen in ["198.18.0.2:23", "198.18.0.9:22", "[::]:22"] {
            assert_eq!(refused(listen, port_22), None, "{listen}");
        }
        let elsewhere: fn(SocketAddr) -> bool = |address| address.to_string() == "198.19.0.1:22";
        assert_eq!(refused("198.18.0.2:22", elsewhere), None);
        assert!(refused("0.0.0.0:22", elsewhere).is_some());
    }

    #[test]
    fn the_kernel_tells_what_is_in_use() {
        for ip in ["127.0.0.1", "::1"] {
            let listener = TcpListener::bind((ip, 0)).expect(ip);
            assert!(is_in_use(listener.local_addr().unwrap()), "{ip}");
        }
        // The same port of another address is free, and so is one that the kernel has no address for.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for ip in [[127, 0, 0, 2], [198, 51, 100, 1]] {
            assert!(!is_in_use((ip, port).into()), "{ip:?}");
        }
    }

    #[test]
    fn ports_that_the_kernel_may_take_are_noted() {
        let listen = |address: &str| notes(&format!("--listen {address}"), |_, _| {});
        for address in ["198.18.0.2:50000", "0.0.0.0:32768", "198.19.0.1:60999"] {
            let notes = listen(address);
            assert!(
                notes.iter().any(|note| note.contains("ip_local_reserved_ports")),
                "{address}: {notes:?}"
            );
        }
        // Outside the range, reserved, and at an address that the kernel does not have.
        for address in ["198.18.0.2:61000", "198.18.0.2:40001", "198.18.0.9:50000"] {
            assert_eq!(listen(address), [""; 0], "{address}");
        }
        assert_eq!(port_ranges("8080,9000-9010\n"), [(8080, 8080), (9000, 9010)]);
        assert_eq!(port_ranges("\n"), []);
    }

    #[test]
    fn traffic_that_is_not_for_this_host_is_noted() {
        let v4 = |_: &mut Interface, machine: &mut Machine| machine.forwards = (true, false);
        let taken = notes("--listen 0.0.0.0:81", v4);
        assert!(taken.iter().any(|note| note.contains("port 81 of any host")), "{taken:?}");
        assert_eq!(notes("--listen 198.18.0.2:81", v4), [""; 0]);
        let v6 = |interface: &mut Interface, machine: &mut Machine| {
            interface.addresses.push(("fd00:18::2".parse().unwrap(), "fd00:18::/64".parse().unwrap()));
            machine.forwards = (true, false);
        };
        assert_eq!(notes("--listen [::]:81", v6), [""; 0]);
    }

    #[test]
    fn an_address_of_another_interface_stays_the_kernels() {
        let plan = Plan::serve(&config("--listen 198.19.0.1:80"), &interface(), &machine(4)).unwrap();
        assert_eq!(plan.owned, []);
        assert!(plan.notes[0].contains("198.19.0.1 is an address of t1"), "{:?}", plan.notes);
    }
}
