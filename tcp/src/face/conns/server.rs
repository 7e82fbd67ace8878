//! The answering end: a thread beside the workers that serves one client after the other from what it can see. Knows [`Views`] and
//! sockets; never makes a worker wait, and is made to wait by nobody for long.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::door::Door;
use super::request::Rank;
use super::{Last, MAX_REQUEST, Request, Row, Top, Totals, Views};
use synmill_engine::endpoint::View;
use synmill_engine::time;

/// Bytes of an answer that are sent at once.
const CHUNK: usize = 64 * 1024;
/// Slots between two looks at the clock and at whether to go on.
const LOOK_EVERY: u32 = 1024;
/// How often a client hears of a search that finds nothing.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// The pause when no client can be let in, for want of file descriptors perhaps.
const PAUSE: Duration = Duration::from_millis(100);

/// How long one client may keep the others waiting.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until its request is whole.
    pub request: Duration,
    /// For it to take some 64 KiB of the answer. People read in pagers.
    pub chunk: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { request: Duration::from_secs(2), chunk: Duration::from_secs(30) }
    }
}

/// The thread, and its door. Dropped, it breaks off what it is saying, and both are gone.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Behind the thread: the file goes last.
    door: Door,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    /// Who is being served.
    client: Mutex<Option<UnixStream>>,
}

impl Server {
    /// Starts it for the connections of all workers, each by its number. `clock` is the endpoints'.
    ///
    /// # Errors
    /// There is no thread or no file descriptor to be had.
    pub fn start<V: Views + Send + 'static>(
        door: Door,
        workers: Vec<V>,
        clock: impl Fn() -> time::Instant + Send + 'static,
        patience: Patience,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let listener = door.listener.try_clone()?;
        let told = Arc::clone(&shared);
        let serve = move || {
            super::step_back();
            while !told.stopping.load(SeqCst) {
                match listener.accept() {
                    Ok((client, _)) => told.serve(client, &workers, &clock, patience),
                    // Someone who did not wait, or a want that may pass. Stopping ends the wait with an error, too.
                    Err(_) if !told.stopping.load(SeqCst) => thread::sleep(PAUSE),
                    Err(_) => {}
                }
            }
        };
        let thread = thread::Builder::new().name("synmill-conns".into()).spawn(serve)?;
        Ok(Self { shared, thread: Some(thread), door })
    }

    /// The socket's file.
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
        // A listener that is shut down lets nobody in and wakes who waits for them (unix_shutdown of net/unix/af_unix.c).
        let woken = self.door.listener.try_clone().map(|listener| UnixStream::from(OwnedFd::from(listener)));
        let woken = woken.and_then(|listener| listener.shutdown(Shutdown::Both));
        if let (Ok(()), Some(thread)) = (woken, self.thread.take()) {
            // Its panic was told when it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn client(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves one client. However it ends, the next is not concerned.
    fn serve(
        &self,
        client: UnixStream,
        workers: &[impl Views],
        clock: &impl Fn() -> time::Instant,
        patience: Patience,
    ) {
        let Ok(ours) = client.try_clone() else { return };
        *self.client() = Some(client);
        let _ = self.answer(&ours, workers, clock, patience);
        *self.client() = None;
    }

    fn answer(
        &self,
        client: &UnixStream,
        workers: &[impl Views],
        clock: &impl Fn() -> time::Instant,
        patience: Patience,
    ) -> io::Result<()> {
        let text = read_request(client, patience.request)?;
        let request = serde_json::from_slice::<Request>(&text)
            .map_err(|error| format!("not a request: {error}"))
            .and_then(|request| request.check().map(|()| request));
        let mut answer =
            Answer { client, buffer: Vec::with_capacity(2 * CHUNK), heard: Instant::now(), patience };
        match request {
            Ok(request) => {
                let totals = self.list(&request, workers, clock, &mut answer)?;
                answer.say(&Last::End(totals))?;
            }
            Err(line) => answer.say(&Last::Error(line))?,
        }
        answer.flush()
    }

    /// Says what is asked for. Each slot is looked at once: a connection that lives from the beginning to the end of the search is
    /// told exactly once, and none that was over before or opened after it.
    fn list(
        &self,
        request: &Request,
        workers: &[impl Views],
        clock: &impl Fn() -> time::Instant,
        answer: &mut Answer<'_>,
    ) -> io::Result<Totals> {
        let mut totals = Totals { held: vec![0; workers.len()], ..Totals::default() };
        let mut best = request.top.map(Best::new);
        for (worker, views) in workers.iter().enumerate() {
            for slot in 0..views.slots() {
                if slot % LOOK_EVERY == 0 {
                    if self.stopping.load(SeqCst) {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                    answer.give_sign_of_life()?;
                }
                // The present each time: a connection that was opened since has no age.
                let Some(view) = views.view(slot, clock()) else { continue };
                totals.held[worker] += 1;
                if !request.wants(&view) {
                    continue;
                }
                totals.matching += 1;
                if let Some(best) = &mut best {
                    best.offer(worker, view);
                } else {
                    totals.listed += 1;
                    answer.say(&Row::new(worker, &view))?;
                }
            }
        }
        for (worker, view) in best.map_or_else(Vec::new, Best::into_sorted) {
            totals.listed += 1;
            answer.say(&Row::new(worker, &view))?;
        }
        Ok(totals)
    }
}

/// Reads a line, for so long in all.
fn read_request(mut client: &UnixStream, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut text = Vec::new();
    let mut part = [0; 1024];
    // Without an end it is refused as what it is.
    while !text.contains(&b'\n') && (text.len() as u64) < MAX_REQUEST {
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

/// The time until then; a timeout of zero would mean for ever.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// What is said to a client, in chunks.
struct Answer<'a> {
    client: &'a UnixStream,
    buffer: Vec<u8>,
    /// When the client has last taken something.
    heard: Instant,
    patience: Patience,
}

impl Answer<'_> {
    fn say(&mut self, line: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.buffer, line)?;
        self.buffer.push(b'\n');
        if self.buffer.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn give_sign_of_life(&mut self) -> io::Result<()> {
        if self.heard.elapsed() < SIGN_OF_LIFE {
            return Ok(());
        }
        if self.buffer.is_empty() {
            self.buffer.push(b'\n');
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + self.patience.chunk;
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
        self.heard = Instant::now();
        Ok(())
    }
}

/// The first so many in an order, of however many.
struct Best {
    top: Top,
    /// The last of them on top.
    heap: BinaryHeap<Reverse<Candidate>>,
}

impl Best {
    fn new(top: Top) -> Self {
        Self { top, heap: BinaryHeap::new() }
    }

    fn offer(&mut self, worker: usize, view: View) {
        let candidate = Candidate { rank: self.top.sort.rank(&view), worker, view };
        if self.heap.len() < self.top.count {
            self.heap.push(Reverse(candidate));
        } else if let Some(mut last) = self.heap.peek_mut()
            && last.0 < candidate
        {
            *last = Reverse(candidate);
        }
    }

    fn into_sorted(self) -> Vec<(usize, View)> {
        let sorted = self.heap.into_sorted_vec();
        sorted.into_iter().map(|Reverse(candidate)| (candidate.worker, candidate.view)).collect()
    }
}

/// A connection and its place in the order; of those in one place the first by worker and slot.
#[derive(PartialEq, Eq)]
struct Candidate {
    rank: Rank,
    worker: usize,
    view: View,
}

impl Candidate {
    fn place(&self) -> (Rank, Reverse<(usize, u32)>) {
        (self.rank, Reverse((self.worker, self.view.slot)))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
