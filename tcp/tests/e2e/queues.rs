//! Several queues, two workers, and flows that change their queue.

use std::net::TcpStream;
use std::thread;

use synmill_lab::{CLIENT_INTERFACE, LabOptions, Side};

use crate::client::{MIB, connect, echo, say};
use crate::harness::Stage;
use crate::loss;

const FOUR_QUEUES: LabOptions = LabOptions { queues: 4, mtu: 1500, checksum_offload: false };
const SERVE: &str = "--queues 0-3 --workers 2 --listen 198.18.0.2:7=echo";

/// Echoes texts of so many bytes over `count` connections at once.
fn echoes(stage: &Stage, count: u64, bytes: u64) {
    thread::scope(|scope| {
        for seed in 0..count {
            scope.spawn(move || echo(stage, "198.18.0.2:7", seed, bytes));
        }
    });
}

#[test]
fn flows_that_hop_queues_go_on() {
    let stage = Stage::with("hop", FOUR_QUEUES);
    let server = stage.serve(SERVE);
    let streams: Vec<TcpStream> = (0..64).map(|_| connect(&stage, "198.18.0.2:7")).collect();
    // With fewer TX queues the client's flows move to the rest, and with more they spread again.
    for queues in ["4", "1", "4", "2"] {
        stage.ask(&format!("ethtool -L {CLIENT_INTERFACE} tx {queues}"));
        for (number, stream) in streams.iter().enumerate() {
            say(stream, format!("{queues} queues, connection {number}").as_bytes());
        }
    }
    drop(streams);
    let report = server.stop();
    assert!(report.count("frames_handed_out") > 0, "no flow changed its worker");
    // A frame for a full inbox is a drop, and does not count as handed out.
    assert_eq!(report.count("frames_handed_out"), report.count("frames_handed_in"));
    assert_eq!((report.count("passive_opens"), report.closed()), (64, 64));
    assert_eq!(report.count("out_rsts"), 0);
}

#[test]
fn two_workers_echo_100_mib_each_intact() {
    let stage = Stage::with("twoworkers", FOUR_QUEUES);
    let server = stage.serve(SERVE);
    echoes(&stage, 2, 100 * MIB);
    let report = server.stop();
    assert_eq!((report.count("in_bytes"), report.count("out_bytes")), (200 * MIB, 200 * MIB));
    assert_eq!(report.closed(), 2);
}

#[test]
fn retransmissions_on_another_queue_reach_their_flow() {
    let stage = Stage::with("rehash", FOUR_QUEUES);
    stage.ask("sysctl -q -w net.core.txrehash=1");
    let server = stage.serve(SERVE);
    loss::set(&stage, Side::Client, 5);
    echoes(&stage, 16, MIB / 4);
    loss::clear(&stage);
    assert_eq!(server.stop().count("passive_opens"), 16);
}
