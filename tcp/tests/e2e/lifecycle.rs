//! The responder's end, wanted or not, with connections open.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::path::Path;

use nix::sys::signal::Signal;
use synmill_lab::{CLIENT_INTERFACE, Process, Side};

use crate::client::{connect, curl, say, try_connect};
use crate::harness::{Program, Stage, until};

const SERVE: &str = "--listen 198.18.0.2:80 --service http:1024";

/// Starts a client that never stops, with a connection for each request, and waits until it has opened a thousand.
fn under_load(stage: &Stage) -> Process {
    let opened = stage.kernel_tcp(Side::Client, "ActiveOpens");
    let mut command = stage.client("wrk --threads 1 --connections 64 --duration 60s");
    command.args(["--header", "Connection: close", "http://198.18.0.2/"]);
    let wrk = Process::spawn(&mut command).unwrap();
    until("a thousand connections were opened", || {
        stage.kernel_tcp(Side::Client, "ActiveOpens") > opened + 1000
    });
    wrk
}

#[test]
fn sigterm_under_load_drains_and_the_accounts_close() {
    let stage = Stage::new("term");
    let server = stage.serve(SERVE);
    let wrk = under_load(&stage);
    let report = server.stop();
    assert!(report.count("passive_opens") > 1000);
    assert_eq!(
        report.count("curr_connections"),
        report.count("curr_time_wait"),
        "more than TIME-WAIT is left"
    );
    drop(wrk);
}

#[test]
fn after_kill_nothing_is_left_and_a_new_one_starts_at_once() {
    let stage = Stage::new("kill");
    let wrk = {
        let server = stage.serve(SERVE);
        let wrk = under_load(&stage);
        server.kill();
        wrk
    };
    assert!(!stage.is_attached(Side::Server), "an XDP program is left on the interface");
    let server = stage.serve(SERVE);
    assert_eq!(curl(&stage, "http://198.18.0.2/").bytes, 1024);
    drop(wrk);
    server.stop();
}

#[test]
fn it_ends_after_its_duration() {
    let stage = Stage::new("duration");
    let server = stage.serve(&format!("{SERVE} --duration 100ms"));
    server.end().good();
}

#[test]
fn it_ends_after_its_duration_under_load() {
    let stage = Stage::new("loaded");
    let server = stage.serve(&format!("{SERVE} --duration 2s"));
    let wrk = under_load(&stage);
    assert!(server.finish().count("passive_opens") > 0);
    drop(wrk);
}

/// Returns a responder that drains for at most `drain`, and a client that does not answer its FIN.
fn draining(stage: &Stage, drain: &str) -> (Program, TcpStream) {
    let server = stage.serve(&format!("--listen 198.18.0.2:7=echo --drain {drain}"));
    let mut stream = connect(stage, "198.18.0.2:7");
    say(&stream, b"hello");
    server.signal(Signal::SIGTERM);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the drain begins with a FIN");
    until("the stop is told", || {
        server
            .said()
            .lines()
            .any(|line| line.starts_with("stopping: ") && line.contains(" for 1 open connection ("))
    });
    (server, stream)
}

#[test]
fn who_ignores_the_drain_is_reset_at_its_deadline() {
    let stage = Stage::new("deadline");
    let (server, stream) = draining(&stage, "100ms");
    let report = server.finish();
    assert_eq!((report.count("ended_reset_by_us"), report.count("out_rsts")), (1, 1));
    assert_eq!(report.count("curr_connections"), 0);
    // Linux turns a RST in CLOSE-WAIT into this error.
    until("the RST has come", || {
        stream.take_error().unwrap().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
    });
}

#[test]
fn a_new_connection_is_refused_while_draining() {
    let stage = Stage::new("draining");
    let (server, stream) = draining(&stage, "60s");
    let error = try_connect(&stage, "198.18.0.2:7").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    drop(stream);
    let report = server.finish();
    assert_eq!((report.count("passive_opens"), report.closed()), (1, 1));
    assert_eq!(report.count("out_rsts"), 1, "the refusal was synmill's");
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let stage = Stage::new("twice");
    let (server, _stream) = draining(&stage, "60s");
    let socket = format!("/run/synmill/{}.sock", server.pid());
    assert!(Path::new(&socket).exists());
    server.signal(Signal::SIGTERM);
    server.end().fails_with(1, "");
    assert!(!Path::new(&socket).exists(), "its socket is left behind");
}

#[test]
fn it_ends_in_order_when_its_terminal_is_closed() {
    let stage = Stage::new("hangup");
    let server = stage.serve(SERVE);
    assert_eq!(curl(&stage, "http://198.18.0.2/").bytes, 1024);
    server.signal(Signal::SIGHUP);
    assert_eq!(server.finish().count("passive_opens"), 1);
}

#[test]
fn the_mode_for_every_driver_serves() {
    let stage = Stage::new("skb");
    let server = stage.serve(&format!("{SERVE} --mode skb"));
    assert!(server.said().lines().any(|line| line == "mode: skb"), "{}", server.said());
    assert_eq!(curl(&stage, "http://198.18.0.2/").bytes, 1024);
    server.stop();
}

#[test]
fn a_device_that_goes_away_is_named() {
    let stage = Stage::new("gone");
    let server = stage.serve(SERVE);
    stage.ask(&format!("ip link delete {CLIENT_INTERFACE}"));
    let run = server.end().fails_with(1, "");
    assert!(run.said.lines().any(|line| line.starts_with("error: sms0 is gone")), "{}", run.said);
}
