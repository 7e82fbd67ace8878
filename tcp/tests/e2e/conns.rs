//! `synmill conns` beside a running responder and generator: it lists exactly the connections of the kernel's clients.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use synmill_lab::{CLIENT_INTERFACE, CLIENT_V4, LabOptions, SERVER_V4, Side, Words as _, schema};

use crate::client::{connect, say};
use crate::harness::{BINARY, Stage, run, until};

/// Both families, and a service that sends nothing.
const HOLD: &str = "--listen 198.18.0.2:9 --listen [fd00:18::2]:9 --service hold";

/// The local address and the peer's, as the endpoint sees them.
type Pair = (String, String);

/// Returns the path of a process's socket.
fn socket(pid: u32) -> PathBuf {
    Path::new("/run/synmill").join(format!("{pid}.sock"))
}

/// Runs `synmill conns` for the endpoint of one process, because this machine may have others.
fn conns(pid: u32, options: &str) -> Output {
    run(Command::new(BINARY).args(["conns", "--pid", &pid.to_string()]).args(options.words()))
}

/// Returns the output of `synmill conns`, which must succeed.
fn table(pid: u32, options: &str) -> String {
    let output = conns(pid, options);
    let (out, error) = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).into();
    assert!(output.status.success() && error.is_empty(), "{options}: {}: {out}{error}", output.status);
    out.into_owned()
}

/// Returns the rows of the list, each checked against docs/json.md.
fn rows(pid: u32, options: &str) -> Vec<Value> {
    let types = schema::documented("synmill-conns/1");
    let row = |line: &str| {
        let row = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        schema::check(&row, &types, &mut BTreeSet::new());
        row
    };
    table(pid, &format!("{options} --json")).lines().map(row).collect()
}

fn text<'a>(row: &'a Value, path: &str) -> &'a str {
    row[path].as_str().unwrap_or_else(|| panic!("{path}: {row}"))
}

/// Returns the listed connections; none may be listed twice.
fn pairs(rows: &[Value]) -> BTreeSet<Pair> {
    let pair = |row: &Value| (text(row, "local").to_owned(), text(row, "peer").to_owned());
    let pairs: BTreeSet<Pair> = rows.iter().map(pair).collect();
    assert_eq!(pairs.len(), rows.len(), "one is listed twice: {rows:?}");
    pairs
}

/// Returns the clients' connections.
fn held(streams: &[TcpStream]) -> BTreeSet<Pair> {
    let pair = |stream: &TcpStream| {
        (stream.peer_addr().unwrap().to_string(), stream.local_addr().unwrap().to_string())
    };
    streams.iter().map(pair).collect()
}

/// Opens `count` connections to each of the addresses.
fn open(stage: &Stage, addresses: &[&str], count: usize) -> Vec<TcpStream> {
    let all = addresses.iter().flat_map(|address| std::iter::repeat_n(address, count));
    all.map(|address| connect(stage, address)).collect()
}

/// Waits until the list is as expected: the last acknowledgement of a handshake arrives after connect() returns.
fn until_listed(pid: u32, options: &str, expected: &BTreeSet<Pair>) -> Vec<Value> {
    let mut last = Vec::new();
    until("all connections are listed, and no others", || {
        last = rows(pid, options);
        pairs(&last) == *expected
    });
    last
}

#[test]
fn what_the_clients_have_is_listed_and_nothing_else() {
    let stage = Stage::new("conns");
    let server = stage.serve(HOLD);
    let pid = server.pid();
    assert!(rows(pid, "").is_empty());
    assert_eq!(table(pid, ""), "0 listed of 0 in the table\n");

    let mut streams = open(&stage, &["198.18.0.2:9", "[fd00:18::2]:9"], 100);
    let all = until_listed(pid, "--state established", &held(&streams));
    assert_eq!(pairs(&rows(pid, "")), held(&streams));
    for row in &all {
        assert_eq!((text(row, "state"), row["active"].as_bool()), ("ESTABLISHED", Some(false)), "{row}");
        assert_eq!((row["unacked"].as_u64(), row["retransmissions"].as_u64()), (Some(0), Some(0)), "{row}");
        assert_eq!(row["role"].as_u64(), Some(u64::from(text(row, "local").starts_with('['))), "{row}");
    }

    // Filters select their part.
    let (v4, v6) = streams.split_at(100);
    assert_eq!(pairs(&rows(pid, "--peer 198.18.0.0/24")), held(v4));
    assert_eq!(pairs(&rows(pid, "--peer fd00:18::/64 --state estab")), held(v6));
    assert!(rows(pid, "--peer 198.19.0.0/16").is_empty());
    assert!(rows(pid, "--state time-wait,syn-received").is_empty());
    assert_eq!(pairs(&rows(pid, "--top 7 --sort age")).len(), 7);
    let text = table(pid, "--top 7");
    assert!(text.ends_with("\n7 listed of 200 that match, 200 in the table\n"), "{text}");
    assert_eq!(text.lines().count(), 1 + 2 * 7 + 1, "{text}");

    // Closed connections leave the list.
    streams.drain(50..150);
    until_listed(pid, "", &held(&streams));
    drop(streams);
    until_listed(pid, "", &BTreeSet::new());
    server.stop();
}

#[test]
fn the_variables_are_those_of_the_connection() {
    let stage = Stage::new("variables");
    let server = stage.serve("--listen 198.18.0.2:7=echo");
    let streams = open(&stage, &["198.18.0.2:7"], 1);
    let before = until_listed(server.pid(), "--state established", &held(&streams)).remove(0);
    say(&streams[0], &[b'x'; 1000]);
    let mut after = Value::Null;
    until("the echo is acknowledged", || {
        after = rows(server.pid(), "").remove(0);
        after["unacked"].as_u64() == Some(0)
    });
    for path in ["snd_una", "snd_nxt", "rcv_nxt"] {
        let [before, after] = [&before, &after].map(|row| row[path].as_u64().unwrap() as u32);
        assert_eq!(after.wrapping_sub(before), 1000, "{path}");
    }
    // Linux requests these options on a link with an MTU of 1500 bytes.
    for path in ["timestamps", "window_scale", "sack"] {
        assert_eq!(after[path], Value::Bool(true), "{path}");
    }
    assert_eq!(after["mss_bytes"].as_u64(), Some(1448));
    assert!(after["age_s"].as_u64() >= before["age_s"].as_u64(), "{before} {after}");

    // A client disappears without a word: synmill retransmits to it.
    let hook = format!("type filter hook ingress device {CLIENT_INTERFACE} priority 0; policy drop;");
    stage.rules(Side::Client, &format!("table netdev lost {{ chain in {{ {hook} }}; }}"));
    (&streams[0]).write_all(&[b'y'; 10]).unwrap();
    until("the echo is retransmitted", || {
        let row = rows(server.pid(), "--top 1 --sort retransmissions").remove(0);
        row["retransmissions"].as_u64() > Some(0)
            && row["unacked"].as_u64() == Some(10)
            && row["timer"] == "retransmit"
            && row["backoff"].as_u64() > Some(0)
    });
    stage.ask(&["nft", "delete table netdev lost"]);
    drop(streams);
    server.stop();
}

/// Both endpoints list the connections that stay among some thousands per second that come and go.
#[test]
fn what_stays_is_listed_whole_while_others_come_and_go() {
    let stage = Stage::new("churn");
    let listen = "--listen 198.18.0.2:9=hold --listen 198.18.0.2:80=close --time-wait 100ms";
    let server = stage.serve(listen);
    let streams = open(&stage, &["198.18.0.2:9"], 200);
    until_listed(server.pid(), "--state established", &held(&streams));

    let load = "--rate 2000 --close peer --duration 60s --warmup 0s --cores 1";
    let mut generator = stage.generator(load);
    generator.until_said("started");
    for _ in 0..50 {
        let listed = rows(server.pid(), &format!("--peer {CLIENT_V4}/32 --state established"));
        assert_eq!(pairs(&listed), held(&streams));
        // A short connection's tuple may come again, but each slot holds one connection at a time.
        let all = rows(server.pid(), "");
        let slots: BTreeSet<String> =
            all.iter().map(|row| format!("{}/{}", row["worker"], row["slot"])).collect();
        assert_eq!(slots.len(), all.len());
        let staying: Vec<Value> = all.into_iter().filter(|row| text(row, "local").ends_with(":9")).collect();
        assert_eq!(pairs(&staying), held(&streams));
    }
    let target = format!("{SERVER_V4}:80");
    until("the generator's connections are listed", || {
        let rows = rows(generator.pid(), "");
        for row in &rows {
            assert_eq!((text(row, "peer"), row["active"].as_bool()), (&target[..], Some(true)), "{row}");
        }
        !rows.is_empty()
    });
    generator.signal(Signal::SIGINT);
    let generators = socket(generator.pid());
    generator.end().fails_with(3, "signal");
    assert!(!generators.exists());
    drop(streams);
    assert!(server.stop().count("passive_opens") > 1000, "not much has come and gone");
}

#[test]
fn the_lists_of_both_ends_mirror_each_other() {
    const COUNT: usize = 20_000;
    let stage = Stage::new("mirror");
    let server = stage.serve("--listen 198.18.0.2:80=hold");
    // All at once they would overflow the rings, and the lost SYNs would come again a second later.
    let load = "--workload hold --concurrency 20K --ramp 2s --duration 60s --cores 1";
    let mut generator = stage.generator(load);
    generator.until_said("open  20,000");
    let established = |pid| pairs(&rows(pid, "--state established"));
    // Some handshakes may not have ended.
    until("both ends list the same", || {
        let theirs = established(generator.pid());
        theirs.len() == COUNT
            && established(server.pid()) == theirs.into_iter().map(|(ours, peer)| (peer, ours)).collect()
    });
    let ends = format!("\n5 listed of {0} that match, {0} in the table\n", "20,000");
    for pid in [server.pid(), generator.pid()] {
        let text = table(pid, "--top 5 --sort age");
        assert!(text.ends_with(&ends), "{text}");
    }
    generator.signal(Signal::SIGINT);
    generator.end().fails_with(3, "signal");
    server.stop();
}

#[test]
fn the_connections_of_all_workers_are_listed() {
    let options = LabOptions { queues: 4, mtu: 1500, checksum_offload: false };
    let stage = Stage::with("workers", options);
    let server = stage.serve(&format!("{HOLD} --queues 0-3 --workers 2"));
    let streams = open(&stage, &["198.18.0.2:9", "[fd00:18::2]:9"], 50);
    let rows = until_listed(server.pid(), "--state established", &held(&streams));
    let of = |worker: u64| rows.iter().filter(|row| row["worker"].as_u64() == Some(worker)).count();
    assert!(of(0) > 0 && of(1) > 0, "one worker has them all");
    let text = table(server.pid(), "");
    let end = format!("\n100 listed of 100 in the table (worker 0: {}, worker 1: {})\n", of(0), of(1));
    assert!(text.ends_with(&end), "{text}");
    drop(streams);
    server.stop();
}

#[test]
fn the_socket_is_its_users_alone_and_gone_at_the_end() {
    let stage = Stage::new("socket");
    let server = stage.serve(HOLD);
    let path = socket(server.pid());
    let there = fs::symlink_metadata(&path).unwrap();
    assert!(there.file_type().is_socket());
    assert_eq!(there.permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata("/run/synmill").unwrap().permissions().mode() & 0o7777, 0o700);
    server.stop();
    assert!(!path.exists(), "after SIGTERM");

    let server = stage.serve(HOLD);
    let killed = socket(server.pid());
    server.kill();
    let gone = conns_of_dead(&killed);
    assert!(gone.contains("nobody listens there"), "{gone}");

    // The next serve removes the dead process's socket, and ends with its interface.
    let server = stage.serve(HOLD);
    assert!(!killed.exists(), "a dead process's socket is left");
    let path = socket(server.pid());
    assert!(path.exists());
    stage.ask(&format!("ip link delete {CLIENT_INTERFACE}"));
    server.end().fails_with(1, "");
    assert!(!path.exists(), "after a failure");
}

/// Returns the error of a client for the socket at this path.
fn conns_of_dead(path: &Path) -> String {
    let output = run(Command::new(BINARY).args(["conns", "--socket"]).arg(path));
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_socket_may_be_elsewhere_or_nowhere() {
    let stage = Stage::new("control");
    let path = stage.file("control");
    let control = path.to_str().unwrap();
    let server = stage.serve(&[&HOLD.words()[..], &["--control", control]].concat());
    assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(!socket(server.pid()).exists());
    let output = run(Command::new(BINARY).args(["conns", "--socket", control]));
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"0 listed of 0 in the table\n"[..]));

    // synmill refuses the same path to a second endpoint, before it changes anything.
    let places = [(control, "another endpoint's"), ("/nonexistent/s", "No such file"), (BINARY, "no socket")];
    for (place, part) in places {
        let refused = stage.generator(&["--rate", "1", "--control", place]).end();
        assert_eq!(refused.said.lines().count(), 1, "{}", refused.said);
        refused.fails_with(1, "--control").fails_with(1, part);
    }
    assert!(path.exists());
    server.stop();
    assert!(!path.exists());

    let server = stage.serve(&format!("{HOLD} --control none"));
    let output = conns(server.pid(), "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is no endpoint with a socket"));
    server.stop();
}

#[test]
fn a_client_that_is_not_what_it_should_be() {
    let stage = Stage::new("hostile");
    let server = stage.serve(HOLD);
    let streams = open(&stage, &["198.18.0.2:9"], 3);
    let expected = held(&streams);
    until_listed(server.pid(), "", &expected);

    for (options, code, part) in [
        ("--state open", 2, "one of syn-sent"),
        ("--peer 198.18.0.1/24", 2, "write 198.18.0.0/24"),
        ("--top 0", 2, "from 1 to"),
        ("--socket s", 2, "--pid"),
    ] {
        let output = conns(server.pid(), options);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{options}: {error}");
        assert!(
            error.lines().count() == 1 && error.starts_with("error: ") && error.contains(part),
            "{error}"
        );
    }

    // A silent client that stays delays the others for a moment only.
    let _silent = UnixStream::connect(socket(server.pid())).unwrap();
    assert_eq!(pairs(&rows(server.pid(), "")), expected);
    // A client whose reader has gone.
    let mut command = Command::new(BINARY);
    command.args(["conns", "--pid", &server.pid().to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    drop(streams);
    server.stop();
}
