//! Addresses that only synmill has: the kernel's ARP, neighbour discovery and ping find them.

use synmill_lab::SERVER_INTERFACE;

use crate::client::curl;
use crate::harness::{Server, Stage};

#[test]
fn an_address_of_ours_is_found_pinged_and_served() {
    let stage = Stage::new("owned");
    let arguments = ["--listen", "198.18.0.9:80", "--listen", "[fd00:18::9]:80", "--service", "http:100"];
    let server = Server::start(&stage, &arguments);
    for (address, host) in [("198.18.0.9", "198.18.0.9"), ("fd00:18::9", "[fd00:18::9]")] {
        stage.ask(&["ping", "-c", "3", "-i", "0.01", "-w", "10", address]);
        assert_eq!(curl(&stage, &format!("http://{host}/")).bytes, 100);
    }
    let report = server.stop(&stage);
    assert_eq!(report.count("echo_answers"), 6);
    assert!(report.count("neighbour_answers") >= 2);
}

/// A network card's filter drops what goes to groups that nobody is a member of; a veth has none, so its list is looked at.
#[test]
fn the_groups_that_are_asked_for_our_addresses_are_joined_while_it_runs() {
    let stage = Stage::new("groups");
    let groups = || stage.at_server(&["ip", "maddress", "show", "dev", SERVER_INTERFACE]);
    // Two addresses may share a group.
    let owned = ["33:33:ff:bb:cc:dd", "ff02::1:ffbb:ccdd", "33:33:ff:00:00:99"];
    let before = groups();
    assert!(owned.iter().all(|group| !before.contains(group)), "{before}");
    let addresses = ["[fd00:18::aabb:ccdd]:80", "[fd00:18::1:aabb:ccdd]:80", "[fd00:18::99]:80"];
    let arguments = addresses.map(|address| ["--listen", address]).concat();
    let server = Server::start(&stage, &[arguments.as_slice(), &["--listen", "198.18.0.9:80"]].concat());
    let during = groups();
    assert!(owned.iter().all(|group| during.contains(group)), "{during}");
    server.stop(&stage);
    assert_eq!(groups(), before);
}

#[test]
fn the_kernel_still_answers_for_its_own() {
    let stage = Stage::new("shared");
    let server = Server::start(&stage, &["--listen", "198.18.0.2:80", "--listen", "[fd00:18::2]:80"]);
    for address in ["198.18.0.2", "fd00:18::2"] {
        stage.ask(&["ping", "-c", "3", "-i", "0.01", "-w", "10", address]);
    }
    assert_eq!(server.stop(&stage).count("echo_answers"), 0);
}
