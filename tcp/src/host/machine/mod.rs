//! The facts about the machine.

mod capabilities;
pub mod cpu;
mod memory;

use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use crate::text::parse_range;

pub use capabilities::{check as check_capabilities, how_to_permit};
pub(crate) use memory::meminfo_bytes;

/// The facts that a plan depends on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Cores that this process may run on.
    pub cores: Vec<usize>,
    /// Effective capabilities, one bit each (`CapEff` of proc_pid_status(5)).
    pub capabilities: u64,
    /// First and last port that the kernel may give its own connections (`net.ipv4.ip_local_port_range`, for IPv6 too).
    pub local_ports: (u16, u16),
    /// Ranges, both ends included, that the kernel leaves out of those ports (`net.ipv4.ip_local_reserved_ports`).
    pub reserved_ports: Vec<(u16, u16)>,
    /// Whether the machine forwards packets of IPv4 and of IPv6.
    pub forwards: (bool, bool),
    /// Bytes of memory that this process may still take, if that is known.
    pub memory_bytes: Option<u64>,
    /// Returns whether a socket of the kernel's TCP has an address and port.
    pub is_in_use: fn(SocketAddr) -> bool,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn here() -> Self {
        let cores =
            core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        let setting = |name: &str| fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap_or_default();
        let range = setting("ipv4/ip_local_port_range");
        let mut range = range.split_whitespace().map_while(|port| port.parse().ok());
        let forwards = |name: &str| !matches!(setting(name).trim(), "" | "0");
        Self {
            cores,
            // Without /proc nothing is known, and the kernel decides.
            capabilities: status_bits("CapEff").unwrap_or(u64::MAX),
            // If nothing is known there is no such port: none is above the first and below the last.
            local_ports: range.next().zip(range.next()).unwrap_or((u16::MAX, 0)),
            reserved_ports: port_ranges(&setting("ipv4/ip_local_reserved_ports")),
            forwards: (forwards("ipv4/ip_forward"), forwards("ipv6/conf/all/forwarding")),
            memory_bytes: memory::available_bytes(),
            is_in_use,
        }
    }

    /// Returns whether the kernel may give this port to a connection of its own.
    #[must_use]
    pub fn may_take(&self, port: u16) -> bool {
        let within = |&(first, last): &(u16, u16)| (first..=last).contains(&port);
        within(&self.local_ports) && !self.reserved_ports.iter().any(within)
    }
}

/// Returns a hexadecimal field of this process's proc_pid_status(5).
pub(crate) fn status_bits(field: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    u64::from_str_radix(value.trim(), 16).ok()
}

/// Reads ports in the form of the kernel's lists: `8080,9000-9010`.
fn port_ranges(list: &str) -> Vec<(u16, u16)> {
    list.trim().split(',').filter_map(parse_range).collect()
}

/// Returns whether the kernel refuses a server of its own TCP this address because a socket has it.
fn is_in_use(address: SocketAddr) -> bool {
    bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

/// Binds as servers do, so that connections in TIME-WAIT do not matter, and closes the socket.
fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Duplicate address detection of an IPv6 address may still be running.
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn this_machine_has_cores() {
        assert!(!Machine::here().cores.is_empty());
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
    fn ports_are_read_as_the_kernel_lists_them() {
        assert_eq!(port_ranges("8080,9000-9010\n"), [(8080, 8080), (9000, 9010)]);
        assert_eq!(port_ranges("\n"), []);
    }
}
