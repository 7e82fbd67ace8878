//! Every refusal that users will meet: an exit status, one line with a fix, and nothing left behind.

use std::fs;
use std::net::TcpListener;

use synmill_lab::{CLIENT_INTERFACE, LabOptions, Process, SERVER_V4, SOURCES_V4, SOURCES_V6, Side, Words};

use crate::harness::{BINARY, Stage, refused};

/// The exit status of a failure at run time.
const RUN_TIME: i32 = 1;
/// The exit status of wrong usage.
const USAGE: i32 = 2;
/// The exit status of a run that is not as asked.
const NOT_AS_ASKED: i32 = 3;

const INTERFACE: &str = "--interface smc0";
const TARGET: &str = "--target 198.18.0.2:80";
const SOURCE: &str = "--source 198.19.0.0/16";
/// Ten connections in a second.
const SHORT: &str = "--rate 10 --warmup 0s --duration 1s";

/// Checks that `synmill bench` refuses these options, beside no others.
fn bench_refused(stage: &Stage, options: &(impl Words + ?Sized), code: i32, parts: &[&str]) {
    refused(stage, Side::Client, &[&[BINARY, "bench"], &options.words()[..]].concat(), code, parts);
}

/// Checks that `synmill bench` refuses these options beside a good interface, and leaves its files as they were.
fn run_refused(stage: &Stage, options: &str, code: i32, parts: &[&str]) {
    let files = ["refused.json", "refused.hdr", "refused.pcap"].map(|name| stage.file(name));
    files.iter().for_each(|file| fs::write(file, "old").unwrap());
    let [json, hdr, pcap] = files.each_ref().map(|file| file.to_str().unwrap());
    let files_options = ["--json", json, "--hdr", hdr, "--pcap", pcap];
    let options = [&INTERFACE.words()[..], &files_options, &options.words()].concat();
    bench_refused(stage, &options, code, parts);
    for file in files {
        assert_eq!(fs::read_to_string(&file).unwrap(), "old", "{}", file.display());
    }
}

/// Checks that `synmill bench` refuses these options beside a good interface, target and source.
fn option_refused(stage: &Stage, options: &str, code: i32, parts: &[&str]) {
    run_refused(stage, &format!("{TARGET} {SOURCE} {options}"), code, parts);
}

/// Checks that `synmill bench` refuses these options beside a good interface, target, source and load.
fn short_refused(stage: &Stage, options: &str, code: i32, parts: &[&str]) {
    option_refused(stage, &format!("{SHORT} {options}"), code, parts);
}

#[test]
fn wrong_usage() {
    let stage = Stage::new("b-usage");
    for (options, parts) in [
        ([INTERFACE, TARGET], &["--source <CIDR>", "synmill bench --help"][..]),
        ([INTERFACE, SOURCE], &["--target <ADDR:PORT>"]),
        ([TARGET, SOURCE], &["--interface <IF>"]),
    ] {
        bench_refused(&stage, &format!("{} {SHORT}", options.join(" ")), USAGE, parts);
    }
    for (options, parts) in [
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
        option_refused(&stage, options, USAGE, parts);
    }
    assert!(!stage.is_attached(Side::Client));
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
        stage.ask(&format!("ip {line}"));
    }
    for (target, parts) in [
        ("198.23.0.1:80", &["no route to 198.23.0.1", "ip route add", CLIENT_INTERFACE][..]),
        ("198.20.0.5:80", &["198.20.0.5", "through sme9", "--interface sme9"]),
        ("198.21.0.5:80", &["198.21.0.5", "unreachable", "ip -4 route show"]),
        // synmill waits three seconds for the gateway's answer.
        ("198.22.0.5:80", &["198.18.0.77", "198.22.0.5", "does not answer on smc0"]),
        ("198.18.0.1:80", &["198.18.0.1", "this host's own", CLIENT_INTERFACE]),
        ("198.20.0.1:80", &["198.20.0.1", "this host's own", "sme9"]),
        ("198.18.0.255:80", &["198.18.0.255", "not the address of one host"]),
    ] {
        run_refused(&stage, &format!("--target {target} {SOURCE} {SHORT}"), RUN_TIME, parts);
    }
    let link_local = format!("--target [fe80::1]:80 --source {SOURCES_V6} {SHORT}");
    run_refused(&stage, &link_local, RUN_TIME, &["fe80::1", "link-local"]);
    assert!(!stage.is_attached(Side::Client));
}

#[test]
fn sources_that_are_the_kernels() {
    let stage = Stage::new("b-source");
    stage.ask("ip address add 198.20.0.1/32 dev lo");
    for (source, parts) in [
        ("198.18.0.1", &["198.18.0.1", "the kernel has on smc0"][..]),
        ("198.18.0.0/31", &["198.18.0.1", "the kernel has on smc0"]),
        ("198.20.0.0/16", &["198.20.0.1", "the kernel has on lo"]),
    ] {
        run_refused(&stage, &format!("{TARGET} --source {source} {SHORT}"), RUN_TIME, parts);
    }
    assert!(!stage.is_attached(Side::Client));
}

#[test]
fn an_interface_that_cannot_be_used() {
    let stage = Stage::new("b-interface");
    let other = |name: &str, parts: &[&str]| {
        let options = format!("--interface {name} {TARGET} {SOURCE} {SHORT}");
        bench_refused(&stage, &options, RUN_TIME, parts);
    };
    other("smc9", &["smc9", CLIENT_INTERFACE]);
    other("lo", &["lo is not an Ethernet interface"]);
    short_refused(&stage, "--cores 4000", RUN_TIME, &["core 4000"]);
    short_refused(&stage, "--mode zerocopy", RUN_TIME, &[CLIENT_INTERFACE, "zero"]);
    short_refused(&stage, "--queues 1", RUN_TIME, &["queue 1", "ethtool -L smc0"]);
    short_refused(&stage, "--workers 2", RUN_TIME, &["--workers 1"]);
    stage.ask(&format!("ip link set {CLIENT_INTERFACE} down"));
    short_refused(&stage, "", RUN_TIME, &["smc0 is down", "ip link set smc0 up"]);
    assert!(!stage.is_attached(Side::Client));
}

#[test]
fn a_queue_left_to_the_kernel_and_an_mtu_beyond_all_frames() {
    let stage = Stage::with("b-mtu", LabOptions { queues: 2, mtu: 16_000, ..LabOptions::default() });
    short_refused(&stage, "", RUN_TIME, &["16000", "ip link set smc0 mtu 15338"]);
    stage.ask(&format!("ip link set {CLIENT_INTERFACE} mtu 1500"));
    short_refused(&stage, "--queues 0", RUN_TIME, &["queue 1", "ethtool -L smc0"]);
    assert!(!stage.is_attached(Side::Client));
}

#[test]
fn files_that_cannot_be_written() {
    let stage = Stage::new("b-files");
    let common = format!("{INTERFACE} {TARGET} {SOURCE} {SHORT}");
    let check = |options: &[&str], code: i32, parts: &[&str]| {
        bench_refused(&stage, &[&common.words()[..], options].concat(), code, parts);
    };
    let file = stage.file("same");
    let name = file.to_str().unwrap();
    let (folder, last) = name.rsplit_once('/').unwrap();
    let detour = format!("{folder}/../{}/{last}", folder.rsplit_once('/').unwrap().1);
    for option in ["--json", "--hdr", "--pcap"] {
        for path in ["/nonexistent/file", "/proc/nothing-here", folder] {
            check(&[option, path], RUN_TIME, &[path, "give another path"]);
        }
    }
    for same in [name, &detour] {
        check(&["--json", name, "--hdr", same], USAGE, &["--json and --hdr", "same file"]);
    }
    // The refusal leaves the first file as it was, although its path is good.
    fs::write(&file, "old").unwrap();
    check(&["--json", name, "--hdr", "/nonexistent/file"], RUN_TIME, &["/nonexistent/file"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    assert!(!stage.is_attached(Side::Client));
}

#[test]
fn too_few_tuples() {
    let stage = Stage::new("b-tuples");
    let server = stage.serve("--listen 198.18.0.2:80=close");
    let few = "--source 198.19.0.1 --source-ports 1024-1123";
    let options = format!("{TARGET} {few} --rate 200 --warmup 0s --duration 1s");
    let parts = ["200 connections/s", "60s", "need 200 tuples", "there are 100", "--time-wait"];
    run_refused(&stage, &options, RUN_TIME, &parts);
    stage.generator_to(&format!("{options} --time-wait 100ms")).end().good();
    server.stop();
}

#[test]
fn an_interface_that_is_taken() {
    let stage = Stage::new("b-taken");
    let busy = ["smc0 is taken by another synmill serve or bench", "XDP program", "`pgrep -a synmill`"];
    let argv = [BINARY, "serve", "--interface", CLIENT_INTERFACE, "--listen", "198.18.0.1:81"];
    let mut other = Process::spawn(&mut stage.client(&argv)).unwrap();
    other.until_line("ready").unwrap();
    short_refused(&stage, "", RUN_TIME, &busy);
    other.stop().unwrap();

    let server = stage.serve("--listen 198.18.0.2:80=close");
    let mut first = stage.generator("--rate 100 --warmup 0s --duration 1s");
    first.until_said("load:");
    run_refused(&stage, &format!("{TARGET} --source 198.20.0.0/16 {SHORT}"), RUN_TIME, &busy);
    // The refused run has not harmed the first.
    first.end().good();
    server.stop();
}

#[test]
fn sources_without_a_way_back() {
    let stage = Stage::new("b-way");
    let listener = stage.lab.inside(Side::Server, || TcpListener::bind((SERVER_V4, 80)).unwrap()).unwrap();
    stage.at_server(&format!("ip route del {SOURCES_V4}"));
    let run = stage
        .bench(&format!("{SHORT} --timeout 200ms"))
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
