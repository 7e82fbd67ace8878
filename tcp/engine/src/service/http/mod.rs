//! `http:SIZE` and `http-file:PATH`: answer GET and HEAD over HTTP/1.1, with one body for every target.
//!
//! GET and HEAD get a 200, and the connection stays open unless the client asks to close it (RFC 9112 section 9.3). Any other request
//! gets an error with an empty body; then the service closes, and ignores all further text:
//!
//! | status | when |
//! |---|---|
//! | 400 | request line or header line malformed, folded line, Host missing in HTTP/1.1 or present twice |
//! | 405 | another method, with `Allow: GET, HEAD` |
//! | 413 | the request has content: `Content-Length` is not 0 |
//! | 414 | target longer than 8 KiB |
//! | 431 | header section of 16 KiB or more |
//! | 501 | `Transfer-Encoding`, or a method longer than 64 bytes |
//! | 505 | a major version other than 1 |
//!
//! There is no `Date`: RFC 9110 section 6.6.1 requires it only of servers with a clock. So all responses to a request are equal.
//!
//! The memo, from its lowest bit on:
//!
//! ```text
//! |      33 bits      | 4 bits |        27 bits         |
//! |  unacknowledged   | reply  | place within a request |
//! ```
//!
//! The unacknowledged bytes are a run of one repeated reply, whose first bytes may be acknowledged already. The distance to the run's end
//! tells which byte of a reply is at a position. The service leaves a request with another reply untaken until the run is
//! acknowledged.

mod request;

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::argument::Size;
use super::contract::{Memo, Pending, Service, Taken, Then};
use super::payload::Payload;
use crate::hint::mostly;
use request::{Reply, Request};

/// The longest body: 4 GiB.
pub const BODY_MAX: u64 = 1 << 32;

/// Bits of the unacknowledged bytes in the memo, enough for the longest body and its header section.
const UNACKED_BITS: u32 = 33;
const REPLY_BITS: u32 = 4;
const RUN_MAX: u64 = (1 << UNACKED_BITS) - 1;
const _: () = assert!(UNACKED_BITS + REPLY_BITS + Request::BITS == u64::BITS);
const _: () = assert!(BODY_MAX + 4096 < RUN_MAX);
const _: () = assert!(Reply::ALL.len() <= 1 << REPLY_BITS);

/// An HTTP/1.1 server with one body for every target.
#[derive(Clone)]
pub struct Http {
    body: Payload,
    /// The file that the body is of.
    path: Option<PathBuf>,
    /// The start of each reply, by its number.
    starts: Arc<[Start]>,
    /// The last whole request, and its reply. Each new request writes it, so it has cache lines that no other worker reads.
    known: Box<CachePadded<RefCell<Known>>>,
}

/// A whole request that was read once, and its reply. The requests of a load test are equal, so a comparison replaces reading most of
/// them byte by byte.
#[derive(Clone)]
struct Known {
    len: usize,
    text: [u8; KNOWN_MAX],
    reply: Reply,
}

/// The longest request that is kept.
const KNOWN_MAX: usize = 512;

impl Known {
    const NONE: Self = Self { len: 0, text: [0; KNOWN_MAX], reply: Reply::BadRequest };

    /// Returns the known request's length and reply if `text` begins with it.
    #[inline]
    fn find(&self, text: &[u8]) -> Option<(usize, Reply)> {
        let known = &self.text[..self.len];
        (self.len > 0 && text.starts_with(known)).then_some((self.len, self.reply))
    }

    fn learn(&mut self, request: &[u8], reply: Reply) {
        if let Some(text) = self.text.get_mut(..request.len()) {
            text.copy_from_slice(request);
            self.len = request.len();
            self.reply = reply;
        }
    }
}

/// The first bytes of a response, mostly all of it.
struct Start {
    /// The header section and the first bytes of the body.
    text: Box<[u8]>,
    head_len: u64,
    /// Bytes of the whole response. Never zero.
    len: u64,
}

/// The most bytes of the body in a start.
const START_MAX: u64 = 1024;

impl Start {
    /// Returns the start of a response with this body.
    fn of(reply: Reply, body: &Payload) -> Self {
        let mut text = head(reply, body.len());
        let head_len = text.len();
        let size = if reply.has_body() { body.len() } else { 0 };
        text.resize(head_len + size.min(START_MAX) as usize, 0);
        body.fill(0, &mut text[head_len..]);
        Self { text: text.into(), head_len: head_len as u64, len: head_len as u64 + size }
    }
}

impl Http {
    /// Returns a server of `size` bytes of [`super::pattern`], at most [`BODY_MAX`].
    ///
    /// # Panics
    /// If `size` is larger.
    #[must_use]
    pub fn of_size(size: u64) -> Self {
        assert!(size <= BODY_MAX, "a body of {size} bytes is too long");
        Self::of(Payload::Pattern(size), None)
    }

    /// Reads a regular file, and returns a server of its bytes.
    ///
    /// # Errors
    /// If the file cannot be read, is not a regular file, or is longer than [`BODY_MAX`].
    pub fn of_file(path: &Path) -> io::Result<Self> {
        // The check comes first: opening a FIFO would wait for its writer.
        if !path.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(BODY_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > BODY_MAX {
            return Err(io::Error::other("longer than 4 GiB"));
        }
        Ok(Self::of(Payload::Bytes(bytes.into()), Some(path.to_owned())))
    }

    fn of(body: Payload, path: Option<PathBuf>) -> Self {
        let starts = Reply::ALL.map(|reply| Start::of(reply, &body)).into();
        Self { body, path, starts, known: Box::new(CachePadded::new(RefCell::new(Known::NONE))) }
    }

    /// Returns the argument of the command line: SIZE or PATH.
    pub(super) fn argument(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => Size(self.body.len()).to_string(),
        }
    }

    /// Reads text as [`Request::read`] does, and advances the `state`. The known request counts only when its reply may follow:
    /// otherwise its last byte must be read again later, from the place before it.
    #[inline]
    fn read(&self, state: &mut State, text: &[u8]) -> (usize, Option<Reply>) {
        let begins = state.request == Request::default();
        if begins
            && let Some((len, reply)) = self.known.borrow().find(text)
            && self.may_follow(state, reply)
        {
            return (len - 1, Some(reply));
        }
        let (read, reply) = state.request.read(text);
        if begins && let Some(reply) = reply.filter(|reply| reply.is_success()) {
            self.known.borrow_mut().learn(&text[..=read], reply);
        }
        (read, reply)
    }

    /// Returns whether the run of unacknowledged bytes has room for this reply. A run repeats one reply.
    #[inline]
    fn may_follow(&self, state: &State, reply: Reply) -> bool {
        state.unacked == 0 || (state.reply == reply && state.unacked + self.len(reply) <= RUN_MAX)
    }

    /// Returns the bytes of a whole response.
    #[inline]
    fn len(&self, reply: Reply) -> u64 {
        self.starts[reply as usize].len
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http({})", self.argument())
    }
}

/// Returns the header section of a reply to a request for a body of `size` bytes.
fn head(reply: Reply, size: u64) -> Vec<u8> {
    let (kind, length) =
        if reply.is_success() { ("Content-Type: application/octet-stream\r\n", size) } else { ("", 0) };
    let connection = match reply {
        Reply::Get | Reply::Head => "",
        Reply::GetKeep | Reply::HeadKeep => "Connection: keep-alive\r\n",
        _ => "Connection: close\r\n",
    };
    let status = reply.name();
    format!("HTTP/1.1 {status}\r\nServer: synmill\r\n{kind}Content-Length: {length}\r\n{connection}\r\n")
        .into_bytes()
}

/// The memo, unpacked.
struct State {
    /// Unacknowledged bytes of the run.
    unacked: u64,
    /// The reply that the run repeats; meaningless if the run is empty.
    reply: Reply,
    request: Request,
}

impl State {
    #[inline]
    fn unpack(memo: Memo) -> Self {
        let bits = memo.get();
        let reply = (bits >> UNACKED_BITS) as usize & ((1 << REPLY_BITS) - 1);
        Self {
            unacked: bits & RUN_MAX,
            // `pack` packs no other number than a reply's.
            reply: Reply::ALL[reply.min(Reply::ALL.len() - 1)],
            request: Request::unpack(bits >> (UNACKED_BITS + REPLY_BITS)),
        }
    }

    #[inline]
    fn pack(&self) -> Memo {
        let reply = (self.reply as u64) << UNACKED_BITS;
        Memo::of(self.unacked | reply | self.request.pack() << (UNACKED_BITS + REPLY_BITS))
    }
}

impl Service for Http {
    #[inline]
    fn on_data(&self, memo: &mut Memo, text: &[u8]) -> Taken {
        let mut state = State::unpack(*memo);
        let mut taken = 0;
        loop {
            let (read, reply) = self.read(&mut state, &text[taken..]);
            taken += read;
            let Some(reply) = reply else { break };
            if !self.may_follow(&state, reply) {
                // The endpoint offers the request's last byte again once some of the run is acknowledged.
                break;
            }
            taken += 1;
            state.unacked += self.len(reply);
            state.reply = reply;
            state.request = if reply.closes() { Request::CLOSED } else { Request::default() };
        }
        *memo = state.pack();
        Taken::Bytes(taken)
    }

    #[inline]
    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        // The unacknowledged bytes are the lowest bits.
        let unacked = memo.get() & RUN_MAX;
        debug_assert!(bytes <= unacked, "more acknowledged than sent");
        *memo = Memo::of(memo.get() - bytes.min(unacked));
    }

    /// An incomplete request gets no response.
    fn on_peer_closed(&self, memo: &mut Memo) {
        *memo = State { request: Request::CLOSED, ..State::unpack(*memo) }.pack();
    }

    #[inline]
    fn pending(&self, memo: &Memo) -> Pending {
        let state = State::unpack(*memo);
        Pending {
            bytes: state.unacked,
            then: if state.request.is_closed() { Then::Close } else { Then::Wait },
        }
    }

    #[inline]
    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
        let State { unacked, reply, .. } = State::unpack(*memo);
        let Start { text, head_len, len } = &self.starts[reply as usize];
        let (len, start_len) = (*len, text.len() as u64);
        // The run ends where a response ends.
        let left = unacked - at;
        // Mostly the run is one response, and `at` is its first byte: no division then.
        let to_end = if left == len { 0 } else { left % len };
        let mut position = if to_end == 0 { 0 } else { len - to_end };
        let mut rest = into;
        while !rest.is_empty() {
            let in_start = position < start_len;
            let end = if in_start { start_len } else { len };
            let n = usize::try_from(end - position).map_or(rest.len(), |left| left.min(rest.len()));
            let (part, after) = rest.split_at_mut(n);
            if mostly(in_start) {
                part.copy_from_slice(&text[position as usize..][..n]);
            } else {
                self.body.fill(position - head_len, part);
            }
            position = if position + n as u64 == len { 0 } else { position + n as u64 };
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests;
