//! Peers and networks that fail: synmill counts and prints each failure by its name, and still ends its run.

use nix::sys::signal::Signal;
use synmill_lab::{
    CLIENT_INTERFACE, CLIENT_V4, LabOptions, SERVER_INTERFACE, SERVER_V6, SOURCES_V4, SOURCES_V6, Side,
};

use crate::harness::{KernelServer, Program, Run, Stage, until};
use crate::loss;

/// The exit status of a run that is not as asked.
const NOT_AS_ASKED: i32 = 3;

/// Adds a rule for arriving packets at the server's interface.
fn on_arrival(stage: &Stage, rule: &str) {
    let chain = format!("type filter hook ingress device {SERVER_INTERFACE} priority 0");
    stage.rules(Side::Server, &format!("table netdev faults {{ chain in {{ {chain}; {rule}; }}; }}"));
}

/// Runs a short load without warm-up and with these options, and checks its accounts.
fn load(stage: &Stage, options: &str) -> Run {
    let run = stage.bench(&format!("--rate 400 --warmup 0s --duration 250ms --cores 1 {options}"));
    run.accounts_close();
    run
}

/// Checks that all connections of a run failed for one cause, and that synmill said so.
fn all_failed(run: Run, cause: &str) {
    assert_eq!(run.failed(cause), run.started(), "{}", run.said);
    assert!(run.started() > 0);
    let part = format!("{} {}", run.started(), cause.replace('_', " "));
    run.fails_with(NOT_AS_ASKED, &part);
}

#[test]
fn lost_packets_are_sent_again() {
    let stage = Stage::new("bf-loss");
    let server = stage.kernel_server("http:100");
    loss::set(&stage, Side::Server, 3);
    let workload = "--workload http --requests 3 --timeout 20s --drain 20s";
    let run = stage.bench(&format!("{workload} --concurrency 20 --warmup 0s --duration 500ms --cores 1"));
    run.accounts_close();
    assert_eq!(run.count("/connections/closed"), run.started(), "{}", run.said);
    assert!(run.count("/retransmissions/segs") > 0 && run.said.contains("sent again"), "{}", run.said);
    let run = run.good();
    assert_eq!(server.stop()["accepted"], run.started());
}

#[test]
fn half_of_the_syns_are_lost() {
    let stage = Stage::new("bf-syns");
    let server = stage.kernel_server("close");
    on_arrival(&stage, "tcp flags & (syn | ack) == syn numgen inc mod 2 == 0 drop");
    let run = load(&stage, "--close peer --timeout 1500ms");
    let established = run.count("/connections/established");
    assert!(established > 0 && run.failed("connect_timed_out") > 0, "{}", run.said);
    assert_eq!(established + run.failed("connect_timed_out"), run.started(), "{}", run.said);
    // The network has lost them, and nobody else.
    let again = run.count("/retransmissions/syn");
    assert!(again > 0, "{}", run.said);
    assert_eq!([run.count("/lost_syns/total"), run.count("/lost_syns/peer_or_way")], [again; 2]);
    assert!(run.said.contains("at the peer or on the way"), "{}", run.said);
    let run = run.fails_with(NOT_AS_ASKED, "connect timed out");
    assert_eq!(server.stop()["accepted"], run.count("/connections/established"));
}

#[test]
fn nobody_listens() {
    let stage = Stage::new("bf-refused");
    all_failed(load(&stage, ""), "refused");
}

#[test]
fn nobody_answers() {
    let stage = Stage::new("bf-silent");
    on_arrival(&stage, "meta l4proto tcp drop");
    all_failed(load(&stage, "--timeout 300ms"), "connect_timed_out");
    // A drain that is shorter than the timeout cuts them.
    all_failed(load(&stage, "--timeout 1h --drain 100ms"), "connect_cut");
}

#[test]
fn the_peer_cannot_be_reached() {
    let stage = Stage::new("bf-unreachable");
    // The kernel limits the rate of such messages.
    for limit in ["net.ipv4.icmp_ratemask=0", "net.ipv6.icmp.ratelimit=0"] {
        stage.at_server(&format!("sysctl -q -w {limit}"));
    }
    stage.rules(
        Side::Server,
        "table inet faults { chain in { type filter hook input priority 0;
           meta nfproto ipv4 meta l4proto tcp reject with icmp type host-unreachable
           meta nfproto ipv6 meta l4proto tcp reject with icmpv6 type addr-unreachable
         }
         }",
    );
    let also_v6 = format!("--target [{SERVER_V6}]:80 --source {SOURCES_V6}");
    all_failed(load(&stage, &also_v6), "unreachable");
}

#[test]
fn half_of_the_connections_are_reset() {
    let stage = Stage::new("bf-resethalf");
    let server = stage.kernel_server("reset-half:http:100");
    let run = load(&stage, "--workload http").fails_with(NOT_AS_ASKED, "reset by peer");
    let (started, closed) = (run.started(), run.count("/connections/closed"));
    assert_eq!((run.failed("reset_by_peer"), closed), (started / 2, started.div_ceil(2)), "{}", run.said);
    assert_eq!(run.count("/requests/done"), closed);
    assert_eq!(server.stop()["resets"], started / 2);
}

#[test]
fn the_answers_are_garbage() {
    let stage = Stage::new("bf-garbage");
    let server = stage.kernel_server("garbage");
    let run = load(&stage, "--workload http").fails_with(NOT_AS_ASKED, "bad response");
    assert_eq!(run.failed("bad_response"), run.started());
    assert_eq!((run.count("/connections/closed"), run.count("/requests/done")), (0, 0));
    assert_eq!(server.stop()["accepted"], run.started());
    // HTTP, but with another length.
    let server = stage.kernel_server("http:100");
    let run = load(&stage, "--workload http --expect 101");
    let run = run.fails_with(NOT_AS_ASKED, "bad response");
    assert_eq!(run.failed("bad_response"), run.started());
    server.stop();
}

/// A load that a signal ends, however long the fault takes.
const LASTING: &str = "--rate 500 --warmup 0s --duration 1h --close peer --cores 1";

/// Ends a load by a signal, and checks its accounts.
fn stop(generator: Program) -> Run {
    generator.signal(Signal::SIGTERM);
    let run = generator.end();
    run.accounts_close();
    run
}

/// Waits until the server's interface has received `packets` more packets.
fn until_received(stage: &Stage, packets: u64) {
    let path = format!("cat /sys/class/net/{SERVER_INTERFACE}/statistics/rx_packets");
    let received = || stage.at_server(&path).trim().parse::<u64>().unwrap();
    let enough = received() + packets;
    until("packets arrive", || received() >= enough);
}

/// Runs a load against a server that is killed and started again, and returns the second server.
fn dies_and_comes_back<T>(stage: &Stage, start: impl Fn() -> T, kill: impl Fn(T)) -> T {
    let server = start();
    let generator = stage.generator(&format!("{LASTING} --timeout 3s"));
    until_received(stage, 300);
    kill(server);
    // Without a server the kernel refuses.
    until("connections are refused", || stage.kernel_tcp(Side::Server, "OutRsts") > 0);
    let server = start();
    until_received(stage, 300);
    let run = stop(generator);
    assert!(run.failed("refused") > 0 && run.count("/connections/closed") > 0, "{}", run.said);
    run.fails_with(NOT_AS_ASKED, "refused");
    server
}

#[test]
fn a_server_that_dies_and_comes_back() {
    let stage = Stage::new("bf-serve-dies");
    let start = || stage.serve("--listen 198.18.0.2:80=close");
    let server = dies_and_comes_back(&stage, start, Program::kill);
    assert!(server.stop().count("passive_opens") > 0);
}

#[test]
fn a_kernels_server_that_dies_and_comes_back() {
    let stage = Stage::new("bf-kernel-dies");
    let server = dies_and_comes_back(&stage, || stage.kernel_server("close"), KernelServer::kill);
    assert!(server.stop()["accepted"].as_u64().unwrap() > 0);
}

#[test]
fn a_link_that_is_lost_and_found() {
    let stage = Stage::new("bf-link");
    let server = stage.kernel_server("close");
    let mut generator = stage.generator(&format!("{LASTING} --timeout 3s"));
    until_received(&stage, 300);
    stage.at_server(&format!("ip link set {SERVER_INTERFACE} down"));
    generator.until_said("the link has lost its carrier");
    stage.at_server(&format!("ip link set {SERVER_INTERFACE} up"));
    // The kernel drops routes with the link.
    stage.at_server(&format!("ip route add {SOURCES_V4} via {CLIENT_V4}"));
    generator.until_said("the link is up again");
    until_received(&stage, 300);
    let run = stop(generator);
    assert!(run.count("/connections/closed") > 0 && run.count("/retransmissions/syn") > 0, "{}", run.said);
    run.fails_with(NOT_AS_ASKED, "a signal ended the run");
    assert!(server.stop()["accepted"].as_u64().unwrap() > 0);
}

#[test]
fn a_link_that_is_lost_for_good() {
    let stage = Stage::new("bf-nolink");
    let _server = stage.kernel_server("close");
    let mut generator = stage.generator(&format!("{LASTING} --timeout 300ms"));
    until_received(&stage, 100);
    stage.at_server(&format!("ip link set {SERVER_INTERFACE} down"));
    generator.until_said("the link has lost its carrier");
    let run = stop(generator);
    assert!(run.failed("connect_timed_out") > 0 && run.count("/connections/closed") > 0, "{}", run.said);
    run.fails_with(NOT_AS_ASKED, "connect timed out");
}

/// A lasting load whose connections stay open.
const HOLDING: &str = "--workload hold --rate 500 --warmup 0s --duration 1h --cores 1";

#[test]
fn an_interface_that_goes_away_with_connections_open() {
    let stage = Stage::new("bf-gone");
    let _server = stage.kernel_server("echo");
    let generator = stage.generator(HOLDING);
    until_received(&stage, 300);
    stage.ask(&format!("ip link delete {CLIENT_INTERFACE}"));
    let run = generator.end();
    run.accounts_close();
    assert!(run.failed("cut") > 0, "{}", run.said);
    assert!(run.said.contains("an error ended the run"), "{}", run.said);
    let is_error = |line: &&str| line.starts_with("error: ");
    let errors: Vec<&str> = run.said.lines().filter(is_error).collect();
    assert!(errors.len() == 1 && errors[0].contains("smc0 is gone"), "{}", run.said);
    assert!(!run.said.contains("could not send"), "{}", run.said);
    run.fails_with(1, "is gone");
}

#[test]
fn a_log_that_cannot_be_written() {
    let stage = Stage::new("bf-log");
    let _server = stage.kernel_server("echo");
    let run = stage.bench(&format!("{HOLDING} --hdr /dev/full"));
    run.accounts_close();
    assert!(run.failed("cut") > 0 && run.count("/counters/out_rsts") > 0, "{}", run.said);
    run.fails_with(1, "error: writing the interval log: ");
}

#[test]
fn checksums_that_the_peer_leaves_unfinished() {
    let options = LabOptions { checksum_offload: true, ..LabOptions::default() };
    let stage = Stage::with("bf-checksums", options);
    let server = stage.kernel_server("http:100");
    let run = load(&stage, "--workload http --timeout 300ms");
    // By chance one unfinished checksum in 65,536 is right, and some hundred connections try three times.
    assert!(run.failed("connect_timed_out") + 1 >= run.started() && run.started() > 50, "{}", run.said);
    assert!(run.count("/drops/drop_tcp_checksum") >= run.failed("connect_timed_out"), "{}", run.said);
    let run = run.fails_with(NOT_AS_ASKED, "connect timed out");
    for part in ["dropped       tcp checksum", "ethtool -K <peer> tx off", "--accept-partial-checksums"] {
        assert!(run.said.contains(part), "not said: {part}\n{}", run.said);
    }
    let run = load(&stage, "--workload http --accept-partial-checksums").fulfilled();
    assert_eq!(run.count("/connections/closed"), run.started());
    assert_eq!(run.count("/drops/drop_tcp_checksum"), 0);
    assert!(run.count("/counters/in_partial_checksums") > 0);
    server.stop();
}
