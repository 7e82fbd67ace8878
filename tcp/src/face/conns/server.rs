//! The answering end: a thread beside the workers that serves one client after the other. It never makes a worker wait, and no
//! client makes it wait for long.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::answer::{Last, MAX_REQUEST, Totals};
use super::door::Door;
use super::request::{Rank, Request, Top};
use super::row::Row;
use synmill_engine::endpoint::{View, Viewer};
use synmill_engine::time;

/// Bytes of an answer that are sent at once.
const CHUNK: usize = 64 * 1024;
/// Slots between two looks at the clock and at the order to stop.
const LOOK_EVERY: u32 = 1024;
/// Interval of the signs of life for a client whose search finds nothing.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Pause after a failed accept, for example for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Gives this thread the lowest priority. Beside a busy worker on the same core it gets about a seventieth of the time.
pub fn step_back() {
    // The kernel allows everybody to raise the nice value. Without it the listing still works.
    let _ = rustix::process::nice(19);
}

/// The connections of a worker: an endpoint's [`Viewer`], or a fake in a test.
pub trait Views {
    /// Returns the number of slots, as [`Viewer::slots`] does.
    fn slots(&self) -> u32;
    /// Returns the connection in a slot, as [`Viewer::view`] does.
    fn view(&self, slot: u32, now: time::Instant) -> Option<View>;
}

impl Views for Viewer {
    fn slots(&self) -> u32 {
        self.slots()
    }

    fn view(&self, slot: u32, now: time::Instant) -> Option<View> {
        self.view(slot, now)
    }
}

/// How long one client may make the others wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Time until the request is complete.
    pub request: Duration,
    /// Time in which the client must take a chunk of 64 KiB. People read in pagers.
    pub chunk: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { request: Duration::from_secs(2), chunk: Duration::from_secs(30) }
    }
}

/// The thread and its socket. Dropping it breaks off the answer under way, ends the thread and removes the socket.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Declared after the thread, so that the file goes last.
    door: Door,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    /// The client that the thread serves.
    client: Mutex<Option<UnixStream>>,
}

impl Shared {
    fn client(&self) -> MutexGuard<'_, Option<UnixStream>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }
}

impl Server {
    /// Starts the thread for the connections of all workers, in the order of their numbers. `clock` is the endpoints' clock.
    ///
    /// # Errors
    /// The system has no thread or file descriptor left.
    pub fn start<V: Views + Send + 'static>(
        door: Door,
        workers: Vec<V>,
        clock: impl Fn() -> time::Instant + Send + 'static,
        patience: Patience,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let listener = door.listener.try_clone()?;
        let desk = Desk { shared: Arc::clone(&shared), workers, clock, patience };
        let serve = move || {
            step_back();
            while !desk.shared.is_stopping() {
                match listener.accept() {
                    Ok((client, _)) => desk.serve(client),
                    // The client left before, or a shortage that may pass. A stop ends the accept with an error, too.
                    Err(_) if !desk.shared.is_stopping() => thread::sleep(PAUSE),
                    Err(_) => {}
                }
            }
        };
        let thread = thread::Builder::new().name("synmill-conns".into()).spawn(serve)?;
        Ok(Self { shared, thread: Some(thread), door })
    }

    /// Returns the path of the socket's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.door.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, SeqCst);
        if let Some(client) = self.shared.client().take() {
            let _ = client.shutdown(Shutdown::Both);
        }
        // Shutting a listener down wakes the accept, and refuses further clients (unix_shutdown of net/unix/af_unix.c).
        let woken = self.door.listener.try_clone().map(|listener| UnixStream::from(OwnedFd::from(listener)));
        let woken = woken.and_then(|listener| listener.shutdown(Shutdown::Both));
        if let (Ok(()), Some(thread)) = (woken, self.thread.take()) {
            // The panic handler has printed a panic of the thread already.
            let _ = thread.join();
        }
    }
}

/// What the thread answers from.
struct Desk<V, C> {
    shared: Arc<Shared>,
    workers: Vec<V>,
    clock: C,
    patience: Patience,
}

impl<V: Views, C: Fn() -> time::Instant> Desk<V, C> {
    /// Serves one client. Its failures do not concern the next client.
    fn serve(&self, client: UnixStream) {
        let Ok(ours) = client.try_clone() else { return };
        *self.shared.client() = Some(client);
        let _ = self.answer(&ours);
        *self.shared.client() = None;
    }

    fn answer(&self, client: &UnixStream) -> io::Result<()> {
        let text = read_request(client, self.patience.request)?;
        let request = serde_json::from_slice::<Request>(&text)
            .map_err(|error| format!("not a request: {error}"))
            .and_then(|request| request.check().map(|()| request));
        let (buffer, sent, patience) = (Vec::with_capacity(2 * CHUNK), Instant::now(), self.patience.chunk);
        let mut answer = Answer { client, buffer, sent, patience };
        let last = match request {
            Ok(request) => Last::End(self.list(&request, &mut answer)?),
            Err(line) => Last::Error(line),
        };
        answer.line(&last)?;
        answer.flush()
    }

    /// Lists the connections that match. The search reads each slot once: it lists a connection that is open from its beginning
    /// to its end exactly once, and no connection that ended before or began after it.
    fn list(&self, request: &Request, answer: &mut Answer<'_>) -> io::Result<Totals> {
        let mut totals = Totals { held: vec![0; self.workers.len()], ..Totals::default() };
        let mut best = request.top.map(|top| Best { top, views: BTreeMap::new() });
        for (worker, views) in self.workers.iter().enumerate() {
            for slot in 0..views.slots() {
                if slot % LOOK_EVERY == 0 {
                    if self.shared.is_stopping() {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    answer.give_sign_of_life()?;
                }
                // The clock is read for each slot: a connection opened since the last reading would have no age.
                let Some(view) = views.view(slot, (self.clock)()) else { continue };
                totals.held[worker] += 1;
                if !request.wants(&view) {
                    continue;
                }
                totals.matching += 1;
                if let Some(best) = &mut best {
                    best.offer(worker, view);
                } else {
                    totals.listed += 1;
                    answer.line(&Row::new(worker, &view))?;
                }
            }
        }
        let best = best.into_iter().flat_map(|best| best.views.into_iter().rev());
        for ((_, Reverse((worker, _))), view) in best {
            totals.listed += 1;
            answer.line(&Row::new(worker, &view))?;
        }
        Ok(totals)
    }
}

/// Reads a line, in this time as a whole.
fn read_request(mut client: &UnixStream, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut text = Vec::new();
    let mut part = [0; 1024];
    // A request without a line feed is parsed, and so refused, like any other.
    while !text.contains(&b'\n') && text.len() < MAX_REQUEST {
        client.set_read_timeout(Some(left(deadline)?))?;
        match client.read(&mut part) {
            Ok(0) if text.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(text)
}

/// Returns the time until a deadline. A socket's timeout of zero would mean no timeout, so zero is an error.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// An answer under way, sent in chunks.
struct Answer<'a> {
    client: &'a UnixStream,
    buffer: Vec<u8>,
    /// Time of the last chunk.
    sent: Instant,
    patience: Duration,
}

impl Answer<'_> {
    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.buffer, line)?;
        self.buffer.push(b'\n');
        if self.buffer.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn give_sign_of_life(&mut self) -> io::Result<()> {
        if self.sent.elapsed() < SIGN_OF_LIFE {
            return Ok(());
        }
        if self.buffer.is_empty() {
            self.buffer.push(b'\n');
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + self.patience;
        let mut rest = &self.buffer[..];
        while !rest.is_empty() {
            self.client.set_write_timeout(Some(left(deadline)?))?;
            match self.client.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.buffer.clear();
        self.sent = Instant::now();
        Ok(())
    }
}

/// Key of a connection in an order. Of two connections with the same rank the lower worker and slot is greater.
type Place = (Rank, Reverse<(usize, u32)>);

/// The greatest connections in an order, as many as the request wants.
struct Best {
    top: Top,
    views: BTreeMap<Place, View>,
}

impl Best {
    fn offer(&mut self, worker: usize, view: View) {
        let place = (self.top.sort.rank(&view), Reverse((worker, view.slot)));
        let is_full = self.views.len() >= self.top.count;
        if is_full && self.views.first_key_value().is_none_or(|(last, _)| place < *last) {
            return;
        }
        self.views.insert(place, view);
        if is_full {
            self.views.pop_first();
        }
    }
}
