//! The server at the other end of a measurement: started, awaited, ended, and its own counts read. Knows the programs' command
//! lines; never who their clients are.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use synmill_lab::{Group, SERVER_INTERFACE, SERVER_V4, Side, shown};

use super::scenario::{Case, PeerKind};
use super::stage::{Stage, binary};
use super::{LIMIT, counters, nginx, receiver};

/// The port that every peer listens on.
const PORT: u16 = 80;

/// Where every peer listens.
pub(crate) fn address() -> String {
    format!("{SERVER_V4}:{PORT}")
}

/// A server at work.
pub(crate) struct Peer {
    kind: PeerKind,
    group: Group,
    /// As one would type it.
    pub(crate) shown: String,
    log: PathBuf,
    report: PathBuf,
    /// Segments that the side's kernel had sent again before.
    retransmitted: u64,
}

impl Peer {
    /// Starts the server of a case on these cores, and waits until it answers.
    pub(crate) fn start(stage: &Stage, case: &Case, cores: &[usize]) -> Result<Self> {
        let (log, report) = (stage.folder.file("peer.log"), stage.folder.file("peer.json"));
        // One of an earlier measurement would pass for this one's.
        if report.exists() {
            fs::remove_file(&report).context("removing the last peer's report")?;
        }
        let mut argv = server(stage, case, cores)?;
        if case.peer == PeerKind::Serve {
            argv.extend(["--json".into(), report.clone().into()]);
        }
        argv.extend(case.arguments.iter().map(OsString::from));
        let shown = shown(Command::new(&argv[0]).args(&argv[1..]));
        steer_receiving(stage, if case.own_cores { cores } else { &[] })?;
        let cores = listed(cores);
        let pinned = ["taskset", "--cpu-list", &cores].map(OsString::from).into_iter().chain(argv);
        let mut command = stage.lab.exec(Side::Server, pinned);

        let output = fs::File::create(&log).context("making the peer's log")?;
        command.stdout(output.try_clone().context("making the peer's log")?).stderr(output);
        let retransmitted = counters::retransmitted(&stage.lab, Side::Server)?;
        let group = Group::spawn(&mut command)?;
        let mut peer = Self { kind: case.peer, group, shown, log, report, retransmitted };
        let ready = stage.interrupt.wait("the peer's `ready`", LIMIT, || peer.is_ready(stage));
        ready.with_context(|| format!("`{}` did not start: {}", peer.shown, peer.said()))?;
        Ok(peer)
    }

    fn is_ready(&mut self, stage: &Stage) -> Result<Option<()>> {
        if self.kind == PeerKind::Nginx {
            return nginx::first_connection(stage, &mut self.group);
        }
        if let Some(status) = self.group.try_wait()? {
            bail!("it ended first: {status}");
        }
        Ok(self.said().lines().any(|line| line.starts_with("ready")).then_some(()))
    }

    /// What it has printed so far.
    fn said(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// Asks it to end, and waits for that; the segments that it sent again, where they are known.
    pub(crate) fn stop(mut self, stage: &Stage) -> Result<Option<f64>> {
        self.group.signal(Signal::SIGTERM)?;
        let status = stage.interrupt.wait("the peer's end", LIMIT, || self.group.try_wait())?;
        if !status.success() {
            bail!("`{}` failed ({status}): {}", self.shown, self.said());
        }
        Ok(match self.kind {
            PeerKind::Serve => Some(nginx::counted_by_synmill(&self.report)?),
            PeerKind::Nginx | PeerKind::Kernel => {
                let now = counters::retransmitted(&stage.lab, Side::Server)?;
                Some(counters::after_minus(now, self.retransmitted))
            }
            PeerKind::Reflector | PeerKind::Sender => None,
        })
    }
}

/// The command of a server, without the case's own arguments.
fn server(stage: &Stage, case: &Case, cores: &[usize]) -> Result<Vec<OsString>> {
    let (service, cores) = (case.service.as_str(), listed(cores));
    let (program, arguments) = match case.peer {
        PeerKind::Serve => {
            let listen = format!("{}={service}", address());
            let options = ["serve", "--quiet", "--interface", SERVER_INTERFACE, "--listen", &listen];
            ("synmill", texts(&options))
        }
        PeerKind::Kernel => ("synmill-kernel-server", texts(&["--listen", &address(), "--service", service])),
        PeerKind::Reflector => {
            let mut options = texts(&["--interface", SERVER_INTERFACE, "--listen", &address(), "--service"]);
            match case.http_bytes() {
                Some(bytes) => options.extend(["http".into(), "--body".into(), bytes.to_string().into()]),
                None => options.push(service.into()),
            }
            ("synmill-reflector", options)
        }
        PeerKind::Sender => {
            let to = receiver::address();
            let mut argv = vec![binary("synmill-bulk")?.into()];
            argv.extend(texts(&["send", "--interface", SERVER_INTERFACE, "--to", &to, "--core", &cores]));
            return Ok(argv);
        }
        PeerKind::Nginx => {
            let bytes = case.http_bytes().context("nginx serves http:SIZE")?;
            return Ok(nginx::nginx_command(stage.folder.path(), "index.html", bytes)?.to_vec());
        }
    };
    let mut argv = vec![binary(program)?.into()];
    argv.extend(arguments);
    argv.extend(["--cores".into(), cores.into()]);
    Ok(argv)
}

fn texts(options: &[&str]) -> Vec<OsString> {
    options.iter().map(OsString::from).collect()
}

/// Such as `0,1`.
pub(crate) fn listed(cores: &[usize]) -> String {
    cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The last line that is a JSON object.
pub(super) fn last_json(said: &str) -> Result<serde_json::Value> {
    let line = said.lines().rev().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("the peer's counts are not in what it said: {said}"))?;
    serde_json::from_str(line).with_context(|| format!("the peer's counts: {line}"))
}

/// Has the kernel receive for the server's end on these cores (Documentation/networking/scaling.rst, RPS); on the sender's, with none.
fn steer_receiving(stage: &Stage, cores: &[usize]) -> Result<()> {
    let mask = cores.iter().fold(0_u64, |mask, core| mask | 1 << core);
    let script = format!(
        "for f in /sys/class/net/{SERVER_INTERFACE}/queues/rx-*/rps_cpus; do echo {mask:x} > $f; done"
    );
    stage.lab.output(Side::Server, &["sh", "-c", &script]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_with_counts_is_found() {
        let said = "ready: 198.18.0.2:80\n{\"accepted\":1}\n{\"accepted\":7,\"errors\":0}\nbye";
        assert_eq!(last_json(said).unwrap()["accepted"], 7);
        assert!(last_json("ready").unwrap_err().to_string().contains("ready"));
        assert!(last_json("{accepted}").is_err());
    }

    #[test]
    fn cores_are_listed() {
        assert_eq!(listed(&[0, 2]), "0,2");
    }
}
