//! HTTP with curl: both families, every size, one connection for several requests.

use crate::client::{MIB, Text, curl, digest, write_file};
use crate::harness::{Server, Stage};

const HOSTS: [&str; 2] = ["198.18.0.2", "[fd00:18::2]"];

#[test]
fn bodies_of_0_1_and_1_mib_have_their_length() {
    let stage = Stage::new("sizes");
    let sizes = [("80", 0), ("81", 1), ("82", MIB)];
    let listen: Vec<String> = HOSTS
        .iter()
        .flat_map(|host| sizes.map(|(port, bytes)| format!("--listen={host}:{port}=http:{bytes}")))
        .collect();
    let arguments: Vec<&str> = listen.iter().map(String::as_str).collect();
    let server = Server::start(&stage, &arguments);
    for host in HOSTS {
        for (port, bytes) in sizes {
            assert_eq!(curl(&stage, &format!("http://{host}:{port}/")).bytes, bytes, "{host}:{port}");
        }
    }
    let report = server.stop(&stage);
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
    let arguments = ["--listen", "198.18.0.2:80", "--listen", "[fd00:18::2]:80", "--service", &service];
    let server = Server::start(&stage, &arguments);
    let sent = digest(text());
    for host in HOSTS {
        assert_eq!(curl(&stage, &format!("http://{host}/")), sent, "{host}");
    }
    server.stop(&stage);
    std::fs::remove_file(file).unwrap();
}

#[test]
fn one_connection_serves_several_requests() {
    let stage = Stage::new("keep");
    let arguments = ["--listen", "198.18.0.2:80", "--listen", "[fd00:18::2]:80", "--service", "http:1024"];
    let server = Server::start(&stage, &arguments);
    for host in HOSTS {
        let url = format!("http://{host}/");
        let mut argv = vec!["curl", "--silent", "--show-error", "--globoff", "--max-time", "10"];
        argv.extend(["--write-out", "%{http_code} %{size_download} %{num_connects}\n"]);
        for _ in 0..3 {
            argv.extend(["--output", "/dev/null", &url]);
        }
        assert_eq!(stage.ask(&argv), "200 1024 1\n200 1024 0\n200 1024 0\n");
    }
    assert_eq!(server.stop(&stage).count("passive_opens"), 2);
}

#[test]
fn head_announces_the_body_and_sends_none() {
    let stage = Stage::new("head");
    let server = Server::start(&stage, &["--listen", "198.18.0.2:80=http:1000"]);
    let head =
        stage.ask(&["curl", "--silent", "--show-error", "--max-time", "10", "--head", "http://198.18.0.2/"]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-length: 1000\r\n"), "{head}");
    server.stop(&stage);
}
