//! The rings on real veth pairs, each in a network namespace of the test's own thread, which ends with it. Needs root.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use synmill_engine::device::{BURST, Buffers, Burst, Device, Frame, RingCounts, large_frames};
use synmill_lab::until;

use super::socket::index;
use super::*;
use crate::host::Error;
use crate::host::program::{AttachMode, Program};
use crate::text::hex;

/// The Ethernet address of `ours`.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ETHERTYPE_IPV4: [u8; 2] = [8, 0];

/// Runs a test on a thread with an empty network namespace, which has the thread's sockets and the interfaces that `ip` makes.
fn in_namespace(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
            test();
        };
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until the kernel has seen that `theirs` has a carrier again. Until then it drops packets from there without an error.
fn wait_for_carrier() {
    until("theirs is up", Duration::from_secs(5), || {
        Ok(ip("-oneline link show theirs").contains(" state UP "))
    })
    .unwrap();
}

/// Makes `ours` and `theirs`, both up, with `queues` queues each.
fn veth(queues: u32, mtu: u32) {
    let queues = format!("numrxqueues {queues} numtxqueues {queues} mtu {mtu}");
    let address = hex(&MAC);
    ip(&format!("link add ours address {address} {queues} type veth peer name theirs {queues}"));
    ip("link set ours up");
    ip("link set theirs up");
}

fn small(queue: u32) -> XdpOptions {
    XdpOptions {
        frames: 256,
        rx_ring: 256,
        tx_ring: 64,
        huge_pages: false,
        ..XdpOptions::new("ours", queue, BindMode::Copy)
    }
}

/// A packet socket on `theirs` for IPv4. Reading gives up after five seconds.
fn packet_socket() -> File {
    let protocol = u16::from_ne_bytes(ETHERTYPE_IPV4);
    // SAFETY: no memory of ours.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol.into()) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel just made this descriptor for the caller.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeros is a sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index("theirs").unwrap() as i32;
    let limit = libc::timeval { tv_sec: 5, tv_usec: 0 };
    // SAFETY: the kernel reads the address and the limit, which live across the calls, at their sizes.
    unsafe {
        let size = size_of_val(&address) as u32;
        assert_eq!(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size), 0);
        let (size, limit) = (size_of_val(&limit) as u32, (&raw const limit).cast());
        assert_eq!(libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, limit, size), 0);
        let room: libc::c_int = 1 << 22;
        let (size, room) = (size_of_val(&room) as u32, (&raw const room).cast());
        assert_eq!(libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, room, size), 0);
    }
    File::from(fd)
}

/// Steers everything that [`packet`] makes from `ours` to the device, until the drop.
fn steer(device: &XdpDevice, buffers: Buffers, mode: AttachMode) -> Program {
    let mut program = Program::load(MAC, buffers, None).unwrap();
    program.add_owned("198.19.0.0/16".parse().unwrap()).unwrap();
    program.set_socket(0, device.fd()).unwrap();
    program.attach("ours", mode).unwrap();
    program
}

fn steer_all(device: &XdpDevice) -> Program {
    steer(device, Buffers::One, AttachMode::Driver)
}

/// A frame of `len` bytes with a TCP segment whose sequence number is `number`.
fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![number as u8; len];
    packet[..6].copy_from_slice(&MAC);
    packet[12..14].copy_from_slice(&ETHERTYPE_IPV4);
    let [high, low] = (len as u16 - 14).to_be_bytes();
    let addresses = [198, 18, 0, 1, 198, 19, 0, 1];
    packet[14..26].copy_from_slice(&[0x45, 0, high, low, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    packet[26..34].copy_from_slice(&addresses);
    packet[38..42].copy_from_slice(&number.to_be_bytes());
    // The offset of the text.
    packet[46] = 0x50;
    packet
}

fn length(number: u32, longest: usize) -> usize {
    60 + (number as usize * 97) % (longest - 59)
}

fn write_packet(frame: &mut Frame, packet: &[u8]) {
    frame.set_len(packet.len());
    frame.copy_from_slice(packet);
}

/// Receives until there are `count` packets. Panics after five seconds.
fn receive(device: &mut XdpDevice, into: &mut Burst, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while into.len() < count {
        let counts = device.ring_counts();
        assert!(Instant::now() < deadline, "{} of {count} packets came: {counts:?}", into.len());
        if device.receive(into, BURST) == 0 {
            device.wait(Duration::from_millis(10));
        }
    }
}

fn assert_law(device: &XdpDevice, held: usize) {
    let census = device.census();
    assert_eq!(census.free + census.rings + held, census.total);
}

/// Nothing was dropped or refused on its way, in either direction.
fn assert_nothing_lost(device: &mut XdpDevice) {
    let counts = device.ring_counts();
    assert_eq!((counts.rx_dropped, counts.tx_invalid, counts.tx_ring_full), (0, 0, 0), "{counts:?}");
}

#[test]
fn sends_what_it_is_given_in_order() {
    in_namespace(|| {
        veth(1, 1500);
        let mut theirs = packet_socket();
        let mut device = XdpDevice::open(&small(0)).unwrap();
        assert!(!device.is_zero_copy() && !device.huge_pages());
        let mut burst = Burst::new();
        let mut got = [0_u8; 2048];
        for round in 0..100_u32 {
            let deadline = Instant::now() + Duration::from_secs(5);
            while burst.len() < 32 {
                assert!(Instant::now() < deadline, "completions do not come back");
                let missing = 32 - burst.len();
                device.alloc(&mut burst, missing);
            }
            for (number, frame) in (round * 32..).zip(&mut burst) {
                write_packet(frame, &packet(number, length(number, 1514)));
            }
            assert_law(&device, 32);
            assert_eq!(device.transmit(&mut burst), 32);
            assert_law(&device, 0);
            for number in round * 32..round * 32 + 32 {
                let len = theirs.read(&mut got).unwrap();
                assert_eq!(got[..len], packet(number, length(number, 1514)));
            }
        }
        assert!(device.link_error().is_none());
        assert_eq!(device.ring_counts(), RingCounts::default());
    });
}

#[test]
fn receives_what_is_sent_and_answers_in_the_same_frame() {
    in_namespace(|| {
        veth(1, 1500);
        let mut theirs = packet_socket();
        let mut device = XdpDevice::open(&small(0)).unwrap();
        let _program = steer_all(&device);
        let mut burst = Burst::new();
        let mut got = [0_u8; 2048];
        for round in 0..100_u32 {
            let numbers = round * 32..round * 32 + 32;
            for number in numbers.clone() {
                theirs.write_all(&packet(number, length(number, 1514))).unwrap();
            }
            receive(&mut device, &mut burst, 32);
            assert_law(&device, 32);
            for (number, frame) in numbers.clone().zip(&mut burst) {
                assert_eq!(frame[..], packet(number, length(number, 1514)));
                frame[18] = !frame[18];
            }
            // Half are answered, half are given back.
            let mut silent = burst.split_off(16);
            device.recycle(&mut silent);
            assert_eq!(device.transmit(&mut burst), 16);
            for number in numbers.take(16) {
                let len = theirs.read(&mut got).unwrap();
                got[18] = !got[18];
                assert_eq!(got[..len], packet(number, length(number, 1514)));
            }
            assert_law(&device, 0);
        }
        assert_nothing_lost(&mut device);
    });
}

#[test]
fn large_packets_get_large_frames() {
    in_namespace(|| {
        veth(1, 3000);
        let mut theirs = packet_socket();
        let mut device = XdpDevice::open(&XdpOptions { mtu: 3000, ..small(0) }).unwrap();
        let _program = steer_all(&device);
        let mut burst = Burst::new();
        let mut got = [0_u8; 4096];
        theirs.write_all(&packet(7, 3014)).unwrap();
        receive(&mut device, &mut burst, 1);
        assert_eq!(burst[0][..], packet(7, 3014));
        device.transmit(&mut burst);
        let len = theirs.read(&mut got).unwrap();
        assert_eq!(got[..len], packet(7, 3014));
    });
}

#[test]
fn a_packet_of_several_chunks_comes_and_goes_whole() {
    for (mode, longest) in [(AttachMode::Driver, 9014), (AttachMode::Skb, 9014), (AttachMode::Driver, 15_352)]
    {
        in_namespace(|| {
            let mtu = longest - 14;
            veth(1, mtu as u32);
            let mut theirs = packet_socket();
            let options = XdpOptions { mtu, buffers: Buffers::Several, frames: 512, ..small(0) };
            let mut device = XdpDevice::open(&options).unwrap();
            let _program = steer(&device, Buffers::Several, mode);
            let mut burst = Burst::new();
            let mut got = [0_u8; 16_384];
            // The lengths around one, two and three pieces, and all kinds besides.
            let lengths: Vec<usize> = [60, 3839, 3840, 3841, 7680, 7681, longest]
                .into_iter()
                .chain((0..100).map(|number| length(number * 31, longest)))
                .collect();
            for (number, &len) in (0..).zip(&lengths) {
                let sent = packet(number, len);
                theirs.write_all(&sent).unwrap();
                receive(&mut device, &mut burst, 1);
                assert_law(&device, 1);
                assert!(burst[0][..] == sent, "{len} bytes in mode {mode:?}");
                // Back in the frame that it came in.
                assert_eq!(device.transmit(&mut burst), 1);
                assert_law(&device, 0);
                assert!(theirs.read(&mut got).unwrap() == len && got[..len] == sent, "{len} bytes back");
                // And once more in a free one.
                let deadline = Instant::now() + Duration::from_secs(5);
                while device.alloc(&mut burst, 1) == 0 {
                    assert!(Instant::now() < deadline, "completions do not come back");
                }
                assert!(burst[0].capacity() >= longest);
                write_packet(&mut burst[0], &sent);
                assert_eq!(device.transmit(&mut burst), 1);
                assert!(theirs.read(&mut got).unwrap() == len && got[..len] == sent, "{len} bytes anew");
            }
            assert_nothing_lost(&mut device);
        });
    }
}

#[test]
fn packets_of_several_chunks_share_the_rings() {
    in_namespace(|| {
        veth(1, 9000);
        let mut theirs = packet_socket();
        let mut device =
            XdpDevice::open(&XdpOptions { mtu: 9000, buffers: Buffers::Several, ..small(0) }).unwrap();
        let _program = steer(&device, Buffers::Several, AttachMode::Driver);
        let mut burst = Burst::new();
        let mut got = [0_u8; 16_384];
        // A ring of 64 holds 21 packets of three pieces, and a quarter is for replies.
        ip("link set ours down");
        assert_eq!(device.alloc(&mut burst, 200), 16);
        let mut numbers = 0..;
        for (number, frame) in numbers.by_ref().zip(&mut burst) {
            write_packet(frame, &packet(number, 9014));
        }
        assert_eq!(device.transmit(&mut burst), 16);
        assert_law(&device, 0);
        assert_eq!(device.alloc(&mut burst, 1), 0);
        ip("link set ours up");
        device.transmit(&mut burst);
        for number in 0..16 {
            let len = theirs.read(&mut got).unwrap();
            assert!(got[..len] == packet(number, 9014), "number {number}");
            device.transmit(&mut burst);
        }
        wait_for_carrier();
        // More at once than there are frames to keep: the rest is lost and counted, and nothing stays behind.
        let count = 3 * large_frames(256);
        for number in 0..count {
            theirs.write_all(&packet(number as u32, 9014)).unwrap();
        }
        // The kernel may bring them later than they were written.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            while device.receive(&mut burst, BURST) > 0 {}
            let counts = device.ring_counts();
            if !burst.is_empty() && counts.fill_ring_empty + counts.rx_dropped > 0 {
                break;
            }
            assert!(Instant::now() < deadline, "{} came: {counts:?}", burst.len());
            device.wait(Duration::from_millis(10));
        }
        assert_law(&device, burst.len());
        device.recycle(&mut burst);
        assert_law(&device, 0);
        let last = packet(count as u32, 9014);
        while !burst.iter().any(|frame| frame[..] == last) {
            assert!(Instant::now() < deadline, "nothing comes any more");
            device.recycle(&mut burst);
            theirs.write_all(&last).unwrap();
            receive(&mut device, &mut burst, 1);
        }
        device.recycle(&mut burst);
        assert_law(&device, 0);
    });
}

#[test]
fn free_frames_leave_the_tx_ring_room_for_replies() {
    in_namespace(|| {
        veth(1, 1500);
        let mut device = XdpDevice::open(&small(0)).unwrap();
        // With the link down nothing leaves the ring of 64.
        ip("link set ours down");
        let mut burst = Burst::new();
        assert_eq!(device.alloc(&mut burst, 200), 48, "a quarter of the ring is left for replies");
        for frame in &mut burst {
            write_packet(frame, &packet(0, 60));
        }
        assert_eq!(device.transmit(&mut burst), 48);
        let errno = |device: &XdpDevice| device.link_error().and_then(|error| error.raw_os_error());
        assert_eq!(errno(&device), Some(libc::ENETDOWN));
        assert_law(&device, 0);
        assert_eq!(device.alloc(&mut burst, 1), 0);

        ip("link set ours up");
        // Called without frames it still drives what the ring holds.
        assert_eq!(device.transmit(&mut burst), 0);
        assert_eq!(errno(&device), None);
        let deadline = Instant::now() + Duration::from_secs(5);
        while device.alloc(&mut burst, 1) == 0 {
            assert!(Instant::now() < deadline, "nothing was sent after the link came back");
            device.transmit(&mut Burst::new());
        }

        write_packet(&mut burst[0], &packet(0, 60));
        ip("link del ours");
        device.transmit(&mut burst);
        assert_eq!(errno(&device), Some(libc::ENXIO));
        assert_law(&device, 0);
    });
}

#[test]
fn a_runt_is_not_sent() {
    in_namespace(|| {
        veth(1, 1500);
        let mut device = XdpDevice::open(&small(0)).unwrap();
        let mut burst = Burst::new();
        device.alloc(&mut burst, 2);
        burst[1].set_len(13);
        assert_eq!(device.transmit(&mut burst), 0);
        assert_eq!(device.ring_counts().tx_invalid, 2);
        assert_law(&device, 0);
    });
}

#[test]
fn says_what_the_kernel_refuses_and_what_to_do() {
    in_namespace(|| {
        veth(2, 1500);
        let base = small(0);
        let check = |options: XdpOptions, part: &str, is_of_mode: bool| {
            let error = XdpDevice::open(&options).err().expect(part);
            let line = error.to_string();
            assert!(line.contains(part) && !line.contains('\n'), "says: {line}\n not: {part}");
            assert_eq!(error.is_of_mode(), is_of_mode, "{line}");
        };
        check(
            XdpOptions { interface: "nowhere0".into(), ..base.clone() },
            "no interface \"nowhere0\"",
            false,
        );
        check(
            small(2),
            "is not active: it has 2 to receive and 2 to send: `ethtool -L ours rx 3 tx 3`",
            false,
        );
        let zero_copy = XdpOptions { mode: BindMode::ZeroCopy, ..base.clone() };
        check(zero_copy, "the driver of ours has no zero-copy mode for queue 0", true);
        check(
            XdpOptions { mtu: 9000, ..base.clone() },
            "an MTU of 9000 is too large for a frame: `ip link set ours mtu 3506`",
            false,
        );
        let several = XdpOptions { mtu: 15_339, buffers: Buffers::Several, ..base.clone() };
        check(several, "an MTU of 15339 is too large for a frame: `ip link set ours mtu 15338`", false);
        let odd = XdpOptions { frames: 1000, ..base.clone() };
        check(odd, "the number of frames must be a power of two from 64 to 2^20, not 1000", false);

        let first = XdpDevice::open(&base).unwrap();
        check(base.clone(), "queue 0 of ours is taken by another AF_XDP socket", false);
        let _other_queue = XdpDevice::open(&small(1)).unwrap();
        drop(first);
        // The kernel may still be releasing it.
        let _again = XdpDevice::open(&base).unwrap();
    });
}

/// Takes these capabilities from this thread, and opens a device.
fn refused_without(gone: CapabilitySet) -> Error {
    let CapabilitySets { effective, permitted, inheritable } = capabilities(None).unwrap();
    let effective = effective.difference(gone);
    set_capabilities(None, CapabilitySets { effective, permitted, inheritable }).unwrap();
    XdpDevice::open(&small(0)).err().expect("refused")
}

#[test]
fn says_which_capability_is_missing() {
    in_namespace(|| {
        veth(1, 1500);
        let line = refused_without(CapabilitySet::NET_RAW).to_string();
        assert!(line.contains("CAP_NET_RAW is missing") && line.contains("sudo"), "{line}");
    });
}

#[test]
fn says_how_much_memory_may_be_locked() {
    in_namespace(|| {
        veth(1, 1500);
        // The limit is the whole process's, but binds only those without CAP_IPC_LOCK: this thread.
        let limit = Rlimit { current: Some(65536), maximum: Some(131_072) };
        setrlimit(Resource::Memlock, limit).unwrap();
        let line = refused_without(CapabilitySet::IPC_LOCK | CapabilitySet::SYS_RESOURCE).to_string();
        // The soft limit is raised to the hard one first.
        let part = "the frames need 524288 bytes of locked memory and RLIMIT_MEMLOCK allows 131072";
        assert!(line.contains(part), "{line}");
    });
}

#[test]
fn waits_for_any_of_several() {
    in_namespace(|| {
        veth(1, 1500);
        ip("link add ours2 type veth peer name theirs2");
        ip("link set ours2 up");
        let quiet = XdpDevice::open(&XdpOptions { interface: "ours2".into(), ..small(0) }).unwrap();
        let device = XdpDevice::open(&small(0)).unwrap();
        let _program = steer_all(&device);
        let mut theirs = packet_socket();
        theirs.write_all(&packet(1, 60)).unwrap();
        let mut devices = [quiet, device];
        let mut burst = Burst::new();
        // A wait that missed the packet would last for a minute.
        let deadline = Instant::now() + Duration::from_secs(5);
        while burst.is_empty() {
            assert!(Instant::now() < deadline);
            XdpDevice::wait_any(&mut devices, Duration::from_secs(60));
            devices[1].receive(&mut burst, BURST);
        }
        assert_eq!(burst[0][..], packet(1, 60));
    });
}
