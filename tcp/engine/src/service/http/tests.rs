//! Conversations over HTTP: split, pipelined, cut short and malformed.

use proptest::prelude::*;

use super::*;
use crate::service::driver::Conversation;
use crate::service::pattern;

const OK: &str = "HTTP/1.1 200 OK\r\nServer: synmill\r\nContent-Type: application/octet-stream\r\n";

fn body(size: u64) -> Vec<u8> {
    (0..size).map(pattern::byte).collect()
}

/// Returns a 200 with its body; `extra` is the line about the connection.
fn ok(size: u64, extra: &str, with_body: bool) -> Vec<u8> {
    let mut bytes = format!("{OK}Content-Length: {size}\r\n{extra}\r\n").into_bytes();
    if with_body {
        bytes.extend(body(size));
    }
    bytes
}

/// Returns the whole answer to `text`, and the action after it. Checks that the text byte by byte gets an equal answer.
fn answer(service: &Http, text: &[u8]) -> (Vec<u8>, Then) {
    let [whole, bytes] = [text.len().max(1), 1].map(|piece| {
        let mut talk = Conversation::open(service, 1);
        text.chunks(piece).for_each(|piece| talk.say(piece));
        let end = talk.run();
        assert_eq!(talk.untaken(), 0);
        end
    });
    assert!(whole == bytes, "byte by byte the answer differs: {}", String::from_utf8_lossy(text));
    whole
}

/// Returns the status of the one response to `text`, 0 without a response.
fn status(text: &[u8]) -> u16 {
    let (bytes, then) = answer(&Http::of_size(5), text);
    if bytes.is_empty() {
        assert_eq!(then, Then::Wait);
        return 0;
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status: u16 = text[9..12].parse().expect("a status");
    if status != 200 {
        assert!(
            text.contains("\r\nContent-Length: 0\r\n") && text.contains("\r\nConnection: close\r\n"),
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\n") && then == Then::Close, "{text}");
    }
    status
}

#[test]
fn get_and_head_keep_the_connection() {
    for (size, text, with_body) in [
        (10, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        (10, "HEAD /x?y HTTP/1.1\r\nhost:\r\n\r\n", false),
        (0, "GET * HTTP/1.9\nHOST: [::1]:80\n\n", true),
        (10, "\r\n\n\r\nGET http://a/ HTTP/1.1\nHost:a\r\n\n", true),
    ] {
        let want = (ok(size, "", with_body), Then::Wait);
        assert_eq!(answer(&Http::of_size(size), text.as_bytes()), want, "{text:?}");
    }
}

#[test]
fn the_client_decides_whether_the_connection_stays() {
    let stays = (ok(3, "", true), Then::Wait);
    let told = (ok(3, "Connection: keep-alive\r\n", true), Then::Wait);
    let closes = (ok(3, "Connection: close\r\n", true), Then::Close);
    let check = |version, line: &str, want| {
        for eol in ["\r\n", "\n"] {
            let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{line}\r\n").replace("\r\n", eol);
            assert_eq!(&answer(&Http::of_size(3), text.as_bytes()), want, "{text:?}");
        }
    };
    for (version, want, options) in [
        ("1.1", &stays, "keep-alive|closed|clos|xclose, close-x,|x close|"),
        ("1.1", &closes, "close|close, TE|TE\r\nConnection: close\r\nX: y"),
        ("1.0", &told, "Keep-Alive|te,KEEP-ALIVE,x"),
        ("1.0", &closes, "keep-alive, close|keep-alivee"),
    ] {
        for option in options.split('|') {
            check(version, &format!("Connection: {option}\r\n"), want);
        }
    }
    check("1.1", "", &stays);
    check("1.0", "", &closes);
    for (line, want) in [
        ("Connections: close\r\n", &stays),
        ("Connection:\r\n", &stays),
        ("connection:CLOSE\r\n", &closes),
        ("CONNECTION: keep-alive , ,\tClose \t\r\n", &closes),
    ] {
        check("1.1", line, want);
    }
    let head = b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let want = (ok(3, "Connection: keep-alive\r\n", false), Then::Wait);
    assert_eq!(answer(&Http::of_size(3), head), want);
    let head = b"HEAD / HTTP/1.0\r\n\r\n";
    assert_eq!(answer(&Http::of_size(3), head), (ok(3, "Connection: close\r\n", false), Then::Close));
}

#[test]
fn each_request_has_its_status() {
    for (want, request_lines) in [
        (200, "GET / HTTP/1.1|GET / HTTP/1.0"),
        (
            405,
            "POST / HTTP/1.1|OPTIONS * HTTP/1.1|CONNECT a:1 HTTP/1.1|GETS / HTTP/1.1|GE / HTTP/1.1|H / HTTP/1.1|\
             HEADER / HTTP/1.1|get / HTTP/1.1|M-SEARCH * HTTP/1.1",
        ),
        (505, "PRI * HTTP/2.0|GET / HTTP/2.0|GET / HTTP/0.9|GET / HTTP/9.1"),
        (
            400,
            "GET /|GET|GET  / HTTP/1.1|GET /  HTTP/1.1|GET / HTTP/1.1 |GET / HTTP/1.10|GET / HTTP/11|GET / HTTP/1|\
             GET / http/1.1|GET / HTTPS/1.1|GET /a b HTTP/1.1|GET /\u{e9} HTTP/1.1|GET /\t HTTP/1.1| GET / HTTP/1.1|\
             G:T / HTTP/1.1|garbage|\0|\r|\rGET / HTTP/1.1|\u{16}\u{3}\u{1}",
        ),
    ] {
        for request_line in request_lines.split('|') {
            let text = format!("{request_line}\r\nHost: a\r\n\r\n");
            assert_eq!(status(text.as_bytes()), want, "{text:?}");
        }
    }
    let allow = answer(&Http::of_size(1), b"PUT / HTTP/1.1\r\n\r\n").0;
    assert!(String::from_utf8_lossy(&allow).contains("\r\nAllow: GET, HEAD\r\n"));
}

#[test]
fn each_header_section_has_its_status() {
    for (want, sections) in [
        (200, "Host: a|Host: a;Content-Length: 0|Host: a;Content-Length:000 \t|Host: a;Content-Lengths: x"),
        (200, "Host: a;A: \u{e9}\t\"x\";B:;C!#$%&'*+-.^_`~9:|Host: a;Context: x;Conn: y;Transfer-Encodin: z"),
        (
            400,
            "|hOsT : a|Hos: a|Hosts: a|Host: a;Host: a|Host: a;A|Host: a;A b: c|Host: a;: c|Host: a;A: b; c",
        ),
        (400, "Host: a;\tc: d| Host: a|Host: a\rb|Host: a;A: \0|Host: a;A: \u{7f}|Host: a;Connection: \u{1}"),
        (400, "Host: a;Content-Length: |Host: a;Content-Length: 0, 0|Host: a;Content-Length: 0 0"),
        (400, "Host: a;Content-Length: +0|Host: a;Content-Length: x"),
        (413, "Host: a;Content-Length: 1|Host: a;content-length:\t0020"),
        (501, "Host: a;Transfer-Encoding: chunked|Host: a;TRANSFER-ENCODING: identity"),
    ] {
        for section in sections.split('|') {
            let lines: String = section
                .split(';')
                .filter(|line| !line.is_empty())
                .map(|line| format!("{line}\r\n"))
                .collect();
            let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
            assert_eq!(status(text.as_bytes()), want, "{text:?}");
            assert_eq!(status(text.replace("\r\n", "\n").as_bytes()), want, "bare LF in {text:?}");
        }
    }
    // `|` is a token's character too.
    assert_eq!(status(b"GET / HTTP/1.1\r\nHost: a\r\nC|9:\r\n\r\n"), 200);
    assert_eq!(status(b"GET / HTTP/1.0\r\n\r\n"), 200, "HTTP/1.0 needs no Host");
}

#[test]
fn bounds_are_exact() {
    let target = |len: u16| status(format!("GET {} HTTP/1.1\nHost:\n\n", "/".repeat(len.into())).as_bytes());
    assert_eq!(target(request::TARGET_MAX), 200);
    assert_eq!(target(request::TARGET_MAX + 1), 414);
    let method = |len: u16| status(format!("{} / HTTP/1.1\nHost:\n\n", "M".repeat(len.into())).as_bytes());
    assert_eq!(method(request::METHOD_MAX), 405);
    assert_eq!(method(request::METHOD_MAX + 1), 501);
    for (before, fill, after) in [
        ("Host:\r\nA:", "x", "\r\n\r\n"),
        ("Host:\r\n", "x", ":\r\n\r\n"),
        ("Host:\r\nConnection:", " ", "close\r\n\n"),
        ("Host:\r\n", "A:\n", "\n"),
    ] {
        let headers = |len: u16| {
            let room = usize::from(len) - before.len() - after.len();
            let (fill, pad) = (fill.repeat(room / fill.len()), "\t".repeat(room % fill.len()));
            let host = before.replacen("Host:", &format!("Host:{pad}"), 1);
            status(format!("GET / HTTP/1.1\r\n{host}{fill}{after}").as_bytes())
        };
        assert_eq!(headers(request::HEADERS_MAX), 200, "{before:?}");
        assert_eq!(headers(request::HEADERS_MAX + 1), 431, "{before:?}");
    }
}

#[test]
fn every_prefix_waits_and_closes_with_the_peer() {
    let service = Http::of_size(7);
    let text =
        b"GET /some/where HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: keep-alive\r\nX: y\r\n\r\n";
    for len in 0..text.len() {
        let mut talk = Conversation::open(&service, 1);
        talk.say(&text[..len]);
        assert_eq!(talk.run(), (Vec::new(), Then::Wait), "after {len} bytes");
        talk.close();
        assert_eq!(talk.run(), (Vec::new(), Then::Close), "after {len} bytes and FIN");
    }
}

#[test]
fn split_at_every_place() {
    let service = Http::of_size(7);
    let one = b"HEAD /some/where HTTP/1.0\r\nHost: a\r\nContent-Length: 0\r\nConnection: x, keep-alive\r\nX: y\r\n\r\n";
    let text = [&one[..], &one[..]].concat();
    let want = ok(7, "Connection: keep-alive\r\n", false).repeat(2);
    for len in 0..=text.len() {
        let mut talk = Conversation::open(&service, len as u64);
        talk.say(&text[..len]);
        talk.say(&text[len..]);
        assert_eq!(talk.run(), (want.clone(), Then::Wait), "split at {len}");
    }
}

#[test]
fn pipelined_requests_and_then_the_peers_fin() {
    let service = Http::of_size(5000);
    let mut talk = Conversation::open(&service, 9);
    talk.say(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20));
    talk.say(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    talk.close();
    assert!(talk.untaken() > 0, "another reply waits for the run before it");
    let want = [ok(5000, "", true).repeat(20), ok(5000, "", false)].concat();
    assert!(talk.run() == (want, Then::Close));
}

#[test]
fn nothing_is_answered_after_a_closing_response() {
    let service = Http::of_size(2);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let text = format!("{get}{get}GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n{get}junk");
    let mut talk = Conversation::open(&service, 4);
    talk.say(text.as_bytes());
    let want = [ok(2, "", true).repeat(2), ok(2, "Connection: close\r\n", true)].concat();
    assert_eq!(talk.run(), (want.clone(), Then::Close));
    talk.say(get.as_bytes());
    talk.close();
    assert_eq!(talk.run(), (want, Then::Close));
    assert_eq!(talk.untaken(), 0);
}

#[test]
fn the_longest_body_fits_the_memo() {
    let service = Http::of_size(BODY_MAX);
    let mut memo = Memo::default();
    let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3);
    let taken = service.on_data(&mut memo, &text);
    assert_eq!(taken, Taken::Bytes(text.len() / 3 * 2 - 1), "a second response would be beyond 33 bits");
    let head = format!("{OK}Content-Length: 4294967296\r\n\r\n").len() as u64;
    assert_eq!(service.pending(&memo).bytes, BODY_MAX + head);
    service.on_acked(&mut memo, head + BODY_MAX - 4);
    let mut end = [0; 4];
    service.write(&memo, 0, &mut end);
    assert_eq!(end.to_vec(), (BODY_MAX - 4..BODY_MAX).map(pattern::byte).collect::<Vec<_>>());
    service.on_acked(&mut memo, 4);
    assert_eq!(service.pending(&memo), Pending { bytes: 0, then: Then::Wait });
    assert_eq!(service.on_data(&mut memo, b"\n"), Taken::Bytes(1), "the second one is complete now");
    assert_eq!(service.pending(&memo).bytes, BODY_MAX + head);
}

#[test]
fn a_file_is_served_as_it_was() {
    let path = std::env::temp_dir().join(format!("synmill-http-{}", std::process::id()));
    let text: Vec<u8> = (0..3000u32).map(|i| (i * 7 % 251) as u8).collect();
    std::fs::write(&path, &text).expect("a file to serve");
    let service = Http::of_file(&path).expect("the file");
    std::fs::remove_file(&path).expect("the file to go");
    let want = [format!("{OK}Content-Length: 3000\r\n\r\n").as_bytes(), &text].concat().repeat(3);
    assert!(answer(&service, &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3)) == (want, Then::Wait));
    assert!(Http::of_file(&path).is_err());
    assert_eq!(
        Http::of_file(&std::env::temp_dir()).map(|_| ()).map_err(|e| e.to_string()),
        Err("not a regular file".into())
    );
}

/// Returns a valid request, whether its answer has a body, and the answer's line about the connection.
fn valid() -> impl Strategy<Value = (String, bool, &'static str)> {
    let headers = prop::collection::vec("[a-zA-Z]{1,12}-y: ?[ -~]{0,20}", 0..4);
    (any::<bool>(), "/[!-~]{0,30}", 0..3u8, headers, any::<bool>()).prop_map(
        |(head, target, kind, headers, lf)| {
            let method = if head { "HEAD" } else { "GET" };
            let (version, line, extra) = match kind {
                0 => ("1.1", "", ""),
                1 => ("1.1", "cOnnection: keep-alive\r\n", ""),
                _ => ("1.0", "Connection: a,Keep-Alive\r\n", "Connection: keep-alive\r\n"),
            };
            let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
            let text = format!("{method} {target} HTTP/{version}\r\n{headers}Host: a\r\n{line}\r\n");
            (if lf { text.replace("\r\n", "\n") } else { text }, !head, extra)
        },
    )
}

proptest! {
    #[test]
    fn any_split_of_any_pipeline(
        requests in prop::collection::vec((valid(), 1..4usize), 0..8),
        size in prop_oneof![Just(0u64), 1..20u64, 1000..5000u64],
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..3usize), 0..12),
        seed in any::<u64>(),
    ) {
        let service = Http::of_size(size);
        let (mut text, mut want) = (String::new(), Vec::new());
        for ((request, with_body, extra), times) in &requests {
            text += &request.repeat(*times);
            want.extend(ok(size, extra, *with_body).repeat(*times));
        }
        let mut places: Vec<_> = cuts.iter().map(|(at, turns)| (at.index(text.len() + 1), *turns)).collect();
        places.sort_unstable();
        let mut talk = Conversation::open(&service, seed);
        let mut from = 0;
        for (to, turns) in places {
            talk.say(&text.as_bytes()[from..to]);
            from = to;
            for _ in 0..turns {
                talk.turn();
            }
        }
        talk.say(&text.as_bytes()[from..]);
        prop_assert!(talk.run() == (want, Then::Wait));
        prop_assert_eq!(talk.untaken(), 0);
    }

    #[test]
    fn random_bytes_are_refused_or_waited_for(text in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(matches!(status(&text), 0 | 400), "{:?}", text);
    }

    #[test]
    fn damaged_requests_get_a_status_or_wait(
        (request, ..) in valid(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut text = request.into_bytes();
        let at = at.index(text.len());
        text[at] = byte;
        prop_assert!([0, 200, 400, 405, 505].contains(&status(&text)), "{:?}", text);
    }

    #[test]
    fn pieces_of_a_damaged_pipeline_are_read_as_the_whole(
        requests in prop::collection::vec(valid(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        step in 1..9usize,
    ) {
        let service = Http::of_size(5);
        let mut text: Vec<u8> = requests.into_iter().flat_map(|(request, ..)| request.into_bytes()).collect();
        for (at, byte) in damage {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let mut talk = Conversation::open(&service, 5);
        for piece in text.chunks(step) {
            talk.say(piece);
        }
        prop_assert_eq!(talk.run(), answer(&service, &text), "{:?}", text);
    }

    #[test]
    fn any_memo_is_survived(bits in any::<u64>(), text in prop::collection::vec(any::<u8>(), 0..50)) {
        let service = Http::of_size(9);
        let mut memo = Memo::of(bits);
        service.on_data(&mut memo, &text);
        let pending = service.pending(&memo).bytes;
        let mut into = vec![0; pending.min(100) as usize];
        service.write(&memo, 0, &mut into);
        service.on_acked(&mut memo, pending);
        prop_assert_eq!(service.pending(&memo).bytes, 0);
    }
}
