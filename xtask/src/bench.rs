//! `cargo xtask bench`: synmill against another server, in a lab. Knows clients, servers and counters of the kernel; never what
//! makes one of them fast.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;
use nix::sys::signal::Signal;
use xtask::lab::{CLIENT_INTERFACE, Lab, LabOptions, SERVER_INTERFACE, SERVER_V4, Side, shown};

use crate::process::{Group, Interrupt};
use crate::{prerequisites, run};

const PREFIX: &str = "synmill-bench";
/// Bytes in the body that both serve.
const BODY: usize = 1024;
const SERVER_CORE: &str = "0";
const CLIENT_CORE: &str = "1";
/// Longest wait for a server to start or end.
const LIMIT: Duration = Duration::from_secs(30);

/// What to compare with.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// nginx with one worker, by wrk with 64 connections: with keep-alive, and with a connection a request.
    Nginx {
        /// Measurements of each server in each way; the medians are told.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
        rounds: u32,
        /// Length of a measurement.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
    },
}

/// Does it, and takes everything down again.
pub(crate) fn perform(command: &Bench) -> Result<()> {
    let Bench::Nginx { rounds, seconds } = *command;
    prerequisites::root("bench nginx")?;
    let interrupt = Interrupt::install()?;
    prerequisites::ensure(&interrupt, &[prerequisites::BUILD, prerequisites::LAB, prerequisites::BENCH])?;
    let binary = run::build(&interrupt)?;

    let stage =
        Stage { folder: Folder::new()?, lab: Lab::up(PREFIX, LabOptions::default())?, binary, interrupt };
    for side in [Side::Client, Side::Server] {
        // A listener's backlog is cut to this.
        stage.lab.output(side, &["sysctl", "-q", "-w", "net.core.somaxconn=65535"])?;
    }
    println!("\n{rounds} rounds of {seconds} s, body of {BODY} bytes, wrk with 1 thread and 64 connections.");
    println!(
        "Pinned: the server to core {SERVER_CORE}, wrk to core {CLIENT_CORE}. The kernel's part of a veth pair runs on the core \
         that sends."
    );
    println!(
        "retrans: segments sent again, by the server and by the client. in, out: packets for a request."
    );
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
        }
        println!("ratio of the medians: {:.2}", medians[0][0] / medians[1][0]);
    }
    Ok(())
}

/// What a measurement needs; gone with all that is in it when dropped, the lab and its processes first.
struct Stage {
    lab: Lab,
    folder: Folder,
    binary: PathBuf,
    interrupt: Interrupt,
}

/// A temporary folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("synmill-bench-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
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
                argv.push(stage.binary.clone().into());
                argv.extend(["serve", "--quiet", "--interface", SERVER_INTERFACE].map(OsString::from));
                argv.extend(["--cores", SERVER_CORE, "--listen"].map(OsString::from));
                argv.extend([format!("{SERVER_V4}:80=http:{BODY}").into(), "--json".into()]);
                argv.push(stage.folder.file("report.json").into());
            }
            Self::Nginx => {
                let file = stage.folder.file("nginx.conf");
                fs::write(&file, nginx_configuration(&stage.folder.0)).context("writing nginx.conf")?;
                fs::write(stage.folder.file("body"), [b'x'; BODY]).context("writing the body")?;
                argv.extend(["nginx".into(), "-c".into(), file.into()]);
            }
        }
        let log = stage.folder.file("log");
        let output = fs::File::create(&log).context("making the server's log")?;
        let mut command = stage.lab.exec(Side::Server, argv);
        command.stdout(output.try_clone().context("making the server's log")?).stderr(output);
        let mut group = Group::spawn(&mut command)?;
        let address: SocketAddr = format!("{SERVER_V4}:80").parse().context("the server's address")?;
        let ready = stage.interrupt.wait("the first connection", LIMIT, || {
            if let Some(status) = group.try_wait()? {
                bail!("it ended first: {status}");
            }
            let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
            Ok(stage.lab.inside(Side::Client, connect)?.ok())
        });
        ready.with_context(|| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            format!("{} did not start: {}", self.name(), said.trim())
        })?;
        Ok(group)
    }
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

/// The median of each column; of an even number of samples, the upper of the two in the middle.
fn medians(samples: &[Sample]) -> Sample {
    std::array::from_fn(|column| {
        let mut values: Vec<f64> = samples.iter().map(|sample| sample[column]).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    })
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
        Server::Synmill => retransmitted(&stage.folder.file("report.json"))?,
        Server::Nginx => since(|counters| counters.retransmitted[1]),
    };
    let busy = |core: usize| {
        let passed = |values: [[u64; 2]; 2]| {
            after_minus(values[1][0], values[0][0]) / after_minus(values[1][1], values[0][1])
        };
        100.0 * passed([before.cores[core], after.cores[core]])
    };
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

#[expect(clippy::cast_precision_loss, reason = "counts of some seconds are far below 2^52")]
fn after_minus(after: u64, before: u64) -> f64 {
    after.saturating_sub(before) as f64
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
        let read = |side, path: &str| stage.lab.output(side, &["cat", path]);
        let retransmitted = |side| tcp_counter(&read(side, "/proc/net/snmp")?, "RetransSegs");
        let packets = |name: &str| -> Result<u64> {
            let path = format!("/sys/class/net/{CLIENT_INTERFACE}/statistics/{name}");
            read(Side::Client, &path)?.trim().parse().context(path)
        };
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        Ok(Self {
            retransmitted: [retransmitted(Side::Client)?, retransmitted(Side::Server)?],
            sent: packets("tx_packets")?,
            received: packets("rx_packets")?,
            cores: [core_ticks(&stat, SERVER_CORE)?, core_ticks(&stat, CLIENT_CORE)?],
        })
    }
}

/// A counter by its name in the two TCP lines of /proc/net/snmp.
fn tcp_counter(snmp: &str, name: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("/proc/net/snmp has no lines for TCP")?;
    let found = names.split(' ').zip(values.split(' ')).find(|(known, _)| *known == name);
    found.and_then(|(_, value)| value.parse().ok()).with_context(|| format!("/proc/net/snmp has no {name}"))
}

/// Busy ticks and all ticks of a core, from /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
fn core_ticks(stat: &str, core: &str) -> Result<[u64; 2]> {
    let name = format!("cpu{core} ");
    let line = stat.lines().find_map(|line| line.strip_prefix(&name));
    let line = line.with_context(|| format!("there is no core {core}: this takes two cores"))?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    ensure!(ticks.len() == 8, "/proc/stat says of core {core}: {line}");
    let all = ticks.iter().sum::<u64>();
    Ok([all - ticks[3] - ticks[4], all])
}

/// `retrans_segs` of synmill's report.
fn retransmitted(report: &Path) -> Result<f64> {
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
    fn counters_are_found() {
        let snmp = "Ip: A B\nIp: 1 2\nTcp: InSegs RetransSegs\nTcp: 3 4\n";
        assert_eq!(tcp_counter(snmp, "RetransSegs").unwrap(), 4);
        assert!(tcp_counter(snmp, "A").is_err());
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 2 3 4 5 6 7 8 0 0\ncpu10 0 0 0 0 0 0 0 0 0 0\n";
        assert_eq!(core_ticks(stat, "1").unwrap(), [27, 36]);
        assert!(core_ticks(stat, "0").is_err());
    }

    #[test]
    fn medians_go_column_by_column() {
        let samples =
            [3.0, 1.0, 2.0].map(|value| std::array::from_fn(|column| if column == 0 { value } else { 0.0 }));
        assert_eq!(medians(&samples)[..2], [2.0, 0.0]);
    }
}
