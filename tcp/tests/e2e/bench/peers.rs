//! Generator and server, both counting: what one says it did, the other has seen.

use super::*;
use crate::harness::Server;

#[test]
fn both_ends_count_the_same() {
    let stage = Stage::new("peers");
    let server = Server::start(&stage, &["--listen", "198.18.0.2:80=close"]);
    let arguments =
        ["--rate", "2000", "--close", "peer", "--warmup", "0s", "--duration", "1s", "--cores", "1"];
    let run = bench(&stage, &arguments).good();
    run.accounts_close();
    let report = server.stop(&stage);
    assert_eq!(run.count("/connections/established"), 2000);
    assert_eq!(report.count("passive_opens"), run.count("/connections/started"));
    assert_eq!(report.count("established"), run.count("/connections/established"));
    assert_eq!(report.closed(), run.count("/connections/closed"));
    assert_eq!(report.count("in_segs"), run.count("/packets_per_connection/out_total"));
    assert_eq!(report.count("out_segs"), run.count("/packets_per_connection/in_total"));
    assert_eq!(run.number("/packets_per_connection/out"), 3.0);
    assert_eq!(run.number("/packets_per_connection/in"), 3.0);
}

#[test]
fn the_kernels_server_counts_the_same() {
    let stage = Stage::new("peers-kernel");
    let server = KernelServer::start(&stage, "http:100");
    let arguments =
        ["--rate", "1000", "--workload", "http", "--warmup", "0s", "--duration", "1s", "--cores", "1"];
    let run = bench(&stage, &arguments).good();
    run.accounts_close();
    let counts = server.stop();
    assert_eq!(counts["accepted"], run.count("/connections/established"));
    assert_eq!(counts["requests"], run.count("/requests/done"));
}
