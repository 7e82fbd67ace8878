//! Addresses that only synmill has: the kernel's ARP, neighbour discovery and ping find them.

use synmill_lab::SERVER_INTERFACE;

use crate::client::curl;
use crate::harness::Stage;

#[test]
fn an_address_of_ours_is_found_pinged_and_served() {
    let stage = Stage::new("owned");
    let server = stage.serve("--listen 198.18.0.9:80 --listen [fd00:18::9]:80 --service http:100");
    for (address, host) in [("198.18.0.9", "198.18.0.9"), ("fd00:18::9", "[fd00:18::9]")] {
        stage.ask(&format!("ping -c 3 -i 0.01 -w 10 {address}"));
        assert_eq!(curl(&stage, &format!("http://{host}/")).bytes, 100);
    }
    let report = server.stop();
    assert_eq!(report.count("echo_answers"), 6);
    assert!(report.count("neighbour_answers") >= 2);
}

/// The filter of a NIC drops packets to multicast groups without a member. A veth has no filter, so this test reads the list of groups.
#[test]
fn the_groups_that_are_asked_for_our_addresses_are_joined_while_it_runs() {
    let stage = Stage::new("groups");
    let groups = || stage.at_server(&format!("ip maddress show dev {SERVER_INTERFACE}"));
    // Two addresses may share a group.
    let owned = ["33:33:ff:bb:cc:dd", "ff02::1:ffbb:ccdd", "33:33:ff:00:00:99"];
    let before = groups();
    assert!(owned.iter().all(|group| !before.contains(group)), "{before}");
    let addresses = ["[fd00:18::aabb:ccdd]:80", "[fd00:18::1:aabb:ccdd]:80", "[fd00:18::99]:80"];
    let listen = addresses.map(|address| format!("--listen {address} ")).concat();
    let server = stage.serve(&format!("{listen} --listen 198.18.0.9:80"));
    let during = groups();
    assert!(owned.iter().all(|group| during.contains(group)), "{during}");
    server.stop();
    assert_eq!(groups(), before);
}

#[test]
fn the_kernel_still_answers_for_its_own() {
    let stage = Stage::new("shared");
    let server = stage.serve("--listen 198.18.0.2:80 --listen [fd00:18::2]:80");
    for address in ["198.18.0.2", "fd00:18::2"] {
        stage.ask(&format!("ping -c 3 -i 0.01 -w 10 {address}"));
    }
    assert_eq!(server.stop().count("echo_answers"), 0);
}
