//! `cargo xtask run`: synmill at work, in the lab or on a NIC.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use synmill_lab::{
    Group, Interrupt, Lab, LabOptions, SERVER_INTERFACE, SERVER_V4, SERVER_V6, Side, prerequisites, target,
};

use crate::build;

/// The responder's first promise: from this line on it answers.
const READY: &str = "ready";
/// Longest wait for it.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for the responder's end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(30);
/// Bytes in the body that the demonstration serves.
const BODY: u64 = 1024;

/// Builds synmill and serves with the caller's own arguments; from then on this process is the responder.
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
    let mut responder = Responder::start(&interrupt, &lab, &programs.join("synmill"), &report)?;
    for host in [SERVER_V4.to_owned(), format!("[{SERVER_V6}]")] {
        curl(&interrupt, &lab, &host)?;
    }
    responder.stop(&interrupt)?;
    drop(lab);
    println!("The responder's report: {}", report.display());

    interrupt.check()?;
    let error = Command::new(programs.join("synmill-bench")).arg("demonstration").exec();
    Err(error).context("cannot start synmill-bench")
}

/// The kernel's client: two requests on one connection.
fn curl(interrupt: &Interrupt, lab: &Lab, host: &str) -> Result<()> {
    let url = format!("http://{host}/");
    heading(&format!("The kernel's client: curl {url} {url}"));
    let shape =
        "HTTP %{http_code}, %{size_download} bytes, %{num_connects} new connection(s), %{time_total} s\n";
    let argv = [
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "10",
        "--globoff",
        "--write-out",
        shape,
        "--output",
        "/dev/null",
        &url,
        "--output",
        "/dev/null",
        &url,
    ];
    let mut group = Group::spawn(lab.exec(Side::Client, argv).stdout(Stdio::piped()))?;
    let status = interrupt.wait("curl's end", Duration::from_secs(30), || group.try_wait())?;
    let mut said = String::new();
    if let Some(stdout) = &mut group.child.stdout {
        stdout.read_to_string(&mut said).context("reading curl's output")?;
    }
    print!("{said}");
    if !status.success() {
        bail!("curl failed: {status}");
    }
    let expected = [
        format!("HTTP 200, {BODY} bytes, 1 new connection"),
        format!("HTTP 200, {BODY} bytes, 0 new connection"),
    ];
    let kept =
        said.lines().count() == 2 && said.lines().zip(&expected).all(|(line, start)| line.starts_with(start));
    if !kept {
        bail!("two answers of {BODY} bytes on one connection were expected");
    }
    Ok(())
}

/// `synmill serve` in the lab, its output shown line by line.
struct Responder {
    group: Group,
    shown: Vec<JoinHandle<()>>,
}

impl Responder {
    fn start(interrupt: &Interrupt, lab: &Lab, binary: &Path, report: &Path) -> Result<Self> {
        // One of an earlier run would pass for this one's.
        if let Err(error) = fs::remove_file(report)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("removing {}", report.display()));
        }
        let (v4, v6, body) = (format!("{SERVER_V4}:80"), format!("[{SERVER_V6}]:80"), format!("http:{BODY}"));
        let options =
            ["serve", "--interface", SERVER_INTERFACE, "--listen", &v4, "--listen", &v6, "--service", &body];
        let mut argv: Vec<OsString> = vec![binary.into()];
        argv.extend(options.map(OsString::from));
        argv.extend(["--json".into(), report.into()]);
        let mut command = lab.exec(Side::Server, argv);
        heading(&format!("The responder: synmill {} --json {}", options.join(" "), report.display()));
        let mut group = Group::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))?;

        let (ready, is_ready) = mpsc::channel();
        let mut shown = Vec::new();
        shown.extend(group.child.stdout.take().map(|pipe| show(pipe, ready.clone())));
        shown.extend(group.child.stderr.take().map(|pipe| show(pipe, ready)));
        interrupt
            .wait("the responder's `ready`", READY_LIMIT, || wait_ready(&mut group, &is_ready))
            .context("the responder did not start")?;
        Ok(Self { group, shown })
    }

    /// Asks it to end, and waits for its final table.
    fn stop(&mut self, interrupt: &Interrupt) -> Result<()> {
        heading("SIGTERM to the responder: it drains, closes and reports");
        self.group.signal(Signal::SIGTERM)?;
        let status = interrupt.wait("the responder's end", END_LIMIT, || self.group.try_wait())?;
        for reader in self.shown.drain(..) {
            // It cannot panic, and what it has shown is all that is wanted of it.
            let _ = reader.join();
        }
        if !status.success() {
            bail!("the responder failed: {status}");
        }
        Ok(())
    }
}

fn wait_ready(group: &mut Group, is_ready: &Receiver<()>) -> Result<Option<()>> {
    if is_ready.try_recv().is_ok() {
        return Ok(Some(()));
    }
    if let Some(status) = group.try_wait()? {
        bail!("it ended first: {status}");
    }
    Ok(None)
}

/// Prints what comes out of `pipe`, and tells when it is the line that says ready.
fn show(pipe: impl Read + Send + 'static, ready: Sender<()>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            println!("  | {line}");
            if line.starts_with(READY) {
                // Nobody listens any more once the wait is over.
                let _ = ready.send(());
            }
        }
    })
}

fn heading(text: &str) {
    println!("\n== {text}");
}
