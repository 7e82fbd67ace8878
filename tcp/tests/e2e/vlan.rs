//! Tagged frames are answered with their tags. The client's kernel sits behind a switch port of our own making, which tags
//! what goes to the server and hands back what comes from it, so that the kernel needs no VLAN devices.
#![allow(unsafe_code, reason = "packet sockets have no safe wrapper; the one block says what keeps it sound")]

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use nix::sys::signal::Signal;
use synmill_lab::{CLIENT_INTERFACE, CLIENT_V4, CLIENT_V6, LabOptions, Side};

use crate::client::{MIB, Text, connect, curl, digest, echo};
use crate::harness::{LIMIT, Process, Server, Stage, until};

/// The client's kernel has this end of a pair of its own, and the switch the other.
const KERNEL: &str = "smk0";
const PORT: &str = "smk1";
/// 802.1Q, VLAN 5, priority 0.
const TAG: [u8; 4] = [0x81, 0x00, 0x00, 0x05];
/// The same behind a service tag: 802.1ad, VLAN 7, priority 0.
const TWO_TAGS: [u8; 8] = [0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x00, 0x05];
/// Where tags are: behind the two addresses.
const TAG_AT: usize = 12;

/// A packet socket for all frames of an interface at the client's end. Reads give up after 20 ms.
fn packet_socket(stage: &Stage, interface: &str) -> File {
    let shown = stage.ask(&["cat", &format!("/sys/class/net/{interface}/ifindex")]);
    let index: i32 = shown.trim().parse().unwrap();
    let every_protocol = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
    let opened = stage.lab.inside(Side::Client, || {
        // SAFETY: the descriptor is fresh from socket(2) and owned from there on; `address` and `timeout` are plain
        // structs that live across the calls which read them, with their own sizes as lengths; an all-zero sockaddr_ll
        // is a valid value.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            assert!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
            let socket = OwnedFd::from_raw_fd(fd);
            let timeout = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
            let length = libc::socklen_t::try_from(size_of_val(&timeout)).unwrap();
            let set = libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const timeout).cast(),
                length,
            );
            assert_eq!(set, 0, "SO_RCVTIMEO: {}", std::io::Error::last_os_error());
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
            address.sll_protocol = every_protocol;
            address.sll_ifindex = index;
            let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
            let bound = libc::bind(fd, (&raw const address).cast(), length);
            assert_eq!(bound, 0, "bind: {}", std::io::Error::last_os_error());
            socket
        }
    });
    File::from(opened.unwrap())
}

/// Moves frames from one socket to another, changed by `change`, until `stop`.
fn forward(mut from: &File, mut to: &File, stop: &AtomicBool, change: impl Fn(&[u8], &mut Vec<u8>)) {
    let (mut frame, mut changed) = (vec![0; 2048], Vec::with_capacity(2048));
    while !stop.load(Relaxed) {
        match from.read(&mut frame) {
            Ok(length) => {
                changed.clear();
                change(&frame[..length], &mut changed);
                // A frame that finds no room is a loss like any other.
                let _ = to.write(&changed);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => panic!("reading a packet socket: {error}"),
        }
    }
}

/// Puts the client's kernel behind the switch, which gives its frames `tags`, and runs `action`.
fn behind_a_switch(stage: &Stage, tags: &[u8], action: impl FnOnce()) {
    stage.ask(&["ip", "link", "add", KERNEL, "type", "veth", "peer", PORT]);
    for interface in [KERNEL, PORT] {
        stage.ask(&["ip", "link", "set", interface, "addrgenmode", "none"]);
        stage.ask(&["ethtool", "-K", interface, "tx", "off", "gro", "off"]);
        stage.ask(&["ip", "link", "set", interface, "up"]);
    }
    stage.ask(&["ip", "address", "flush", "dev", CLIENT_INTERFACE]);
    stage.ask(&["ip", "address", "add", &format!("{CLIENT_V4}/24"), "dev", KERNEL]);
    stage.ask(&["ip", "address", "add", &format!("{CLIENT_V6}/64"), "dev", KERNEL, "nodad"]);

    let (port, wire) = (packet_socket(stage, PORT), packet_socket(stage, CLIENT_INTERFACE));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            forward(&port, &wire, &stop, |frame, tagged| {
                let (addresses, rest) = frame.split_at(TAG_AT.min(frame.len()));
                tagged.extend_from_slice(addresses);
                tagged.extend_from_slice(tags);
                tagged.extend_from_slice(rest);
            });
        });
        // The kernel takes the outer tag off before a packet socket sees the frame: only tcpdump can tell that it was there.
        scope.spawn(|| {
            forward(&wire, &port, &stop, |frame, bare| {
                let (addresses, rest) = frame.split_at(TAG_AT.min(frame.len()));
                bare.extend_from_slice(addresses);
                bare.extend_from_slice(rest.strip_prefix(&TAG).unwrap_or(rest));
            });
        });
        let guard = StopOnDrop(&stop);
        action();
        drop(guard);
    });
}

/// Ends the switch when the test fails, too: its threads are waited for.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Serves a client whose frames have `tags`; each answer has to have them, as tcpdump shows them: `parts`.
fn serves_tagged(stage: &Stage, tags: &[u8], parts: &[&str]) {
    let arguments =
        ["--listen=198.18.0.9:80=http:1M", "--listen=[fd00:18::9]:80=http:1M", "--listen=198.18.0.9:7=echo"];
    let server = Server::start(stage, &arguments);
    behind_a_switch(stage, tags, || {
        let listen = ["tcpdump", "--immediate-mode", "-l", "-n", "-e", "-i", CLIENT_INTERFACE, "-Q", "in"];
        // The server's kernel joins multicast groups when it likes.
        let argv = [&listen[..], &["not", "ether", "multicast"]].concat();
        let mut tcpdump = Process::spawn(&mut stage.client(&argv));
        until("tcpdump listens", LIMIT, || tcpdump.said().contains("listening on"));
        assert_eq!(curl(stage, "http://198.18.0.9/").bytes, MIB);
        tcpdump.signal(Signal::SIGINT);
        tcpdump.end();
        let said = tcpdump.said();
        let frames: Vec<&str> = said.lines().filter(|line| line.contains(" > ")).collect();
        assert!(!frames.is_empty(), "{said}");
        for frame in frames {
            assert!(parts.iter().all(|part| frame.contains(part)), "an answer without its tags: {frame}");
        }

        assert_eq!(curl(stage, "http://[fd00:18::9]/").bytes, MIB);
        assert_eq!(echo(&connect(stage, "198.18.0.9:7"), 1, MIB), digest(Text::new(1, MIB)));
        // With the switch gone, the last acknowledgement could not come.
        let report = server.stop(stage);
        assert_eq!((report.count("passive_opens"), report.closed()), (3, 3));
    });
}

#[test]
fn a_tagged_client_is_served() {
    serves_tagged(&Stage::new("vlan"), &TAG, &["802.1Q", "vlan 5,"]);
}

#[test]
fn a_client_behind_two_tags_is_served() {
    // Beyond the MTU a packet socket allows a single tag of 802.1Q.
    let stage = Stage::with("qinq", LabOptions { mtu: 1508, ..LabOptions::default() });
    serves_tagged(&stage, &TWO_TAGS, &["0x88a8", "vlan 7,", "0x8100", "vlan 5,"]);
}
