//! Every workload and every way to close, packet by packet against the services, with and without piggybacking.

use synmill_engine::generator::dialogue::Payload;

use super::*;

/// Runs a hundred connections, one at a time. Returns the outcome, and the packets of one connection: the generator's, and the peer's.
fn packets(plan: &Plan, label: &str) -> (Outcome, [u64; 2]) {
    let mut field = Field::new(plan);
    let outcome = field.run_for(Load::Rate(100), secs(1));
    assert_eq!(outcome.totals.started, 100, "{label}");
    check_both_ends(&mut field);
    let packets = field.packets();
    assert!(packets.iter().all(|packets| packets % 100 == 0), "{label}: {packets:?}");
    (outcome, packets.map(|packets| packets / 100))
}

/// Checks the packets of a connection, with piggybacking at both ends, and at neither. One acknowledgement answers all segments of a
/// burst: those that were sent in one turn.
fn check(label: &str, script: &Script, service: &'static str, together: [u64; 2], apart: [u64; 2]) {
    for (piggyback, expected) in [(true, together), (false, apart)] {
        let plan = Plan {
            piggyback: [piggyback; 2],
            holds: label.starts_with("hold"),
            faults: delay(us(100)),
            ..Plan::saying(script.clone(), service)
        };
        let label = format!("{label} against {service}, piggyback {piggyback}");
        let (outcome, packets) = packets(&plan, &label);
        outcome.check_perfect();
        assert_eq!(packets, expected, "{label}");
    }
}

#[test]
fn packets_of_a_connection_without_text() {
    use CloseBy::{Fin, Peer, Rst};
    let connect = |close, service, together, apart| {
        check(&format!("connect, {close:?}"), &Script::connect(close), service, together, apart);
    };
    connect(Peer, "close", [3, 3], [4, 3]);
    connect(Peer, "source:1000", [3, 3], [4, 4]);
    connect(Peer, "source:5000", [3, 6], [6, 7]);
    // Both ends close at once, and the FINs cross.
    connect(Fin, "close", [3, 2], [4, 3]);
    connect(Fin, "discard", [3, 2], [4, 3]);
    connect(Fin, "echo", [3, 2], [4, 3]);
    connect(Fin, "hold", [3, 2], [4, 3]);
    connect(Fin, "source:1000", [3, 2], [5, 4]);
    connect(Fin, "source:5000", [3, 5], [8, 7]);
    check("hold, Fin", &Script::hold(Fin), "close", [3, 3], [4, 3]);
    check("hold, Rst", &Script::hold(Rst), "hold", [3, 1], [3, 1]);
    check("hold, Rst", &Script::hold(Rst), "close", [3, 2], [3, 2]);
    for service in ["discard", "echo", "hold"] {
        connect(Rst, service, [3, 1], [3, 1]);
    }
}

#[test]
fn packets_of_a_request_over_http() {
    use CloseBy::{Fin, Peer, Rst};
    let get = |requests, close, service, together, apart| {
        check(&format!("http, {requests}, {close:?}"), &http(requests, close), service, together, apart);
    };
    // Five and five, as in the textbook.
    get(1, Peer, "http:64", [3, 3], [5, 5]);
    get(1, Peer, "http:5000", [3, 6], [7, 8]);
    get(3, Peer, "http:64", [5, 5], [9, 9]);
    get(3, Peer, "http:5000", [5, 14], [13, 18]);
    get(1, Fin, "http:64", [4, 3], [6, 5]);
    get(1, Fin, "http:5000", [4, 6], [7, 8]);
    get(3, Fin, "http:64", [6, 5], [10, 9]);
    get(3, Fin, "http:5000", [6, 14], [13, 18]);
    get(1, Rst, "http:64", [3, 2], [4, 3]);
    get(3, Rst, "http:5000", [5, 13], [11, 16]);
}

#[test]
fn packets_of_a_request_of_bytes() {
    use CloseBy::{Fin, Peer, Rst};
    let ask = |size, expect, requests, close, service, together, apart| {
        let script = Script::request(Payload::Pattern(size), expect, requests, close);
        let label = format!("{size} for {expect}, {requests}, {close:?}");
        check(&label, &script, service, together, apart);
    };
    ask(10, 10, 1, Fin, "echo", [4, 3], [6, 4]);
    ask(10, 10, 3, Fin, "echo", [6, 5], [10, 6]);
    ask(5000, 5000, 1, Fin, "echo", [7, 6], [12, 7]);
    ask(5000, 5000, 3, Fin, "echo", [15, 14], [28, 15]);
    ask(10, 0, 1, Fin, "discard", [4, 3], [5, 4]);
    ask(10, 0, 3, Fin, "discard", [6, 5], [7, 6]);
    ask(0, 1000, 1, Fin, "source:1000", [3, 3], [5, 4]);
    ask(0, 1000, 1, Peer, "source:1000", [3, 3], [4, 4]);
    ask(10, 10, 1, Rst, "echo", [3, 2], [4, 2]);
    ask(5000, 5000, 3, Rst, "echo", [14, 13], [26, 13]);
    ask(10, 0, 3, Rst, "discard", [5, 4], [6, 4]);
}

/// Many more requests than connections mostly have.
#[test]
fn a_thousand_requests_of_a_connection() {
    for (script, service) in [
        (http(1000, CloseBy::Peer), "http:64"),
        (Script::request(Payload::Pattern(300), 300, 1000, CloseBy::Fin), "echo"),
        (Script::request(Payload::Bytes(vec![7; 2000].into()), 0, 1000, CloseBy::Rst), "discard"),
    ] {
        let mut field = Field::new(&Plan { faults: delay(us(100)), ..Plan::saying(script, service) });
        let outcome = field.run_for(Load::Rate(20), secs(1));
        outcome.check_perfect();
        assert_eq!((outcome.totals.requests_started, outcome.totals.requests_done), (20_000, 20_000));
        assert_eq!(outcome.count(Meter::Request), 20_000);
        check_both_ends(&mut field);
    }
}

/// Peers that deviate from the script: each connection ends in the account that names the fault.
#[test]
fn what_a_peer_does_wrong_has_a_name() {
    use CloseBy::{Fin, Peer};
    let bytes =
        |size, expect, requests, close| Script::request(Payload::Pattern(size), expect, requests, close);
    type Account = fn(&Totals) -> u64;
    let named: [(&str, Script, &str, Account); 10] = [
        ("reset at once", Script::connect(Fin), "reset", |totals| totals.reset_by_peer),
        ("reset at once", Script::connect(Peer), "reset", |totals| totals.reset_by_peer),
        ("reset while held", Script::hold(Fin), "reset", |totals| totals.reset_by_peer),
        ("reset instead of a response", http(1, Peer), "reset", |totals| totals.reset_by_peer),
        ("never closes", Script::connect(Peer), "hold", |totals| totals.timed_out),
        ("never closes after it answered", bytes(10, 10, 1, Peer), "echo", |totals| totals.timed_out),
        ("never answers", bytes(10, 10, 1, Fin), "discard", |totals| totals.timed_out),
        ("closes before it answers", http(1, Peer), "close", |totals| totals.bad_response),
        ("closes after one of two", bytes(0, 1000, 2, Fin), "source:1000", |totals| totals.bad_response),
        ("says too much", bytes(10, 5, 1, Peer), "echo", |totals| totals.bad_response),
    ];
    for (label, script, service, account) in named {
        let plan = Plan { faults: delay(ms(1)), timeout: ms(200), ..Plan::saying(script, service) };
        let mut field = Field::new(&plan);
        let outcome = field.run_for(Load::Rate(100), secs(1));
        let totals = outcome.totals;
        let counts = (totals.started, totals.established, account(&totals));
        assert_eq!(counts, (100, 100, 100), "{label}: {totals:#?}");
        assert!(outcome.over - outcome.trial.end() <= ms(215), "{label}");
        check_both_ends(&mut field);
    }
}
