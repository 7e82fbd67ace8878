//! The guest kernel's own TCP at the other end: text comes through whole, and the accounts close. Knows sockets, and busybox's wget and nc; never
//! our generator's peer.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use synmill_lab::{SERVER_V4, SERVER_V6, Side};
use synmill_vm::guest::WAIT;

use crate::harness::{Report, Stage, Test, towards};

/// This file's.
pub(crate) const TESTS: &[Test] =
    &[("text_intact", text_intact), ("kernel_client", kernel_client), ("kernel_server", kernel_server)];

/// Bytes that go each way, more than any window at first.
const LENGTH: usize = 300 * 1024;
/// Fetches of the client that comes again and again.
const FETCHES: u64 = 20;
/// Where the text to fetch is.
const FILE: &str = "/tmp/text";
/// Where nc puts what it gets.
const CAUGHT: &str = "/tmp/caught";

/// Both addresses of the server in brackets where they need them.
fn hosts() -> [String; 2] {
    [SERVER_V4.to_owned(), format!("[{SERVER_V6}]")]
}

/// Text in which no two places look alike for long.
fn text() -> Vec<u8> {
    (0..LENGTH as u32 / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

/// Text sent back, read from a file, and made up: each over both IP versions, to sockets, to wget and to nc.
fn text_intact(stage: &mut Stage<'_>) -> Result<()> {
    let text = text();
    fs::write(FILE, &text).context(FILE)?;
    let listen: Vec<String> = hosts()
        .iter()
        .flat_map(|host| {
            [
                format!("{host}:7=echo"),
                format!("{host}:80=http-file:{FILE}"),
                format!("{host}:19=source:{LENGTH}"),
            ]
        })
        .collect();
    let mut options = vec!["--mode", stage.best()];
    options.extend(listen.iter().flat_map(|listen| ["--listen", listen]));
    let serve = stage.serve(&options)?;
    for host in hosts() {
        let back = talk(stage, &format!("{host}:7"), &text).with_context(|| format!("echo at {host}"))?;
        ensure!(back == text, "echo at {host}: {} bytes came back, not those that were sent", back.len());
        let made = talk(stage, &format!("{host}:19"), b"").with_context(|| format!("source at {host}"))?;
        ensure!(made.len() == LENGTH, "source at {host}: {} bytes", made.len());
        let caught = catch(stage, host.trim_matches(['[', ']']), 19)?;
        ensure!(caught == made, "source at {host}: nc got {} bytes, not those of a socket", caught.len());
        let fetched = stage.fetch(&format!("http://{host}/"))?;
        ensure!(fetched == text, "http at {host}: {} bytes, not those of the file", fetched.len());
    }
    let report = serve.stop(stage)?;
    ensure!(report.count("/connections/opened")? == 8, "opened: {}", report.count("/connections/opened")?);
    no_bad_checksums(&[&report])?;
    stage.note(format!("8 times {} KiB, {}", LENGTH / 1024, stage.best()));
    Ok(())
}

/// Sends text from a socket at the client's end while it reads, to the end of both.
fn talk(stage: &Stage<'_>, to: &str, text: &[u8]) -> Result<Vec<u8>> {
    let address: SocketAddr = to.parse().context("an address")?;
    let stream = stage.lab.inside(Side::Client, || TcpStream::connect_timeout(&address, WAIT))??;
    stream.set_read_timeout(Some(WAIT))?;
    stream.set_write_timeout(Some(WAIT))?;
    thread::scope(|scope| {
        let writer = scope.spawn(|| -> Result<()> {
            (&stream).write_all(text).context("writing")?;
            stream.shutdown(Shutdown::Write).context("closing")
        });
        let mut back = Vec::new();
        (&stream).read_to_end(&mut back).with_context(|| format!("reading after {} bytes", back.len()))?;
        writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
        Ok(back)
    })
}

/// What nc gets at the client's end that says nothing itself.
fn catch(stage: &Stage<'_>, host: &str, port: u16) -> Result<Vec<u8>> {
    let limit = WAIT.as_secs();
    let command = format!("timeout {limit} busybox nc {host} {port} </dev/null >{CAUGHT}");
    stage.ask(Side::Client, &["busybox", "sh", "-c", &command])?;
    fs::read(CAUGHT).context(CAUGHT)
}

/// No segment arrived with a checksum that a NIC was left to finish.
fn no_bad_checksums(reports: &[&Report]) -> Result<()> {
    for report in reports {
        let bad = report.count("/drops/drop_tcp_checksum")?;
        ensure!(bad == 0, "{bad} segments with a wrong checksum");
    }
    Ok(())
}

/// A client that comes again and again.
fn kernel_client(stage: &mut Stage<'_>) -> Result<()> {
    let [v4, v6] = hosts().map(|host| format!("{host}:80"));
    let serve = stage.serve(&["--mode", stage.best(), "--listen", &v4, "--listen", &v6])?;
    for number in 0..FETCHES {
        let url = format!("http://{}/", if number % 2 == 0 { &v4 } else { &v6 });
        let body = stage.fetch(&url)?;
        ensure!(body.len() == 1024, "{} bytes at fetch {number}", body.len());
    }
    let report = serve.stop(stage)?;
    for (what, count) in [("opened", FETCHES), ("closed", FETCHES), ("held", 0)] {
        let counted = report.count(&format!("/connections/{what}"))?;
        ensure!(counted == count, "{what}: {counted} instead of {count}");
    }
    no_bad_checksums(&[&report])?;
    stage.note(format!("{FETCHES} fetches"));
    Ok(())
}

/// Our generator against the guest kernel's listener.
fn kernel_server(stage: &mut Stage<'_>) -> Result<()> {
    let [v4, v6] = hosts().map(|host| format!("{host}:80"));
    let argv =
        ["synmill-kernel-server", "--listen", &v4, "--listen", &v6, "--service", "http:64", "--cores", "0"];
    let mut server = stage.spawn(Side::Server, &argv)?;
    server.until_said("ready")?;
    let mut total = 0;
    for version in [4, 6] {
        let (mode, towards) = (stage.best(), towards(version));
        let mut options: Vec<&str> = towards.iter().map(String::as_str).collect();
        options.extend([
            "--mode",
            mode,
            "--workload",
            "http",
            "--rate",
            "50",
            "--warmup",
            "0s",
            "--duration",
            "1s",
        ]);
        let report = stage.bench(&options)?.finish(stage).with_context(|| format!("IPv{version}"))?;
        let (started, closed) = (report.count("/connections/started")?, report.count("/connections/closed")?);
        ensure!(started > 0 && started == closed, "{started} started, {closed} closed");
        no_bad_checksums(&[&report])?;
        total += report.counter("active_opens")?;
    }
    server.signal(Signal::SIGTERM)?;
    server.end()?;
    let said = server.said();
    let line =
        said.lines().find(|line| line.starts_with('{')).context("the kernel's server told no counts")?;
    let counts: Value = serde_json::from_str(line)?;
    ensure!(counts["accepted"].as_u64() == Some(total), "{total} opened, and the server counted {line}");
    stage.note(format!("{total} connections"));
    Ok(())
}
