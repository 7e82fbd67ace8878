//! Generator and server count the same connections, segments and requests.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use synmill_lab::{Process, SERVER_V4, SERVER_V6, SOURCES_V4, SOURCES_V6, Side};

use crate::harness::{KernelServer, Run, Stage, until};

#[test]
fn both_ends_count_the_same() {
    let stage = Stage::new("peers");
    let server = stage.serve("--listen 198.18.0.2:80=close");
    let run = stage.bench("--rate 2000 --close peer --warmup 0s --duration 1s --cores 1").fulfilled();
    run.accounts_close();
    let report = server.stop();
    assert_eq!(run.count("/connections/established"), run.started());
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
    let server = stage.kernel_server("http:100");
    let run = stage.bench("--rate 1000 --workload http --warmup 0s --duration 1s --cores 1").fulfilled();
    run.accounts_close();
    let counts = server.stop();
    assert_eq!(counts["accepted"], run.count("/connections/established"));
    assert_eq!(counts["requests"], run.count("/requests/done"));
}

/// A workload against a port of both of the server's addresses.
struct Case<'a> {
    port: u16,
    arguments: &'a str,
    /// Requests of a connection.
    requests: u64,
    /// Sent and received packets of a connection, where both ends leave no choice.
    packets: Option<[f64; 2]>,
}

const fn case(port: u16, arguments: &str, requests: u64) -> Case<'_> {
    Case { port, arguments, requests, packets: None }
}

impl Case<'_> {
    const fn packets(self, out: u32, inward: u32) -> Self {
        Self { packets: Some([out as f64, inward as f64]), ..self }
    }

    /// Runs it with a few connections, over IPv4 and IPv6 in turn, and checks that each completes its dialogue.
    fn run(&self, stage: &Stage) -> Run {
        let Self { port, arguments, .. } = self;
        let run = stage.generator_to(&format!(
            "--target {SERVER_V4}:{port} --target [{SERVER_V6}]:{port} --source {SOURCES_V4} --source {SOURCES_V6} \
             --cores 1 --rate 400 --warmup 0s --duration 100ms {arguments}"
        ));
        let run = run.end().fulfilled();
        run.accounts_close();
        let started = run.started();
        let of = |path: &str| run.count(path);
        assert_eq!(started + of("/connections/not_started"), 40, "{}", run.said);
        assert_eq!(of("/connections/established"), started, "{}", run.said);
        assert_eq!(of("/connections/closed"), started, "{}", run.said);
        let requests = started * self.requests;
        assert_eq!([of("/requests/started"), of("/requests/done")], [requests; 2], "{}", run.said);
        if let Some(packets) = self.packets {
            let counted = ["out", "in"].map(|way| run.number(&format!("/packets_per_connection/{way}")));
            // A busy machine may see retransmissions.
            if run.count("/retransmissions/segs") == 0 {
                assert_eq!(counted, packets, "{}\n{}", self.arguments, run.said);
            }
        }
        run
    }
}

/// The sums of several runs.
#[derive(Debug, Default)]
struct Sums {
    started: u64,
    requests: u64,
    out_segs: u64,
    in_segs: u64,
}

impl Sums {
    fn add(&mut self, run: &Run) {
        self.started += run.started();
        self.requests += run.count("/requests/done");
        self.out_segs += run.count("/packets_per_connection/out_total");
        self.in_segs += run.count("/packets_per_connection/in_total");
    }

    fn of(stage: &Stage, cases: &[Case<'_>]) -> Self {
        let mut sums = Self::default();
        cases.iter().for_each(|case| sums.add(&case.run(stage)));
        sums
    }
}

#[test]
fn every_workload_with_serve() {
    let stage = Stage::new("peers-all");
    let services =
        [(1, "close"), (7, "echo"), (9, "discard"), (19, "source:3000"), (5, "hold"), (80, "http:1000")];
    let listen = |(port, service)| {
        format!(" --listen {SERVER_V4}:{port}={service} --listen [{SERVER_V6}]:{port}={service}")
    };
    let server = stage.serve(&services.map(listen).concat());
    let cases = [
        case(9, "--close fin", 0).packets(3, 2),
        case(9, "--close fin --no-piggyback", 0).packets(4, 2),
        case(1, "--close peer", 0).packets(3, 3),
        case(1, "--close peer --no-piggyback", 0),
        case(7, "--close rst", 0).packets(3, 1),
        case(5, "--workload hold", 0),
        case(7, "--workload request", 1),
        case(7, "--workload request --payload 100 --requests 3", 3),
        case(7, "--workload request --payload 100 --requests 3 --close rst", 3),
        case(7, "--workload request --payload 5000 --no-piggyback", 1),
        case(9, "--workload request --payload 5000 --expect 0 --requests 2", 2),
        case(19, "--workload request --payload 1 --expect 3000 --close peer", 1),
        case(80, "--workload http", 1),
        case(80, "--workload http --requests 10 --expect 1000", 10),
        case(80, "--workload http --requests 10 --close fin", 10),
        case(80, "--workload http --requests 2 --close rst --path /a?b=c", 2),
        case(80, "--workload http --payload 700", 1),
        case(80, "--workload http --no-piggyback", 1),
    ];
    let sums = Sums::of(&stage, &cases);
    let report = server.stop();
    assert_eq!(report.count("passive_opens"), sums.started);
    assert_eq!(report.count("established"), sums.started);
    assert_eq!(report.closed() + report.count("ended_reset_by_peer"), sums.started);
    assert_eq!(report.count("in_segs"), sums.out_segs);
    assert_eq!(report.count("out_segs") + report.count("retrans_segs"), sums.in_segs);
}

/// Returns the counts of the server's kernel: received segments, sent segments, retransmissions, connections.
fn kernel_counts(stage: &Stage) -> [u64; 4] {
    ["InSegs", "OutSegs", "RetransSegs", "PassiveOpens"].map(|name| stage.kernel_tcp(Side::Server, name))
}

/// Checks that the kernel has counted the same segments and connections since `before`.
fn check_kernel(stage: &Stage, before: [u64; 4], sums: &Sums) {
    let mut after = kernel_counts(stage);
    after.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
    let [in_segs, out_segs, again, opens] = after;
    assert_eq!((in_segs, opens), (sums.out_segs, sums.started), "{sums:?}");
    // A retransmitted SYN,ACK is in both counts, any other retransmission in the second only.
    assert!((out_segs..=out_segs + again).contains(&sums.in_segs), "{out_segs} + {again}: {sums:?}");
}

#[test]
fn every_workload_with_the_kernels_server() {
    let stage = Stage::new("peers-kall");
    let start = |service: &str, port: u16| {
        let addresses = [format!("{SERVER_V4}:{port}"), format!("[{SERVER_V6}]:{port}")];
        stage.kernel_server_at(service, &addresses.each_ref().map(String::as_str))
    };
    let servers = [start("close", 1), start("echo", 7), start("http:1000", 80)];
    let before = kernel_counts(&stage);
    let mut sums = Sums::of(
        &stage,
        &[
            case(1, "--close peer", 0),
            case(7, "--close fin", 0),
            case(7, "--close fin --no-piggyback", 0),
            case(7, "--close rst", 0),
            case(7, "--workload hold --close rst", 0),
            case(7, "--workload request --payload 100 --requests 3", 3),
            case(7, "--workload request --payload 5000 --close rst", 1),
        ],
    );
    let mut requests = 0;
    for case in [
        case(80, "--workload http --requests 10 --expect 1000", 10),
        case(80, "--workload http --requests 2 --close fin --path /a?b=c", 2),
        case(80, "--workload http --no-piggyback --close rst", 1),
    ] {
        let run = case.run(&stage);
        requests += run.count("/requests/done");
        sums.add(&run);
    }
    check_kernel(&stage, before, &sums);
    let counts = servers.map(KernelServer::stop);
    let sum = |name: &str| counts.iter().map(|counts| counts[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("accepted"), sums.started, "{counts:?}");
    // A reset by the generator is an error to the server.
    assert_eq!(sum("closed") + sum("errors"), sums.started, "{counts:?}");
    assert_eq!(counts[2]["requests"], requests, "{counts:?}");
}

/// nginx on port 80 of the server's addresses, with one worker and a file of 1000 bytes. It is killed if dropped.
struct Nginx {
    process: Process,
    log: PathBuf,
}

impl Nginx {
    fn start(stage: &Stage) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers-nginx");
        // An earlier run leaves it.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let (configuration, log) = (folder.join("nginx.conf"), folder.join("requests.log"));
        fs::write(folder.join("body"), vec![b'x'; 1000]).unwrap();
        let folder = folder.to_str().unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("  {name}_temp_path {folder}/{name};\n"))
            .concat();
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {folder}/pid;\nerror_log stderr;\nevents {{ }}\n\
             http {{\n{temporary}  log_format short $connection:$status;\n  access_log {folder}/requests.log short;\n  \
             server {{\n    listen {SERVER_V4}:80;\n    listen [{SERVER_V6}]:80;\n    root {folder};\n  }}\n}}\n"
        );
        fs::write(&configuration, text).unwrap();
        let argv = ["nginx", "-c", configuration.to_str().unwrap()];
        let mut process = Process::spawn(&mut stage.lab.exec(Side::Server, argv)).unwrap();
        let address: SocketAddr = format!("{SERVER_V4}:80").parse().unwrap();
        until("nginx listens", || {
            process.check().unwrap();
            let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
            stage.lab.inside(Side::Client, connect).unwrap()
        });
        Self { process, log }
    }

    /// Stops it, and returns the number of connections and the status of each answer.
    fn stop(mut self) -> (usize, Vec<String>) {
        self.process.signal(Signal::SIGQUIT).unwrap();
        assert!(self.process.end().unwrap().success(), "{}", self.process.said());
        let text = fs::read_to_string(&self.log).unwrap();
        let (mut connections, statuses): (Vec<String>, Vec<String>) = text
            .lines()
            .map(|line| line.split_once(':').unwrap())
            .map(|(connection, status)| (connection.to_owned(), status.to_owned()))
            .unzip();
        connections.sort_unstable();
        connections.dedup();
        (connections.len(), statuses)
    }
}

#[test]
fn nginx_counts_the_same() {
    let stage = Stage::new("peers-nginx");
    let nginx = Nginx::start(&stage);
    let before = kernel_counts(&stage);
    let sums = Sums::of(
        &stage,
        &[
            case(80, "--workload http --path /body --expect 1000", 1),
            case(80, "--workload http --path /body --expect 1000 --requests 10", 10),
            case(80, "--workload http --path /body --requests 3 --close fin", 3),
            case(80, "--workload http --path /body --requests 3 --close rst --no-piggyback", 3),
        ],
    );
    check_kernel(&stage, before, &sums);
    let is_error = |run: &Run| run.count("/requests/http_errors") == run.count("/requests/done");
    // nginx answers a POST to a file and a GET of a missing file with errors.
    let posted = case(80, "--workload http --path /body --payload 300 --requests 2", 2).run(&stage);
    let missing = case(80, "--workload http --path /missing", 1).run(&stage);
    assert!(is_error(&posted) && is_error(&missing), "{}\n{}", posted.said, missing.said);
    let (connections, statuses) = nginx.stop();
    let count = |status: &str| statuses.iter().filter(|one| *one == status).count() as u64;
    assert_eq!(connections as u64, sums.started + posted.started() + missing.started());
    assert_eq!(count("200"), sums.requests);
    assert_eq!(count("405"), posted.count("/requests/done"));
    assert_eq!(count("404"), missing.count("/requests/done"));
}
