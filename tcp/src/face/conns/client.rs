//! The asking end: finds the endpoint, asks, and passes on what it hears. Knows the folder of sockets and the lines of an answer;
//! believes neither to be what they should.

use std::fs;
use std::io::{self, BufRead as _, BufReader, BufWriter, ErrorKind, Read as _, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::door::{connect, sockets};
use super::row::HEAD;
use super::table::Table;
use super::{Last, MAX_LINE, Request, Totals};

/// The longest silence. One that reads slowly may keep the others waiting for a while, see [`super::server::Patience`].
pub const SILENCE: Duration = Duration::from_secs(45);
/// Letters of a command that are shown, at most.
const COMMAND: usize = 60;

/// Which endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The only one that runs here.
    Only,
    /// The one of this process.
    Process(u32),
    /// The one with this socket.
    Socket(PathBuf),
}

/// Lists connections on `out`, as a table or as JSON, a line each. `folder` is where endpoints have their sockets. A reader that has
/// seen enough is no failure.
///
/// # Errors
/// One line: there is no such endpoint, or its answer is not whole.
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

/// Which end failed.
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
        let heard = match conversation.next() {
            Ok(heard) => heard,
            Err(line) => {
                // What was heard before is true all the same.
                out.write_all(table.flush().as_bytes())?;
                out.flush()?;
                return Err(Failure::In(line));
            }
        };
        match heard {
            Heard::Row(line) if json => out.write_all(line).and_then(|()| out.write_all(b"\n"))?,
            Heard::Row(line) => {
                let row = serde_json::from_slice(line).map_err(|error| Failure::In(strange(&error)))?;
                out.write_all(table.row(row).as_bytes())?;
            }
            // Nothing more for a while.
            Heard::SignOfLife => {
                out.write_all(table.flush().as_bytes())?;
                out.flush()?;
            }
            Heard::End(totals) => {
                if !json {
                    out.write_all(table.end(&totals).as_bytes())?;
                }
                return Ok(out.flush()?);
            }
        }
    }
}

fn strange(error: &serde_json::Error) -> String {
    format!("this is no answer of a `synmill` of this version: {error}")
}

/// A connection to the endpoint.
fn find(folder: &Path, whom: &Whom) -> Result<UnixStream, String> {
    match whom {
        Whom::Socket(path) => connect(path).map_err(|error| failed(path, &error)),
        Whom::Process(pid) => {
            let path = folder.join(format!("{pid}.sock"));
            connect(&path).map_err(|error| match error.kind() {
                ErrorKind::NotFound => {
                    format!("process {pid} is no endpoint with a socket in {}", folder.display())
                }
                _ => failed(&path, &error),
            })
        }
        Whom::Only => only(folder),
    }
}

/// The only one.
fn only(folder: &Path) -> Result<UnixStream, String> {
    let mut living = Vec::new();
    let there = sockets(folder).map_err(|error| failed(folder, &error))?;
    for (pid, path) in there {
        match connect(&path) {
            Ok(stream) => living.push((pid, stream)),
            // A process that was killed, or has just ended.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {}
            Err(error) => return Err(failed(&path, &error)),
        }
    }
    match living.pop() {
        None => Err(format!(
            "no endpoint runs here: no `synmill serve` or `synmill bench` has a socket in {}; one with --control PATH is found \
             with --socket PATH",
            folder.display()
        )),
        Some((_, stream)) if living.is_empty() => Ok(stream),
        Some((last, _)) => {
            let pids = living.iter().map(|&(pid, _)| pid).chain([last]);
            let each: Vec<String> = pids.map(|pid| format!("{pid} ({})", command(pid))).collect();
            Err(format!("{} endpoints run here: give --pid with one of {}", each.len(), each.join(", ")))
        }
    }
}

/// A process's command, shortened.
fn command(pid: u32) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = text.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    let line = words.join(" ");
    let printable = line.trim_end().chars().map(|c| if c.is_control() { '?' } else { c });
    let mut short: String = printable.take(COMMAND).collect();
    if line.trim_end().chars().count() > COMMAND {
        short.push_str("...");
    }
    short
}

fn failed(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("{path}: {error}: an endpoint answers its own user only, mostly root")
        }
        ErrorKind::ConnectionRefused => format!("{path}: nobody listens there: the endpoint has ended"),
        ErrorKind::WouldBlock => format!("{path}: too many clients wait there already"),
        _ => format!("{path}: {error}"),
    }
}

/// A request, and its answer as it comes.
struct Conversation {
    reader: BufReader<UnixStream>,
    silence: Duration,
    line: Vec<u8>,
}

impl Conversation {
    fn begin(stream: UnixStream, request: &Request, silence: Duration) -> Result<Self, String> {
        let mut text =
            serde_json::to_string(request).map_err(|error| format!("making the request: {error}"))?;
        text.push('\n');
        let set = stream.set_read_timeout(Some(silence));
        set.map_err(|error| format!("the socket takes no timeout: {error}"))?;
        // If it does not listen, it may still have something to say.
        let _ = (&stream).write_all(text.as_bytes());
        Ok(Self { reader: BufReader::with_capacity(64 * 1024, stream), silence, line: Vec::new() })
    }

    fn next(&mut self) -> Result<Heard<'_>, String> {
        self.line.clear();
        let read = (&mut self.reader).take(MAX_LINE).read_until(b'\n', &mut self.line);
        match read {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let seconds = self.silence.as_secs_f64();
                return Err(format!(
                    "no answer for {seconds} s: another client is being served, or the process stands still"
                ));
            }
            Err(error) => return Err(format!("the answer broke off ({error}): the list is not whole")),
            Ok(_) => {}
        }
        match self.line.strip_suffix(b"\n") {
            Some([]) => Ok(Heard::SignOfLife),
            Some(line) if line.starts_with(HEAD) => Ok(Heard::Row(line)),
            Some(line) => match serde_json::from_slice(line).map_err(|error| strange(&error))? {
                Last::End(totals) => Ok(Heard::End(totals)),
                Last::Error(line) => Err(format!("the endpoint refuses: {line}")),
            },
            None if self.line.len() as u64 == MAX_LINE => Err("this is no answer of a `synmill`".into()),
            None => Err("the answer broke off, and the list is not whole: the endpoint has ended, or nothing was read for too long".into()),
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
