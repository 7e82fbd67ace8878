//! synmill answers tagged frames with their tags. The client's kernel is behind a switch port that this test makes: it tags frames to
//! the server and strips tags from the answers, so the kernel needs no VLAN devices.
#![allow(unsafe_code, reason = "packet sockets have no safe wrapper; the one block says what keeps it sound")]

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use synmill_lab::{CLIENT_INTERFACE, CLIENT_V4, CLIENT_V6, LabOptions, Side};

use crate::client::{MIB, curl, echo};
use crate::exchange::{end, tcpdump};
use crate::harness::Stage;

/// A second veth pair: the client's kernel has this end, and the switch has the other.
const KERNEL: &str = "smk0";
const PORT: &str = "smk1";
/// 802.1Q, VLAN 5, priority 0.
const TAG: [u8; 4] = [0x81, 0x00, 0x00, 0x05];
/// The tag of VLAN 5 behind a service tag: 802.1ad, VLAN 7, priority 0.
const TWO_TAGS: [u8; 8] = [0x88, 0xa8, 0x00, 0x07, 0x81, 0x00, 0x00, 0x05];
/// The place of tags, behind the two addresses.
const TAG_AT: usize = 12;

/// Opens a packet socket for all frames of an interface at the client's end. Reads time out after 20 ms.
fn packet_socket(stage: &Stage, interface: &str) -> File {
    let shown = stage.ask(&format!("cat /sys/class/net/{interface}/ifindex"));
    let index: i32 = shown.trim().parse().unwrap();
    let every_protocol = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
    let opened = stage.lab.inside(Side::Client, || {
        // SAFETY: the descriptor comes from socket(2) and has one owner from there on; `address` and `timeout` are plain
        // structs that outlive the calls that read them, with their own sizes as lengths; an all-zero sockaddr_ll is valid.
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

/// Forwards frames from one socket to another through `change`, until `stop`.
fn forward(mut from: &File, mut to: &File, stop: &AtomicBool, change: impl Fn(&[u8], &mut Vec<u8>)) {
    let (mut frame, mut changed) = (vec![0; 2048], Vec::with_capacity(2048));
    while !stop.load(Relaxed) {
        match from.read(&mut frame) {
            Ok(length) => {
                changed.clear();
                change(&frame[..length], &mut changed);
                // A frame without room in the queue is lost, as in any switch.
                let _ = to.write(&changed);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => panic!("reading a packet socket: {error}"),
        }
    }
}

/// Runs `action` with the client's kernel behind the switch, which adds `tags` to its frames.
fn behind_a_switch(stage: &Stage, tags: &[u8], action: impl FnOnce()) {
    stage.ask(&format!("ip link add {KERNEL} type veth peer {PORT}"));
    for interface in [KERNEL, PORT] {
        stage.ask(&format!("ip link set {interface} addrgenmode none"));
        stage.ask(&format!("ethtool -K {interface} tx off gro off"));
        stage.ask(&format!("ip link set {interface} up"));
    }
    stage.ask(&format!("ip address flush dev {CLIENT_INTERFACE}"));
    stage.ask(&format!("ip address add {CLIENT_V4}/24 dev {KERNEL}"));
    stage.ask(&format!("ip address add {CLIENT_V6}/64 dev {KERNEL} nodad"));

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
        // The kernel strips the outer tag before a packet socket receives the frame, and only tcpdump shows it.
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

/// Stops the switch even when the test fails: the scope waits for its threads.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Serves a client whose frames have `tags`. tcpdump must print `parts`, which stand for these tags, in each answer.
fn serves_tagged(stage: &Stage, tags: &[u8], parts: &[&str]) {
    let server = stage
        .serve("--listen 198.18.0.9:80=http:1M --listen [fd00:18::9]:80=http:1M --listen 198.18.0.9:7=echo");
    behind_a_switch(stage, tags, || {
        // The server's kernel joins multicast groups at any time.
        let options = format!("-e -i {CLIENT_INTERFACE} -Q in not ether multicast");
        let tcpdump = tcpdump(stage, &options);
        assert_eq!(curl(stage, "http://198.18.0.9/").bytes, MIB);
        let said = end(tcpdump);
        let frames: Vec<&str> = said.lines().filter(|line| line.contains(" > ")).collect();
        assert!(!frames.is_empty(), "{said}");
        for frame in frames {
            assert!(parts.iter().all(|part| frame.contains(part)), "an answer without its tags: {frame}");
        }

        assert_eq!(curl(stage, "http://[fd00:18::9]/").bytes, MIB);
        echo(stage, "198.18.0.9:7", 1, MIB);
        // Without the switch the last acknowledgement could not arrive.
        let report = server.stop();
        assert_eq!((report.count("passive_opens"), report.closed()), (3, 3));
    });
}

#[test]
fn a_tagged_client_is_served() {
    serves_tagged(&Stage::new("vlan"), &TAG, &["802.1Q", "vlan 5,"]);
}

#[test]
fn a_client_behind_two_tags_is_served() {
    // A packet socket allows a single 802.1Q tag beyond the MTU.
    let stage = Stage::with("qinq", LabOptions { mtu: 1508, ..LabOptions::default() });
    serves_tagged(&stage, &TWO_TAGS, &["0x88a8", "vlan 7,", "0x8100", "vlan 5,"]);
}
