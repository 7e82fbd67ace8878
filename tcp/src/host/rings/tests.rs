//! The rings on real veth pairs, each in a network namespace of the test's own thread, which ends with it. Needs root.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::process::Command;
use std::time::Instant;

use super::*;

/// Local experimental EtherType of IEEE 802: no one else's packets carry it.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

/// `linux/bpf.h` and `linux/if_link.h`: the program takes packets of several buffers; where it is attached.
const HAS_FRAGS: u32 = 32;
const SKB_MODE: u32 = 2;
const DRIVER_MODE: u32 = 4;

/// Runs a test on a thread with an empty network namespace: `ip`, sockets and interfaces of the thread are in it.
fn in_namespace(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let run = || {
            // SAFETY: changes this thread's namespace and touches no memory.
            let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(done, 0, "these tests need root: {}", io::Error::last_os_error());
            test();
        };
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// `ours` and `theirs`, both up, `queues` queues each.
fn veth(queues: u32, mtu: u32) {
    let queues = format!("numrxqueues {queues} numtxqueues {queues} mtu {mtu}");
    ip(&format!("link add ours {queues} type veth peer name theirs {queues}"));
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

fn index(interface: &str) -> u32 {
    let name = std::ffi::CString::new(interface).unwrap();
    // SAFETY: a C string that lives across the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel just made this descriptor for the caller.
    unsafe { OwnedFd::from_raw_fd(fd as RawFd) }
}

/// A packet socket on `theirs` that sees and sends our EtherType; reading gives up after five seconds.
fn packet_socket() -> File {
    let protocol = u16::from_ne_bytes(ETHER_TYPE);
    // SAFETY: no memory of ours.
    let fd = owned(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol.into()) }.into());
    // SAFETY: all zeros is a sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index("theirs") as i32;
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

fn bpf(command: libc::c_int, attributes: &[u32]) -> OwnedFd {
    // SAFETY: the kernel reads the attributes, and through them what the caller keeps alive.
    owned(unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) })
}

fn halves<T>(pointer: &T) -> [u32; 2] {
    let address = ptr::from_ref(pointer).addr() as u64;
    [address as u32, (address >> 32) as u32]
}

/// Attaches, in driver mode and until dropped, a program that gives everything of the device's queue to the device.
fn redirect_all(device: &XdpDevice, queue: u32) -> [OwnedFd; 3] {
    redirect(device, queue, 0, DRIVER_MODE)
}

/// The same with a program of these flags, in this mode.
fn redirect(device: &XdpDevice, queue: u32, flags: u32, mode: u32) -> [OwnedFd; 3] {
    // BPF_MAP_CREATE of BPF_MAP_TYPE_XSKMAP: key and value of 4 bytes, 4 entries.
    let map = bpf(0, &[17, 4, 4, 4, 0]);
    let socket = device.fd().as_raw_fd();
    let ([key, key_high], [value, value_high]) = (halves(&queue), halves(&socket));
    // BPF_MAP_UPDATE_ELEM, which makes no descriptor: its 0 is not to be owned.
    let update = [map.as_raw_fd() as u32, 0, key, key_high, value, value_high, 0, 0];
    // SAFETY: the kernel reads the attributes, the key and the value, all alive here.
    let done = unsafe { libc::syscall(libc::SYS_bpf, 2, update.as_ptr(), size_of_val(&update)) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());

    let instructions: [[u32; 2]; 6] = [
        [0x0010_1261, 0],                      // r2 = ctx->rx_queue_index
        [0x0000_1118, map.as_raw_fd() as u32], // r1 = map
        [0, 0],
        [0x0000_03b7, 2],  // r3 = XDP_PASS
        [0x0000_0085, 51], // bpf_redirect_map
        [0x0000_0095, 0],  // return r0
    ];
    let license = *b"GPL\0";
    let ([code, code_high], [license, license_high]) = (halves(&instructions), halves(&license));
    let mut load = [0_u32; 18];
    // BPF_PROG_LOAD of BPF_PROG_TYPE_XDP; the last word is the attach type BPF_XDP.
    load[..6].copy_from_slice(&[6, 6, code, code_high, license, license_high]);
    load[11] = flags;
    load[17] = 37;
    let program = bpf(5, &load);
    // BPF_LINK_CREATE with XDP_FLAGS_DRV_MODE, or XDP_FLAGS_SKB_MODE.
    let link = bpf(28, &[program.as_raw_fd() as u32, index("ours"), 37, mode]);
    [map, program, link]
}

/// A packet of `len` bytes that carries a number.
fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![number as u8; len];
    packet[..12].fill(0xff);
    packet[12..14].copy_from_slice(&ETHER_TYPE);
    packet[14..18].copy_from_slice(&number.to_be_bytes());
    packet
}

fn length(number: u32, longest: usize) -> usize {
    60 + (number as usize * 97) % (longest - 59)
}

fn write_packet(frame: &mut Frame, packet: &[u8]) {
    frame.set_len(packet.len());
    frame.copy_from_slice(packet);
}

/// Receives until there are `count` packets of ours; others are recycled. Panics after five seconds.
fn receive(device: &mut XdpDevice, into: &mut Burst, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut others = Burst::new();
    while into.len() < count {
        assert!(
            Instant::now() < deadline,
            "{} of {count} packets came: {:?}",
            into.len(),
            device.ring_counts()
        );
        let from = into.len();
        if device.receive(into, BURST) == 0 {
            device.wait(Duration::from_millis(10));
        }
        others.extend(into.extract_if(from.., |frame| frame[12..14] != ETHER_TYPE));
        device.recycle(&mut others);
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
        let _attached = redirect_all(&device, 0);
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
        let _attached = redirect_all(&device, 0);
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
    for (mode, longest) in [(DRIVER_MODE, 9014), (SKB_MODE, 9014), (DRIVER_MODE, 15_352)] {
        in_namespace(|| {
            let mtu = longest - 14;
            veth(1, mtu as u32);
            let mut theirs = packet_socket();
            let options = XdpOptions { mtu, buffers: Buffers::Several, frames: 512, ..small(0) };
            let mut device = XdpDevice::open(&options).unwrap();
            let _attached = redirect(&device, 0, HAS_FRAGS, mode);
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
                assert!(burst[0][..] == sent, "{len} bytes in mode {mode}");
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
        let _attached = redirect(&device, 0, HAS_FRAGS, DRIVER_MODE);
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
        // More at once than there are frames to keep: the rest is lost and counted, and nothing stays behind.
        let count = 3 * device.large.as_ref().unwrap().count();
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
        let refusal = |options: &XdpOptions| {
            let error = XdpDevice::open(options).err().expect("refused");
            assert!(!error.to_string().contains('\n'));
            error
        };
        let base = small(0);
        let nowhere = refusal(&XdpOptions { interface: "nowhere0".into(), ..base.clone() });
        assert!(matches!(nowhere, OpenError::NoInterface { .. }), "{nowhere}");
        let inactive = refusal(&small(2));
        assert!(matches!(inactive, OpenError::QueueInactive { receive: 2, send: 2, .. }), "{inactive}");
        assert!(inactive.to_string().contains("`ethtool -L ours rx 3 tx 3`"), "{inactive}");
        let refused = refusal(&XdpOptions { mode: BindMode::ZeroCopy, ..base.clone() });
        assert!(matches!(refused, OpenError::NoZeroCopy { .. }), "{refused}");
        let mtu = refusal(&XdpOptions { mtu: 9000, ..base.clone() });
        assert!(matches!(mtu, OpenError::Mtu { mtu: 9000, most: 3506, .. }), "{mtu}");
        let mtu = refusal(&XdpOptions { mtu: 15_339, buffers: Buffers::Several, ..base.clone() });
        assert!(matches!(mtu, OpenError::Mtu { mtu: 15_339, most: 15_338, .. }), "{mtu}");
        let odd = refusal(&XdpOptions { frames: 1000, ..base.clone() });
        assert!(matches!(odd, OpenError::Size { given: 1000, .. }), "{odd}");

        let first = XdpDevice::open(&base).unwrap();
        let second = refusal(&base);
        assert!(matches!(second, OpenError::Busy { queue: 0, .. }), "{second}");
        let _other_queue = XdpDevice::open(&small(1)).unwrap();
        drop(first);
        // The kernel may still be releasing it.
        let _again = XdpDevice::open(&base).unwrap();
    });
}

/// Takes these capabilities (numbers of `linux/capability.h`) from this thread.
fn drop_capabilities(numbers: &[u32]) {
    let header = [0x2008_0522_u32, 0];
    let mut sets = [0_u32; 6];
    let gone = numbers.iter().fold(0, |mask, number| mask | 1 << number);
    // SAFETY: version 3 of the call reads the header and reads or writes two times three words; both live here.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()), 0);
        sets[0] &= !gone;
        assert_eq!(libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()), 0);
    }
}

#[test]
fn says_which_capability_is_missing() {
    in_namespace(|| {
        veth(1, 1500);
        let net_raw = 13;
        drop_capabilities(&[net_raw]);
        let error = XdpDevice::open(&small(0)).err().expect("refused");
        assert!(matches!(error, OpenError::Permission { capability: "CAP_NET_RAW", .. }), "{error}");
        assert!(error.to_string().contains("sudo"), "{error}");
    });
}

#[test]
fn says_how_much_memory_may_be_locked() {
    in_namespace(|| {
        veth(1, 1500);
        // The limit is the whole process's, but binds only those without CAP_IPC_LOCK: this thread.
        let (ipc_lock, sys_resource) = (14, 24);
        let limit = libc::rlimit { rlim_cur: 65536, rlim_max: 131_072 };
        // SAFETY: the kernel reads one rlimit.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) }, 0);
        drop_capabilities(&[ipc_lock, sys_resource]);
        let error = XdpDevice::open(&small(0)).err().expect("refused");
        let allowed = matches!(error, OpenError::MemoryLock { needed: 524_288, allowed: 131_072 });
        assert!(allowed, "the soft limit is raised to the hard one first: {error}");
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
        let _attached = redirect_all(&device, 0);
        let mut theirs = packet_socket();
        theirs.write_all(&packet(1, 60)).unwrap();
        let mut devices = [quiet, device];
        let mut burst = Burst::new();
        // Neighbour discovery may wake it too; a wait that missed our packet would last for a minute.
        let deadline = Instant::now() + Duration::from_secs(5);
        while burst.is_empty() {
            assert!(Instant::now() < deadline);
            XdpDevice::wait_any(&mut devices, Duration::from_secs(60));
            devices[1].receive(&mut burst, BURST);
            let mut others = burst.extract_if(.., |frame| frame[12..14] != ETHER_TYPE).collect();
            devices[1].recycle(&mut others);
        }
        assert_eq!(burst[0][..], packet(1, 60));
    });
}
