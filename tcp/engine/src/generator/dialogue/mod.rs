//! The dialogue of a connection: the requests that it sends, and the answers that it expects.
//!
//! All connections to a target share a [`Script`]; each has a [`Progress`]. A connection sends one request after the other, the next
//! when the previous one is answered. The outgoing stream is a function of script and progress, counted from its first unacknowledged
//! byte, as a [`crate::service::Service`]'s is:
//!
//! ```text
//! ... acknowledged | rest of the previous request | current request |
//!                   <-------------- unacknowledged --------------->
//! ```
//!
//! Mostly the previous request is acknowledged when its answer arrives. A peer answers a request after its first byte has arrived, so
//! the answer's segments acknowledge that byte. Text that arrives before answers nothing.

mod bad;
mod response;
#[cfg(test)]
mod tests;

use super::load::CloseBy;
pub use crate::service::Payload;
use crate::service::{Pending, Then};
pub use bad::Bad;
use response::{Answer, Response};

/// The outcome of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The first byte of the connection's first response has arrived.
    pub first_byte: bool,
    /// Requests that may be sent from now on.
    pub started: u32,
    /// Requests answered whole.
    pub done: u32,
    /// Whether one of these answers had an HTTP status other than 2xx and 3xx.
    pub http_error: bool,
    /// Why the connection is of no more use. One event has it; after that, [`Script::pending`] orders RST.
    pub bad: Option<Bad>,
}

/// The progress of a connection: 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Unacknowledged bytes of the stream.
    unacked: u64,
    response: Response,
    /// The number of answered requests, which is the number of the current one.
    done: u32,
}

const _: () = assert!(size_of::<Progress>() == 32);

impl Default for Progress {
    /// Returns the progress of a connection that is not established.
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

/// The dialogue of every connection to a target.
#[derive(Clone, Debug)]
pub struct Script {
    workload: Workload,
    close: CloseBy,
    requests: u32,
    /// The bytes before the payload, in the last request.
    last_head: Box<[u8]>,
    /// The bytes before the payload, in the requests before the last.
    head: Box<[u8]>,
    payload: Payload,
    /// The required length in bytes of a response's text or HTTP body.
    expect: Option<u64>,
}

impl Script {
    /// Returns a script that opens and closes, and ignores the peer's text.
    #[must_use]
    pub fn connect(close: CloseBy) -> Self {
        Self::silent(Workload::Connect, close)
    }

    /// Returns a script that stays open until `stop` or the peer's FIN, and ignores the peer's text.
    #[must_use]
    pub fn hold(close: CloseBy) -> Self {
        Self::silent(Workload::Hold, close)
    }

    /// Returns a script that sends `payload` and expects `expect` bytes of any text, `requests` times. If it expects no bytes, a request
    /// is answered when it is acknowledged.
    #[must_use]
    pub fn request(payload: Payload, expect: u64, requests: u32, close: CloseBy) -> Self {
        let expect = Some(expect);
        Self { workload: Workload::Request, requests, payload, expect, ..Self::connect(close) }
    }

    /// Returns a script that requests `path` with GET, or with POST when there is a payload, `requests` times.
    ///
    /// The request holds `host` and `path` unchanged: they must not have white space or control characters. `expect` is the length in
    /// bytes that all bodies but those of errors must have. With [`CloseBy::Peer`] the last request asks the server to close.
    ///
    /// A response counts even if the server closes after it (`Connection: close`, HTTP/1.0 without `keep-alive`, or a body that ends with
    /// the connection). If it is not the last one, the connection is then [`Bad::Unanswered`].
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

    /// The connection is established. This is the first event.
    pub fn opened(&self, progress: &mut Progress) -> Heard {
        let mut heard = Heard::default();
        progress.response = Response::HTTP;
        if self.hears_nothing() && self.len(0) == 0 {
            // Empty requests with empty answers are all done at once.
            progress.done = self.requests;
            heard = Heard { started: self.requests, done: self.requests, ..heard };
        } else if self.requests > 0 {
            self.start(progress, &mut heard);
        }
        heard
    }

    /// Text has arrived, in order. The caller passes the acknowledgements of its segments first.
    #[inline]
    pub fn heard(&self, progress: &mut Progress, text: &[u8]) -> Heard {
        let mut heard = Heard::default();
        if self.is_silent() || progress.response.has_failed() {
            return heard;
        }
        let mut rest = text;
        // The first failure counts, wherever a piece of the stream ends.
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

    /// The peer has acknowledged the first `bytes` bytes of the stream, FIN not counted.
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

    /// The peer has closed: its FIN has arrived, and all text before it was heard.
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

    /// Returns the stream to send, and the action after it.
    ///
    /// `stop` lets a held connection end in the way of the script. The peer of a held connection does not know when to close, so
    /// [`CloseBy::Peer`] means FIN there. Other connections end when their work is done, and ignore `stop`.
    #[must_use]
    #[inline]
    pub fn pending(&self, progress: &Progress, stop: bool) -> Pending {
        let response = &progress.response;
        let is_over = progress.done == self.requests;
        if response.has_failed() {
            // The current request will not be sent whole, so it does not count.
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

    /// Fills `into` with the stream from `at` on, counted from the first unacknowledged byte. `into` never reaches beyond the pending
    /// bytes. This is a pure function of progress and position.
    #[inline]
    pub fn write(&self, progress: &Progress, at: u64, into: &mut [u8]) {
        // When all requests are answered, the last one is the current one.
        let current = progress.done.min(self.requests.saturating_sub(1));
        let mut to_end = progress.unacked - at;
        let mut rest = into;
        while !rest.is_empty() {
            let (number, left) = match to_end.checked_sub(self.len(current)) {
                Some(previous) if previous > 0 => (current.saturating_sub(1), previous),
                _ => (current, to_end),
            };
            let bytes = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
            let (part, after) = rest.split_at_mut(bytes);
            self.write_request(number, self.len(number) - left, part);
            to_end -= bytes as u64;
            rest = after;
        }
    }

    /// Returns whether the dialogue is complete, so that the connection may end: every request is answered whole, and with
    /// [`CloseBy::Peer`] the peer has closed. A held connection may end at any time.
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

    /// Returns the bytes of a request.
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

    /// Returns whether the script sends no request, so that no text is an answer.
    #[inline]
    fn is_silent(&self) -> bool {
        matches!(self.workload, Workload::Connect | Workload::Hold)
    }

    /// Returns whether the answers are empty.
    #[inline]
    fn hears_nothing(&self) -> bool {
        self.workload == Workload::Request && self.expect == Some(0)
    }

    #[inline]
    fn is_under_way(&self, progress: &Progress) -> bool {
        let response = &progress.response;
        progress.done < self.requests && response.is_open() && !response.has_failed()
    }

    /// Returns whether text may be an answer: a byte of the current request is acknowledged, or the request is empty.
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
            // The peer has closed: no answer will come.
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

/// Ends the dialogue because of the peer's text.
#[cold]
fn fail(progress: &mut Progress, heard: &mut Heard, bad: Bad) {
    progress.response = Response::FAILED;
    heard.bad = Some(bad);
}
