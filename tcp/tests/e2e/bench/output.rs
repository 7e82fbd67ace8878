//! The output of a run: lines, table, JSON document, interval log and capture.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use nix::sys::signal::Signal;
use serde_json::Value;
use synmill_lab::{CLIENT_INTERFACE, SERVER_V4, SOURCES_V4, Side, Words as _, schema};

use crate::harness::{BINARY, Stage, run};

/// Returns the command of `synmill bench` with one request for each connection, at this rate and for this duration.
fn requests(stage: &Stage, rate: u32, duration: &str) -> Command {
    let mut command =
        stage.client(&[BINARY, "bench", "--interface", CLIENT_INTERFACE, "--source", SOURCES_V4]);
    let load =
        format!("--rate {rate} --workload http --warmup 0s --duration {duration} --target {SERVER_V4}:80");
    command.args(load.words());
    command
}

/// The document's first names, in this order.
const TOP: &str = "schema command host mode duration_s rate_per_s connections \
    packets_per_connection latency_us drops cpu accounts intervals";

#[test]
fn what_a_person_and_a_program_read() {
    let stage = Stage::new("b-output");
    let server = stage.serve("--listen 198.18.0.2:80=http:100");
    let [json, hdr] = ["run.json", "run.hdr"].map(|name| stage.file(name));
    let output = run(requests(&stage, 200, "2s").arg("--json").arg(&json).arg("--hdr").arg(&hdr));
    let [out, facts] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{out}\n{facts}");
    server.stop();

    the_start(&facts);
    let lines: Vec<&str> = out.lines().take_while(|line| !line.starts_with("interface")).collect();
    a_line_a_second(&lines);
    the_table(&out.lines().skip(lines.len()).collect::<Vec<_>>());
    let text = fs::read_to_string(json).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    the_document(&text, &report);
    numbers_agree(&report);
    the_log_agrees(&fs::read(hdr).unwrap(), &report);
}

/// Checks the settings on standard error.
fn the_start(facts: &str) {
    let labels: Vec<&str> = facts.lines().map(|line| line.split_once(':').expect("a label").0).collect();
    for label in ["interface", "mode", "worker 0", "owned", "note", "targets", "tuples", "load"] {
        assert!(labels.contains(&label), "{label}:\n{facts}");
    }
    assert!(facts.contains("load: 200 connections/s; measured 2 s, drain at most 5 s"), "{facts}");
}

/// Checks the line of each second.
fn a_line_a_second(lines: &[&str]) {
    assert!(lines.len() >= 2, "{lines:?}");
    for (line, progress) in lines.iter().zip(["1/2 s measure", "2/2 s measure"]) {
        for part in [progress, "started", "estab ", "open", "connect p99", "requests", "cpu %"] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}

/// Checks the final table, which must fit on a screen of 45 lines and 100 columns.
fn the_table(lines: &[&str]) {
    let table = lines.join("\n");
    assert!(lines.len() <= 45 && lines.iter().all(|line| line.chars().count() <= 100), "{table}");
    let labels = [
        "interface     smc0 (veth), mode copy, 1 queue, 1 worker",
        "workload      http, 1 request, closed by peer, to 198.18.0.2:80, ",
        "rate          asked 200/s   achieved ",
        "connections   started 400   established 400   closed 400",
        "requests      started 400   done 400",
        "packets       3.00 out + 3.00 in, each connection",
        "latency ",
        "  connect ",
        "    from SYN ",
        "  first byte ",
        "  request ",
        "  close ",
        "  life ",
        "  start lag ",
        "cpu           core ",
        "accounts      started     400 = 400",
        "verdict       all is as asked, and the accounts close",
    ];
    let place = |label: &str| {
        let found = lines.iter().position(|line| line.starts_with(label));
        found.unwrap_or_else(|| panic!("no line {label}:\n{table}"))
    };
    assert!(labels.map(place).is_sorted(), "{table}");
}

/// Checks the document against docs/json.md.
fn the_document(text: &str, report: &Value) {
    assert_eq!(report["schema"], "synmill-bench/1");
    schema::check(report, &schema::documented("synmill-bench/1"), &mut BTreeSet::new());
    let top: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  \"")).collect();
    let place = |name: &str| top.iter().position(|line| line.starts_with(&format!("{name}\":"))).expect(name);
    assert!(TOP.words().into_iter().map(place).is_sorted(), "{top:?}");
}

/// Returns a number of the document by its path.
fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path}: {report}"))
}

/// Checks that figures of the document agree with each other.
fn numbers_agree(report: &Value) {
    let number = |path: &str| number(report, path);
    for (path, is) in [
        ("/rate_per_s/asked", 200.0),
        ("/connections/started", 400.0),
        ("/connections/established", 400.0),
        ("/connections/closed", 400.0),
        ("/requests/done", 400.0),
        ("/packets_per_connection/out", 3.0),
        ("/packets_per_connection/in", 3.0),
        ("/workload/requests", 1.0),
        ("/load/duration_s", 2.0),
    ] {
        assert_eq!(number(path), is, "{path}");
    }
    for (group, names) in [
        ("/latency_us", &["connect", "first_byte", "request", "close", "life"][..]),
        ("/latency_from_syn_us", &["connect", "first_byte", "life"]),
        ("", &["start_lag_us"]),
    ] {
        for name in names {
            let value = |part: &str| number(&format!("{group}/{name}/{part}"));
            assert_eq!(value("count"), 400.0, "{name}");
            let values = ["p50", "p90", "p99", "p999", "p9999", "max"].map(value);
            assert!(values.is_sorted() && values[0] >= 1.0, "{name}: {values:?}");
        }
    }
    assert!(number("/latency_us/connect/p50") <= number("/latency_us/first_byte/p50"));
    assert!(number("/latency_us/first_byte/p50") <= number("/latency_us/life/p50"));
    assert!(number("/latency_us/connect/max") <= number("/latency_us/life/max"));
    let mut sums = [0.0; 2];
    let mut before = 0.0;
    for interval in report["intervals"].as_array().unwrap() {
        let end = interval["at_s"].as_f64().unwrap();
        for (sum, name) in sums.iter_mut().zip(["established_per_s", "requests_per_s"]) {
            *sum += interval[name].as_f64().unwrap() * (end - before);
        }
        before = end;
    }
    // The document rounds their ends to a tenth of a second.
    assert!(sums.iter().all(|sum| (sum - 400.0).abs() <= 40.0), "{sums:?}: {}", report["intervals"]);
    assert!(report["drops"].as_object().unwrap().values().all(|count| count == 0), "{}", report["drops"]);
}

/// Checks that the log holds the samples of the report, and no others.
fn the_log_agrees(log: &[u8], report: &Value) {
    let mut meters: BTreeMap<String, Histogram<u64>> = BTreeMap::new();
    let (mut starts, mut ends) = (Vec::new(), 0.0_f64);
    for entry in IntervalLogIterator::new(log) {
        let LogEntry::Interval(interval) = entry.expect("a line that its own tools read") else { continue };
        let bytes = base64(interval.encoded_histogram());
        let samples: Histogram<u64> =
            Deserializer::new().deserialize(&mut bytes.as_slice()).expect("a histogram");
        starts.push(interval.start_timestamp());
        ends = ends.max((interval.start_timestamp() + interval.duration()).as_secs_f64());
        let meter = meters.entry(interval.tag().expect("the meter's name").as_str().to_owned());
        meter.or_insert_with(|| Histogram::new_from(&samples)).add(samples).unwrap();
    }
    assert!(starts.is_sorted() && (2.0..4.0).contains(&ends), "{starts:?} {ends}");
    for (tag, path) in [
        ("connect", "/latency_us/connect"),
        ("first_byte", "/latency_us/first_byte"),
        ("request", "/latency_us/request"),
        ("close", "/latency_us/close"),
        ("life", "/latency_us/life"),
        ("connect_from_syn", "/latency_from_syn_us/connect"),
        ("first_byte_from_syn", "/latency_from_syn_us/first_byte"),
        ("life_from_syn", "/latency_from_syn_us/life"),
        ("start_lag", "/start_lag_us"),
    ] {
        let samples = meters.remove(tag).unwrap_or_else(|| panic!("no {tag} in the log"));
        assert_eq!(samples.len() as f64, number(report, &format!("{path}/count")), "{tag}");
        for (part, is) in [("p50", samples.value_at_quantile(0.5)), ("max", samples.max())] {
            let (is, told) = (is as f64 / 1e3, number(report, &format!("{path}/{part}")));
            assert!(
                (is - told).abs() <= told * 0.002 + 0.1,
                "{tag} {part}: {is} in the log, {told} in the report"
            );
        }
    }
    assert!(meters.is_empty(), "in the log alone: {meters:?}");
}

/// Decodes base 64 (RFC 4648).
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} is not of base 64"),
    };
    let digits: Vec<u8> = text.trim_end_matches('=').bytes().map(digit).collect();
    let group = |digits: &[u8]| {
        let bits = digits.iter().fold(0_u32, |bits, &digit| bits << 6 | u32::from(digit))
            << (6 * (4 - digits.len()));
        bits.to_be_bytes()[1..digits.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}

#[test]
fn a_quiet_run_shows_its_table_and_its_capture_six_packets() {
    let stage = Stage::new("b-capture");
    let server = stage.serve("--listen 198.18.0.2:80=http:100");
    let capture = stage.file("run.pcap");
    let mut command = requests(&stage, 1, "1s");
    command.args("--quiet --drain 1s --timeout 1s --pcap".words());
    let output = run(command.arg(&capture));
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}");
    assert!(out.starts_with("interface ") && out.ends_with("the accounts close\n"), "only the table:\n{out}");
    server.stop();

    let read = stage.ask(&["tcpdump", "-n", "-r", capture.to_str().unwrap(), "tcp"]);
    let packets: Vec<(bool, &str)> = read
        .lines()
        .map(|line| {
            let flags = line.split_once("Flags [").unwrap().1.split_once(']').unwrap().0;
            (line.contains(" > 198.18.0.2.80: "), flags)
        })
        .collect();
    // The request rides on the handshake's ACK, FIN on the response, and the last FIN on its acknowledgement.
    let six = [(true, "S"), (false, "S."), (true, "P."), (false, "FP."), (true, "F."), (false, ".")];
    assert_eq!(packets, six, "{read}");
}

#[test]
fn failures_are_told_as_they_come() {
    let stage = Stage::new("b-refused");
    let run = stage
        .bench("--rate 50 --warmup 0s --duration 1s")
        .fails_with(3, "no connection was established: 50 refused");
    let line = run.said.lines().find(|line| line.contains("1/1 s measure")).expect("a line a second");
    assert!(line.contains("refused "), "{line}");
    assert!(run.said.contains("\n  failed      refused 50\n"), "{}", run.said);
    let errors = run.said.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "{}", run.said);
    schema::check(&run.report, &schema::documented("synmill-bench/1"), &mut BTreeSet::new());
    assert_eq!(run.value("/verdict/ok"), &Value::Bool(false));
    run.accounts_close();
}

#[test]
fn a_signal_ends_it_in_order_and_a_second_one_at_once() {
    let stage = Stage::new("b-signals");
    // The kernel accepts connections and text, and nobody answers.
    let listener = stage.lab.inside(Side::Server, || TcpListener::bind((SERVER_V4, 80)).unwrap()).unwrap();
    let long = "--rate 20 --warmup 0s --duration 20s --drain 20s";
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut generator = stage.generator(&format!("{long} --close rst"));
        generator.until_said("1/20 s");
        generator.signal(signal);
        let run = generator.end().fails_with(3, "a signal ended the run: 1.");
        assert!(run.said.contains("of 20.0 s were measured"), "{}", run.said);
        assert_eq!(run.count("/connections/started"), run.count("/connections/closed"), "{}", run.said);
        run.accounts_close();
    }

    let silent = "--workload request --timeout 20s";
    let mut generator = stage.generator(&format!("{long} {silent}"));
    generator.until_said("1/20 s");
    generator.signal(Signal::SIGINT);
    generator.until_said("drain  ");
    generator.until_said("stopping: up to 20 s for ");
    generator.signal(Signal::SIGTERM);
    let run = generator.end();
    assert_eq!(run.status.code(), Some(1), "{}", run.said);
    assert!(run.report.is_null() && !run.said.contains("verdict"), "{}", run.said);
    drop(listener);
}

#[test]
fn nobody_need_be_listening() {
    let stage = Stage::new("b-head");
    let server = stage.serve("--listen 198.18.0.2:80=http:100");
    let mut command = requests(&stage, 200, "2s");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("1/2 s"), "{line}");
    // The reader has gone, and the run continues to its end.
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success() && !said.contains("panicked"), "{status}:\n{said}");
    server.stop();
}

#[test]
fn help_leaves_nothing_out() {
    let stage = Stage::new("b-help");
    let help = stage.ask(&[BINARY, "bench", "--help"]);
    let options = "interface target source source-ports max-connections rate concurrency search loss workload requests \
        payload expect path close no-piggyback ramp warmup duration drain timeout time-wait \
        queues workers cores mode busy-poll accept-partial-checksums json pcap quiet hdr";
    for option in options.words() {
        let line =
            help.lines().find(|line| line.trim_start().split(' ').next() == Some(&format!("--{option}")));
        assert!(line.is_some(), "--{option} is not explained:\n{help}");
    }
    for part in
        ["Examples:", "  synmill bench --interface", "Exit status: 0 done, 1 ", ", 2 ", ", 3 ", "Workloads:"]
    {
        assert!(help.contains(part), "{part}:\n{help}");
    }
}
