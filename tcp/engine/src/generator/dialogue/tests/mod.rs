//! Dialogues: whole, split, cut short and damaged. [`talk`] has them with the services of this crate.

mod talk;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

/// The outcome of a connection's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Outcome {
    first_byte: u32,
    started: u32,
    done: u32,
    errors: u32,
    bad: Option<Bad>,
}

impl Outcome {
    fn add(&mut self, heard: Heard) {
        self.first_byte += u32::from(heard.first_byte);
        self.started += heard.started;
        self.done += heard.done;
        self.errors += u32::from(heard.http_error);
        assert!(heard.bad.is_none() || self.bad.is_none(), "bad twice");
        self.bad = heard.bad.or(self.bad);
    }
}

fn get(requests: u32, expect: Option<u64>) -> Script {
    Script::http("a", "/", None, expect, requests, CloseBy::Fin)
}

/// Acknowledges the first request, then passes the pieces and perhaps FIN. Returns the outcome.
fn hear<'a>(script: &Script, pieces: impl IntoIterator<Item = &'a [u8]>, fin: bool) -> Outcome {
    let (mut progress, mut outcome) = (Progress::default(), Outcome::default());
    outcome.add(script.opened(&mut progress));
    let request = script.pending(&progress, false).bytes;
    outcome.add(script.acked(&mut progress, request));
    for piece in pieces {
        outcome.add(script.heard(&mut progress, piece));
    }
    if fin {
        outcome.add(script.peer_closed(&mut progress));
    }
    if outcome.bad.is_some() {
        assert_eq!(script.pending(&progress, false).then, Then::Reset);
        assert!(!script.is_complete(&progress));
        let more = script.heard(&mut progress, b"more");
        assert_eq!((more, script.peer_closed(&mut progress)), (Heard::default(), Heard::default()));
    }
    outcome
}

/// Returns the outcome of the whole text. Checks that every split into two and the single bytes have that outcome too.
fn hear_split(script: &Script, text: &[u8], fin: bool) -> Outcome {
    let whole = hear(script, [text], fin);
    let name = String::from_utf8_lossy(&text[..text.len().min(300)]);
    for at in 0..text.len() {
        let (start, end) = text.split_at(at);
        assert_eq!(hear(script, [start, end], fin), whole, "split at {at}: {name:?}");
    }
    assert_eq!(hear(script, text.chunks(1), fin), whole, "byte by byte: {name:?}");
    whole
}

const NGINX: &str = "HTTP/1.1 200 OK\r\nServer: nginx/1.24.0 (Ubuntu)\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    Content-Type: text/html\r\nContent-Length: 5\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    Connection: keep-alive\r\nETag: \"6955b900-5\"\r\nAccept-Ranges: bytes\r\n\r\nhello";
const NGINX_CHUNKED: &str = "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: text/html\r\n\
    Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n5\r\nhello\r\nc\r\n, and again.\r\n0\r\n\r\n";

/// Whole responses of a connection that stays open: text, bytes of the body, and whether it is an error.
const GOOD: &[(&str, u64, bool)] = &[
    (NGINX, 5, false),
    (NGINX_CHUNKED, 17, false),
    ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0, false),
    ("HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc", 3, false),
    ("HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\nabc", 3, false),
    ("HTTP/1.1 200 \tOdd \u{e9}\ncontent-length:3 \t\nConn: x\nConnection-x: close\n\nabc", 3, false),
    ("HTTP/1.7 299 Fine\r\nCONTENT-LENGTH: \t0003\r\n\r\n\r\n\r", 3, false),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length: 2\r\n\r\nab", 2, false),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2, 02 ,\t2\r\n\r\nab", 2, false),
    ("HTTP/1.1 200 OK\r\nX:\r\nContent-Lengths: 7\r\nC: 1\r\nT: 2\r\nContent-Length: 1\r\n\r\nx", 1, false),
    ("HTTP/1.1 200 OK\r\nConnection: closed, xclose, close-, clos\r\nContent-Length: 1\r\n\r\nx", 1, false),
    ("HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx", 1, false),
    ("HTTP/1.0 200 OK\r\nConnection: te ,, KEEP-ALIVE\r\nContent-Length: 1\r\n\r\nx", 1, false),
    ("HTTP/1.1 204 No Content\r\n\r\n", 0, false),
    ("HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\n\r\n", 0, false),
    ("HTTP/1.1 301 Moved\r\nLocation: /b\r\nContent-Length: 4\r\n\r\ngone", 4, false),
    ("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone", 4, true),
    ("HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n0\r\n\r\n", 1, true),
    ("HTTP/1.1 999 ?\r\nContent-Length: 0\r\n\r\n", 0, true),
    ("HTTP/1.1 000 ?\r\nContent-Length: 0\r\n\r\n", 0, true),
    (
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: close\r\n\r\nHTTP/1.1 200 OK\r\n\
         Content-Length: 1\r\n\r\nx",
        1,
        false,
    ),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding:CHUNKED \r\n\r\n0\r\n\r\n", 0, false),
    ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nabc\n0\n\n", 3, false),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00a;x=\"y;\tz\"\r\n0123456789\r\n1 \t\r\nx\r\nA ;q\r\n0123456789\r\n\
         000;last\r\nX-Sum: 1\r\nConnection: close\r\nt:\r\n\r\n",
        21,
        false,
    ),
    ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, false),
];

#[test]
fn good_responses() {
    for &(text, body, is_error) in GOOD {
        let text = text.as_bytes();
        let script = get(1, None);
        let want = Outcome { first_byte: 1, started: 1, done: 1, errors: is_error.into(), bad: None };
        for fin in [false, true] {
            assert_eq!(hear_split(&script, text, fin), want, "{:?}", String::from_utf8_lossy(text));
        }
        assert_eq!(hear_split(&get(1, Some(body)), text, false), want);
        let wrong = Outcome { done: 0, bad: Some(Bad::WrongLength), ..want };
        for expect in [body + 1, body.wrapping_sub(1)] {
            let want = if is_error { want } else { wrong };
            assert_eq!(hear_split(&get(1, Some(expect)), text, false), want, "{expect}");
        }

        let more = [text, b"H"].concat();
        let unasked = Outcome { bad: Some(Bad::Unasked), ..want };
        assert_eq!(hear_split(&script, &more, false), unasked);
        assert_eq!(hear_split(&get(2, None), &more, false), Outcome { started: 2, ..unasked });
        let next = Outcome { started: 2, ..want };
        assert_eq!(hear_split(&get(2, None), text, false), next);
        let early = Outcome { bad: Some(Bad::Unanswered), ..next };
        assert_eq!(hear_split(&get(2, None), text, true), early);

        for len in 0..text.len() {
            let bad = if len == 0 { Bad::Unanswered } else { Bad::Short };
            let want =
                Outcome { first_byte: (len > 0).into(), started: 1, bad: Some(bad), ..Outcome::default() };
            assert_eq!(hear(&script, [&text[..len]], true), want, "FIN after {len}");
        }
    }
}

#[test]
fn responses_that_end_their_connection() {
    for (version, rest, needs_fin) in [
        ("1.1", "Connection: close\r\nContent-Length: 2\r\n\r\nab", false),
        ("1.1", "connection:a,\tClose\r\nContent-Length: 2\r\n\r\nab", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab", false),
        ("1.0", "Content-Length: 2\r\n\r\nab", false),
        ("1.1", "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", false),
        ("1.1", "\r\nab", true),
        ("1.1", "Connection: keep-alive\r\n\r\nab", true),
        ("1.0", "\r\nab", true),
    ] {
        let text = format!("HTTP/{version} 200 OK\r\n{rest}");
        let text = text.as_bytes();
        let whole = Outcome { first_byte: 1, started: 1, done: 1, ..Outcome::default() };
        let part = Outcome { done: 0, ..whole };
        let open = if needs_fin { part } else { whole };
        let unanswered = Some(Bad::Unanswered);
        for expect in [None, Some(2)] {
            assert_eq!(hear_split(&get(1, expect), text, true), whole);
            assert_eq!(hear_split(&get(1, expect), text, false), open);
            assert_eq!(hear_split(&get(2, expect), text, true), Outcome { bad: unanswered, ..whole });
        }
        for expect in [1, 3] {
            let wrong = Outcome { bad: Some(Bad::WrongLength), ..part };
            assert_eq!(hear_split(&get(1, Some(expect)), text, true), wrong);
        }
    }
}

#[test]
fn what_follows_the_last_response_is_no_news_once_a_request_is_left_unanswered() {
    let text = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n";
    let want =
        Outcome { first_byte: 1, started: 1, done: 1, bad: Some(Bad::Unanswered), ..Outcome::default() };
    assert_eq!(hear_split(&get(2, None), text, false), want);
}

#[test]
fn bad_responses() {
    let header = |line: &str| format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n");
    let chunked = |text: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{text}");
    let length = |value: &str| header(&format!("Content-Length: {value}"));
    let coding = |value: &str| header(&format!("Transfer-Encoding: {value}"));
    // Each kind of text, in which `|` parts the texts.
    type Kind<'a> = &'a dyn Fn(&str) -> String;
    let table: [(Bad, Kind<'_>, &str); 7] = [
        (
            Bad::NotHttp,
            &str::to_owned,
            "\r\n|\n|\0|SSH-2.0-x\r\n|http/1.1 200 OK|HTTP/2 200|HTTP/2.0 200|HTTP/1.x|HTTP/1.10 200|HTTP/1.1\r\n|HTTP/1.1  200|\
             HTTP/1.1 20 |HTTP/1.1 +20|HTTP/1.1 2x0|HTTP/1.1 101 Switching|HTTPS|ICY 200 OK| HTTP/1.1",
        ),
        (
            Bad::Header,
            &str::to_owned,
            "HTTP/1.1 2000 OK\r\n|HTTP/1.1 200OK\r\n|HTTP/1.1 200 \0|HTTP/1.1 200 a\rb|HTTP/1.1 200\rx",
        ),
        (
            Bad::Header,
            &header,
            " folded: x|X: y\r\n folded|\tX: y|no colon|nocolon|: empty|X : y|Content-Length : 5|X\r\n|X: a\rb|X: \0|X: \u{7f}|\
             Connection: \u{1}|Connection|Content-Length|\u{e9}: x|(: y|X: y\r\n\rX: y",
        ),
        (
            Bad::Length,
            &length,
            "| |x|-1|+1|1x|0x1|1 2|1,|1,,1|,1|1, 2|1;|5\r\nContent-Length: 6|18446744073709551616|99999999999999999999999999|1\u{b}",
        ),
        (
            Bad::Coding,
            &coding,
            "|gzip|identity|chunke|chunkedd|chunked, chunked|gzip, chunked|chunked x|,chunked|\
             chunked\r\nTransfer-Encoding: chunked|chunked;q=1",
        ),
        (
            Bad::Chunk,
            &chunked,
            "\r\n|\n| 1\r\n|g|-1|0x1|;x\r\n|1 x|1\rx|1;\0|1;\r\r|1\r\nab|1\r\na\rb|1\r\na1\r\n|10000000000000000|ffffffffffffffff0|\
             00000000000000001g|1\r\na\r\n\r\n|1\r\na\r\nffffffffffffffff\r\n",
        ),
        (
            Bad::Header,
            &chunked,
            "0\r\n X: y\r\n|0\r\nX\r\n|0\r\nX y: z\r\n|0\r\n:\r\n|0\r\nX: \0|0\r\n\rX|0\r\nX: y\rz",
        ),
    ];
    for (bad, kind, texts) in table {
        for text in texts.split('|').map(kind) {
            let want = Outcome { first_byte: 1, started: 1, bad: Some(bad), ..Outcome::default() };
            assert_eq!(hear_split(&get(1, None), text.as_bytes(), false), want, "{text:?}");
            assert_eq!(hear_split(&get(2, None), text.as_bytes(), true), want, "{text:?}");
            let after = format!("HTTP/1.1 100 Continue\r\n\r\n{text}");
            assert_eq!(hear(&get(1, None), [after.as_bytes()], false), want, "{after:?}");
        }
    }
}

#[test]
fn what_surrounds_bodies_is_bounded() {
    let max = usize::from(Response::HEAD_MAX);
    let interim = "HTTP/1.1 100 Continue\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na";
    for (before, bounded, fill, after, bodies) in [
        ("", "HTTP/1.1 200 OK\r\nX: ", "x", "\r\nContent-Length: 1\r\n\r\n", "a"),
        ("", "HTTP/1.1 200 ", "x", "\r\nContent-Length: 1\r\n\r\n", "a"),
        ("", "HTTP/1.1 204 OK\r\n", "x", ":\r\n\r\n", ""),
        ("", "HTTP/1.1 204 OK\r\nContent-Length:", " ", "7\r\n\r\n", ""),
        ("", "HTTP/1.1 204 OK\r\nContent-Length:", "0", "7\r\n\r\n", ""),
        ("", "HTTP/1.1 204 OK\r\nConnection:", ",", "\r\n\r\n", ""),
        ("", "HTTP/1.1 204 OK\r\nTransfer-Encoding:", "\t", "chunked\r\n\r\n", ""),
        ("", interim, interim, "HTTP/1.1 204 OK\r\n\r\n", ""),
        (chunked, "\r\n", "0", "1\r\n", "a\r\n0\r\n\r\n"),
        (chunked, "\r\n1;", "x", "\r\n", "a\r\n0\r\n\r\n"),
        (chunked, "\r\n0\r\n", "a:\n", "\n", ""),
        (chunked, "\r\n0\r\na:", "x", "\r\n\r\n", ""),
    ] {
        let text = |len: usize| {
            let room = len - bounded.len() - after.len();
            // The remainder makes the reason phrase or the first line's name longer.
            let pad = "a".repeat(room % fill.len());
            let start = match bounded.split_once("Continue") {
                Some((start, end)) => format!("{start}Continue{pad}{end}"),
                None => format!("{bounded}{pad}"),
            };
            format!("{before}{start}{}{after}{bodies}", fill.repeat(room / fill.len()))
        };
        for len in [max, max + 1, max + 9] {
            let (text, fits) = (text(len), len == max);
            let bad = (!fits).then_some(Bad::HeadTooLong);
            let want = Outcome { first_byte: 1, started: 1, done: fits.into(), bad, ..Outcome::default() };
            for piece in [text.len(), 1, 7, 1000] {
                let got = hear(&get(1, None), text.as_bytes().chunks(piece), false);
                assert_eq!(got, want, "{len} {piece} {:?}", &text[..text.len().min(80)]);
            }
        }
    }
}

#[test]
fn long_bodies_need_no_memory() {
    let script = get(1, None);
    let (block, bad) = ([b'x'; 4096], Some(Bad::Short));
    for line in
        ["Content-Length: 18446744073709551615\r\n", "Transfer-Encoding: chunked\r\n\r\nFFFFffffFFFFffff"]
    {
        let text = format!("HTTP/1.1 200 OK\r\n{line}\r\n");
        let outcome = hear(&script, std::iter::once(text.as_bytes()).chain([&block[..]; 100]), true);
        assert_eq!(outcome, Outcome { first_byte: 1, started: 1, bad, ..Outcome::default() });
    }
}

#[test]
fn so_many_bytes_of_anything() {
    let script = |payload, expect, requests| Script::request(payload, expect, requests, CloseBy::Fin);
    let three = || Payload::Bytes(Arc::from(*b"abc"));
    let of = |first_byte, started, done, bad| Outcome { first_byte, started, done, errors: 0, bad };
    for (script, text, fin, want) in [
        (script(three(), 4, 1), "", false, of(0, 1, 0, None)),
        (script(three(), 4, 1), "efgh", false, of(1, 1, 1, None)),
        (script(three(), 4, 1), "efgh", true, of(1, 1, 1, None)),
        (script(three(), 4, 1), "efg", false, of(1, 1, 0, None)),
        (script(three(), 4, 1), "efg", true, of(1, 1, 0, Some(Bad::Short))),
        (script(three(), 4, 1), "", true, of(0, 1, 0, Some(Bad::Unanswered))),
        (script(three(), 4, 1), "efghi", false, of(1, 1, 1, Some(Bad::Oversized))),
        (script(three(), 4, 2), "efghi", false, of(1, 2, 1, Some(Bad::Oversized))),
        (script(three(), 4, 2), "efgh", false, of(1, 2, 1, None)),
        (script(three(), 4, 2), "efgh", true, of(1, 2, 1, Some(Bad::Unanswered))),
        (script(three(), 0, 1), "", false, of(0, 1, 1, None)),
        (script(three(), 0, 1), "", true, of(0, 1, 1, None)),
        (script(three(), 0, 1), "e", false, of(0, 1, 1, Some(Bad::Oversized))),
        (script(three(), 0, 2), "", false, of(0, 2, 1, None)),
        (script(three(), 0, 2), "", true, of(0, 2, 1, None)),
        // Empty requests: the peer sends text on its own.
        (script(Payload::Pattern(0), 2, 3), "aabbc", false, of(1, 3, 2, None)),
        (script(Payload::Pattern(0), 2, 3), "aabbcc", true, of(1, 3, 3, None)),
        (script(Payload::Pattern(0), 2, 3), "aabbccd", true, of(1, 3, 3, Some(Bad::Oversized))),
        (script(Payload::Pattern(0), 0, u32::MAX), "", true, of(0, u32::MAX, u32::MAX, None)),
        (script(Payload::Pattern(9), 9, 0), "", true, of(0, 0, 0, None)),
        (Script::connect(CloseBy::Fin), "SSH-2.0\r\n", true, of(0, 0, 0, None)),
        (Script::hold(CloseBy::Fin), "SSH-2.0\r\n", true, of(0, 0, 0, None)),
    ] {
        assert_eq!(hear_split(&script, text.as_bytes(), fin), want, "{script:?} {text:?} {fin}");
    }
}

#[test]
fn text_before_its_request_arrived_answers_nothing() {
    let bytes = Script::request(Payload::Pattern(3), 2, 2, CloseBy::Fin);
    for (script, text) in [(get(1, None), NGINX), (bytes, "ab")] {
        let mut progress = Progress::default();
        assert_eq!(script.opened(&mut progress).started, 1);
        let want = Heard { bad: Some(Bad::Unasked), ..Heard::default() };
        assert_eq!(script.heard(&mut progress, text.as_bytes()), want);
        assert_eq!(script.pending(&progress, false).then, Then::Reset);
    }
}

fn written(script: &Script, progress: &Progress) -> Vec<u8> {
    let bytes = script.pending(progress, false).bytes as usize;
    let mut whole = vec![0xEE; bytes];
    script.write(progress, 0, &mut whole);
    for from in 0..bytes {
        for to in [from + 1, (from + 5).min(bytes), bytes] {
            let mut part = vec![0xEE; to - from];
            script.write(progress, from as u64, &mut part);
            assert!(part == whole[from..to], "{from}..{to} differs");
        }
    }
    whole
}

#[test]
fn requests_as_they_are_written() {
    let body = || Some(Payload::Bytes(Arc::from(*b"{\"a\":1}")));
    for (payload, close, first, last) in [
        (None, CloseBy::Fin, "GET", "GET"),
        (None, CloseBy::Rst, "GET", "GET"),
        (None, CloseBy::Peer, "GET", "GET closing"),
        (body(), CloseBy::Peer, "POST of 7", "POST of 7 closing"),
        (Some(Payload::Bytes(Arc::from([]))), CloseBy::Fin, "POST of 0", "POST of 0"),
    ] {
        let [first, last] = [first, last].map(|kind| match kind {
            "GET" => "GET /x?y HTTP/1.1\r\nHost: a:8\r\n\r\n",
            "GET closing" => "GET /x?y HTTP/1.1\r\nHost: a:8\r\nConnection: close\r\n\r\n",
            "POST of 0" => "POST /x?y HTTP/1.1\r\nHost: a:8\r\nContent-Length: 0\r\n\r\n",
            "POST of 7" => "POST /x?y HTTP/1.1\r\nHost: a:8\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
            _ => "POST /x?y HTTP/1.1\r\nHost: a:8\r\nContent-Length: 7\r\nConnection: close\r\n\r\n{\"a\":1}",
        });
        for requests in 1..4 {
            let script = Script::http("a:8", "/x?y", payload.clone(), None, requests, close);
            let mut progress = Progress::default();
            let mut heard = script.opened(&mut progress);
            for number in 1..=requests {
                assert_eq!(heard.started, 1);
                let want = if number == requests { last } else { first };
                assert_eq!(written(&script, &progress), want.as_bytes());
                assert_eq!(script.acked(&mut progress, want.len() as u64), Heard::default());
                heard = script.heard(&mut progress, NGINX.as_bytes());
            }
            assert_eq!((heard.started, heard.done), (0, 1));
            assert_eq!(script.pending(&progress, false).bytes, 0);
        }
    }
}

#[test]
fn an_answer_before_the_end_of_its_request_is_acknowledged() {
    let payload = Payload::Pattern(10);
    let http = Script::http("a", "/", Some(payload.clone()), None, 3, CloseBy::Peer);
    let bytes = Script::request(payload, 4, 3, CloseBy::Peer);
    for (script, answer) in [(http, NGINX), (bytes, "abcd")] {
        for left in 1..9 {
            let mut progress = Progress::default();
            script.opened(&mut progress);
            for number in 1..=3 {
                let stream = written(&script, &progress);
                assert_eq!(script.acked(&mut progress, stream.len() as u64 - left), Heard::default());
                let rest = written(&script, &progress);
                assert_eq!(rest, stream[stream.len() - left as usize..]);
                let heard = script.heard(&mut progress, answer.as_bytes());
                assert_eq!((heard.done, heard.started, heard.bad), (1, u32::from(number < 3), None));
                assert!(written(&script, &progress).starts_with(&rest), "the rest precedes the next request");
            }
            let pending = Pending { bytes: left, then: Then::CloseAfterPeer };
            assert_eq!(script.pending(&progress, false), pending);
            script.peer_closed(&mut progress);
            assert_eq!(script.pending(&progress, false), Pending { then: Then::Close, ..pending });
            script.acked(&mut progress, left);
            assert_eq!(script.pending(&progress, false), Pending { bytes: 0, then: Then::Close });
        }
    }
}

#[test]
fn who_closes_and_when() {
    use CloseBy::{Fin, Peer, Rst};
    use Then::{Close, CloseAfterPeer, Reset, Wait};
    let bytes = |close| Script::request(Payload::Pattern(3), 0, 1, close);
    // The action after the opening, after the last answer, and after the peer's FIN, each with whether the dialogue is complete. `stop`
    // changes only held connections.
    for (script, opened, done, closed) in [
        (Script::connect(Fin), (Close, true), (Close, true), (Close, true)),
        (Script::connect(Rst), (Reset, true), (Reset, true), (Reset, true)),
        (Script::connect(Peer), (CloseAfterPeer, false), (CloseAfterPeer, false), (Close, true)),
        (Script::hold(Fin), (Wait, true), (Wait, true), (Close, true)),
        (Script::hold(Rst), (Wait, true), (Wait, true), (Reset, true)),
        (Script::hold(Peer), (Wait, true), (Wait, true), (Close, true)),
        (bytes(Fin), (Wait, false), (Close, true), (Close, true)),
        (bytes(Rst), (Wait, false), (Reset, true), (Reset, true)),
        (bytes(Peer), (Wait, false), (CloseAfterPeer, false), (Close, true)),
    ] {
        let mut progress = Progress::default();
        let check = |progress: &Progress, bytes, (then, complete)| {
            let pending = Pending { bytes, then };
            let got = (script.pending(progress, false), script.is_complete(progress));
            assert_eq!(got, (pending, complete), "{script:?}");
            let stopped = match script.workload {
                Workload::Hold if script.close == Rst => Reset,
                Workload::Hold => Close,
                _ => then,
            };
            assert_eq!(script.pending(progress, true), Pending { bytes, then: stopped }, "{script:?}");
        };
        assert_eq!(script.pending(&progress, false), Pending { bytes: 0, then: Wait });
        assert_eq!(script.is_complete(&progress), script.workload == Workload::Hold);
        script.opened(&mut progress);
        let request = script.pending(&progress, false).bytes;
        check(&progress, request, opened);
        script.acked(&mut progress, request);
        check(&progress, 0, done);
        script.peer_closed(&mut progress);
        check(&progress, 0, closed);
    }
}

fn any_script() -> impl Strategy<Value = Script> {
    let close = prop_oneof![Just(CloseBy::Fin), Just(CloseBy::Rst), Just(CloseBy::Peer)];
    let payload = prop::option::of(0..20u64);
    (0..10u8, close, payload, prop::option::of(0..20u64), 0..4u32).prop_map(
        |(kind, close, payload, expect, requests)| match kind {
            0 => Script::connect(close),
            1 => Script::hold(close),
            2..4 => {
                Script::request(Payload::Pattern(payload.unwrap_or(0)), expect.unwrap_or(0), requests, close)
            }
            _ => Script::http("a", "/", payload.map(Payload::Pattern), expect, requests, close),
        },
    )
}

/// Returns responses with up to two changed bytes.
fn almost_http() -> impl Strategy<Value = Vec<u8>> {
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (prop::collection::vec(0..GOOD.len(), 1..4), damage).prop_map(|(numbers, damage)| {
        let mut text: Vec<u8> = numbers.into_iter().flat_map(|number| GOOD[number].0.bytes()).collect();
        for (at, byte) in damage {
            let at = at.index(text.len());
            text[at] = byte;
        }
        text
    })
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        almost_http(),
        "[HTP/1. 0c:a,\r\n-]{0,60}".prop_map(Into::into)
    ]
}

proptest! {
    #[test]
    fn pieces_are_heard_as_the_whole(
        script in any_script(), text in any_text(), step in 1..40usize, fin in any::<bool>(),
    ) {
        prop_assert_eq!(hear(&script, text.chunks(step), fin), hear(&script, [&text[..]], fin));
    }

    #[test]
    fn anything_is_survived(
        script in any_script(),
        events in prop::collection::vec((0..8u8, any_text(), any::<prop::sample::Index>()), 0..20),
    ) {
        let (mut progress, mut outcome) = (Progress::default(), Outcome::default());
        outcome.add(script.opened(&mut progress));
        for (kind, text, index) in events {
            let pending = script.pending(&progress, false).bytes;
            match kind {
                0 => outcome.add(script.peer_closed(&mut progress)),
                1..4 => outcome.add(script.acked(&mut progress, index.index(pending as usize + 1) as u64)),
                _ => outcome.add(script.heard(&mut progress, &text)),
            }
            written(&script, &progress);
            prop_assert!(outcome.done <= outcome.started && outcome.started <= script.requests);
            prop_assert!(outcome.first_byte <= 1 && outcome.errors <= outcome.done);
            let answered = outcome.bad.is_none() && outcome.done == script.requests;
            prop_assert!(answered || !script.is_complete(&progress) || script.workload == Workload::Hold);
        }
    }
}
