//! The peers from their clients' side: the kernel's server and the reflector, each in a lab of its own with the kernel's TCP as the client;
//! the bare sender and its receiver; and the reflector's answers as frames. All but the frames need root.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use synmill_benches::reflect::{Reflected, Reflector, Service};
use synmill_engine::flow::{Address, FlowKey};
use synmill_engine::proto::{Flags, Options, Segment, SeqNum, Timestamps, WireWindow};
use synmill_engine::wire::{Checks, Link, Packet, emit, header_len, parse};
use synmill_lab::{
    CLIENT_INTERFACE, CLIENT_V4, Lab, LabOptions, Process, SERVER_INTERFACE, SERVER_V4, SERVER_V6, Side,
    until,
};

const KERNEL_SERVER: &str = env!("CARGO_BIN_EXE_synmill-kernel-server");
const REFLECTOR: &str = env!("CARGO_BIN_EXE_synmill-reflector");
const BULK: &str = env!("CARGO_BIN_EXE_synmill-bulk");
/// Longest wait for a byte or a packet.
const LIMIT: Duration = Duration::from_secs(30);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
const LAST_REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

/// Two cores do not suffice for two tests at once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A lab of the test's own, with a peer at its server's end.
struct Stage {
    peer: Process,
    lab: Lab,
    _turn: MutexGuard<'static, ()>,
}

impl Stage {
    /// Waits for the test's turn, builds a lab, and starts the peer on port 80 of both addresses. `name` is the test's own.
    fn new(name: &str, program: &str, arguments: &[&str]) -> Self {
        let listen = server_addresses().map(|address| format!("--listen={address}"));
        let mut argv = vec![program, &listen[0], &listen[1]];
        if program == REFLECTOR {
            argv.extend(["--interface", SERVER_INTERFACE]);
        }
        argv.extend(arguments);
        Self::of(name, LabOptions::default(), &argv)
    }

    /// Waits for the test's turn, builds a lab, and starts the peer by its whole command.
    fn of(name: &str, options: LabOptions, argv: &[&str]) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab::up(&format!("smt-peers-{name}"), options).unwrap();
        let mut peer = Process::spawn(&mut lab.exec(Side::Server, argv)).unwrap();
        peer.until_said("ready: ").unwrap();
        Self { peer, lab, _turn: turn }
    }

    fn connect(&self, address: SocketAddr) -> TcpStream {
        let stream = self.lab.inside(Side::Client, || TcpStream::connect(address)).unwrap().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Returns the body that curl receives, and its exit status.
    fn curl(&self, address: SocketAddr) -> (Vec<u8>, Option<i32>) {
        let url = format!("http://{address}/");
        let argv = ["curl", "--silent", "--globoff", "--max-time", "30", &url];
        let output = self.lab.exec(Side::Client, argv).stdin(Stdio::null()).output().expect("curl starts");
        (output.stdout, output.status.code())
    }

    /// Ends the peer with SIGTERM, and returns its counts: all that it prints on standard output.
    fn stop(mut self) -> Value {
        self.peer.signal(Signal::SIGTERM).unwrap();
        assert!(self.peer.end().unwrap().success());
        let printed = self.peer.printed();
        assert_eq!(printed.lines().count(), 1, "{printed}");
        serde_json::from_str(&printed).expect("the counts are JSON")
    }
}

fn server_addresses() -> [SocketAddr; 2] {
    [SERVER_V4, SERVER_V6].map(|address| SocketAddr::new(address.parse().unwrap(), 80))
}

/// Returns the text to the end of the stream, or the error that broke it off.
fn read_all(mut stream: &TcpStream) -> Result<Vec<u8>, ErrorKind> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).map_err(|error| error.kind())?;
    Ok(all)
}

/// Sends `text` as a client, and returns the answer to the end of the stream.
fn said_to(stage: &Stage, address: SocketAddr, text: &[u8]) -> Result<Vec<u8>, ErrorKind> {
    let mut stream = stage.connect(address);
    stream.write_all(text).map_err(|error| error.kind())?;
    read_all(&stream)
}

fn check_counts(counts: &Value, expected: &[(&str, u64)]) {
    for &(name, count) in expected {
        assert_eq!(counts[name], count, "{name} of {counts}");
    }
}

/// Asserts that `text` is an HTTP response with a body of `body_len` bytes. It does not check the fields.
fn check_response(text: &[u8], body_len: usize) {
    let shown = String::from_utf8_lossy(text);
    assert!(shown.starts_with("HTTP/1.1 200 OK\r\n"), "{shown}");
    let (_, body) = shown.split_once("\r\n\r\n").expect("the head has an end");
    assert_eq!(body.len(), body_len);
}

#[test]
fn kernel_server_http() {
    // The large one does not fit into a socket's buffers, so the server writes it in parts.
    for (name, body_len) in [("http-small", 100), ("http-large", 20_000_000)] {
        let stage = Stage::new(name, KERNEL_SERVER, &["--service", &format!("http:{body_len}")]);
        for address in server_addresses() {
            let (body, status) = stage.curl(address);
            assert_eq!((body.len(), status), (body_len, Some(0)));
            check_response(&said_to(&stage, address, LAST_REQUEST).unwrap(), body_len);
        }
        let counts = stage.stop();
        check_counts(
            &counts,
            &[("accepted", 4), ("requests", 4), ("closed", 4), ("resets", 0), ("errors", 0)],
        );
    }
}

#[test]
fn kernel_server_keeps_connections_alive_and_takes_requests_in_pieces() {
    let stage = Stage::new("alive", KERNEL_SERVER, &["--service=http:7", "--cores=0,1"]);
    let mut stream = stage.connect(server_addresses()[0]);
    let mut response = vec![0; b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n1234567".len()];
    for byte in REQUEST {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.read_exact(&mut response).unwrap();
    check_response(&response, 7);
    // Two requests, a third that is the last one, and one behind the last.
    stream.write_all(&[REQUEST, REQUEST, LAST_REQUEST, REQUEST].concat()).unwrap();
    for _ in 0..2 {
        stream.read_exact(&mut response).unwrap();
        check_response(&response, 7);
    }
    check_response(&read_all(&stream).unwrap(), 7);
    check_counts(&stage.stop(), &[("accepted", 1), ("requests", 4), ("closed", 1), ("errors", 0)]);
}

#[test]
fn kernel_server_spends_three_packets() {
    for (service, text) in [("http:100", LAST_REQUEST), ("close", b"")] {
        let stage = Stage::new("packets", KERNEL_SERVER, &["--service", service]);
        let sent = || stage.lab.tcp_counter(Side::Server, "OutSegs").unwrap();
        let before = sent();
        for _ in 0..20 {
            said_to(&stage, server_addresses()[0], text).unwrap();
        }
        // The answer to the last FIN may be on its way.
        until("60 packets", LIMIT, || Ok(sent() - before >= 60)).unwrap();
        let sent = sent() - before;
        // On a busy machine a late server sometimes acknowledges a request by itself.
        assert!((60..75).contains(&sent), "{service}: {sent} packets for 20 connections");
    }
}

#[test]
fn kernel_server_close_and_reset() {
    let reset = Err(ErrorKind::ConnectionReset);
    let expected = [
        ("close", [Ok(vec![]), Ok(vec![])], [2, 0]),
        ("reset", [reset.clone(), reset.clone()], [0, 2]),
        ("reset-half:close", [Ok(vec![]), reset], [1, 1]),
    ];
    for (service, ends, [closed, resets]) in expected {
        let stage = Stage::new("ends", KERNEL_SERVER, &["--service", service]);
        let heard = server_addresses().map(|address| read_all(&stage.connect(address)));
        assert_eq!(heard, ends, "{service}");
        check_counts(
            &stage.stop(),
            &[("accepted", 2), ("requests", 0), ("closed", closed), ("resets", resets)],
        );
    }
}

#[test]
fn kernel_server_resets_half_of_those_who_ask() {
    let stage = Stage::new("half", KERNEL_SERVER, &["--service=reset-half:http:10"]);
    for round in 0..4 {
        let heard = said_to(&stage, server_addresses()[0], LAST_REQUEST);
        if round % 2 == 0 {
            check_response(&heard.unwrap(), 10);
        } else {
            assert_eq!(heard, Err(ErrorKind::ConnectionReset));
        }
    }
    check_counts(&stage.stop(), &[("accepted", 4), ("requests", 4), ("closed", 2), ("resets", 2)]);
}

#[test]
fn kernel_server_echo() {
    let stage = Stage::new("echo", KERNEL_SERVER, &["--service=echo"]);
    // More than all buffers hold, so the client has to read while it writes.
    let sent: Vec<u8> =
        (0..30_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for address in server_addresses() {
        let stream = stage.connect(address);
        let heard = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                (&stream).write_all(&sent).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
            let heard = read_all(&stream);
            writer.join().unwrap();
            heard
        });
        assert!(heard.as_ref() == Ok(&sent), "{address}: {:?}", heard.map(|heard| heard.len()));
    }
    check_counts(&stage.stop(), &[("accepted", 2), ("closed", 2), ("errors", 0)]);
}

#[test]
fn kernel_server_source() {
    // A client without text, and one with text that the server ignores: both receive FIN, not RST.
    let stage = Stage::new("source", KERNEL_SERVER, &["--service=source:20000000"]);
    for (address, text) in server_addresses().into_iter().zip([&b""[..], b"x"]) {
        assert_eq!(said_to(&stage, address, text).map(|heard| heard.len()), Ok(20_000_000));
    }
    check_counts(&stage.stop(), &[("accepted", 2), ("closed", 2), ("resets", 0), ("errors", 0)]);
}

#[test]
fn bare_frames_are_counted() {
    let to = format!("{CLIENT_V4}:9");
    let table: [(u16, &str, &[&str]); 5] = [
        (1500, "copy", &[]),
        (1500, "skb", &["--check"]),
        (3498, "skb", &["--check"]),
        (9000, "copy", &["--check"]),
        (9000, "skb", &["--check"]),
    ];
    for (mtu, mode, check) in table {
        let options = LabOptions { mtu: mtu.into(), ..LabOptions::default() };
        let send = [BULK, "send", "--interface", SERVER_INTERFACE, "--to", &to, "--mode", mode];
        let stage = Stage::of("bulk", options, &send);
        let count = [BULK, "count", "--interface", CLIENT_INTERFACE, "--at", &to, "--seconds", "1"];
        let counted =
            stage.lab.output(Side::Client, &[&count[..], &["--core", "1", "--mode", mode], check].concat());
        let counted: Value = serde_json::from_str(&counted.unwrap()).expect("it is JSON");
        let of = |name: &str| counted[name].as_u64().unwrap();
        assert!(of("frames") > 0 && of("wrong") == 0, "{mode} at MTU {mtu}: {counted}");
        assert_eq!(of("text_bytes"), of("frames") * u64::from(mtu - 40), "{mode} at MTU {mtu}: {counted}");
        let sent = stage.stop();
        assert!(sent["frames"].as_u64().unwrap() >= of("frames") + of("lost"), "{counted} of {sent}");
        check_counts(&sent, &[("tx_invalid", 0), ("tx_ring_full", 0)]);
    }
}

#[test]
fn kernel_server_garbage_and_silence() {
    let stage = Stage::new("garbage", KERNEL_SERVER, &["--service=garbage"]);
    let heard = said_to(&stage, server_addresses()[0], LAST_REQUEST).unwrap();
    assert!(!heard.is_empty() && !heard.starts_with(b"HTTP"));
    assert_ne!(stage.curl(server_addresses()[1]).1, Some(0));
    check_counts(&stage.stop(), &[("accepted", 2), ("requests", 2)]);

    let stage = Stage::new("silent", KERNEL_SERVER, &["--service=silent"]);
    let mut stream = stage.connect(server_addresses()[0]);
    stream.write_all(REQUEST).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    check_counts(&stage.stop(), &[("accepted", 1), ("requests", 0), ("closed", 0), ("resets", 0)]);
}

#[test]
fn reflector_http() {
    for mode in ["copy", "skb"] {
        let stage = Stage::new("reflect-http", REFLECTOR, &["--service=http", "--body=321", "--mode", mode]);
        for address in server_addresses() {
            let (body, status) = stage.curl(address);
            assert_eq!((body.len(), status), (321, Some(0)), "{mode}");
            check_response(&said_to(&stage, address, REQUEST).unwrap(), 321);
        }
        // The reflector answers packets in order, so it has answered all packets before this answer. The last FIN may come too late.
        check_response(&said_to(&stage, server_addresses()[0], REQUEST).unwrap(), 321);
        let counts = stage.stop();
        check_counts(&counts, &[("syns", 5), ("tx_ring_full", 0), ("rx_dropped", 0)]);
        let of = |name: &str| counts[name].as_u64().unwrap();
        assert_eq!(of("frames"), of("replies") + of("dropped"), "{counts}");
        // SYN,ACK; the response; the acknowledgement of the client's FIN.
        assert!(of("replies") >= 4 * 3 + 2, "{counts}");
    }
}

#[test]
fn reflector_close() {
    let stage = Stage::new("reflect-close", REFLECTOR, &["--service=close"]);
    for address in server_addresses() {
        assert_eq!(read_all(&stage.connect(address)), Ok(vec![]));
    }
    check_counts(&stage.stop(), &[("syns", 2), ("tx_ring_full", 0)]);
}

#[test]
fn what_cannot_be_is_refused() {
    let table: [(&str, &[&str], &str); 7] = [
        (KERNEL_SERVER, &["--listen=127.0.0.1:1", "--service=http"], "it is one of"),
        (KERNEL_SERVER, &["--listen=127.0.0.1:1", "--service=reset-half:echo"], "half of what"),
        (KERNEL_SERVER, &["--listen=127.0.0.1:1", "--cores=100000"], "core 100000 cannot be had"),
        (REFLECTOR, &["--listen=127.0.0.1:1", "--interface=lo", "--cores=0,0"], "named twice"),
        (REFLECTOR, &["--listen=127.0.0.1:1", "--interface=smt-none0"], "no interface smt-none0"),
        (BULK, &["send", "--to=127.0.0.1:1", "--interface=smt-none0"], "no interface smt-none0"),
        (BULK, &["count", "--at=127.0.0.1:1", "--interface=lo", "--seconds=0"], "--seconds"),
    ];
    for (program, arguments, reason) in table {
        let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(reason), "{arguments:?}: {said}");
    }
}

const CLIENT_SEQ: u32 = u32::MAX - 1;

/// Returns a name of each IP version, from the client's end.
fn keys() -> [FlowKey; 2] {
    let key = |remote, local| FlowKey { local, remote, local_port: 40_001, remote_port: 80 };
    let v6 = |last| Address::v6([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    [key(Address::v4([198, 18, 0, 2]), Address::v4([198, 19, 7, 9])), key(v6(2), v6(1))]
}

const LINK: Link = Link {
    destination: [2, 0, 0, 0, 0, 2],
    source: [2, 0, 0, 0, 0, 1],
    tags: [synmill_engine::wire::Tag { tpid: 0, tci: 0 }; 2],
};

fn segment(flags: Flags, seq: u32, ack: u32) -> Segment {
    Segment { seq: SeqNum(seq), ack: SeqNum(ack), flags, window: WireWindow(1000), ..Segment::default() }
}

/// Returns the answer to `segment` with `text`, after the engine's parser has checked its headers and checksums.
fn answer(
    reflector: &Reflector,
    key: &FlowKey,
    mut segment: Segment,
    text: &[u8],
) -> Option<(Segment, Vec<u8>)> {
    let mut buffer = vec![0xaa; 1792];
    let start = header_len(&LINK, key, &segment.options);
    buffer[start..start + text.len()].copy_from_slice(text);
    segment.text_len = text.len() as u16;
    // A link may pad.
    let len = emit(&mut buffer, &LINK, key, &segment).max(60);
    let Reflected { len, is_syn } = reflector.reflect(&mut buffer, len)?;
    let Ok(Packet::Tcp(packet)) = parse(&buffer[..len], Checks::default()) else {
        panic!("{:?} to {segment:?}", parse(&buffer[..len], Checks::default()));
    };
    assert_eq!(packet.link, LINK.reversed());
    assert_eq!(packet.key, *key, "it is for the client");
    assert_eq!(is_syn, packet.segment.flags.has(Flags::SYN));
    let text_start = usize::from(packet.text_start);
    let text_end = text_start + usize::from(packet.segment.text_len);
    assert_eq!(text_end, len, "nothing behind it");
    Some((packet.segment, buffer[text_start..text_end].to_vec()))
}

/// Shakes hands, and returns the reflector's initial sequence number.
fn shake_hands(reflector: &Reflector, key: &FlowKey) -> u32 {
    let options = Options {
        mss: Some(1460),
        sack_permitted: true,
        window_scale: Some(7),
        timestamps: Some(Timestamps { value: 5, echo: 0 }),
        ..Options::NONE
    };
    let syn = Segment { options, ..segment(Flags::SYN, CLIENT_SEQ, 0) };
    let (reply, text) = answer(reflector, key, syn, b"").unwrap();
    assert_eq!(reply.flags, Flags::SYN.with(Flags::ACK));
    assert_eq!(reply.ack, SeqNum(CLIENT_SEQ.wrapping_add(1)));
    let mss = if key.local.is_v4() { 1460 } else { 1440 };
    assert_eq!(reply.options, Options { mss: Some(mss), ..Options::NONE });
    assert!(text.is_empty());
    reply.seq.0
}

#[test]
fn a_connection_that_asks() {
    // Bodies of both parities, and one longer than the request.
    for body_len in [0, 1, 2, 1001] {
        let reflector = Reflector::new(Service::Http { body_len }, 1500).unwrap();
        for key in &keys() {
            let (seq, ack) = (CLIENT_SEQ.wrapping_add(1), shake_hands(&reflector, key).wrapping_add(1));
            assert_eq!(answer(&reflector, key, segment(Flags::ACK, seq, ack), b""), None);
            for request in [REQUEST, LAST_REQUEST, b"x"] {
                for fin in [false, true] {
                    let flags = Flags::ACK.with(Flags::PSH);
                    let flags = if fin { flags.with(Flags::FIN) } else { flags };
                    let timestamps = Some(Timestamps { value: 6, echo: 5 });
                    let options = Options { timestamps, ..Options::NONE };
                    let asked = Segment { options, ..segment(flags, seq, ack) };
                    let (reply, text) = answer(&reflector, key, asked, request).unwrap();
                    check_response(&text, body_len);
                    assert_eq!(reply.flags, Flags::ACK.with(Flags::PSH).with(Flags::FIN));
                    assert_eq!(reply.seq, SeqNum(ack));
                    let ends = seq.wrapping_add(request.len() as u32 + u32::from(fin));
                    assert_eq!(reply.ack, SeqNum(ends));
                    assert_eq!(reply.options, Options::NONE);
                }
            }
        }
    }
}

#[test]
fn a_connection_that_is_closed_at_once() {
    let reflector = Reflector::new(Service::Close, 1500).unwrap();
    for key in &keys() {
        let (seq, ack) = (CLIENT_SEQ.wrapping_add(1), shake_hands(&reflector, key).wrapping_add(1));
        let (fin, text) = answer(&reflector, key, segment(Flags::ACK, seq, ack), b"").unwrap();
        assert_eq!((fin.flags, fin.seq, fin.ack), (Flags::ACK.with(Flags::FIN), SeqNum(ack), SeqNum(seq)));
        assert!(text.is_empty());
        // The acknowledgement of the FIN is not that of the handshake.
        let ack = ack.wrapping_add(1);
        assert_eq!(answer(&reflector, key, segment(Flags::ACK, seq, ack), b""), None);
        let fin = Flags::ACK.with(Flags::FIN);
        let (last, text) = answer(&reflector, key, segment(fin, seq, ack), b"").unwrap();
        let seq = seq.wrapping_add(1);
        assert_eq!((last.flags, last.seq, last.ack), (Flags::ACK, SeqNum(ack), SeqNum(seq)));
        assert!(text.is_empty());
    }
}

#[test]
fn what_is_not_answered() {
    for service in [Service::Close, Service::Http { body_len: 64 }] {
        let reflector = Reflector::new(service, 1500).unwrap();
        for key in &keys() {
            let ack = shake_hands(&reflector, key).wrapping_add(1);
            for flags in [Flags::RST, Flags::RST.with(Flags::ACK), Flags::SYN.with(Flags::ACK), Flags::PSH] {
                assert_eq!(answer(&reflector, key, segment(flags, 1, ack), b""), None, "{flags:?}");
            }
            // A cut frame is shorter than its lengths say, and panics nowhere.
            let mut frame = vec![0; 1792];
            let len = emit(&mut frame, &LINK, key, &segment(Flags::SYN, 1, 0));
            for cut in 0..len {
                assert_eq!(reflector.reflect(&mut frame.clone(), cut), None, "{cut} of {len}");
                assert_eq!(reflector.reflect(&mut frame[..cut].to_vec(), cut), None, "{cut} of {len}");
            }
            // A data offset beyond the segment, and a length below that of a header.
            let (offset, length) = if key.local.is_v4() { (14 + 20 + 12, 17) } else { (14 + 40 + 12, 19) };
            for (place, value) in [(offset, 0xf0), (length, 3)] {
                let mut frame = frame.clone();
                frame[place] = value;
                assert_eq!(reflector.reflect(&mut frame, len), None);
            }
            // The buffer has no room for the answer.
            assert_eq!(reflector.reflect(&mut frame[..len].to_vec(), len), None);
        }
    }
    assert!(Reflector::new(Service::Http { body_len: 1440 }, 1500).is_none());
}
