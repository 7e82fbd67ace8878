//! Addresses that only synmill has: the kernel's ARP, neighbour discovery and ping find them.

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

#[test]
fn the_kernel_still_answers_for_its_own() {
    let stage = Stage::new("shared");
    let server = Server::start(&stage, &["--listen", "198.18.0.2:80", "--listen", "[fd00:18::2]:80"]);
    for address in ["198.18.0.2", "fd00:18::2"] {
        stage.ask(&["ping", "-c", "3", "-i", "0.01", "-w", "10", address]);
    }
    assert_eq!(server.stop(&stage).count("echo_answers"), 0);
}
