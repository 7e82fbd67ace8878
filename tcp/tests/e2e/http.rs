//! HTTP with curl and with plain sockets: both families, every size, several requests on a connection, refused requests.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::thread;

use synmill_engine::service::pattern;
use synmill_lab::Words as _;

use crate::client::{MIB, Text, connect, curl, digest, write_file};
use crate::harness::Stage;

const HOSTS: [&str; 2] = ["198.18.0.2", "[fd00:18::2]"];

#[test]
fn bodies_of_0_1_and_1_mib_arrive_intact() {
    let stage = Stage::new("sizes");
    let sizes = [("80", 0), ("81", 1), ("82", MIB)];
    let listen = |host| sizes.map(|(port, bytes)| format!(" --listen {host}:{port}=http:{bytes}")).concat();
    let server = stage.serve(&HOSTS.map(listen).concat());
    for host in HOSTS {
        for (port, bytes) in sizes {
            let mut body = vec![0; usize::try_from(bytes).unwrap()];
            pattern::fill(0, &mut body);
            assert_eq!(curl(&stage, &format!("http://{host}:{port}/")), digest(&body[..]), "{host}:{port}");
        }
    }
    let report = server.stop();
    assert_eq!(report.count("passive_opens"), 6);
    assert_eq!(report.count("estab_resets"), 0);
}

#[test]
fn a_file_of_100_mib_arrives_intact_over_both_families() {
    let stage = Stage::new("file");
    let file = stage.file("body");
    let text = || Text::new(1, 100 * MIB);
    write_file(&file, &mut text());
    let service = format!("http-file:{}", file.display());
    let listen = ["--listen", "198.18.0.2:80", "--listen", "[fd00:18::2]:80"];
    let server = stage.serve(&[&listen[..], &["--service", &service]].concat());
    let sent = digest(text());
    for host in HOSTS {
        assert_eq!(curl(&stage, &format!("http://{host}/")), sent, "{host}");
    }
    server.stop();
    std::fs::remove_file(file).unwrap();
}

#[test]
fn one_connection_serves_several_requests() {
    let stage = Stage::new("keep");
    let server = stage.serve("--listen 198.18.0.2:80 --listen [fd00:18::2]:80 --service http:1024");
    for host in HOSTS {
        let url = format!("http://{host}/");
        let mut argv = "curl --silent --show-error --globoff --max-time 10".words();
        argv.extend(["--write-out", "%{http_code} %{size_download} %{num_connects}\n"]);
        for _ in 0..3 {
            argv.extend(["--output", "/dev/null", &url]);
        }
        assert_eq!(stage.ask(&argv), "200 1024 1\n200 1024 0\n200 1024 0\n");
    }
    assert_eq!(server.stop().count("passive_opens"), 2);
}

#[test]
fn head_announces_the_body_and_sends_none() {
    let stage = Stage::new("head");
    let server = stage.serve("--listen 198.18.0.2:80=http:1000");
    let head = stage.ask("curl --silent --show-error --max-time 10 --head http://198.18.0.2/");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-length: 1000\r\n"), "{head}");
    server.stop();
}

/// Sends these bytes in pieces of at most `piece`, closes, and returns the whole answer.
fn answer(stage: &Stage, request: &[u8], piece: usize) -> String {
    let stream = connect(stage, "198.18.0.2:80");
    let mut answer = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for part in request.chunks(piece) {
                (&stream).write_all(part).expect("the server takes the request");
            }
            stream.shutdown(Shutdown::Write).expect("the connection is open");
        });
        (&stream).read_to_end(&mut answer).expect("the server closes in order");
    });
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_is_refused_gets_its_status_and_an_end() {
    let stage = Stage::new("errors");
    let server = stage.serve("--listen 198.18.0.2:80=http:1024");
    let long = "x".repeat(20_000);
    let requests = [
        ("400 Bad Request", "garbage\r\n\r\n".to_owned()),
        ("400 Bad Request", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("405 Method Not Allowed", "POST / HTTP/1.1\r\nHost: lab\r\n\r\n".to_owned()),
        ("414 URI Too Long", format!("GET /{} HTTP/1.1\r\nHost: lab\r\n\r\n", &long[..9000])),
        ("431 Request Header Fields Too Large", format!("GET / HTTP/1.1\r\nHost: lab\r\nA: {long}\r\n\r\n")),
        ("505 HTTP Version Not Supported", "GET / HTTP/2.0\r\nHost: lab\r\n\r\n".to_owned()),
    ];
    for (status, request) in &requests {
        // The server does not answer a request after a refused one.
        let request = format!("{request}GET / HTTP/1.1\r\nHost: lab\r\n\r\n");
        let answer = answer(&stage, request.as_bytes(), usize::MAX);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{status}: {answer}");
        assert!(answer.contains("\r\nContent-Length: 0\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    }
    let report = server.stop();
    assert_eq!((report.closed(), report.count("out_rsts")), (requests.len() as u64, 0));
}

#[test]
fn requests_in_a_row_are_all_answered_wherever_they_are_cut() {
    const COUNT: usize = 300;
    let stage = Stage::new("pipeline");
    let server = stage.serve("--listen 198.18.0.2:80=http:100");
    let request = "GET / HTTP/1.1\r\nHost: lab\r\n\r\n";
    let one = answer(&stage, request.as_bytes(), usize::MAX);
    assert!(one.starts_with("HTTP/1.1 200 OK\r\n"), "{one}");
    for piece in [usize::MAX, 7] {
        let all = answer(&stage, request.repeat(COUNT).as_bytes(), piece);
        assert!(all == one.repeat(COUNT), "{} bytes for {COUNT} of {}", all.len(), one.len());
    }
    assert_eq!(server.stop().closed(), 3);
}
