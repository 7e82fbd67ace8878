//! The kernel's routes, neighbours and links, in namespaces that the test sets up.

use std::net::IpAddr;
use std::time::Duration;

use synmill::host::Error;
use synmill::host::nic::route::next_hop;
use synmill::host::nic::{Interface, rss, statistics};
use synmill_lab::{CLIENT_INTERFACE, Lab, LabOptions, SERVER_INTERFACE, SERVER_V4, SERVER_V6, Side};

/// A MAC address that no interface has, as `ip` prints it.
const OTHER_MAC: &str = "02:00:00:00:00:99";
/// Far longer than an answer on a veth pair takes, even at the kernel's second try.
const PATIENCE: Duration = Duration::from_secs(10);

/// A lab of the test's own.
struct Stage {
    lab: Lab,
}

impl Stage {
    /// Builds the lab. No other test has this name.
    fn new(name: &str) -> Self {
        let lab = Lab::up(&format!("smt-routes-{name}"), LabOptions::default()).expect("the lab comes up");
        Self { lab }
    }

    /// Returns the output of `ip` at an end of the lab.
    fn ip_at(&self, side: Side, words: &str) -> String {
        self.lab.output(side, &format!("ip {words}")).unwrap()
    }

    /// Returns the output of `ip` at the client's end.
    fn ip(&self, words: &str) -> String {
        self.ip_at(Side::Client, words)
    }

    fn interface(&self, side: Side) -> Interface {
        self.lab.inside(side, || Interface::find(side.interface())).unwrap().unwrap()
    }

    /// Returns the next hop from the client's interface.
    fn next_hop(&self, target: &str, patience: Duration) -> Result<[u8; 6], Error> {
        let target: IpAddr = target.parse().unwrap();
        let interface = self.interface(Side::Client);
        self.lab.inside(Side::Client, || next_hop(&interface, target, patience)).unwrap()
    }

    /// Checks that the server is the next hop to the target.
    fn check_server(&self, target: &str) {
        let server = self.interface(Side::Server).mac.unwrap();
        let found = self.next_hop(target, PATIENCE).unwrap_or_else(|error| panic!("{target}: {error}"));
        assert_eq!(found, server, "{target}");
    }

    /// Checks that the target is refused in one line with this part.
    fn check_refused(&self, target: &str, expected: &str) {
        match self.next_hop(target, Duration::from_millis(50)) {
            Ok(mac) => panic!("{target} is at {mac:02x?}"),
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains(expected) && !said.contains('\n'), "{target}: {said}");
            }
        }
    }
}

#[test]
fn a_host_on_the_link_is_asked_for_and_then_known() {
    let stage = Stage::new("link");
    for target in [SERVER_V4, SERVER_V6] {
        assert_eq!(stage.ip(&format!("neigh show to {target}")), "", "a new lab knows nobody");
        stage.check_server(target);
        // Now the kernel knows the neighbour, and the call does not wait.
        assert!(stage.next_hop(target, Duration::ZERO).is_ok());
    }
}

#[test]
fn the_kernel_asks_for_itself_where_it_has_a_link_local_address() {
    let stage = Stage::new("linklocal");
    stage.ip(&format!("address add fe80::1/64 dev {CLIENT_INTERFACE} nodad"));
    stage.ip_at(Side::Server, &format!("address add fe80::2/64 dev {SERVER_INTERFACE} nodad"));
    stage.check_server(SERVER_V6);
    stage.ip(&format!("-6 route add 2001:db8::/32 via fe80::2 dev {CLIENT_INTERFACE}"));
    stage.check_server("2001:db8::9");
    stage.check_refused("fe80::2", "fe80::2 is a link-local address");
}

#[test]
fn what_the_neighbour_table_says_is_used_or_renewed() {
    let stage = Stage::new("states");
    // No host answers for this address, so nothing corrects the entry.
    for target in ["198.18.0.77", "fd00:18::77"] {
        let entry = |state: &str| {
            let lladdr = format!("{target} lladdr {OTHER_MAC} dev {CLIENT_INTERFACE} nud {state}");
            stage.ip(&format!("neigh replace {lladdr}"));
        };
        for state in ["permanent", "noarp", "reachable", "delay", "probe", "stale"] {
            entry(state);
            let found = stage.next_hop(target, Duration::ZERO);
            assert_eq!(found.unwrap(), [2, 0, 0, 0, 0, 0x99], "{target} {state}");
            let shown = stage.ip(&format!("neigh show to {target}"));
            // An administrator's entry stays as it is.
            if state == "permanent" {
                assert!(shown.contains("PERMANENT"), "{shown}");
            }
        }
    }
    // IPv4 only: without a link-local address the kernel cannot confirm an IPv6 entry.
    let shown = stage.ip("neigh show to 198.18.0.77");
    assert!(!shown.contains("STALE"), "a stale entry is being confirmed: {shown}");

    for target in [SERVER_V4, SERVER_V6] {
        stage.ip(&format!("neigh replace {target} dev {CLIENT_INTERFACE} nud failed"));
        stage.check_server(target);
    }
}

#[test]
fn a_host_behind_a_gateway_is_sent_to_the_gateway() {
    let stage = Stage::new("gateway");
    stage.ip(&format!("route add 203.0.113.0/24 via {SERVER_V4}"));
    stage.ip(&format!("-6 route add 2001:db8::/32 via {SERVER_V6}"));
    stage.ip(&format!("route add 192.0.2.0/24 via inet6 {SERVER_V6} dev {CLIENT_INTERFACE}"));
    stage.ip("route add default via 198.18.0.77");
    for target in ["203.0.113.9", "2001:db8::9", "192.0.2.9"] {
        stage.check_server(target);
    }
    stage.check_refused("192.88.99.1", "198.18.0.77, the gateway to 192.88.99.1, does not answer on smc0");
}

#[test]
fn what_cannot_be_reached_is_refused_with_a_fix() {
    let stage = Stage::new("refused");
    stage.check_refused("198.18.0.77", "198.18.0.77 does not answer on smc0: is the host up?");
    stage.check_refused("fd00:18::77", "fd00:18::77 does not answer on smc0: is the host up?");

    for own in ["198.18.0.1", "fd00:18::1", "127.0.0.1", "::1"] {
        stage.check_refused(own, &format!("{own} is an address of this host"));
    }
    for group in ["198.18.0.255", "255.255.255.255", "224.0.0.1", "ff02::1", "0.0.0.0", "::"] {
        stage.check_refused(group, "is not the address of one host");
    }
    stage.check_refused("203.0.113.9", "ip route add 203.0.113.9 dev smc0");
    stage.check_refused("2001:db8::9", "ip route add 2001:db8::9 dev smc0");

    for (third, kind) in [(1, "blackhole"), (2, "unreachable"), (3, "prohibit")] {
        stage.ip(&format!("route add {kind} 10.0.{third}.0/24"));
        stage.ip(&format!("-6 route add {kind} fd00:{third}::/32"));
        stage.check_refused(&format!("10.0.{third}.9"), &format!("is of type {kind}: find it with ip -4"));
        stage.check_refused(&format!("fd00:{third}::9"), &format!("is of type {kind}: find it with ip -6"));
    }

    stage.ip("link add name smo0 type veth peer name smo1");
    stage.ip("address add 10.9.0.1/24 dev smo0");
    stage.ip("address add fd00:9::1/64 dev smo0 nodad");
    stage.ip("link set smo1 up");
    stage.ip("link set smo0 up");
    stage.check_refused("10.9.0.2", "through smo0, not smc0: give --interface smo0");
    stage.check_refused("fd00:9::2", "through smo0, not smc0: give --interface smo0");
}

#[test]
fn the_fix_for_a_missing_route_is_one() {
    let stage = Stage::new("fix");
    for target in ["203.0.113.9", "2001:db8::9"] {
        let said = stage.next_hop(target, Duration::ZERO).unwrap_err().to_string();
        let command = said.split("ip ").nth(1).unwrap().trim_end_matches(", or ");
        stage.ip(command);
        stage.check_refused(target, "does not answer on smc0");
    }
}

#[test]
fn a_link_counts_and_veth_has_no_hash_table() {
    let stage = Stage::new("link-facts");
    let index = stage.interface(Side::Client).index;
    let count = || stage.lab.inside(Side::Client, || statistics(index)).unwrap().unwrap();
    let before = count();
    // An ARP request and its answer.
    stage.check_server(SERVER_V4);
    let counted = count().since(&before);
    assert!(counted.tx_packets >= 1 && counted.rx_packets >= 1, "{counted:?}");
    assert_eq!(counted.losses().count(), 0, "{counted:?}");
    assert_eq!(stage.lab.inside(Side::Client, || rss(CLIENT_INTERFACE, 0)).unwrap(), None);
}
