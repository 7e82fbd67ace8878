//! Clients on the kernel's TCP: sockets and curl at the client's end of the lab, and text with a known hash.

use std::fs::File;
use std::io::{BufWriter, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use synmill_lab::Side;

use crate::harness::Stage;

/// 2^20 bytes.
pub(crate) const MIB: u64 = 1 << 20;
/// Longest silence in a transfer.
const SILENCE: Duration = Duration::from_secs(30);

/// The length and the hash of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
}

/// Text without repetitions, from a generator with 64 bits of state (xorshift, Marsaglia 2003).
pub(crate) struct Text {
    state: u64,
    left: u64,
}

impl Text {
    pub(crate) fn new(seed: u64, bytes: u64) -> Self {
        Self { state: seed.wrapping_mul(2) + 1, left: bytes }
    }
}

impl Read for Text {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = into.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for chunk in into[..count].chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            chunk.copy_from_slice(&self.state.to_le_bytes()[..chunk.len()]);
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Reads a stream to its end.
pub(crate) fn digest(mut stream: impl Read) -> Digest {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer).unwrap_or_else(|error| panic!("after {bytes} bytes: {error}"));
        if count == 0 {
            return Digest { bytes, sha256: hash.finalize().into() };
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
}

/// Writes a text into a file.
pub(crate) fn write_file(path: &Path, text: &mut Text) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    std::io::copy(text, &mut file).unwrap();
    file.flush().unwrap();
}

/// Connects from the client's end.
pub(crate) fn try_connect(stage: &Stage, address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().unwrap();
    let stream = stage.lab.inside(Side::Client, || TcpStream::connect_timeout(&address, SILENCE)).unwrap()?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects from the client's end, which must succeed.
pub(crate) fn connect(stage: &Stage, address: &str) -> TcpStream {
    try_connect(stage, address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"))
}

/// Sends a text to an echo service while it reads the answer, to the end of both streams, and checks the answer. This end closes
/// first.
pub(crate) fn echo(stage: &Stage, address: &str, seed: u64, bytes: u64) {
    let stream = connect(stage, address);
    let back = thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = BufWriter::with_capacity(64 * 1024, &stream);
            std::io::copy(&mut Text::new(seed, bytes), &mut writer).expect("the peer takes the text");
            writer.flush().expect("the peer takes the text");
            stream.shutdown(Shutdown::Write).expect("the connection is open");
        });
        digest(&stream)
    });
    assert_eq!(back, digest(Text::new(seed, bytes)), "echo of {bytes} bytes at {address}");
}

/// Sends one message over an echo connection, and waits for it.
pub(crate) fn say(mut stream: &TcpStream, message: &[u8]) {
    stream.write_all(message).expect("the peer takes the message");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("the message comes back");
    assert_eq!(answer, message);
}

/// Returns the body that curl fetches; the request must succeed.
pub(crate) fn curl(stage: &Stage, url: &str) -> Digest {
    let command = format!("curl --silent --show-error --fail --globoff --max-time 120 {url}");
    let mut child = stage.client(&command).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let body = digest(child.stdout.take().unwrap());
    let status = child.wait().unwrap();
    assert!(status.success(), "curl {url}: {status}");
    body
}
