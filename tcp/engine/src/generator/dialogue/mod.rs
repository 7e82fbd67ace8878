//! What a connection says, and what it expects to hear. Knows text and a small progress per connection; never
//! sequence numbers, segments, frames or time.
//!
//! A [`Script`] is what all connections to a target have in common, a [`Progress`] is what they have not. Requests go
//! out one by one: the next when the former is answered. The outgoing stream is a function of script and progress,
//! counted from its first unacknowledged byte, as a [`crate::service::Service`]'s is:
//!
//! ```text
//! ... acknowledged | rest of the former request | current request |
//!                   <------------- unacknowledged --------------->
//! ```
//!
//! Mostly the former request is acknowledged when its answer is here. Text is expected once a byte of the current
//! request is acknowledged: whatever answers it was sent after that byte had arrived, so its segments say so. Text
//! before that answers nothing.

mod response;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::CloseBy;
use crate::service::{Pending, Then, pattern};
use response::{Answer, Response};

/// The bytes of a request, or of its body.
#[derive(Clone, Debug)]
pub enum Payload {
    /// So many bytes of [`pattern`].
    Pattern(u64),
    /// These bytes, of a file for instance.
    Bytes(Arc<[u8]>),
}

impl Payload {
    /// Bytes in it.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u64 {
        match self {
            Self::Pattern(size) => *size,
            Self::Bytes(bytes) => bytes.len() as u64,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn fill(&self, at: u64, into: &mut [u8]) {
        match self {
            Self::Pattern(_) => pattern::fill(at, into),
            Self::Bytes(bytes) => into.copy_from_slice(&bytes[at as usize..][..into.len()]),
        }
    }
}

/// Why a connection is of no more use: what the peer said is not what was to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// Text came that answers no request: before the first, or after the end of an HTTP response.
    #[error("text that answers no request")]
    Unasked,
    /// More bytes than a response was to have.
    #[error("more bytes than the response was to have")]
    Oversized,
    /// The peer closed within a response.
    #[error("the peer closed within a response")]
    Short,
    /// The peer closed, or said that it closes, with requests to come.
    #[error("the peer closed before the last request was answered")]
    Unanswered,
    /// The text does not begin as a response of HTTP/1.0 or HTTP/1.1 does, or switches to another protocol.
    #[error("not a response of HTTP/1.0 or HTTP/1.1")]
    NotHttp,
    /// A line of the header or trailer section is malformed, or folded.
    #[error("malformed HTTP header line")]
    Header,
    /// The header section, a chunk's size or the trailer section is 64 KiB or longer.
    #[error("HTTP header section of 64 KiB or more")]
    HeadTooLong,
    /// `Content-Length` is no number below 2^64, or two that differ.
    #[error("invalid Content-Length")]
    Length,
    /// `Transfer-Encoding` is not `chunked`.
    #[error("Transfer-Encoding other than chunked")]
    Coding,
    /// A chunk is malformed.
    #[error("malformed chunk")]
    Chunk,
    /// The body of a response is shorter or longer than it should be.
    #[error("the body has another length than expected")]
    WrongLength,
}

/// What came of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The first byte of the connection's first response has come.
    pub first_byte: bool,
    /// Requests that may go out now, for the first time.
    pub started: u32,
    /// Requests answered whole.
    pub done: u32,
    /// One of these answers had an HTTP status other than 2xx and 3xx.
    pub http_error: bool,
    /// The connection is of no more use. Said once; from then on [`Script::pending`] asks for RST.
    pub bad: Option<Bad>,
}

/// How far a connection is: 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the stream not acknowledged.
    unacked: u64,
    response: Response,
    /// Requests answered: the number of the current one.
    done: u32,
}

const _: () = assert!(size_of::<Progress>() == 32);

impl Default for Progress {
    /// Of a connection that is not established.
    fn default() -> Self {
        Self { unacked: 0, response: Response::NOT_OPEN, done: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Workload {
    Connect,
    Hold,
    Request,
    Http,
}

/// What every connection to a target does.
#[derive(Clone, Debug)]
pub struct Script {
    workload: Workload,
    close: CloseBy,
    requests: u32,
    /// What comes before the payload, in the last request and in those before it.
    last_head: Box<[u8]>,
    head: Box<[u8]>,
    payload: Payload,
    /// Bytes of a response's text or HTTP body, if that must have a certain length.
    expect: Option<u64>,
}

impl Script {
    /// Opens and closes. What the peer says is ignored.
    #[must_use]
    pub fn connect(close: CloseBy) -> Self {
        Self::silent(Workload::Connect, close)
    }

    /// Opens and stays until it is told to stop or the peer closes. What the peer says is ignored.
    #[must_use]
    pub fn hold(close: CloseBy) -> Self {
        Self::silent(Workload::Hold, close)
    }

    /// Sends `payload` and hears `expect` bytes of anything, `requests` times. With nothing to hear a request is
    /// answered when it is acknowledged.
    #[must_use]
    pub fn request(payload: Payload, expect: u64, requests: u32, close: CloseBy) -> Self {
        let expect = Some(expect);
        Self { workload: Workload::Request, requests, payload, expect, ..Self::connect(close) }
    }

    /// Requests `path` by GET, or by POST when there is a payload, `requests` times, each after the answer to the
    /// former. `host` and `path` go out as they are; they have no white space or control characters. `expect` is the
    /// length in bytes that the bodies must have, those of errors excepted. The last request asks the server to close
    /// when `close` says so.
    ///
    /// A response counts even if the server closes after it (`Connection: close`, HTTP/1.0 without `keep-alive`, or a
    /// body that ends with the connection); if it was not the last, the connection is [`Bad::Unanswered`] then.
    #[must_use]
    pub fn http(
        host: &str,
        path: &str,
        payload: Option<Payload>,
        expect: Option<u64>,
        requests: u32,
        close: CloseBy,
    ) -> Self {
        let method = if payload.is_some() { "POST" } else { "GET" };
        let length = payload.as_ref().map(|payload| format!("Content-Length: {}\r\n", payload.len()));
        let start = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{}", length.unwrap_or_default());
        let last = if close == CloseBy::Peer { "Connection: close\r\n" } else { "" };
        Self {
            workload: Workload::Http,
            requests,
            last_head: format!("{start}{last}\r\n").into_bytes().into(),
            head: format!("{start}\r\n").into_bytes().into(),
            payload: payload.unwrap_or(Payload::Pattern(0)),
            expect,
            ..Self::connect(close)
        }
    }

    fn silent(workload: Workload, close: CloseBy) -> Self {
        let (last_head, head) = (Box::default(), Box::default());
        let payload = Payload::Pattern(0);
        Self { workload, close, requests: 0, last_head, head, payload, expect: None }
    }

    /// The connection is established: the first event.
    pub fn opened(&self, progress: &mut Progress) -> Heard {
        let mut heard = Heard::default();
        progress.response = Response::HTTP;
        if self.hears_nothing() && self.len(0) == 0 {
            // Nothing to say and nothing to hear, each time.
            progress.done = self.requests;
            heard = Heard { started: self.requests, done: self.requests, ..heard };
        } else if self.requests > 0 {
            self.start(progress, &mut heard);
        }
        heard
    }

    /// Text has arrived, in order; what it came with was acknowledged before.
    #[inline]
    pub fn heard(&self, progress: &mut Progress, text: &[u8]) -> Heard {
        let mut heard = Heard::default();
        if self.is_silent() || progress.response.has_failed() {
            return heard;
        }
        let mut rest = text;
        // The first failure is the one to tell, wherever a piece of the stream ends.
        while !rest.is_empty() && heard.bad.is_none() {
            if !self.is_due(progress) {
                let bytes = self.workload == Workload::Request && (progress.done > 0 || self.hears_nothing());
                fail(progress, &mut heard, if bytes { Bad::Oversized } else { Bad::Unasked });
                break;
            }
            heard.first_byte |= progress.done == 0 && !progress.response.has_begun();
            match progress.response.read(rest, self.expect) {
                Ok((read, Some(answer))) => {
                    rest = &rest[read..];
                    self.answered(progress, &mut heard, answer);
                }
                Ok((_, None)) => break,
                Err(bad) => {
                    fail(progress, &mut heard, bad);
                    break;
                }
            }
        }
        heard
    }

    /// The peer has acknowledged the first `bytes` bytes of the stream, FIN not counted: the progress starts that
    /// much later.
    #[inline]
    pub fn acked(&self, progress: &mut Progress, bytes: u64) -> Heard {
        let mut heard = Heard::default();
        debug_assert!(bytes <= progress.unacked, "more acknowledged than said");
        progress.unacked = progress.unacked.saturating_sub(bytes);
        if self.hears_nothing() && progress.unacked == 0 && self.is_under_way(progress) {
            self.answered(progress, &mut heard, Answer { is_error: false, is_last: false });
        }
        heard
    }

    /// The peer has said all: its FIN has come, and all text before it was heard.
    pub fn peer_closed(&self, progress: &mut Progress) -> Heard {
        let mut heard = Heard::default();
        if progress.response.has_failed() {
            return heard;
        }
        if self.is_under_way(progress) && !self.hears_nothing() {
            match progress.response.end(self.expect) {
                Ok(answer) => self.answered(progress, &mut heard, answer),
                Err(bad) => fail(progress, &mut heard, bad),
            }
        }
        if heard.bad.is_none() {
            progress.response = Response::ENDED;
        }
        heard
    }

    /// What there is to send, and what follows it. `stop` tells a connection that is held to end, as the script says;
    /// there the peer cannot know, so that [`CloseBy::Peer`] means FIN. Others end when their work is done, and do
    /// not heed it.
    #[must_use]
    #[inline]
    pub fn pending(&self, progress: &Progress, stop: bool) -> Pending {
        let response = &progress.response;
        let is_over = progress.done == self.requests;
        if response.has_failed() {
            // A request that was to come and does not is not counted.
            return Pending { bytes: if is_over { progress.unacked } else { 0 }, then: Then::Reset };
        }
        let is_held = self.workload == Workload::Hold && !stop && !response.has_ended();
        let then = match self.close {
            _ if !is_over || is_held || !response.is_open() => Then::Wait,
            CloseBy::Rst => Then::Reset,
            CloseBy::Peer if !response.has_ended() && self.workload != Workload::Hold => Then::CloseAfterPeer,
            CloseBy::Fin | CloseBy::Peer => Then::Close,
        };
        Pending { bytes: progress.unacked, then }
    }

    /// Writes the stream from `at` on, counted from its first unacknowledged byte, and fills `into`, which never
    /// reaches beyond what is pending. A pure function of progress and position.
    #[inline]
    pub fn write(&self, progress: &Progress, at: u64, into: &mut [u8]) {
        // A request's number is below the count of requests, also when all are answered.
        let current = progress.done.min(self.requests.saturating_sub(1));
        let mut to_end = progress.unacked - at;
        let mut rest = into;
        while !rest.is_empty() {
            let (number, left) = match to_end.checked_sub(self.len(current)) {
                Some(former) if former > 0 => (current.saturating_sub(1), former),
                _ => (current, to_end),
            };
            let bytes = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let (part, after) = rest.split_at_mut(bytes);
            self.write_request(number, self.len(number) - left, part);
            to_end -= bytes as u64;
            rest = after;
        }
    }

    /// Whether everything was done that was to be done, so that the connection may end now: every request is answered
    /// whole, and the peer has closed if it is to be the first. A connection that is held may end at any time.
    #[must_use]
    pub fn is_complete(&self, progress: &Progress) -> bool {
        let response = &progress.response;
        self.workload == Workload::Hold
            || (progress.done == self.requests
                && response.is_open()
                && !response.has_failed()
                && (self.close != CloseBy::Peer || response.has_ended()))
    }

    #[inline]
    fn head(&self, number: u32) -> &[u8] {
        if number + 1 == self.requests { &self.last_head } else { &self.head }
    }

    /// Bytes of a request.
    #[inline]
    fn len(&self, number: u32) -> u64 {
        self.head(number).len() as u64 + self.payload.len()
    }

    fn write_request(&self, number: u32, at: u64, into: &mut [u8]) {
        let head = self.head(number);
        let from = head.len().min(usize::try_from(at).unwrap_or(usize::MAX));
        let in_head = into.len().min(head.len() - from);
        let (start, end) = into.split_at_mut(in_head);
        start.copy_from_slice(&head[from..][..in_head]);
        if !end.is_empty() {
            self.payload.fill(at.saturating_sub(head.len() as u64), end);
        }
    }

    /// Nobody is asked, so nobody answers.
    #[inline]
    fn is_silent(&self) -> bool {
        matches!(self.workload, Workload::Connect | Workload::Hold)
    }

    #[inline]
    fn hears_nothing(&self) -> bool {
        self.workload == Workload::Request && self.expect == Some(0)
    }

    #[inline]
    fn is_under_way(&self, progress: &Progress) -> bool {
        let response = &progress.response;
        progress.done < self.requests && response.is_open() && !response.has_failed()
    }

    /// Whether text may come: a byte of the current request is acknowledged, or it has none.
    #[inline]
    fn is_due(&self, progress: &Progress) -> bool {
        if !self.is_under_way(progress) || self.hears_nothing() {
            return false;
        }
        let len = self.len(progress.done);
        progress.unacked < len || len == 0
    }

    /// The current request joins the stream.
    #[inline]
    fn start(&self, progress: &mut Progress, heard: &mut Heard) {
        heard.started += 1;
        progress.unacked += self.len(progress.done);
        match (self.workload, self.expect) {
            // All that is left to hear was heard.
            _ if progress.response.has_ended() => {}
            (Workload::Request, Some(bytes)) => progress.response = Response::of_bytes(bytes),
            _ => progress.response = Response::HTTP,
        }
    }

    /// The current request is answered whole.
    #[inline]
    fn answered(&self, progress: &mut Progress, heard: &mut Heard, answer: Answer) {
        progress.done += 1;
        heard.done += 1;
        heard.http_error |= answer.is_error;
        if progress.done == self.requests {
            return;
        }
        if answer.is_last {
            fail(progress, heard, Bad::Unanswered);
        } else {
            self.start(progress, heard);
        }
    }
}

/// The connection is of no more use.
#[cold]
fn fail(progress: &mut Progress, heard: &mut Heard, bad: Bad) {
    progress.response = Response::FAILED;
    heard.bad = Some(bad);
}
