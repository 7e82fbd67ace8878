//! Plain streams over the kernel's sockets: echo, half-close, refusal, and many connections at once.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use synmill_lab::LabOptions;

use crate::client::{MIB, connect, digest, echo, say, try_connect};
use crate::harness::Stage;

#[test]
fn an_echo_of_100_mib_is_intact_both_ways() {
    let stage = Stage::new("echo");
    let server = stage.serve("--listen 198.18.0.2:7=echo --listen [fd00:18::2]:7=echo");
    for (seed, address) in [(1, "198.18.0.2:7"), (2, "[fd00:18::2]:7")] {
        echo(&stage, address, seed, 100 * MIB);
    }
    let report = server.stop();
    assert_eq!(report.count("in_bytes"), 200 * MIB);
    assert_eq!(report.count("out_bytes"), 200 * MIB);
    assert_eq!(report.closed(), 2);
}

#[test]
fn jumbo_frames_come_and_go() {
    for (mode, mtu) in [("copy", 9000), ("skb", 9000), ("copy", 15_338)] {
        let stage = Stage::with("jumbo", LabOptions { mtu, ..LabOptions::default() });
        let listen = "--listen 198.18.0.2:7=echo --listen [fd00:18::2]:80=http:10M";
        let server = stage.serve(&format!("{listen} --mode {mode}"));
        echo(&stage, "198.18.0.2:7", 1, 20 * MIB);
        let mut stream = connect(&stage, "[fd00:18::2]:80");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let got = digest(stream).bytes;
        assert!((10 * MIB..10 * MIB + 1000).contains(&got), "{mode}, MTU {mtu}: {got}");
        let report = server.stop();
        assert_eq!((report.closed(), report.count("rx_dropped"), report.count("tx_invalid")), (2, 0, 0));
        // 30 MiB in full segments, and at most an acknowledgement for each segment of the received 20 MiB.
        let most = 52 * MIB / u64::from(mtu - 100);
        assert!(report.count("out_segs") < most, "{mode}, MTU {mtu}: {} segments", report.count("out_segs"));
    }
}

#[test]
fn data_follows_the_clients_fin() {
    let stage = Stage::new("half");
    let server = stage.serve("--listen 198.18.0.2:80=http:1M --listen 198.18.0.2:7=echo");

    let mut stream = connect(&stage, "198.18.0.2:80");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!((answer.len() - body) as u64, MIB);

    let mut stream = connect(&stage, "198.18.0.2:7");
    stream.write_all(&[b'x'; 20_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(digest(&stream).bytes, 20_000);

    assert_eq!(server.stop().closed(), 2);
}

#[test]
fn data_follows_the_servers_fin() {
    let stage = Stage::new("fin");
    let server = stage.serve("--listen 198.18.0.2:9=close");
    let mut stream = connect(&stage, "198.18.0.2:9");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "the server closes first");
    stream.write_all(&[b'x'; 20_000]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(stream.take_error().unwrap().is_none());
    drop(stream);
    assert_eq!(server.stop().count("out_rsts"), 0);
}

#[test]
fn each_service_ends_as_it_says() {
    let stage = Stage::new("services");
    let server = stage.serve(
        "--listen 198.18.0.2:1=reset --listen 198.18.0.2:2=discard \
         --listen 198.18.0.2:3=hold --listen 198.18.0.2:4=source:3M",
    );

    // The RST may arrive before connect() returns.
    let reset = try_connect(&stage, "198.18.0.2:1").and_then(|mut stream| stream.read(&mut [0])).unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    for port in [2, 3] {
        let mut stream = connect(&stage, &format!("198.18.0.2:{port}"));
        stream.write_all(&[b'x'; 100_000]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(digest(&stream).bytes, 0, "port {port}");
    }
    assert_eq!(digest(connect(&stage, "198.18.0.2:4")).bytes, 3 * MIB);

    let report = server.stop();
    assert_eq!(report.count("ended_reset_by_us"), 1);
    assert_eq!(report.closed(), 3);
}

#[test]
fn a_closed_port_of_an_address_of_ours_is_refused() {
    let stage = Stage::new("refused");
    let server = stage.serve("--listen 198.18.0.9:80 --listen [fd00:18::9]:80");
    for address in ["198.18.0.9:81", "[fd00:18::9]:81"] {
        let error = try_connect(&stage, address).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
    }
    let report = server.stop();
    assert_eq!((report.count("out_rsts"), report.count("passive_opens")), (2, 0));
}

#[test]
fn a_port_of_nobody_stays_the_kernels() {
    let stage = Stage::new("kernels");
    let server = stage.serve("--listen 198.18.0.2:80");
    let error = try_connect(&stage, "198.18.0.2:81").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(server.stop().count("out_rsts"), 0, "the kernel has answered");
}

#[test]
fn a_thousand_connections_are_open_at_once() {
    const COUNT: usize = 1000;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let stage = Stage::new("thousand");
    let server = stage.serve("--listen 198.18.0.2:7=echo --listen [fd00:18::2]:7=echo");
    let addresses = ["198.18.0.2:7", "[fd00:18::2]:7"];
    let streams: Vec<TcpStream> = (0..COUNT).map(|number| connect(&stage, addresses[number % 2])).collect();
    for round in 0..3 {
        for (number, stream) in streams.iter().enumerate() {
            say(stream, format!("round {round}, connection {number}").as_bytes());
        }
    }
    drop(streams);
    let report = server.stop();
    assert_eq!(report.count("passive_opens"), COUNT as u64);
    assert_eq!(report.closed(), COUNT as u64);
}
