//! Several queues and workers, with answers on any queue; and sources on the link, without a route.

use nix::sys::signal::Signal;
use synmill_lab::{LabOptions, SOURCES_V4, SOURCES_V6, Side};

use crate::harness::{Run, Stage, until};

const FOUR_QUEUES: LabOptions = LabOptions { queues: 4, mtu: 1500, checksum_offload: false };

/// One worker on all queues, and two that share them.
const WORKERS: [&str; 2] = ["--workers 1 --cores 1", "--workers 2 --cores 0,1"];

/// Runs a moderate load, and checks that every connection completes its dialogue and that the workers lose nothing between them.
fn all_complete(stage: &Stage, workers: &str) -> Run {
    let load = "--rate 1000 --workload http --requests 3 --warmup 0s --duration 400ms";
    let run = stage.bench(&format!("{load} {workers}")).fulfilled();
    run.accounts_close();
    assert_eq!(run.count("/connections/closed"), run.started(), "{}", run.said);
    assert_eq!(run.count("/requests/done"), 3 * run.started(), "{}", run.said);
    assert_eq!(run.value("/queues").as_array().unwrap().len(), 4);
    // The owners have taken every frame that other workers handed out.
    assert_eq!(run.count("/drops/drop_hand_over_full"), 0, "{}", run.said);
    assert_eq!(run.count("/counters/frames_handed_out"), run.count("/counters/frames_handed_in"));
    run
}

#[test]
fn serve_on_four_queues() {
    let stage = Stage::with("bq-serve", FOUR_QUEUES);
    let server = stage.serve("--listen 198.18.0.2:80 --service http:100 --workers 2 --cores 0,1");
    let started: u64 = WORKERS.iter().map(|workers| all_complete(&stage, workers).started()).sum();
    let report = server.stop();
    assert_eq!((report.count("passive_opens"), report.closed()), (started, started));
}

#[test]
fn the_kernels_server_answers_on_any_queue() {
    let stage = Stage::with("bq-kernel", FOUR_QUEUES);
    let server = stage.kernel_server("http:100");
    let runs = WORKERS.map(|workers| all_complete(&stage, workers));
    let handed = runs.each_ref().map(|run| run.count("/counters/frames_handed_out"));
    assert_eq!(handed[0], 0, "one worker has nobody to hand over to");
    assert!(handed[1] > 0, "every answer came to its owner's queue:\n{}", runs[1].said);
    assert_eq!(server.stop()["accepted"], runs[0].started() + runs[1].started());
}

#[test]
fn sources_on_the_link_are_found_without_a_route() {
    let stage = Stage::new("bq-link");
    stage.at_server(&format!("ip route del {SOURCES_V4}"));
    stage.at_server(&format!("ip -6 route del {SOURCES_V6}"));
    let server = stage.kernel_server_at("http:100", &["198.18.0.2:80", "[fd00:18::2]:80"]);
    let run = stage.generator_to(
        "--target 198.18.0.2:80 --source 198.18.0.128/26 --target [fd00:18::2]:80 --source fd00:18::1:0/122 \
         --rate 300 --workload http --warmup 0s --duration 300ms --cores 1",
    );
    let run = run.end().fulfilled();
    run.accounts_close();
    assert_eq!(run.count("/connections/closed"), run.started(), "{}", run.said);
    assert!(run.count("/counters/neighbour_answers") > 0);
    assert_eq!(server.stop()["accepted"], run.started());
}

#[test]
fn sources_answer_pings_while_it_runs() {
    let stage = Stage::new("bq-ping");
    let server = stage.kernel_server("echo");
    let hold = "--concurrency 20 --workload hold --warmup 0s --duration 1h --cores 1";
    let on_link = "--target 198.18.0.2:80 --source 198.18.0.64/26";
    let mut generator = stage.generator_to(&format!("{on_link} {hold}"));
    generator.until_said("load: ");
    for address in ["198.18.0.64", "198.18.0.100", "198.18.0.127"] {
        stage.at_server(&format!("ping -c 2 -i 0.01 -w 10 {address}"));
    }
    until("all hold", || stage.kernel_tcp(Side::Server, "CurrEstab") == 20);
    generator.signal(Signal::SIGTERM);
    let run = generator.end().fails_with(3, "a signal ended the run");
    run.accounts_close();
    // ping sends more requests while it waits for the last answer.
    assert!(run.count("/counters/echo_answers") >= 6);
    assert_eq!(run.count("/connections/started"), 20);
    server.stop();
}
