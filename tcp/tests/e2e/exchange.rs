//! One request, packet by packet, as tcpdump sees it on the client's interface.

use nix::sys::signal::Signal;
use synmill_lab::{CLIENT_INTERFACE, Process};

use crate::client::curl;
use crate::harness::{Stage, until};

/// The judged parts of a line of tcpdump. Numbers are relative to the initial sequence numbers.
#[derive(Debug)]
struct Packet {
    from_client: bool,
    flags: String,
    seq: Option<u32>,
    ack: Option<u32>,
    options: String,
    length: u32,
}

impl Packet {
    /// Reads a line such as `IP 198.18.0.1.4 > 198.18.0.2.80: Flags [S], seq 7, win 1, options [mss 1460], length 0`.
    fn parse(line: &str, server: &str) -> Option<Self> {
        let (addresses, rest) = line.split_once(": Flags [")?;
        let (_, to) = addresses.split_once(" > ")?;
        let (flags, rest) = rest.split_once(']')?;
        let field = |name: &str| {
            let (_, after) = rest.split_once(name)?;
            after.split([',', ':', ' ']).next()?.parse().ok()
        };
        let options =
            rest.split_once("options [").map_or("", |(_, after)| after.split(']').next().unwrap_or(""));
        Some(Self {
            from_client: to == server,
            flags: flags.to_owned(),
            seq: field(", seq "),
            ack: field(", ack "),
            options: options.to_owned(),
            length: field(", length ")?,
        })
    }

    fn has(&self, flag: char) -> bool {
        self.flags.contains(flag)
    }
}

/// Starts tcpdump at the client's end, and waits until it listens.
pub(crate) fn tcpdump(stage: &Stage, options: &str) -> Process {
    let command = format!("tcpdump --immediate-mode -l -n {options}");
    let mut tcpdump = Process::spawn(&mut stage.client(&command)).unwrap();
    tcpdump.until_said("listening on").unwrap();
    tcpdump
}

/// Ends tcpdump, and returns its output.
pub(crate) fn end(mut tcpdump: Process) -> String {
    tcpdump.signal(Signal::SIGINT).unwrap();
    tcpdump.end().unwrap();
    tcpdump.said()
}

/// Returns the packets of one request with curl.
fn capture(stage: &Stage, url: &str, server: &str) -> Vec<Packet> {
    let mut tcpdump = tcpdump(stage, &format!("-t -i {CLIENT_INTERFACE} tcp port 80"));
    assert_eq!(curl(stage, url).bytes, 1024);
    let packets =
        |said: &str| said.lines().filter_map(|line| Packet::parse(line, server)).collect::<Vec<_>>();
    tcpdump
        .until("the last acknowledgement", |said| {
            let packets = packets(said);
            let fins = packets.iter().filter(|packet| packet.has('F')).count();
            fins == 2 && packets.last().is_some_and(|last| last.flags == ".")
        })
        .unwrap();
    packets(&end(tcpdump))
}

/// Returns the sender and the flags of each packet, without the acknowledgements that may ride on the next packet.
fn outline(packets: &[Packet]) -> Vec<String> {
    let line = |packet: &Packet| {
        format!("{} {}", if packet.from_client { "client" } else { "server" }, packet.flags)
    };
    let mut said = Vec::new();
    for (number, packet) in packets.iter().enumerate() {
        let in_handshake = number == 2;
        let is_last = number + 1 == packets.len();
        if packet.flags != "." || in_handshake || is_last {
            said.push(line(packet));
        }
    }
    said
}

/// Checks that every sequence number is the sender's next one, and every acknowledgement is for received text.
fn check_numbers(packets: &[Packet]) {
    // tcpdump prints the SYNs' own numbers, and all others relative to them: the first text is number 1.
    let mut next = [1, 1];
    let mut acknowledged = [1, 1];
    for packet in packets.iter().filter(|packet| !packet.has('S')) {
        let (own, other) = if packet.from_client { (0, 1) } else { (1, 0) };
        if let Some(seq) = packet.seq {
            assert_eq!(seq, next[own], "{packet:?} in {packets:#?}");
        }
        next[own] += packet.length + u32::from(packet.has('F'));
        let ack = packet.ack.expect("every segment but the first has ACK");
        assert!((acknowledged[other]..=next[other]).contains(&ack), "{packet:?} in {packets:#?}");
        acknowledged[other] = ack;
    }
    assert_eq!(acknowledged, next, "all is acknowledged in the end: {packets:#?}");
}

/// The packets of a request, as [`outline`] returns them.
const REQUEST: [&str; 8] =
    ["client S", "server S.", "client .", "client P.", "server P.", "client F.", "server F.", "client ."];

#[test]
fn a_request_takes_the_packets_of_the_rfc() {
    let stage = Stage::new("exchange");
    let server = stage.serve("--listen 198.18.0.2:80 --listen [fd00:18::2]:80 --service http:1024");
    for (url, address, mss) in [
        ("http://198.18.0.2/", "198.18.0.2.80", "mss 1460"),
        ("http://[fd00:18::2]/", "fd00:18::2.80", "mss 1440"),
    ] {
        let packets = capture(&stage, url, address);
        assert!(packets.len() <= 11, "{packets:#?}");
        assert_eq!(outline(&packets), REQUEST, "{packets:#?}");
        for option in [mss, "sackOK", "TS val ", "wscale "] {
            assert!(packets[1].options.contains(option), "no {option}: {packets:#?}");
        }
        for packet in &packets[2..] {
            assert!(
                packet.options.contains("TS val "),
                "RFC 7323 wants timestamps in all of them: {packets:#?}"
            );
        }
        check_numbers(&packets);
    }
    server.stop();
}

#[test]
fn the_pcap_file_holds_both_directions() {
    let stage = Stage::new("pcap");
    let file = stage.file("frames.pcap");
    let path = file.to_str().unwrap();
    let server = stage.serve(&["--listen=198.18.0.2:80=http:1024", "--pcap", path]);
    assert_eq!(curl(&stage, "http://198.18.0.2/").bytes, 1024);
    // Without -Z tcpdump changes to a user who may not enter the build folder.
    let read = || stage.ask(&["tcpdump", "-Z", "root", "-n", "-t", "-r", path]);
    let parse = |said: &str| -> Vec<Packet> {
        said.lines().filter_map(|line| Packet::parse(line, "198.18.0.2.80")).collect()
    };
    until("the capture can be read while it goes on", || outline(&parse(&read())) == REQUEST);
    let report = server.stop();

    let said = read();
    let packets = parse(&said);
    assert_eq!(outline(&packets), REQUEST, "{said}");
    check_numbers(&packets);
    let count =
        |from_client| packets.iter().filter(|packet| packet.from_client == from_client).count() as u64;
    assert_eq!((count(true), count(false)), (report.count("in_segs"), report.count("out_segs")), "{said}");
    std::fs::remove_file(file).unwrap();
}
