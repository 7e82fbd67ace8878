//! The responder's end, wanted or not, with clients in mid-sentence.

use nix::sys::signal::Signal;
use xtask::lab::CLIENT_INTERFACE;

use crate::client::curl;
use crate::harness::{LIMIT, Process, Server, Stage, until};

const SERVE: [&str; 4] = ["--listen", "198.18.0.2:80", "--service", "http:1024"];

/// A client that never stops, one connection a request, well under way.
fn under_load(stage: &Stage) -> Process {
    let opened = stage.kernel_tcp("ActiveOpens");
    let argv = [
        "wrk",
        "--threads",
        "1",
        "--connections",
        "64",
        "--duration",
        "60s",
        "--header",
        "Connection: close",
    ];
    let wrk = Process::spawn(&mut stage.client(&[&argv[..], &["http://198.18.0.2/"]].concat()));
    until("a thousand connections were opened", LIMIT, || stage.kernel_tcp("ActiveOpens") > opened + 1000);
    wrk
}

#[test]
fn sigterm_under_load_drains_and_the_accounts_close() {
    let stage = Stage::new("term");
    let server = Server::start(&stage, &SERVE);
    let wrk = under_load(&stage);
    let report = server.stop(&stage);
    assert!(report.count("passive_opens") > 1000);
    assert_eq!(
        report.count("curr_connections"),
        report.count("curr_time_wait"),
        "more than TIME-WAIT is left"
    );
    wrk.signal(Signal::SIGKILL);
}

#[test]
fn after_kill_nothing_is_left_and_a_new_one_starts_at_once() {
    let stage = Stage::new("kill");
    let wrk = {
        let server = Server::start(&stage, &SERVE);
        let wrk = under_load(&stage);
        server.kill();
        wrk
    };
    assert!(!stage.is_attached(), "an XDP program is left on the interface");
    let server = Server::start(&stage, &SERVE);
    assert_eq!(curl(&stage, "http://198.18.0.2/").bytes, 1024);
    wrk.signal(Signal::SIGKILL);
    server.stop(&stage);
}

#[test]
fn it_ends_after_its_duration() {
    let stage = Stage::new("duration");
    let server = Server::start(&stage, &[&SERVE[..], &["--duration", "100ms"]].concat());
    let (status, said) = server.end();
    assert!(status.success(), "{said}");
    assert!(!stage.is_attached());
}

#[test]
fn a_device_that_goes_away_is_named() {
    let stage = Stage::new("gone");
    let server = Server::start(&stage, &SERVE);
    stage.ask(&["ip", "link", "delete", CLIENT_INTERFACE]);
    let (status, said) = server.end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.lines().any(|line| line.starts_with("error: sms0 is gone")), "{said}");
}
