//! The guest kernel's own TCP at the other end: text arrives complete, and the accounts close.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{Run, SERVER_V4, SERVER_V6, Side, last_json};
use synmill_vm::guest::WAIT;

use crate::harness::{LISTEN, Stage, Test};

pub(crate) const TESTS: &[Test] =
    &[("text_intact", text_intact), ("kernel_client", kernel_client), ("kernel_server", kernel_server)];

/// Bytes in each direction, more than any initial window.
const LENGTH: usize = 300 * 1024;
/// Fetches of the kernel's client.
const FETCHES: usize = 20;
/// The file that serve serves.
const FILE: &str = "/tmp/text";
/// The file that nc writes.
const CAUGHT: &str = "/tmp/caught";

/// Returns both addresses of the server, in brackets where a port follows a colon.
fn hosts() -> [String; 2] {
    [SERVER_V4.to_owned(), format!("[{SERVER_V6}]")]
}

/// Returns text in which no two places look alike for long.
fn text() -> Vec<u8> {
    (0..LENGTH as u32 / 4).flat_map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

/// Checks text that serve echoes, reads from a file, and generates: over both IP versions, to sockets, wget and nc.
fn text_intact(stage: &mut Stage<'_>) -> Result<()> {
    let text = text();
    fs::write(FILE, &text).context(FILE)?;
    let mut options = format!("--mode {}", stage.best());
    for host in hosts() {
        options += &format!(
            " --listen {host}:7=echo --listen {host}:80=http-file:{FILE} --listen {host}:19=source:{LENGTH}"
        );
    }
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
    let report = serve.stop()?;
    let opened = report.count("/connections/opened")?;
    ensure!(opened == 8, "opened: {opened}");
    no_bad_checksums(&report)?;
    stage.note(format!("8 times {} KiB, {}", LENGTH / 1024, stage.best()));
    Ok(())
}

/// Sends text from a socket at the client's end while it reads, to the end of both streams.
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

/// Returns the text that nc receives at the client's end without sending any.
fn catch(stage: &Stage<'_>, host: &str, port: u16) -> Result<Vec<u8>> {
    let limit = WAIT.as_secs();
    let command = format!("timeout {limit} busybox nc {host} {port} </dev/null >{CAUGHT}");
    stage.ask(Side::Client, &["busybox", "sh", "-c", &command])?;
    fs::read(CAUGHT).context(CAUGHT)
}

/// Checks that no segment arrived with a checksum that a NIC should have finished.
fn no_bad_checksums(run: &Run) -> Result<()> {
    let bad = run.count("drop_tcp_checksum")?;
    ensure!(bad == 0, "{bad} segments with a wrong checksum");
    Ok(())
}

/// A client of the kernel fetches again and again.
fn kernel_client(stage: &mut Stage<'_>) -> Result<()> {
    let serve = stage.serve(&format!("--mode {} {LISTEN}", stage.best()))?;
    let hosts = hosts();
    for number in 0..FETCHES {
        let body = stage.fetch(&format!("http://{}/", hosts[number % 2]))?;
        ensure!(body.len() == 1024, "{} bytes at fetch {number}", body.len());
    }
    let report = serve.stop()?;
    for (what, count) in [("opened", FETCHES as u64), ("closed", FETCHES as u64), ("held", 0)] {
        let counted = report.count(&format!("/connections/{what}"))?;
        ensure!(counted == count, "{what}: {counted} instead of {count}");
    }
    no_bad_checksums(&report)?;
    stage.note(format!("{FETCHES} fetches"));
    Ok(())
}

/// bench runs against a server on the guest kernel's TCP.
fn kernel_server(stage: &mut Stage<'_>) -> Result<()> {
    let command = format!("synmill-kernel-server {LISTEN} --service http:64 --cores 0");
    let mut server = stage.spawn(Side::Server, &command)?;
    server.until_line("ready")?;
    let mut total = 0;
    for version in [4, 6] {
        let load = "--workload http --rate 50 --warmup 0s --duration 1s";
        let bench = stage.bench(version, &format!("--mode {} {load}", stage.best()))?;
        let report = bench.finish().with_context(|| format!("IPv{version}"))?;
        let (started, closed) = (report.count("/connections/started")?, report.count("/connections/closed")?);
        ensure!(started > 0 && started == closed, "{started} started, {closed} closed");
        no_bad_checksums(&report)?;
        total += report.count("active_opens")?;
    }
    let counts = last_json(&server.stop()?)?;
    ensure!(counts["accepted"] == total, "{total} opened, and the server counted {counts}");
    stage.note(format!("{total} connections"));
    Ok(())
}
