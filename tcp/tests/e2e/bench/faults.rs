//! Peers and ways that fail: each failure is counted under its name, said, and the run still ends.

use std::io::Write as _;
use std::process::Stdio;

use super::*;
use crate::harness::Server;
use xtask::lab::{CLIENT_V4, LabOptions, SERVER_INTERFACE, SERVER_V6, SOURCES_V6};

/// The end of a run that is not what was asked for.
const NOT_AS_ASKED: i32 = 3;

/// Rules at the server's end, where the kernel's TCP sees packets: a network device's, or an address family's.
fn rules(stage: &Stage, table: &str) {
    let argv = ["nft", "-f", "-"];
    let mut nft = stage.lab.exec(Side::Server, argv).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(table.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft refused {table}");
}

/// The same for what arrives at the server's interface.
fn on_arrival(stage: &Stage, rule: &str) {
    let chain = format!("type filter hook ingress device {SERVER_INTERFACE} priority 0");
    rules(stage, &format!("table netdev faults {{\n chain in {{\n {chain}\n {rule}\n }}\n }}\n"));
}

/// A short load, without warm-up.
const LOAD: [&str; 8] = ["--rate", "400", "--warmup", "0s", "--duration", "250ms", "--cores", "1"];

/// Runs [`LOAD`] with these options beside: its accounts have to close.
fn load(stage: &Stage, arguments: &[&str]) -> Run {
    let run = bench(stage, &[&LOAD[..], arguments].concat());
    run.accounts_close();
    run
}

impl Run {
    fn failed(&self, cause: &str) -> u64 {
        self.count(&format!("/connections/failed/{cause}"))
    }

    /// It has to end as one whose connections all failed for one cause, and to say so.
    fn all_failed(self, cause: &str) -> Self {
        assert_eq!(self.failed(cause), self.started(), "{}", self.said);
        let part = format!("{} {}", self.started(), cause.replace('_', " "));
        assert!(self.started() > 0);
        self.fails_with(NOT_AS_ASKED, &part)
    }
}

#[test]
fn lost_packets_are_sent_again() {
    let stage = Stage::new("bf-loss");
    let server = KernelServer::start(&stage, "http:100");
    rules(
        &stage,
        &format!(
            "table netdev faults {{
               chain in {{ type filter hook ingress device {SERVER_INTERFACE} priority 0;
                 meta l4proto tcp numgen random mod 100 < 3 drop
               }}
               chain out {{ type filter hook egress device {SERVER_INTERFACE} priority 0;
                 meta l4proto tcp numgen random mod 100 < 3 fwd to lo
               }}
             }}"
        ),
    );
    let workload = ["--workload", "http", "--requests", "3", "--timeout", "20s", "--drain", "20s"];
    let open = ["--concurrency", "20", "--warmup", "0s", "--duration", "500ms", "--cores", "1"];
    let run = bench(&stage, &[&workload[..], &open].concat());
    run.accounts_close();
    assert_eq!(run.count("/connections/closed"), run.started(), "{}", run.said);
    assert!(run.count("/retransmissions/segs") > 0 && run.said.contains("sent again"), "{}", run.said);
    let run = run.good();
    assert_eq!(server.stop()["accepted"], run.started());
}

#[test]
fn half_of_the_syns_are_lost() {
    let stage = Stage::new("bf-syns");
    let server = KernelServer::start(&stage, "close");
    on_arrival(&stage, "tcp flags & (syn | ack) == syn numgen inc mod 2 == 0 drop");
    let run = load(&stage, &["--close", "peer", "--timeout", "1500ms"]);
    let established = run.count("/connections/established");
    assert!(established > 0 && run.failed("connect_timed_out") > 0, "{}", run.said);
    assert_eq!(established + run.failed("connect_timed_out"), run.started(), "{}", run.said);
    // The way has lost them, and nobody else.
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
    load(&stage, &[]).all_failed("refused");
}

#[test]
fn nobody_answers() {
    let stage = Stage::new("bf-silent");
    on_arrival(&stage, "meta l4proto tcp drop");
    load(&stage, &["--timeout", "300ms"]).all_failed("connect_timed_out");
    // A drain that is over before the patience is: they are cut.
    load(&stage, &["--timeout", "1h", "--drain", "100ms"]).all_failed("connect_cut");
}

#[test]
fn the_peer_cannot_be_reached() {
    let stage = Stage::new("bf-unreachable");
    // The kernel is sparing with such messages.
    for limit in ["net.ipv4.icmp_ratemask=0", "net.ipv6.icmp.ratelimit=0"] {
        stage.at_server(&["sysctl", "-q", "-w", limit]);
    }
    rules(
        &stage,
        "table inet faults { chain in { type filter hook input priority 0;
           meta nfproto ipv4 meta l4proto tcp reject with icmp type host-unreachable
           meta nfproto ipv6 meta l4proto tcp reject with icmpv6 type addr-unreachable
         }
         }",
    );
    let v6 = format!("[{SERVER_V6}]:80");
    let also_v6 = ["--target", v6.as_str(), "--source", SOURCES_V6];
    load(&stage, &also_v6).all_failed("unreachable");
}

#[test]
fn half_of_the_connections_are_reset() {
    let stage = Stage::new("bf-resethalf");
    let server = KernelServer::start(&stage, "reset-half:http:100");
    let run = load(&stage, &["--workload", "http"]).fails_with(NOT_AS_ASKED, "reset by peer");
    let (started, closed) = (run.started(), run.count("/connections/closed"));
    assert_eq!((run.failed("reset_by_peer"), closed), (started / 2, started.div_ceil(2)), "{}", run.said);
    assert_eq!(run.count("/requests/done"), closed);
    assert_eq!(server.stop()["resets"], started / 2);
}

#[test]
fn the_answers_are_garbage() {
    let stage = Stage::new("bf-garbage");
    let server = KernelServer::start(&stage, "garbage");
    let run = load(&stage, &["--workload", "http"]).fails_with(NOT_AS_ASKED, "bad response");
    assert_eq!(run.failed("bad_response"), run.started());
    assert_eq!((run.count("/connections/closed"), run.count("/requests/done")), (0, 0));
    assert_eq!(server.stop()["accepted"], run.started());
    // HTTP, but not what is expected.
    let server = KernelServer::start(&stage, "http:100");
    let run = load(&stage, &["--workload", "http", "--expect", "101"]);
    let run = run.fails_with(NOT_AS_ASKED, "bad response");
    assert_eq!(run.failed("bad_response"), run.started());
    server.stop();
}

/// A load that goes on until it is told to stop: however long what goes wrong takes.
const LASTING: [&str; 12] = [
    "--rate",
    "500",
    "--warmup",
    "0s",
    "--duration",
    "1h",
    "--close",
    "peer",
    "--cores",
    "1",
    "--timeout",
    "3s",
];

/// Ends it by a signal; its accounts have to close.
fn stop(generator: Generator, stage: &Stage) -> Run {
    generator.signal(Signal::SIGTERM);
    let run = generator.end(stage);
    run.accounts_close();
    run
}

/// Waits until the server's end has received so many packets more.
fn until_received(stage: &Stage, packets: u64) {
    let path = format!("/sys/class/net/{SERVER_INTERFACE}/statistics/rx_packets");
    let received = || stage.at_server(&["cat", &path]).trim().parse::<u64>().unwrap();
    let enough = received() + packets;
    until("packets arrive", LIMIT, || received() >= enough);
}

#[test]
fn a_server_that_dies_and_comes_back() {
    let stage = Stage::new("bf-serve-dies");
    let arguments = ["--listen", "198.18.0.2:80=close"];
    let server = Server::start(&stage, &arguments);
    let generator = Generator::start(&stage, &LASTING);
    until_received(&stage, 300);
    server.kill();
    let refused = || stage.kernel_tcp_at(Side::Server, "OutRsts") > 0;
    until("connections are refused", LIMIT, refused);
    let server = Server::start(&stage, &arguments);
    until_received(&stage, 300);
    let run = stop(generator, &stage);
    // While nobody was there the kernel has refused.
    assert!(run.failed("refused") > 0, "{}", run.said);
    assert!(run.count("/connections/closed") > 0, "{}", run.said);
    run.fails_with(NOT_AS_ASKED, "refused");
    assert!(server.stop(&stage).count("passive_opens") > 0);
}

#[test]
fn a_kernels_server_that_dies_and_comes_back() {
    let stage = Stage::new("bf-kernel-dies");
    let server = KernelServer::start(&stage, "close");
    let generator = Generator::start(&stage, &LASTING);
    until_received(&stage, 300);
    server.kill();
    let refused = || stage.kernel_tcp_at(Side::Server, "OutRsts") > 0;
    until("connections are refused", LIMIT, refused);
    let server = KernelServer::start(&stage, "close");
    until_received(&stage, 300);
    let run = stop(generator, &stage);
    assert!(run.failed("refused") > 0 && run.count("/connections/closed") > 0, "{}", run.said);
    run.fails_with(NOT_AS_ASKED, "refused");
    assert!(server.stop()["accepted"].as_u64().unwrap() > 0);
}

#[test]
fn a_link_that_is_lost_and_found() {
    let stage = Stage::new("bf-link");
    let server = KernelServer::start(&stage, "close");
    let mut generator = Generator::start(&stage, &LASTING);
    until_received(&stage, 300);
    stage.at_server(&["ip", "link", "set", SERVER_INTERFACE, "down"]);
    generator.until_said("the link has lost its carrier");
    stage.at_server(&["ip", "link", "set", SERVER_INTERFACE, "up"]);
    // Routes go with the link.
    stage.at_server(&["ip", "route", "add", SOURCES_V4, "via", CLIENT_V4]);
    generator.until_said("the link is up again");
    until_received(&stage, 300);
    let run = stop(generator, &stage);
    assert!(run.count("/connections/closed") > 0 && run.count("/retransmissions/syn") > 0, "{}", run.said);
    run.fails_with(NOT_AS_ASKED, "a signal ended the run");
    assert!(server.stop()["accepted"].as_u64().unwrap() > 0);
}

#[test]
fn a_link_that_is_lost_for_good() {
    let stage = Stage::new("bf-nolink");
    let _server = KernelServer::start(&stage, "close");
    let mut generator = Generator::start(&stage, &[&LASTING[..10], &["--timeout", "300ms"]].concat());
    until_received(&stage, 100);
    stage.at_server(&["ip", "link", "set", SERVER_INTERFACE, "down"]);
    generator.until_said("the link has lost its carrier");
    let run = stop(generator, &stage);
    assert!(run.failed("connect_timed_out") > 0 && run.count("/connections/closed") > 0, "{}", run.said);
    run.fails_with(NOT_AS_ASKED, "connect timed out");
}

/// A lasting load whose connections stay open.
const HOLDING: [&str; 10] =
    ["--workload", "hold", "--rate", "500", "--warmup", "0s", "--duration", "1h", "--cores", "1"];

#[test]
fn an_interface_that_goes_away_with_connections_open() {
    let stage = Stage::new("bf-gone");
    let _server = KernelServer::start(&stage, "echo");
    let generator = Generator::start(&stage, &HOLDING);
    until_received(&stage, 300);
    stage.ask(&["ip", "link", "delete", CLIENT_INTERFACE]);
    let run = generator.end(&stage);
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
    let _server = KernelServer::start(&stage, "echo");
    let run = bench(&stage, &[&HOLDING[..], &["--hdr", "/dev/full"]].concat());
    run.accounts_close();
    assert!(run.failed("cut") > 0 && run.count("/counters/out_rsts") > 0, "{}", run.said);
    run.fails_with(1, "error: writing the interval log: ");
}

#[test]
fn checksums_that_the_peer_leaves_unfinished() {
    let options = LabOptions { checksum_offload: true, ..LabOptions::default() };
    let stage = Stage::with("bf-checksums", options);
    let server = KernelServer::start(&stage, "http:100");
    let run = load(&stage, &["--workload", "http", "--timeout", "300ms"]);
    // An unfinished checksum is right by chance once in 65,536 packets, and some hundred connections try three times.
    assert!(run.failed("connect_timed_out") + 1 >= run.started() && run.started() > 50, "{}", run.said);
    assert!(run.count("/drops/drop_tcp_checksum") >= run.failed("connect_timed_out"), "{}", run.said);
    let run = run.fails_with(NOT_AS_ASKED, "connect timed out");
    for part in ["dropped       tcp checksum", "ethtool -K <peer> tx off", "--accept-partial-checksums"] {
        assert!(run.said.contains(part), "not said: {part}\n{}", run.said);
    }
    let run = load(&stage, &["--workload", "http", "--accept-partial-checksums"]).fulfilled();
    assert_eq!(run.count("/connections/closed"), run.started());
    assert_eq!(run.count("/drops/drop_tcp_checksum"), 0);
    assert!(run.count("/counters/in_partial_checksums") > 0);
    server.stop();
}
