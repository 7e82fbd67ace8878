//! The server of a measurement: synmill, a peer that it is compared with, or a sender of bare frames.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use synmill_lab::{Process, SERVER_INTERFACE, SERVER_V4, Side, shown};

use super::counters::increase;
use super::scenario::{Case, PeerKind};
use super::stage::{LIMIT, Stage, listed, pinned, program, read_json};

/// The port of every server.
const PORT: u16 = 80;
/// The destination of bare frames: the client's address, and any port.
pub(super) const RECEIVER: &str = "198.18.0.1:9";

/// Returns the address and port of every server.
pub(super) fn address() -> String {
    format!("{SERVER_V4}:{PORT}")
}

/// A running server.
pub(super) struct Server {
    kind: PeerKind,
    process: Process,
    /// The command as one types it.
    pub(super) shown: String,
    report: PathBuf,
    /// Segments that the kernel of the server's side had retransmitted before.
    retransmitted: u64,
}

impl Server {
    /// Starts the server of a case on these cores, and waits until it is ready.
    pub(super) fn start(stage: &Stage, case: &Case, cores: &[usize]) -> Result<Self> {
        let report = stage.report("server.json")?;
        let mut command = command(stage, case, cores)?;
        if case.peer == PeerKind::Serve {
            command.extend(["--json".into(), report.clone().into()]);
        }
        command.extend(case.arguments.iter().map(OsString::from));
        let shown = shown(Command::new(&command[0]).args(&command[1..]));
        steer_receiving(stage, if case.own_cores { cores } else { &[] })?;
        let retransmitted = retransmitted(stage)?;
        let process = Process::spawn(stage.lab.exec(Side::Server, pinned(cores, command)).process_group(0))?;
        let mut server = Self { kind: case.peer, process, shown, report, retransmitted };
        let ready = stage.interrupt.wait("the server is ready", LIMIT, || server.is_ready(stage));
        ready
            .with_context(|| format!("`{}` did not start: {}", server.shown, server.process.said().trim()))?;
        Ok(server)
    }

    fn is_ready(&mut self, stage: &Stage) -> Result<Option<()>> {
        self.process.check()?;
        let is_ready = match self.kind {
            // It does not say so.
            PeerKind::Nginx => first_connection(stage)?,
            _ => self.process.said().lines().any(|line| line.starts_with("ready")),
        };
        Ok(is_ready.then_some(()))
    }

    /// Ends the server and returns the segments that it retransmitted, if it knows them.
    pub(super) fn stop(self, stage: &Stage) -> Result<Option<f64>> {
        self.process.stop()?;
        Ok(match self.kind {
            PeerKind::Serve => {
                let counted = read_json(&self.report)?["counters"]["retrans_segs"].as_f64();
                Some(counted.context("the report of `synmill serve` has no retrans_segs")?)
            }
            PeerKind::Nginx | PeerKind::Kernel => Some(increase(self.retransmitted, retransmitted(stage)?)),
            PeerKind::Reflector | PeerKind::Sender => None,
        })
    }
}

fn retransmitted(stage: &Stage) -> Result<u64> {
    stage.lab.tcp_counter(Side::Server, "RetransSegs")
}

fn first_connection(stage: &Stage) -> Result<bool> {
    let address: SocketAddr = address().parse().context("the server's address")?;
    let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(1));
    Ok(stage.lab.inside(Side::Client, connect)?.is_ok())
}

/// Returns the command of a server, without the case's own arguments.
fn command(stage: &Stage, case: &Case, cores: &[usize]) -> Result<Vec<OsString>> {
    let (service, to, cores, interface) = (&case.service, address(), listed(cores), SERVER_INTERFACE);
    program(&match case.peer {
        PeerKind::Serve => {
            format!("synmill serve --quiet --interface {interface} --listen {to}={service} --cores {cores}")
        }
        PeerKind::Kernel => {
            format!("synmill-kernel-server --listen {to} --service {service} --cores {cores}")
        }
        PeerKind::Reflector => {
            let service = case.http_bytes().map_or(service.clone(), |bytes| format!("http --body {bytes}"));
            format!(
                "synmill-reflector --interface {interface} --listen {to} --service {service} --cores {cores}"
            )
        }
        PeerKind::Sender => {
            format!("synmill-bulk send --interface {interface} --to {RECEIVER} --core {cores}")
        }
        PeerKind::Nginx => {
            let bytes = case.http_bytes().context("nginx serves http:SIZE")?;
            let file = nginx_configuration(stage.folder.path(), bytes)?;
            return Ok(vec!["nginx".into(), "-c".into(), file.into()]);
        }
    })
}

/// Writes nginx's configuration, for a body of `bytes` as `/`, into `folder`, and returns its path. One worker has a small file
/// open, logs no requests, and never closes a connection. Without TCP_NOPUSH the header section would be a packet of its own.
fn nginx_configuration(folder: &Path, bytes: usize) -> Result<PathBuf> {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {}/{name};\n", folder.display()))
        .concat();
    let text = format!(
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
    listen {SERVER_V4}:{PORT} backlog=65535;
    root {folder};
  }}
}}
",
        folder = folder.display()
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text).context("writing nginx.conf")?;
    fs::write(folder.join("index.html"), vec![b'x'; bytes]).context("writing the body")?;
    Ok(file)
}

/// Makes the kernel receive for the server's interface on these cores (Documentation/networking/scaling.rst, RPS); with none, on the
/// sender's core.
fn steer_receiving(stage: &Stage, cores: &[usize]) -> Result<()> {
    let mask = cores.iter().fold(0_u64, |mask, core| mask | 1 << core);
    let script = format!(
        "for f in /sys/class/net/{SERVER_INTERFACE}/queues/rx-*/rps_cpus; do echo {mask:x} > $f; done"
    );
    stage.lab.output(Side::Server, &["sh", "-c", &script]).map(drop)
}
