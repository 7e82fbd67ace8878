//! A server on the kernel's TCP, as fast as epoll allows: the baseline.
//!
//! Each core has a thread with listeners (`SO_REUSEPORT`) and an epoll of its own. The thread reads from a connection as soon as it has
//! accepted it, for its request has mostly come already. Such a connection costs four system calls (accept, receive, send, close), no
//! epoll, and three packets of the kernel.

mod service;

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{MsgFlags, recv, send};
use serde::Serialize;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use synmill_benches::cores::{check, pin};
use synmill_benches::counts::total;
use synmill_benches::http;

use service::{Service, answer};

/// The backlog of a listener, in connections.
const BACKLOG: i32 = 65_535;
/// Events taken from epoll at once.
const EVENTS: usize = 512;
/// Connections that a listener accepts before the others have their turn.
const ACCEPTS: usize = 256;
/// Bytes read at once.
const READ: usize = 64 * 1024;
/// The longest head of a request, in bytes.
const LONGEST_HEAD: usize = 16 * 1024;
/// The event for the end of the process; all other numbers are file descriptors.
const STOP: u64 = u64::MAX;
/// `MSG_MORE`, for which nix has no name.
const MORE: MsgFlags = MsgFlags::from_bits_retain(libc::MSG_MORE);

/// A server on the kernel's TCP: the baseline that others are compared with
///
/// Prints `ready: ...` on standard error when it listens. At SIGTERM or SIGINT it prints its counts as one line of JSON, and ends.
#[derive(Parser)]
#[command(name = "synmill-kernel-server", version)]
struct Arguments {
    /// An address and port to listen on; repeatable. `[::]:PORT` is IPv6 only
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// Run a pinned thread on each of these cores
    #[arg(long, value_delimiter = ',', default_value = "0")]
    cores: Vec<usize>,
    /// close | http:SIZE | source:SIZE | echo | reset | reset-half[:close|:http:SIZE] | garbage | silent
    #[arg(long, default_value = "http:64")]
    service: Service,
}

/// Counts of connections. Each accepted one is closed, reset, failed, or open at the end.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Counts {
    accepted: u64,
    requests: u64,
    /// Ended by the server's FIN, before or after the client's.
    closed: u64,
    /// Ended by the server's RST.
    resets: u64,
    /// Ended by the client's RST or by a request without an end; and failed accepts.
    errors: u64,
}

/// The next step of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Wait for text.
    Read,
    /// Wait for room in the send buffer.
    Write,
    Close,
    Reset,
    Fail,
}

/// The result of a write.
enum Written {
    All,
    /// The send buffer is full.
    Part,
    Failed,
}

/// An accepted connection.
struct Connection {
    stream: TcpStream,
    /// The step for which epoll watches it, if it does.
    watched: Option<Next>,
    /// Its number on its worker, from 1.
    number: u64,
    /// The start of a request; under `echo`, text that is not sent yet. Mostly empty, and then without memory.
    rest: Vec<u8>,
    /// Responses to send, and the sent bytes of the first one.
    owed: u32,
    position: usize,
    /// Whether the connection ends after these responses.
    closes: bool,
}

/// One core's server.
struct Worker {
    core: usize,
    service: Service,
    listeners: Vec<TcpListener>,
    epoll: Epoll,
    /// By file descriptor, which the kernel keeps dense.
    connections: Vec<Option<Connection>>,
    buffer: Box<[u8]>,
    /// The response to a request, and that to the last request of a connection.
    responses: [Vec<u8>; 2],
    counts: Counts,
}

impl Worker {
    fn new(core: usize, arguments: &Arguments, stop: &UnixStream) -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("making an epoll")?;
        epoll.add(stop, EpollEvent::new(EpollFlags::EPOLLIN, STOP)).context("watching for signals")?;
        let mut listeners = Vec::new();
        for &address in &arguments.listen {
            let listener = open(address).with_context(|| format!("listening on {address}"))?;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, listener.as_raw_fd() as u64);
            epoll.add(&listener, event).context("watching a listener")?;
            listeners.push(listener);
        }
        Ok(Self {
            core,
            service: arguments.service,
            listeners,
            epoll,
            connections: Vec::new(),
            buffer: vec![0; READ].into_boxed_slice(),
            responses: [false, true].map(|closes| answer(arguments.service, closes)),
            counts: Counts::default(),
        })
    }

    /// Serves until the stop pipe has something to read.
    fn run(mut self) -> Result<Counts> {
        pin(self.core)?;
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error).context("waiting for events"),
            };
            for event in &events[..count] {
                if event.data() == STOP {
                    return Ok(self.counts);
                }
                self.on_event(event.data() as usize);
            }
        }
    }

    /// Handles an event of a file descriptor. It is never one of an earlier connection with this descriptor: a connection has one event in a
    /// batch, and its end removes it from epoll.
    fn on_event(&mut self, fd: usize) {
        if let Some(connection) = self.connections.get_mut(fd).and_then(Option::take) {
            self.advance(connection);
        } else if let Some(listener) =
            self.listeners.iter().position(|listener| listener.as_raw_fd() as usize == fd)
        {
            self.accept(listener);
        }
    }

    /// Accepts the connections that wait. Their sockets block, which saves a system call; no call on them does.
    fn accept(&mut self, listener: usize) {
        for _ in 0..ACCEPTS {
            match self.listeners[listener].accept() {
                Ok((stream, _)) => self.on_accepted(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // The client has reset it, or the file descriptors are used up.
                    if self.counts.errors == 0 {
                        eprintln!("core {}: accepting: {error}", self.core);
                    }
                    self.counts.errors += 1;
                    return;
                }
            }
        }
    }

    fn on_accepted(&mut self, stream: TcpStream) {
        self.counts.accepted += 1;
        let connection = Connection {
            stream,
            watched: None,
            number: self.counts.accepted,
            rest: Vec::new(),
            owed: 0,
            position: 0,
            closes: false,
        };
        match self.service {
            Service::Close => self.end(connection, Next::Close),
            Service::Reset => self.end(connection, Next::Reset),
            Service::ResetHalfAtOnce if connection.is_to_be_reset() => self.end(connection, Next::Reset),
            Service::ResetHalfAtOnce => self.end(connection, Next::Close),
            Service::Silent => self.keep(connection),
            Service::Source(_) => self.advance(Connection { owed: 1, closes: true, ..connection }),
            Service::Http(_) | Service::ResetHalf(_) | Service::Garbage | Service::Echo => {
                self.advance(connection);
            }
        }
    }

    /// Reads or writes once, then waits for more or ends.
    fn advance(&mut self, mut connection: Connection) {
        let next = if self.service == Service::Echo {
            connection.echo(&mut self.buffer, &mut self.counts)
        } else {
            connection.respond(self.service, &mut self.buffer, &self.responses, &mut self.counts)
        };
        let flags = match next {
            Next::Read => EpollFlags::EPOLLIN,
            Next::Write => EpollFlags::EPOLLOUT,
            Next::Close | Next::Reset | Next::Fail => return self.end(connection, next),
        };
        let mut event = EpollEvent::new(flags, connection.stream.as_raw_fd() as u64);
        let watched = match connection.watched.replace(next) {
            Some(before) if before == next => Ok(()),
            Some(_) => self.epoll.modify(&connection.stream, &mut event),
            None => self.epoll.add(&connection.stream, event),
        };
        match watched {
            Ok(()) => self.keep(connection),
            Err(_) => self.end(connection, Next::Fail),
        }
    }

    fn keep(&mut self, connection: Connection) {
        let fd = connection.stream.as_raw_fd() as usize;
        if fd >= self.connections.len() {
            self.connections.resize_with((fd + 1).next_power_of_two(), || None);
        }
        self.connections[fd] = Some(connection);
    }

    fn end(&mut self, connection: Connection, how: Next) {
        match how {
            Next::Reset => match SockRef::from(&connection.stream).set_linger(Some(Duration::ZERO)) {
                Ok(()) => self.counts.resets += 1,
                Err(_) => self.counts.errors += 1,
            },
            Next::Fail => self.counts.errors += 1,
            Next::Close | Next::Read | Next::Write => self.counts.closed += 1,
        }
        drop(connection);
    }
}

impl Connection {
    const fn is_to_be_reset(&self) -> bool {
        self.number.is_multiple_of(2)
    }

    /// Sends the responses that wait, or else reads once and answers whole requests. Epoll reports further text.
    fn respond(
        &mut self,
        service: Service,
        buffer: &mut [u8],
        responses: &[Vec<u8>; 2],
        counts: &mut Counts,
    ) -> Next {
        if self.owed == 0 {
            let text = match read(&self.stream, buffer) {
                Ok(text) => text,
                Err(next) => return next,
            };
            let requests = if self.rest.is_empty() {
                let (requests, rest) = self.take_requests(text);
                self.rest.extend_from_slice(rest);
                requests
            } else {
                let mut all = std::mem::take(&mut self.rest);
                all.extend_from_slice(text);
                let (requests, rest) = self.take_requests(&all);
                let taken = all.len() - rest.len();
                all.drain(..taken);
                self.rest = all;
                requests
            };
            counts.requests += u64::from(requests);
            self.owed = requests;
            if requests > 0 && matches!(service, Service::ResetHalf(_)) && self.is_to_be_reset() {
                return Next::Reset;
            }
            if self.rest.len() > LONGEST_HEAD {
                return Next::Fail;
            }
        }
        match self.send_owed(responses) {
            Written::All if self.closes => {
                if matches!(service, Service::Source(_)) {
                    // Unread text would turn the FIN into an RST.
                    let _ = read(&self.stream, buffer);
                }
                Next::Close
            }
            Written::All => Next::Read,
            Written::Part => Next::Write,
            Written::Failed => Next::Fail,
        }
    }

    /// Counts the requests in `text`, up to a last one, and returns the start of the next one.
    fn take_requests<'a>(&mut self, mut text: &'a [u8]) -> (u32, &'a [u8]) {
        let mut requests = 0;
        while !self.closes
            && let Some(request) = http::first(text)
        {
            text = &text[request.len..];
            self.closes = request.closes;
            requests += 1;
        }
        (requests, if self.closes { &[] } else { text })
    }

    /// Sends the responses that wait. `MSG_MORE` holds the last one back until the close, so that the FIN rides on it.
    fn send_owed(&mut self, responses: &[Vec<u8>; 2]) -> Written {
        while self.owed > 0 {
            let is_last = self.closes && self.owed == 1;
            let response = &responses[usize::from(is_last)];
            let more = if is_last { MORE } else { MsgFlags::empty() };
            match write(&self.stream, &response[self.position..], more) {
                Ok(sent) => self.position += sent,
                Err(Next::Write) => return Written::Part,
                Err(_) => return Written::Failed,
            }
            if self.position == response.len() {
                self.owed -= 1;
                self.position = 0;
            }
        }
        Written::All
    }

    /// Sends the rest, or else reads once and sends the text back.
    fn echo(&mut self, buffer: &mut [u8], counts: &mut Counts) -> Next {
        if self.rest.is_empty() {
            let text = match read(&self.stream, buffer) {
                Ok(text) => text,
                Err(next) => return next,
            };
            counts.requests += 1;
            match write(&self.stream, text, MsgFlags::empty()) {
                Ok(sent) => self.rest.extend_from_slice(&text[sent..]),
                Err(Next::Write) => self.rest.extend_from_slice(text),
                Err(next) => return next,
            }
        } else {
            match write(&self.stream, &self.rest, MsgFlags::empty()) {
                Ok(sent) => drop(self.rest.drain(..sent)),
                Err(next) => return next,
            }
        }
        if self.rest.is_empty() { Next::Read } else { Next::Write }
    }
}

/// Reads once; returns the next step instead if there is no text.
fn read<'a>(stream: &TcpStream, buffer: &'a mut [u8]) -> Result<&'a [u8], Next> {
    loop {
        match recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(0) => return Err(Next::Close),
            Ok(count) => return Ok(&buffer[..count]),
            Err(Errno::EAGAIN) => return Err(Next::Read),
            Err(Errno::EINTR) => {}
            Err(_) => return Err(Next::Fail),
        }
    }
}

/// Writes once and returns the bytes written; returns the next step instead if there are none.
fn write(stream: &TcpStream, text: &[u8], more: MsgFlags) -> Result<usize, Next> {
    loop {
        match send(stream.as_raw_fd(), text, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL | more) {
            Ok(count) => return Ok(count),
            Err(Errno::EAGAIN) => return Err(Next::Write),
            Err(Errno::EINTR) => {}
            Err(_) => return Err(Next::Fail),
        }
    }
}

/// Opens a worker's listener, among several at the same address. Accepted connections inherit its options, which saves system calls.
fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // With quick acknowledgements the kernel sends a packet for the request before the response. `listen` sets the option.
    socket.set_tcp_quickack(false)?;
    Ok(socket.into())
}

/// Raises the limit of connections to the hard limit, and prints a note if the kernel shortens the backlog.
fn prepare() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("asking for the limit on files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("raising the limit on files")?;
    let text = fs::read_to_string("/proc/sys/net/core/somaxconn").context("asking for net.core.somaxconn")?;
    let backlog: i32 = text.trim().parse().context("net.core.somaxconn")?;
    if backlog < BACKLOG {
        eprintln!(
            "note: net.core.somaxconn cuts the backlog to {backlog}: `sysctl net.core.somaxconn={BACKLOG}`"
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (stop, wake) = UnixStream::pair().context("making a pipe for signals")?;
    for signal in [SIGTERM, SIGINT] {
        let wake = wake.try_clone().context("sharing a pipe")?;
        signal_hook::low_level::pipe::register(signal, wake).context("installing a signal handler")?;
    }
    check(&arguments.cores)?;
    prepare()?;
    let workers: Vec<Worker> =
        arguments.cores.iter().map(|&core| Worker::new(core, &arguments, &stop)).collect::<Result<_>>()?;
    let addresses: Vec<String> = arguments.listen.iter().map(ToString::to_string).collect();
    eprintln!(
        "ready: {:?} on {}, {} threads",
        arguments.service,
        addresses.join(" and "),
        arguments.cores.len()
    );
    let threads: Vec<_> = workers.into_iter().map(|worker| thread::spawn(|| worker.run())).collect();
    let counts = threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        .collect::<Result<Vec<_>>>()?;
    println!("{}", total(counts.into_iter().map(|counts| json!(counts))));
    Ok(())
}
