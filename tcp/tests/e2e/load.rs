//! wrk, with and without keep-alive: every request is answered.

use crate::harness::{Server, Stage, run};

/// What wrk says of two seconds with 64 connections: requests answered. One error fails the test.
fn wrk(stage: &Stage, options: &[&str]) -> u64 {
    let argv = [&["wrk", "--threads", "1", "--connections", "64", "--duration", "2s"], options].concat();
    let output = run(&mut stage.client(&[&argv[..], &["http://198.18.0.2/"]].concat()));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let line = said.lines().find(|line| line.contains(" requests in ")).unwrap_or_else(|| panic!("{said}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn wrk_with_keep_alive_sees_no_error() {
    let stage = Stage::new("wrk");
    let server = Server::start(&stage, &["--listen", "198.18.0.2:80", "--service", "http:1024"]);
    let requests = wrk(&stage, &[]);
    assert!(requests > 100, "{requests} requests");
    server.stop(&stage);
}

#[test]
fn wrk_with_a_connection_a_request_sees_no_error() {
    let stage = Stage::new("wrkclose");
    let server = Server::start(&stage, &["--listen", "198.18.0.2:80", "--service", "http:1024"]);
    let requests = wrk(&stage, &["--header", "Connection: close"]);
    assert!(requests > 100, "{requests} requests");
    assert!(server.stop(&stage).count("passive_opens") >= requests);
}
