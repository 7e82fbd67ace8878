//! Every way to be refused that users will find: an exit status, one line with what to do about it, and nothing left behind.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use synmill_lab::{LabOptions, SOURCES_V6};

use super::*;
use crate::harness::{Server, run};

/// A failure at run time.
const RUN_TIME: i32 = 1;
/// Wrong usage.
const USAGE: i32 = 2;
/// The run is not what was asked for.
const NOT_AS_ASKED: i32 = 3;

const TARGET: [&str; 2] = ["--target", "198.18.0.2:80"];
const SOURCE: [&str; 2] = ["--source", SOURCES_V4];
/// Ten connections in a second.
const SHORT: [&str; 6] = ["--rate", "10", "--warmup", "0s", "--duration", "1s"];

/// Files that a run would write: there before it, and the same after it.
struct Files([PathBuf; 3]);

impl Files {
    fn new(stage: &Stage) -> Self {
        let files = ["refused.json", "refused.hdr", "refused.pcap"].map(|name| stage.file(name));
        files.iter().for_each(|file| fs::write(file, "old").unwrap());
        Self(files)
    }

    fn options(&self) -> [&str; 6] {
        let [json, hdr, pcap] = self.0.each_ref().map(|file| file.to_str().unwrap());
        ["--json", json, "--hdr", hdr, "--pcap", pcap]
    }

    fn are_untouched(&self) {
        for file in &self.0 {
            assert_eq!(fs::read_to_string(file).unwrap(), "old", "{}", file.display());
        }
    }
}

/// Runs `synmill bench` with these arguments and no others: it has to end by itself with `code`, and to say one line that
/// holds each of `parts`.
fn refused(stage: &Stage, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = run(&mut stage.client(&[&[BINARY, "bench"], arguments].concat()));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}:\n{said}");
    assert!(output.stdout.is_empty(), "{arguments:?}: it has begun");
    assert!(
        said.starts_with("error: ") && said.lines().count() == 1,
        "{arguments:?} is worth one line:\n{said}"
    );
    for part in parts {
        assert!(said.contains(part), "{arguments:?}: no `{part}` in:\n{said}");
    }
}

/// The same for arguments beside an interface and files that are good.
fn run_refused(stage: &Stage, arguments: &[&str], code: i32, parts: &[&str]) {
    let files = Files::new(stage);
    let common = ["--interface", CLIENT_INTERFACE];
    refused(stage, &[&common, &files.options()[..], arguments].concat(), code, parts);
    files.are_untouched();
}

/// The same for arguments beside a target and sources that are good, too.
fn option_refused(stage: &Stage, arguments: &[&str], code: i32, parts: &[&str]) {
    run_refused(stage, &[&TARGET, &SOURCE, arguments].concat(), code, parts);
}

/// The same beside a load that is good, too.
fn short_refused(stage: &Stage, arguments: &[&str], code: i32, parts: &[&str]) {
    option_refused(stage, &[&SHORT, arguments].concat(), code, parts);
}

/// Is an XDP program on the client's interface?
fn is_attached(stage: &Stage) -> bool {
    stage.ask(&["ip", "-details", "link", "show", CLIENT_INTERFACE]).contains("xdp")
}

#[test]
fn wrong_usage() {
    let stage = Stage::new("b-usage");
    let usage = |arguments: &[&str], parts: &[&str]| refused(&stage, arguments, USAGE, parts);
    let interface = ["--interface", CLIENT_INTERFACE];
    usage(&[&interface, &TARGET, &SHORT[..]].concat(), &["--source <CIDR>", "synmill bench --help"]);
    usage(&[&interface, &SOURCE, &SHORT[..]].concat(), &["--target <ADDR:PORT>"]);
    usage(&[&TARGET, &SOURCE, &SHORT[..]].concat(), &["--interface <IF>"]);
    for (arguments, parts) in [
        ("", &["--rate", "--concurrency", "--search"][..]),
        ("--rate 0", &["--rate 0", "from 1"]),
        ("--rate -5", &["-5"]),
        ("--rate fast", &["fast", "50K", "`max`"]),
        ("--rate 1 --concurrency 1", &["--rate", "--concurrency"]),
        ("--concurrency 0", &["--concurrency 0", "from 1"]),
        ("--search --workload hold", &["hold", "--concurrency"]),
        ("--rate 1 --loss 1%", &["--loss without --search"]),
        ("--rate 1 --source-ports 1024", &["1024-65535"]),
        ("--rate 1 --source-ports 5-4", &["write 4-5"]),
        ("--rate 1 --source-ports 0-4", &["from 1 to 65535"]),
        ("--rate 1 --requests 0", &["--requests 0", "from 1"]),
        ("--rate 1 --requests 2", &["--requests", "request or http"]),
        ("--rate 1 --workload http --payload /nonexistent", &["/nonexistent", "SIZE"]),
        ("--rate 1 --workload telnet", &["telnet", "connect, request, http, hold"]),
        ("--rate 1 --duration 0s", &["--duration 0"]),
        ("--rate 1 --duration 1", &["--duration", "500ms"]),
        ("--rate 1 --workers 0", &["--workers"]),
        ("--rate 1 --workers 2 --cores 0", &["core"]),
        ("--rate 1 --no-such-option", &["--no-such-option"]),
        ("--rate 1 --target 198.18.0.2:80", &["198.18.0.2:80", "twice"]),
        ("--rate 1 --target example.org:80", &["example.org:80", "192.0.2.1:80"]),
        ("--rate 1 --target 127.0.0.1:80", &["127.0.0.1:80", "loopback"]),
        ("--rate 1 --target 198.19.3.4:80", &["198.19.3.4:80", SOURCES_V4]),
        ("--rate 1 --target [fd00:18::2]:80", &["[fd00:18::2]:80", "fd00:19::/64"]),
        ("--rate 1 --source 198.19.7.0/24", &[SOURCES_V4, "198.19.7.0/24", "overlap"]),
        ("--rate 1 --source 198.20.0.1/16", &["198.20.0.0/16"]),
    ] {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        option_refused(&stage, &arguments, USAGE, parts);
    }
    assert!(!is_attached(&stage));
}

#[test]
fn targets_that_cannot_be_reached() {
    let stage = Stage::new("b-target");
    for line in [
        "link add sme9 type veth peer name sme8",
        "link set sme8 up",
        "link set sme9 up",
        "address add 198.20.0.1/24 dev sme9",
        "route add unreachable 198.21.0.0/24",
        "route add 198.22.0.0/24 via 198.18.0.77",
    ] {
        stage.ask(&["ip"].into_iter().chain(line.split(' ')).collect::<Vec<_>>());
    }
    for (target, parts) in [
        ("198.23.0.1:80", &["no route to 198.23.0.1", "ip route add", CLIENT_INTERFACE][..]),
        ("198.20.0.5:80", &["198.20.0.5", "through sme9", "--interface sme9"]),
        ("198.21.0.5:80", &["198.21.0.5", "unreachable", "ip -4 route show"]),
        // Three seconds each are given to those who might still answer.
        ("198.22.0.5:80", &["198.18.0.77", "198.22.0.5", "does not answer on smc0"]),
        ("198.18.0.1:80", &["198.18.0.1", "this host's own", CLIENT_INTERFACE]),
        ("198.20.0.1:80", &["198.20.0.1", "this host's own", "sme9"]),
        ("198.18.0.255:80", &["198.18.0.255", "not the address of one host"]),
    ] {
        run_refused(&stage, &[&["--target", target], &SOURCE, &SHORT[..]].concat(), RUN_TIME, parts);
    }
    let link_local = ["--target", "[fe80::1]:80", "--source", SOURCES_V6];
    run_refused(&stage, &[&link_local, &SHORT[..]].concat(), RUN_TIME, &["fe80::1", "link-local"]);
    assert!(!is_attached(&stage));
}

#[test]
fn sources_that_are_the_kernels() {
    let stage = Stage::new("b-source");
    stage.ask(&["ip", "address", "add", "198.20.0.1/32", "dev", "lo"]);
    for (source, parts) in [
        ("198.18.0.1", &["198.18.0.1", "the kernel has on smc0"][..]),
        ("198.18.0.0/31", &["198.18.0.1", "the kernel has on smc0"]),
        ("198.20.0.0/16", &["198.20.0.1", "the kernel has on lo"]),
    ] {
        run_refused(&stage, &[&TARGET, &["--source", source], &SHORT[..]].concat(), RUN_TIME, parts);
    }
    assert!(!is_attached(&stage));
}

#[test]
fn an_interface_that_cannot_be_used() {
    let stage = Stage::new("b-interface");
    let rest = [&TARGET, &SOURCE, &SHORT[..]].concat();
    let other = |name: &str, parts: &[&str]| {
        refused(&stage, &[&["--interface", name], &rest[..]].concat(), RUN_TIME, parts);
    };
    other("smc9", &["smc9", CLIENT_INTERFACE]);
    other("lo", &["lo is not an Ethernet interface"]);
    short_refused(&stage, &["--cores", "4000"], RUN_TIME, &["core 4000"]);
    short_refused(&stage, &["--mode", "zerocopy"], RUN_TIME, &[CLIENT_INTERFACE, "zero"]);
    short_refused(&stage, &["--queues", "1"], RUN_TIME, &["queue 1", "ethtool -L smc0"]);
    short_refused(&stage, &["--workers", "2"], RUN_TIME, &["--workers 1"]);
    stage.ask(&["ip", "link", "set", CLIENT_INTERFACE, "down"]);
    short_refused(&stage, &[], RUN_TIME, &["smc0 is down", "ip link set smc0 up"]);
    assert!(!is_attached(&stage));
}

#[test]
fn a_queue_left_to_the_kernel_and_an_mtu_beyond_all_frames() {
    let stage = Stage::with("b-mtu", LabOptions { queues: 2, mtu: 16_000, ..LabOptions::default() });
    short_refused(&stage, &[], RUN_TIME, &["16000", "ip link set smc0 mtu 15338"]);
    stage.ask(&["ip", "link", "set", CLIENT_INTERFACE, "mtu", "1500"]);
    short_refused(&stage, &["--queues", "0"], RUN_TIME, &["queue 1", "ethtool -L smc0"]);
    assert!(!is_attached(&stage));
}

#[test]
fn files_that_cannot_be_written() {
    let stage = Stage::new("b-files");
    let common = [&["--interface", CLIENT_INTERFACE], &TARGET, &SOURCE, &SHORT[..]].concat();
    let file = stage.file("same");
    let name = file.to_str().unwrap();
    let (folder, last) = name.rsplit_once('/').unwrap();
    let detour = format!("{folder}/../{}/{last}", folder.rsplit_once('/').unwrap().1);
    for option in ["--json", "--hdr", "--pcap"] {
        for path in ["/nonexistent/file", "/proc/nothing-here", folder] {
            refused(&stage, &[&common, &[option, path][..]].concat(), RUN_TIME, &[path, "give another path"]);
        }
    }
    for same in [name, &detour] {
        let both = ["--json", name, "--hdr", same];
        refused(&stage, &[&common, &both[..]].concat(), USAGE, &["--json and --hdr", "same file"]);
    }
    // The first is good: it is as it was, all the same.
    fs::write(&file, "old").unwrap();
    let both = ["--json", name, "--hdr", "/nonexistent/file"];
    refused(&stage, &[&common, &both[..]].concat(), RUN_TIME, &["/nonexistent/file"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    assert!(!is_attached(&stage));
}

#[test]
fn too_few_tuples() {
    let stage = Stage::new("b-tuples");
    let server = Server::start(&stage, &["--listen", "198.18.0.2:80=close"]);
    let few = ["--source", "198.19.0.1", "--source-ports", "1024-1123"];
    let times = ["--rate", "200", "--warmup", "0s", "--duration", "1s"];
    let arguments = [&TARGET[..], &few, &times].concat();
    let parts = ["200 connections/s", "60s", "need 200 tuples", "there are 100", "--time-wait"];
    run_refused(&stage, &arguments, RUN_TIME, &parts);
    Generator::start_with(&stage, &[&arguments[..], &["--time-wait", "100ms"]].concat()).end(&stage).good();
    server.stop(&stage);
}

#[test]
fn an_interface_that_is_taken() {
    let stage = Stage::new("b-taken");
    let busy = ["smc0 is taken by another synmill serve or bench", "XDP program", "`pgrep -a synmill`"];
    let argv = [BINARY, "serve", "--interface", CLIENT_INTERFACE, "--listen", "198.18.0.1:81"];
    let mut other = Process::spawn(&mut stage.client(&argv));
    until("the other is ready", LIMIT, || other.said().lines().any(|line| line.starts_with("ready")));
    short_refused(&stage, &[], RUN_TIME, &busy);
    other.signal(Signal::SIGTERM);
    assert!(other.end().success(), "{}", other.said());

    let server = Server::start(&stage, &["--listen", "198.18.0.2:80=close"]);
    let mut first = Generator::start(&stage, &["--rate", "100", "--warmup", "0s", "--duration", "1s"]);
    first.until_said("load:");
    let second = ["--source", "198.20.0.0/16"];
    run_refused(&stage, &[&TARGET, &second, &SHORT[..]].concat(), RUN_TIME, &busy);
    // Nor has the second one done harm to the first.
    first.end(&stage).good();
    server.stop(&stage);
}

#[test]
fn sources_without_a_way_back() {
    let stage = Stage::new("b-way");
    let listener = stage.lab.inside(Side::Server, || TcpListener::bind((SERVER_V4, 80)).unwrap()).unwrap();
    stage.at_server(&["ip", "route", "del", SOURCES_V4]);
    let run = bench(&stage, &[&SHORT[..], &["--timeout", "200ms"]].concat())
        .fails_with(NOT_AS_ASKED, "no connection was established: 10 connect timed out");
    let note = "--source 198.19.0.0/16 is in no subnet of smc0";
    assert!(
        run.said.contains(note) && run.said.contains("ip route add 198.19.0.0/16 via 198.18.0.1"),
        "{}",
        run.said
    );
    assert_eq!(run.count("/connections/failed/connect_timed_out"), 10);
    run.accounts_close();
    drop(listener);
}
