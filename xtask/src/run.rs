//! `cargo xtask run`: synmill at work, in a lab or on a NIC.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use synmill_lab::{
    Interrupt, Lab, LabOptions, Process, SERVER_INTERFACE, SERVER_V4, SERVER_V6, Side, Words as _,
    prerequisites, target,
};

use crate::bench::generator::Run;
use crate::bench::peer::Peer;
use crate::bench::scenario::{Case, PeerKind};
use crate::bench::stage::{Stage, binary};
use crate::build;

/// Bytes of the demonstration's body.
const BODY: u64 = 1024;
/// Length and load of each measurement.
const BENCH_SECONDS: u32 = 5;
const BENCH_ARGUMENTS: [&str; 6] = ["--rate", "max", "--workload", "connect", "--close", "peer"];

/// Builds synmill, and turns this process into `synmill serve` with the user's arguments.
pub(crate) fn serve(arguments: &[OsString]) -> Result<()> {
    let binary = {
        let interrupt = Interrupt::install()?;
        prerequisites::ensure(&interrupt, &[prerequisites::BUILD])?;
        build::synmill(&interrupt)?
    };
    let error = std::process::Command::new(&binary).arg("serve").args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}

/// Shows everything on one machine without a NIC: builds synmill and a lab, serves, requests with curl over IPv4 and IPv6, measures
/// beside the kernel, and removes the lab.
pub(crate) fn demonstration() -> Result<()> {
    prerequisites::root("run")?;
    let interrupt = Interrupt::install()?;
    prerequisites::ensure(&interrupt, &[prerequisites::BUILD, prerequisites::LAB, prerequisites::PEERS])?;
    build::with_peers(&interrupt)?;

    heading("The lab: two network namespaces and a veth pair");
    let stage = Stage::up(&interrupt, Lab::DEMONSTRATION_PREFIX, LabOptions::default())?;
    let report = target()?.join("run.json");
    let responder = serve_in(&stage.lab, &report)?;
    for host in [SERVER_V4.to_owned(), format!("[{SERVER_V6}]")] {
        curl(&stage.lab, &host)?;
    }
    heading("SIGTERM to the responder: it drains, closes and reports");
    responder.stop()?;
    benchmark(&stage)?;
    drop(stage);

    heading("Done");
    println!("The lab is gone. The responder's report: {}", report.display());
    println!("More measurements: cargo xtask bench");
    println!("On a NIC: cargo xtask run --interface IF --listen ADDR:PORT --service http:1024");
    Ok(())
}

/// Opens connections at the highest rate, which the peer closes: first against synmill, then against the kernel.
fn benchmark(stage: &Stage) -> Result<()> {
    let cores = stage.server_cores(1)?;
    let (mut rates, mut doubts) = (Vec::new(), Vec::new());
    for (name, peer) in [("synmill serve", PeerKind::Serve), ("the kernel's TCP", PeerKind::Kernel)] {
        heading(&format!("The benchmark: {name}, a core for the server and one for the generator"));
        let peer = Peer::start(stage, &Case::plain(name, peer, "close"), &cores)?;
        println!("{}", peer.shown);
        let run = Run::new(stage, BENCH_SECONDS, &BENCH_ARGUMENTS.map(str::to_owned));
        println!("{}", run.shown());
        let outcome = run.shown_to_all(stage, cores[0])?;
        peer.stop(stage)?;
        rates.push(outcome.report.rate_per_s.achieved);
        doubts.extend(outcome.problems.into_iter().map(|problem| format!("{name}: {problem}")));
    }
    let [ours, kernel] = rates[..] else { bail!("two rates were expected") };
    heading("The benchmark: the ratio");
    print!("{}", ratio(ours, kernel, &doubts));
    println!(
        "A veth pair runs the kernel's receiving on the sender's core: the kernel's server had a part of the generator's. \
         `cargo xtask bench lab` measures it on its own core, too."
    );
    Ok(())
}

/// Returns the ratio, and the reasons to doubt it, if any.
fn ratio(ours: f64, kernel: f64, doubts: &[String]) -> String {
    let times = ours / kernel;
    let in_doubt = if doubts.is_empty() { "" } else { ", in doubt:" };
    let reasons: String = doubts.iter().map(|doubt| format!("  {doubt}\n")).collect();
    format!(
        "synmill serve {ours:.0} connections/s, the kernel's TCP {kernel:.0}: {times:.2} times{in_doubt}\n{reasons}"
    )
}

/// Requests the body twice over one connection of the kernel's TCP.
fn curl(lab: &Lab, host: &str) -> Result<()> {
    let url = format!("http://{host}/");
    heading(&format!("The kernel's client: curl {url} {url}"));
    let shape =
        "HTTP %{http_code}, %{size_download} bytes, %{num_connects} new connection(s), %{time_total} s\n";
    let mut argv = "curl --silent --show-error --max-time 10 --globoff --write-out".words();
    argv.push(shape);
    argv.extend(["--output", "/dev/null", &url, "--output", "/dev/null", &url]);
    let mut command = lab.exec(Side::Client, argv);
    let mut curl = Process::spawn(command.process_group(0))?;
    let status = curl.end()?;
    print!("{}", curl.said());
    ensure!(status.success(), "curl failed: {status}");
    let expected = [1, 0].map(|new| format!("HTTP 200, {BODY} bytes, {new} new connection"));
    let said = curl.said();
    let is_kept =
        said.lines().count() == 2 && said.lines().zip(&expected).all(|(line, start)| line.starts_with(start));
    ensure!(is_kept, "expected two answers of {BODY} bytes over one connection");
    Ok(())
}

/// Starts `synmill serve` in the lab, and prints its output line by line.
fn serve_in(lab: &Lab, report: &Path) -> Result<Process> {
    // An older report would pass for this run's.
    if report.exists() {
        fs::remove_file(report).with_context(|| format!("removing {}", report.display()))?;
    }
    let options = format!(
        "serve --interface {SERVER_INTERFACE} --listen {SERVER_V4}:80 --listen [{SERVER_V6}]:80 --service http:{BODY} --json"
    );
    heading(&format!("The responder: synmill {options} {}", report.display()));
    let mut command = lab.exec(Side::Server, [binary("synmill")?]);
    let mut responder = Process::spawn_printing(command.args(options.words()).arg(report).process_group(0))?;
    responder.until_line("ready").context("the responder did not start")?;
    Ok(responder)
}

fn heading(text: &str) {
    println!("\n== {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_doubtful_rates_is_in_doubt() {
        let sure = "synmill serve 300 connections/s, the kernel's TCP 100: 3.00 times";
        assert_eq!(ratio(300.0, 100.0, &[]), format!("{sure}\n"));
        let doubt = "the kernel's TCP: 3 of 10 connections failed".to_owned();
        let doubtful = format!("{sure}, in doubt:\n  {doubt}\n");
        assert_eq!(ratio(300.0, 100.0, &[doubt]), doubtful);
    }
}
