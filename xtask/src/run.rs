//! `cargo xtask run`: synmill at work, in a lab or on a NIC.

use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{
    Interrupt, Lab, LabOptions, Process, SERVER_INTERFACE, SERVER_V4, SERVER_V6, Side, Words as _,
    prerequisites, target,
};

use crate::build;

/// Bytes of the demonstration's body.
const BODY: u64 = 1024;

/// Builds synmill, and turns this process into `synmill serve` with the user's arguments.
pub(crate) fn serve(arguments: &[OsString]) -> Result<()> {
    let binary = {
        let interrupt = Interrupt::install()?;
        prerequisites::ensure(&interrupt, &[prerequisites::BUILD])?;
        build::synmill(&interrupt)?
    };
    let error = Command::new(&binary).arg("serve").args(arguments).exec();
    Err(error).with_context(|| format!("cannot start {}", binary.display()))
}

/// Shows synmill on one machine: builds it, serves in a lab, asks with curl over IPv4 and IPv6, and becomes the benchmark beside the
/// kernel's TCP.
pub(crate) fn demonstration() -> Result<()> {
    prerequisites::root("run")?;
    let interrupt = Interrupt::install()?;
    prerequisites::ensure(&interrupt, &[prerequisites::BUILD, prerequisites::LAB, prerequisites::PEERS])?;
    build::with_peers(&interrupt)?;

    heading("The lab: two network namespaces and a veth pair");
    let lab = Lab::up(Lab::DEMONSTRATION_PREFIX, LabOptions::default())?;
    let (programs, report) = (target()?.join("release"), target()?.join("run.json"));
    let responder = serve_in(&lab, &programs.join("synmill"), &report)?;
    for host in [SERVER_V4.to_owned(), format!("[{SERVER_V6}]")] {
        curl(&lab, &host)?;
    }
    heading("SIGTERM to the responder: it drains, closes and reports");
    responder.stop()?;
    drop(lab);
    println!("The responder's report: {}", report.display());

    interrupt.check()?;
    let error = Command::new(programs.join("synmill-bench")).arg("demonstration").exec();
    Err(error).context("cannot start synmill-bench")
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
fn serve_in(lab: &Lab, synmill: &Path, report: &Path) -> Result<Process> {
    // An older report would pass for this run's.
    if report.exists() {
        fs::remove_file(report).with_context(|| format!("removing {}", report.display()))?;
    }
    let options = format!(
        "serve --interface {SERVER_INTERFACE} --listen {SERVER_V4}:80 --listen [{SERVER_V6}]:80 --service http:{BODY} --json"
    );
    heading(&format!("The responder: synmill {options} {}", report.display()));
    let mut command = lab.exec(Side::Server, [synmill]);
    let mut responder = Process::spawn_printing(command.args(options.words()).arg(report).process_group(0))?;
    responder.until_line("ready").context("the responder did not start")?;
    Ok(responder)
}

fn heading(text: &str) {
    println!("\n== {text}");
}
