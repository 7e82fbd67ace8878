//! wrk, with and without keep-alive: synmill answers every request.

use crate::harness::{Stage, run};

/// Runs wrk for two seconds with 64 connections, and returns the answered requests. One error fails the test.
fn wrk(stage: &Stage, options: &[&str]) -> u64 {
    let mut command = stage.client("wrk --threads 1 --connections 64 --duration 2s");
    let output = run(command.args(options).arg("http://198.18.0.2/"));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let line = said.lines().find(|line| line.contains(" requests in ")).unwrap_or_else(|| panic!("{said}"));
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn wrk_with_keep_alive_sees_no_error() {
    let stage = Stage::new("wrk");
    let server = stage.serve("--listen 198.18.0.2:80 --service http:1024");
    let requests = wrk(&stage, &[]);
    assert!(requests > 100, "{requests} requests");
    server.stop();
}

#[test]
fn wrk_with_a_connection_a_request_sees_no_error() {
    let stage = Stage::new("wrkclose");
    let server = stage.serve("--listen 198.18.0.2:80 --service http:1024");
    let requests = wrk(&stage, &["--header", "Connection: close"]);
    assert!(requests > 100, "{requests} requests");
    assert!(server.stop().count("passive_opens") >= requests);
}
