//! Every load against a server that keeps up: as many connections as asked, at the right time, and no longer than asked.

use serde_json::Value;
use synmill_lab::LabOptions;

use crate::harness::{Program, Run, Stage};

/// One worker on one queue, and two workers on two: the queues, and the options.
const WORKERS: [(u32, &str); 2] = [(1, "--workers 1 --cores 1"), (2, "--workers 2 --cores 0,1")];

/// Runs `check` on a stage of this name for each of [`WORKERS`], with a server of this service on port 80.
fn with_workers(names: [&'static str; 2], service: &str, check: impl Fn(&Stage, &str, Program)) {
    for (name, (queues, workers)) in names.into_iter().zip(WORKERS) {
        let stage = Stage::with(name, LabOptions { queues, ..LabOptions::default() });
        let server = stage.serve(&format!("--listen 198.18.0.2:80 --service {service}"));
        check(&stage, workers, server);
    }
}

/// Returns the connections that were due in the measured time.
fn due(run: &Run) -> u64 {
    run.started() + run.count("/connections/not_started")
}

#[test]
fn a_rate_is_so_many_connections_and_neither_ramp_nor_warm_up_count() {
    with_workers(["rate1", "rate2"], "close", |stage, workers, server| {
        let load = "--rate 1500 --ramp 400ms --warmup 200ms --duration 500ms";
        let run = stage.bench(&format!("{load} {workers} --close peer")).fulfilled();
        run.accounts_close();
        assert_eq!(due(&run), 750, "{}", run.said);
        // The ramp opens half as many connections as the rate.
        let opened = run.count("/counters/active_opens");
        assert_eq!(opened + run.count("/connections/not_started"), 300 + 300 + 750, "{}", run.said);
        assert_eq!(run.count("/latency_us/connect/count"), run.count("/connections/established"));
        let report = server.stop();
        assert_eq!((report.count("passive_opens"), report.closed()), (opened, opened));
    });
}

#[test]
fn so_many_connections_are_open_at_a_time() {
    with_workers(["open1", "open2"], "http:100", |stage, workers, server| {
        let load = "--concurrency 400 --workload http --warmup 100ms --duration 300ms";
        let run = stage.bench(&format!("{load} {workers}")).good();
        run.accounts_close();
        assert!(run.started() > 400, "{}", run.said);
        assert_eq!(run.count("/connections/closed"), run.started(), "{}", run.said);
        for bound in ["/concurrency/min", "/concurrency/max"] {
            assert!((396..=404).contains(&run.count(bound)), "{bound}: {}", run.said);
        }
        assert_eq!(server.stop().count("passive_opens"), run.count("/counters/active_opens"));
    });
}

#[test]
fn connections_are_held_to_the_end() {
    with_workers(["hold1", "hold2"], "hold", |stage, workers, server| {
        let load = "--concurrency 1000 --workload hold --warmup 1s --duration 300ms";
        let run = stage.bench(&format!("{load} {workers}")).good();
        run.accounts_close();
        // All connections open before the measured time. None is lost, so none opens later.
        assert_eq!(run.count("/counters/active_opens"), 1000, "{}", run.said);
        assert_eq!([run.count("/concurrency/min"), run.count("/concurrency/max")], [1000; 2]);
        let most =
            run.value("/intervals").as_array().unwrap().iter().map(|interval| interval["open"].as_u64());
        assert_eq!(most.max().flatten(), Some(1000), "{}", run.said);
        let report = server.stop();
        assert_eq!((report.count("passive_opens"), report.closed()), (1000, 1000));
        assert_eq!((report.count("curr_estab"), report.count("ended_reset_by_peer")), (0, 0));
    });
}

#[test]
fn as_many_as_can_be() {
    let stage = Stage::new("max");
    let server = stage.serve("--listen 198.18.0.2:80=close");
    let load = "--rate max --close peer --warmup 0s --duration 300ms --cores 1";
    let run = stage.bench(load).good();
    run.accounts_close();
    assert!(run.started() > 512, "{}", run.said);
    assert_eq!(run.count("/connections/closed"), run.started(), "{}", run.said);
    assert_eq!(server.stop().count("established"), run.started());
}

#[test]
fn a_search_shows_its_steps_and_confirms_what_it_finds() {
    let stage = Stage::new("search");
    let server = stage.serve("--listen 198.18.0.2:80=close");
    // Such short trials find a random rate: no assertion depends on it.
    let load = "--search --loss 50% --close peer --warmup 0s --duration 100ms";
    let run = stage.bench(&format!("{load} --cores 1"));
    run.accounts_close();
    let steps = run.value("/steps").as_array().unwrap();
    assert!(!steps.is_empty() && run.said.contains("search: step at "), "{}", run.said);
    let is_found = steps.last().unwrap()["passed"] == Value::Bool(true);
    assert_eq!(run.status.code(), Some(if is_found { 0 } else { 3 }), "{}", run.said);
    assert!(!is_found || run.said.contains("search: confirmation at "), "{}", run.said);
    assert_eq!(run.said.contains("\n              highest rate w"), is_found, "{}", run.said);
    assert_eq!(server.stop().count("passive_opens"), run.count("/counters/active_opens"));
}

#[test]
fn the_drain_has_an_end() {
    let stage = Stage::new("drain");
    let server = stage.kernel_server("silent");
    let load = "--rate 500 --close peer --warmup 0s --duration 200ms --cores 1";
    let run = stage.bench(&format!("{load} --timeout 1h --drain 300ms"));
    run.accounts_close();
    let run = run.fails_with(3, "were cut at the end of the drain");
    assert_eq!(run.count("/connections/failed/cut"), run.started());
    // The drain ends within the second that has begun.
    let at = run.value("/intervals").as_array().unwrap().last().unwrap()["at_s"].as_f64().unwrap();
    assert!(at < 3.0, "{}", run.said);
    let counts = server.stop();
    assert_eq!(counts["accepted"], run.started());
}
