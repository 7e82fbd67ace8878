//! The asking end: finds the endpoint, sends the request and prints the answer. It trusts neither the folder of sockets nor the
//! answer.

use std::fs;
use std::io::{self, BufRead as _, BufReader, BufWriter, ErrorKind, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::answer::{Last, MAX_LINE, Totals};
use super::door::{connect, sockets};
use super::request::Request;
use super::row::HEAD;
use super::table::Table;

/// Maximum time without a line of the answer. A slow reader before this client may take a while, see [`super::server::Patience`].
pub const SILENCE: Duration = Duration::from_secs(45);
/// Maximum number of characters that a message shows of a command.
const COMMAND: usize = 60;

/// The endpoint to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The only endpoint on this machine.
    Only,
    /// The endpoint of this process.
    Process(u32),
    /// The endpoint with this socket.
    Socket(PathBuf),
}

/// Prints connections to `out`, as a table or as lines of JSON. `folder` is where endpoints have their sockets. A reader that
/// closes `out` early is no failure.
///
/// # Errors
/// One line: there is no such endpoint, or its answer is incomplete.
pub fn list(
    folder: &Path,
    whom: &Whom,
    request: &Request,
    json: bool,
    silence: Duration,
    out: impl Write,
) -> Result<(), String> {
    let conversation = Conversation::begin(find(folder, whom)?, request, silence)?;
    match pass_on(conversation, json, BufWriter::new(out)) {
        Ok(()) => Ok(()),
        Err(Failure::Out(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(Failure::Out(error)) => Err(format!("writing the list: {error}")),
        Err(Failure::In(line)) => Err(line),
    }
}

/// A failure of the answer or of the output.
enum Failure {
    In(String),
    Out(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Out(error)
    }
}

fn pass_on(mut conversation: Conversation, json: bool, mut out: impl Write) -> Result<(), Failure> {
    let mut table = Table::default();
    loop {
        match conversation.next() {
            Ok(Heard::Row(line)) if json => out.write_all(line).and_then(|()| out.write_all(b"\n"))?,
            Ok(Heard::Row(line)) => {
                let row = serde_json::from_slice(line).map_err(|error| Failure::In(strange(&error)))?;
                out.write_all(table.row(row).as_bytes())?;
            }
            Ok(Heard::End(totals)) => {
                if !json {
                    out.write_all(table.end(&totals).as_bytes())?;
                }
                return Ok(out.flush()?);
            }
            // A sign of life or a failure: the next rows come later or never, so those before are printed now.
            pause => {
                out.write_all(table.flush().as_bytes())?;
                out.flush()?;
                pause.map_err(Failure::In)?;
            }
        }
    }
}

fn strange(error: &serde_json::Error) -> String {
    format!("the answer is not from this version of `synmill`: {error}")
}

/// Connects to the endpoint.
fn find(folder: &Path, whom: &Whom) -> Result<UnixStream, String> {
    match whom {
        Whom::Socket(path) => connect(path).map_err(|error| failed(path, &error)),
        Whom::Process(pid) => {
            let path = folder.join(format!("{pid}.sock"));
            connect(&path).map_err(|error| match error.kind() {
                ErrorKind::NotFound => format!(
                    "process {pid} is no endpoint with a socket in {}: for one with --control PATH give --socket PATH",
                    folder.display()
                ),
                _ => failed(&path, &error),
            })
        }
        Whom::Only => only(folder),
    }
}

/// Connects to the only endpoint.
fn only(folder: &Path) -> Result<UnixStream, String> {
    let mut living = Vec::new();
    for (pid, path) in sockets(folder).map_err(|error| failed(folder, &error))? {
        match connect(&path) {
            Ok(stream) => living.push((pid, stream)),
            // The process was killed or has just ended.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {}
            Err(error) => return Err(failed(&path, &error)),
        }
    }
    let pids: Vec<String> = living.iter().map(|&(pid, _)| format!("{pid} ({})", command(pid))).collect();
    match living.pop() {
        None => Err(format!(
            "no endpoint runs here: no `synmill serve` or `synmill bench` has a socket in {}; for one with --control PATH \
             give --socket PATH",
            folder.display()
        )),
        Some((_, stream)) if living.is_empty() => Ok(stream),
        Some(_) => {
            Err(format!("{} endpoints run here: give --pid with one of {}", pids.len(), pids.join(", ")))
        }
    }
}

/// Returns a process's command, shortened and without control characters.
fn command(pid: u32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&text).replace('\0', " ");
    let line = line.trim_end();
    let printable = line.chars().map(|c| if c.is_control() { '?' } else { c });
    let short: String = printable.take(COMMAND).collect();
    if line.chars().count() > COMMAND { short + "..." } else { short }
}

fn failed(path: &Path, error: &io::Error) -> String {
    let reason = match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("{error}: run `synmill conns` as the endpoint's user, mostly root")
        }
        ErrorKind::ConnectionRefused => "nobody listens there: the endpoint has ended".into(),
        ErrorKind::WouldBlock => "too many clients wait there already: try again later".into(),
        _ => error.to_string(),
    };
    format!("{}: {reason}", path.display())
}

/// A request under way, and its answer.
struct Conversation {
    reader: BufReader<UnixStream>,
    silence: Duration,
    line: Vec<u8>,
}

impl Conversation {
    fn begin(stream: UnixStream, request: &Request, silence: Duration) -> Result<Self, String> {
        let text = serde_json::to_string(request).map_err(|error| format!("making the request: {error}"))?;
        let set = stream.set_read_timeout(Some(silence));
        set.map_err(|error| format!("the socket takes no timeout: {error}"))?;
        // An endpoint that does not read the request may still send an answer.
        let _ = (&stream).write_all((text + "\n").as_bytes());
        Ok(Self { reader: BufReader::with_capacity(64 * 1024, stream), silence, line: Vec::new() })
    }

    fn next(&mut self) -> Result<Heard<'_>, String> {
        self.line.clear();
        let read = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut self.line);
        read.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!(
                "no answer for {} s: the endpoint serves another client or stands still: try again later",
                self.silence.as_secs_f64()
            ),
            _ => format!("the answer broke off ({error}), and the list is incomplete"),
        })?;
        match self.line.strip_suffix(b"\n") {
            Some([]) => Ok(Heard::SignOfLife),
            Some(line) if line.starts_with(HEAD) => Ok(Heard::Row(line)),
            Some(line) => match serde_json::from_slice(line).map_err(|error| strange(&error))? {
                Last::End(totals) => Ok(Heard::End(totals)),
                Last::Error(line) => Err(format!("the endpoint refuses: {line}")),
            },
            None if self.line.len() as u64 == MAX_LINE => {
                Err("the answer is not from `synmill`: it has a line of more than 64 KiB".into())
            }
            None => Err("the answer broke off, and the list is incomplete: the endpoint has ended, or this client read \
                         nothing for too long"
                .into()),
        }
    }
}

/// A line of an answer.
enum Heard<'a> {
    /// A connection, in JSON.
    Row(&'a [u8]),
    SignOfLife,
    End(Totals),
}
