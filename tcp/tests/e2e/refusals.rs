//! Every refusal that a veth pair can produce: one line with a fix, and nothing left attached.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use synmill_lab::{LabOptions, SERVER_INTERFACE, Side};

use crate::harness::{BINARY, Stage, refused};

/// The exit status of wrong usage.
const USAGE: i32 = 2;
/// The exit status of a failure at run time.
const RUN_TIME: i32 = 1;

const LISTEN: [&str; 4] = ["--interface", SERVER_INTERFACE, "--listen", "198.18.0.2:80"];

/// Checks that `synmill serve` refuses these options.
fn serve_refused(stage: &Stage, options: &[&str], code: i32, parts: &[&str]) {
    refused(stage, Side::Server, &[&[BINARY, "serve"], options].concat(), code, parts);
}

/// Checks that `synmill serve` refuses these options beside a good interface and a good listener.
fn option_refused(stage: &Stage, options: &str, code: i32, parts: &[&str]) {
    let options: Vec<&str> = LISTEN.into_iter().chain(options.split_whitespace()).collect();
    serve_refused(stage, &options, code, parts);
}

#[test]
fn wrong_usage() {
    let stage = Stage::new("usage");
    let services =
        ["close", "reset", "discard", "echo", "hold", "source:SIZE", "http:SIZE", "http-file:PATH"];
    for (listen, parts) in [
        ("198.18.0.2:0", &["198.18.0.2:0", "port"][..]),
        ("198.18.0.2", &["198.18.0.2", "port"]),
        ("198.18.0.256:80", &["198.18.0.256:80"]),
        ("198.18.0.2:80=htpp:1024", &[&["htpp"][..], &services[..]].concat()),
        ("198.18.0.2:80=http:", &["SIZE"]),
        ("198.18.0.2:80=http:-1", &["SIZE", "-1"]),
        ("198.18.0.2:80=source:99999999T", &["SIZE", "at most"]),
        ("198.18.0.2:80=http-file:/nonexistent", &["/nonexistent"]),
    ] {
        serve_refused(&stage, &["--interface", SERVER_INTERFACE, "--listen", listen], USAGE, parts);
    }
    option_refused(&stage, "--listen 198.18.0.2:80", USAGE, &["198.18.0.2:80", "twice"]);
    option_refused(&stage, "--workers 0", USAGE, &["--workers"]);
    option_refused(&stage, "--workers 2 --cores 0", USAGE, &["core"]);
    option_refused(&stage, "--rss-key 6d:5a", USAGE, &["--rss-key", "--steer rss"]);
    option_refused(&stage, "--steer rss --rss-key 6d5a", USAGE, &["6d5a", "hex"]);
    option_refused(&stage, "--steer hash", USAGE, &["hash", "none", "ntuple", "rss"]);
    option_refused(&stage, "--mode native", USAGE, &["native", "zerocopy", "copy", "skb"]);
    option_refused(&stage, "--no-such-option", USAGE, &["--no-such-option"]);
    serve_refused(&stage, &["--listen", "198.18.0.2:80"], USAGE, &["--interface"]);
    serve_refused(&stage, &["--interface", SERVER_INTERFACE], USAGE, &["--listen"]);
    assert!(!stage.is_attached(Side::Server));
}

#[test]
fn an_interface_that_cannot_serve() {
    let stage = Stage::new("interface");
    serve_refused(&stage, &["--interface", "sms9", "--listen", "198.18.0.2:80"], RUN_TIME, &["sms9", "sms0"]);
    option_refused(&stage, "--cores 4000", RUN_TIME, &["core 4000"]);
    option_refused(&stage, "--mode zerocopy", RUN_TIME, &[SERVER_INTERFACE, "zero"]);
    option_refused(&stage, "--queues 1", RUN_TIME, &["queue 1", "ethtool -L sms0"]);
    option_refused(&stage, "--workers 2", RUN_TIME, &["--workers 1"]);
    stage.at_server(&format!("ip link set {SERVER_INTERFACE} down"));
    option_refused(&stage, "", RUN_TIME, &["sms0 is down", "ip link set sms0 up"]);
    assert!(!stage.is_attached(Side::Server));
}

#[test]
fn queues_left_to_the_kernel() {
    let stage = Stage::with("uncovered", LabOptions { queues: 4, ..LabOptions::default() });
    option_refused(&stage, "--queues 0-1", RUN_TIME, &["queue 2-3", "ethtool -L sms0"]);
    // A veth has neither flow rules nor an RSS table.
    for queues in ["0-1", "all"] {
        for (steer, parts) in [("ntuple", "sms0 has no flow rules"), ("rss", "sms0 has no RSS table")] {
            let parts = [parts, "driver veth", "leave --steer out"];
            option_refused(&stage, &format!("--queues {queues} --steer {steer}"), RUN_TIME, &parts);
        }
    }
    option_refused(&stage, "--queues 0-3 --workers 4 --cores 0,1", USAGE, &["core"]);
    assert!(!stage.is_attached(Side::Server));
}

#[test]
fn more_connections_than_memory() {
    let stage = Stage::new("memory");
    // A full machine: /proc/meminfo leaves 64 MiB to this process.
    let meminfo = stage.file("meminfo");
    fs::write(&meminfo, "MemTotal: 65536 kB\nMemAvailable: 65536 kB\n").unwrap();
    let command = format!(
        "mount --bind {} /proc/meminfo && exec {BINARY} serve {} --max-connections 1M",
        meminfo.display(),
        LISTEN.join(" ")
    );
    let argv = ["unshare", "--mount", "sh", "-c", &command];
    let parts = ["room for 1,000,000 connections", "and 67,108,864 are available", "--max-connections"];
    refused(&stage, Side::Server, &argv, RUN_TIME, &parts);
    assert!(!stage.is_attached(Side::Server));
}

#[test]
fn an_mtu_beyond_all_frames() {
    let stage = Stage::with("mtu", LabOptions { mtu: 15_339, ..LabOptions::default() });
    option_refused(&stage, "", RUN_TIME, &["15339", "ip link set sms0 mtu 15338"]);
    assert!(!stage.is_attached(Side::Server));
}

#[test]
fn an_interface_that_is_taken() {
    let stage = Stage::new("taken");
    let server = stage.serve("--listen 198.18.0.2:80");
    let parts = ["sms0 is taken by another synmill serve or bench", "XDP program", "`pgrep -a synmill`"];
    option_refused(&stage, "--listen 198.18.0.2:81", RUN_TIME, &parts);
    server.stop();
}

#[test]
fn a_port_that_the_kernels_tcp_has() {
    let stage = Stage::new("in-use");
    for (kernel, listen) in [
        (("198.18.0.2", 80), "198.18.0.2:80"),
        (("0.0.0.0", 80), "198.18.0.2:80"),
        (("::", 80), "0.0.0.0:80"),
        (("fd00:18::2", 80), "[fd00:18::2]:80"),
    ] {
        let listener = stage.lab.inside(Side::Server, || TcpListener::bind(kernel).unwrap()).unwrap();
        let parts = [listen, "in use", "ss -tanp sport = :80"];
        serve_refused(&stage, &["--interface", SERVER_INTERFACE, "--listen", listen], RUN_TIME, &parts);
        drop(listener);
    }
    assert!(!stage.is_attached(Side::Server));

    // An ended server leaves a connection in TIME-WAIT, which is no reason to refuse.
    let listener = stage.lab.inside(Side::Server, || TcpListener::bind(("198.18.0.2", 80)).unwrap()).unwrap();
    let client = stage.lab.inside(Side::Client, || TcpStream::connect(("198.18.0.2", 80)).unwrap()).unwrap();
    drop(listener.accept().unwrap());
    drop((client, listener));
    // The kernel may have the port on loopback: the interface receives no packet for it.
    let loopback = stage.lab.inside(Side::Server, || TcpListener::bind(("127.0.0.1", 81)).unwrap()).unwrap();
    let server = stage.serve("--listen 198.18.0.2:80 --listen 0.0.0.0:81");
    server.stop();
    drop(loopback);
}

#[test]
fn another_user() {
    let stage = Stage::new("user");
    // Other users may not be allowed to enter the build folder.
    let open = Path::new("/tmp").join(format!("synmill-e2e-{}", std::process::id()));
    fs::copy(BINARY, &open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    let mut argv = vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    argv.extend([open.to_str().unwrap(), "serve"]);
    argv.extend(LISTEN);
    refused(
        &stage,
        Side::Server,
        &argv,
        RUN_TIME,
        &["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF", "sudo", "setcap"],
    );
    fs::remove_file(open).unwrap();
    assert!(!stage.is_attached(Side::Server));
}

#[test]
fn a_capability_that_is_missing() {
    let stage = Stage::new("caps");
    for (without, name) in
        [("-net_raw", "CAP_NET_RAW"), ("-net_admin", "CAP_NET_ADMIN"), ("-bpf,-sys_admin", "CAP_BPF")]
    {
        let mut argv = vec!["setpriv", "--bounding-set", without, BINARY, "serve"];
        argv.extend(LISTEN);
        refused(&stage, Side::Server, &argv, RUN_TIME, &[name, "setcap"]);
    }
    assert!(!stage.is_attached(Side::Server));
}

#[test]
fn memory_that_may_not_be_locked() {
    let stage = Stage::new("memlock");
    let mut argv =
        vec!["prlimit", "--memlock=65536", "setpriv", "--bounding-set", "-ipc_lock", BINARY, "serve"];
    argv.extend(LISTEN);
    refused(&stage, Side::Server, &argv, RUN_TIME, &["65536", "MEMLOCK"]);
    assert!(!stage.is_attached(Side::Server));
}
