//! `cargo xtask bench nginx`: synmill beside nginx, by wrk. Knows clients, servers and counters of the kernel; never what makes
//! one of them fast.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use synmill_lab::{Group, Interrupt, LabOptions, SERVER_INTERFACE, SERVER_V4, Side, prerequisites, shown};

use super::archive::Row;
use super::counters::{after_minus, busy_percent, packets, retransmitted, ticks};
use super::stage::{Stage, binary};
use super::{LIMIT, PREFIX, counters};
use crate::build;

/// Bytes in the body that both serve.
const BODY: usize = 1024;
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";

/// Measures; the medians are returned.
pub(super) fn perform(interrupt: &Interrupt, rounds: u32, seconds: u32) -> Result<Vec<Row>> {
    prerequisites::ensure(interrupt, &[prerequisites::BUILD, prerequisites::LAB, prerequisites::BENCH])?;
    build::synmill(interrupt)?;
    let stage = Stage::up(interrupt, PREFIX, LabOptions::default())?;
    stage.check_cores()?;

    println!("\n{rounds} rounds of {seconds} s, body of {BODY} bytes, wrk with 1 thread and 64 connections.");
    println!(
        "Pinned: the server to core {SERVER_CORE}, wrk to core {CLIENT_CORE}. The kernel's part of a veth pair runs on the core \
         that sends."
    );
    println!(
        "retrans: segments sent again, by the server and by the client. in, out: packets for a request."
    );
    let mut rows = Vec::new();
    for way in [Way::KeepAlive, Way::Close] {
        println!("\n{}\n{}", way.title(), heading());
        let mut samples = Server::BOTH.map(|_| Vec::new());
        for round in 1..=rounds {
            for (server, samples) in Server::BOTH.into_iter().zip(&mut samples) {
                let sample = measure(&stage, server, way, seconds)
                    .with_context(|| format!("{}, {}, round {round}", server.name(), way.title()))?;
                println!("{}", line(&format!("{round} {}", server.name()), &sample));
                samples.push(sample);
            }
        }
        let medians = samples.map(|samples| medians(&samples));
        for (server, medians) in Server::BOTH.into_iter().zip(&medians) {
            println!("{}", line(&format!("median {}", server.name()), medians));
            rows.push(Row::new("nginx", format!("{}, {}", server.name(), way.title()), medians[0], "1/s"));
        }
        let ratio = medians[0][0] / medians[1][0];
        println!("ratio of the medians: {ratio:.2}");
        rows.push(Row::new("nginx", format!("synmill/nginx, {}", way.title()), ratio, "ratio"));
    }
    Ok(rows)
}

#[derive(Clone, Copy)]
enum Way {
    KeepAlive,
    Close,
}

impl Way {
    const fn title(self) -> &'static str {
        match self {
            Self::KeepAlive => "keep-alive, requests",
            Self::Close => "a connection a request, connections",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    Synmill,
    Nginx,
}

impl Server {
    const BOTH: [Self; 2] = [Self::Synmill, Self::Nginx];

    const fn name(self) -> &'static str {
        match self {
            Self::Synmill => "synmill",
            Self::Nginx => "nginx",
        }
    }

    /// Starts it and waits until it answers.
    fn start(self, stage: &Stage) -> Result<Group> {
        let mut argv: Vec<OsString> = ["taskset", "--cpu-list", SERVER_CORE].map(OsString::from).to_vec();
        match self {
            Self::Synmill => {
                argv.push(binary("synmill")?.into());
                argv.extend(["serve", "--quiet", "--interface", SERVER_INTERFACE].map(OsString::from));
                argv.extend(["--cores", SERVER_CORE, "--listen"].map(OsString::from));
                argv.extend([format!("{SERVER_V4}:80=http:{BODY}").into(), "--json".into()]);
                argv.push(stage.folder.file("report.json").into());
            }
            Self::Nginx => {
                argv.extend(nginx_command(stage.folder.path(), "body", BODY)?);
            }
        }
        let log = stage.folder.file("log");
        let output = fs::File::create(&log).context("making the server's log")?;
        let mut command = stage.lab.exec(Side::Server, argv);
        command.stdout(output.try_clone().context("making the server's log")?).stderr(output);
        let mut group = Group::spawn(&mut command)?;
        let ready =
            stage.interrupt.wait("the first connection", LIMIT, || first_connection(stage, &mut group));
        ready.with_context(|| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            format!("{} did not start: {}", self.name(), said.trim())
        })?;
        Ok(group)
    }
}

/// Is there a server yet? A connection tells.
pub(super) fn first_connection(stage: &Stage, server: &mut Group) -> Result<Option<()>> {
    if let Some(status) = server.try_wait()? {
        bail!("it ended first: {status}");
    }
    let address: SocketAddr = format!("{SERVER_V4}:80").parse().context("the server's address")?;
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
    Ok(stage.lab.inside(Side::Client, connect)?.ok().map(drop))
}

/// The command that serves a file of `bytes` as `/name`, after writing what it needs into `folder`.
pub(super) fn nginx_command(folder: &Path, name: &str, bytes: usize) -> Result<[OsString; 3]> {
    let file = folder.join("nginx.conf");
    fs::write(&file, nginx_configuration(folder)).context("writing nginx.conf")?;
    fs::write(folder.join(name), vec![b'x'; bytes]).context("writing the body")?;
    Ok(["nginx".into(), "-c".into(), file.into()])
}

/// One worker, a small file kept open, no log of requests, and no end to a connection. Without TCP_NOPUSH the header section
/// would be a packet of its own.
fn nginx_configuration(folder: &Path) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {}/{name};\n", folder.display()))
        .concat();
    format!(
        "daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  open_file_cache max=16 inactive=1h;
{temporary}  server {{
    listen {SERVER_V4}:80 backlog=65535;
    root {folder};
  }}
}}
",
        folder = folder.display()
    )
}

/// The columns of a measurement.
const COLUMNS: [&str; 10] = [
    "per second",
    "p50 ms",
    "p99 ms",
    "errors",
    "retrans srv",
    "retrans clt",
    "in",
    "out",
    "core 0 %",
    "core 1 %",
];

/// One measurement, a value a column.
type Sample = [f64; COLUMNS.len()];

fn heading() -> String {
    COLUMNS.iter().fold(format!("{:<15}", ""), |line, name| format!("{line}{name:>12}"))
}

fn line(name: &str, sample: &Sample) -> String {
    let places = [0, 2, 2, 0, 0, 0, 2, 2, 0, 0];
    sample
        .iter()
        .zip(places)
        .fold(format!("{name:<15}"), |line, (value, places)| format!("{line}{value:>12.places$}"))
}

/// The median of each column.
fn medians(samples: &[Sample]) -> Sample {
    std::array::from_fn(|column| counters::median(samples.iter().map(|sample| sample[column])))
}

/// One server, from its start to its end, under one run of wrk.
fn measure(stage: &Stage, server: Server, way: Way, seconds: u32) -> Result<Sample> {
    let mut responder = server.start(stage)?;
    let before = Counters::read(stage)?;
    let said = wrk(stage, way, seconds)?;
    let after = Counters::read(stage)?;
    responder.signal(Signal::SIGTERM)?;
    let status = stage.interrupt.wait("the server's end", LIMIT, || responder.try_wait())?;
    ensure!(status.success(), "the server failed: {status}");

    let wrk = Wrk::parse(&said).with_context(|| format!("wrk said:\n{said}"))?;
    let since = |counter: fn(&Counters) -> u64| after_minus(counter(&after), counter(&before));
    let retransmitted = match server {
        Server::Synmill => counted_by_synmill(&stage.folder.file("report.json"))?,
        Server::Nginx => since(|counters| counters.retransmitted[1]),
    };
    let busy = |core: usize| busy_percent(before.cores[core], after.cores[core]);
    Ok([
        wrk.per_second,
        wrk.p50,
        wrk.p99,
        wrk.errors,
        retransmitted,
        since(|counters| counters.retransmitted[0]),
        since(|counters| counters.sent) / wrk.requests,
        since(|counters| counters.received) / wrk.requests,
        busy(0),
        busy(1),
    ])
}

/// Counters of the kernel, which only grow.
struct Counters {
    /// Segments sent again by the client's kernel and by the server's.
    retransmitted: [u64; 2],
    /// Packets at the client's interface.
    sent: u64,
    received: u64,
    /// Clock ticks that each of the two cores was busy, and all its ticks.
    cores: [[u64; 2]; 2],
}

impl Counters {
    fn read(stage: &Stage) -> Result<Self> {
        let of = |name| packets(&stage.lab, Side::Client, name);
        Ok(Self {
            retransmitted: [
                retransmitted(&stage.lab, Side::Client)?,
                retransmitted(&stage.lab, Side::Server)?,
            ],
            sent: of("tx_packets")?,
            received: of("rx_packets")?,
            cores: [ticks(0)?, ticks(1)?],
        })
    }
}

/// `retrans_segs` of synmill's report.
pub(super) fn counted_by_synmill(report: &Path) -> Result<f64> {
    let text = fs::read_to_string(report).with_context(|| format!("{}", report.display()))?;
    let report: serde_json::Value = serde_json::from_str(&text).context("synmill's report")?;
    report["counters"]["retrans_segs"].as_f64().context("synmill's report has no retrans_segs")
}

/// What wrk printed.
fn wrk(stage: &Stage, way: Way, seconds: u32) -> Result<String> {
    let (duration, url) = (format!("{seconds}s"), format!("http://{SERVER_V4}/body"));
    let mut argv = vec!["taskset", "--cpu-list", CLIENT_CORE, "wrk", "--threads", "1", "--connections", "64"];
    argv.extend(["--duration", &duration, "--latency"]);
    if matches!(way, Way::Close) {
        argv.extend(["--header", "Connection: close"]);
    }
    argv.push(&url);
    let log = stage.folder.file("wrk");
    let mut command: Command = stage.lab.exec(Side::Client, argv);
    command.stdout(fs::File::create(&log).context("making wrk's log")?).stderr(Stdio::inherit());
    let mut group = Group::spawn(&mut command)?;
    let limit = Duration::from_secs(seconds.into()) + LIMIT;
    let status = stage.interrupt.wait("wrk's end", limit, || group.try_wait())?;
    ensure!(status.success(), "`{}` failed: {status}", shown(&command));
    fs::read_to_string(&log).context("reading wrk's log")
}

/// What wrk found.
#[derive(Debug, PartialEq)]
struct Wrk {
    requests: f64,
    per_second: f64,
    /// Milliseconds.
    p50: f64,
    p99: f64,
    /// Of sockets, and answers other than 2xx and 3xx.
    errors: f64,
}

impl Wrk {
    fn parse(said: &str) -> Result<Self> {
        let after =
            |start: &str| said.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
        let latency = |start: &str| milliseconds(after(start)?);
        let requests = said.lines().find_map(|line| line.split_once(" requests in "));
        let sockets = after("Socket errors:").unwrap_or_default();
        let refused = after("Non-2xx or 3xx responses:").unwrap_or_default();
        let errors = sockets.split([' ', ',']).chain([refused]).filter_map(|word| word.parse::<f64>().ok());
        Ok(Self {
            requests: requests
                .and_then(|(count, _)| count.trim().parse().ok())
                .context("no count of requests")?,
            per_second: after("Requests/sec:").and_then(|rate| rate.parse().ok()).context("no rate")?,
            p50: latency("50%").context("no median latency")?,
            p99: latency("99%").context("no 99th percentile of the latency")?,
            // A sum of no floats would be -0.
            errors: errors.fold(0.0, |sum, count| sum + count),
        })
    }
}

/// From `271.00us`, `1.20ms` or `1.05s`.
fn milliseconds(text: &str) -> Option<f64> {
    let (digits, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    let factor = match unit {
        "us" => 0.001,
        "ms" => 1.0,
        "s" => 1000.0,
        "m" => 60_000.0,
        _ => return None,
    };
    Some(digits.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_understood() {
        let said = "Running 5s test @ http://198.18.0.2/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   300.00us  100.00us   2.00ms   90.00%
    Req/Sec   200.00k     1.00k  210.00k    70.00%
  Latency Distribution
     50%  250.00us
     75%  300.00us
     90%    0.90ms
     99%    1.50ms
  1000000 requests in 5.00s, 1.10GB read
  Socket errors: connect 1, read 2, write 0, timeout 3
  Non-2xx or 3xx responses: 4
Requests/sec: 200000.50
Transfer/sec:    225.00MB
";
        let want = Wrk { requests: 1e6, per_second: 200_000.5, p50: 0.25, p99: 1.5, errors: 10.0 };
        assert_eq!(Wrk::parse(said).unwrap(), want);
        assert!(Wrk::parse("unable to connect").is_err());
    }

    #[test]
    fn times_have_units() {
        let times = ["10.00us", "1.50ms", "2.00s", "1.00m", "7", "7h"].map(milliseconds);
        assert_eq!(times, [Some(0.01), Some(1.5), Some(2000.0), Some(60_000.0), None, None]);
    }

    #[test]
    fn medians_go_column_by_column() {
        let samples =
            [3.0, 1.0, 2.0].map(|value| std::array::from_fn(|column| if column == 0 { value } else { 0.0 }));
        assert_eq!(medians(&samples)[..2], [2.0, 0.0]);
    }
}
