//! From options to a bound socket: memory, limits, flags, and what to say when the kernel refuses. Knows the kernel's answers;
//! never the packet path.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, RawFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use xsk_rs::config::{
    BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, SocketConfigBuilder, UmemConfig,
    UmemConfigBuilder,
};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use super::{Facts, busy_poll};
use crate::host::nic;
use crate::host::preflight::{how_to_permit, max_mtu, one_buffer_mtu};
use synmill_engine::device::{BURST, Buffers, MAX_FRAME_SIZE, QUEUE_FRAMES};

/// `if_xdp.h`: how many packets one kick may send in copy mode. Not in older kernels, nor in every libc.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// `net/xdp/xsk.c`, `TX_BATCH_SIZE`: packets that a system call sends where that option is not known, before Linux 6.17.
const TX_BUDGET_AT_FIRST: u32 = 32;

/// How the driver is to move packets. There is no third: some drivers bind without being told and fail at the first send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindMode {
    /// By DMA into our frames (`XDP_ZEROCOPY`).
    ZeroCopy,
    /// By copy in the kernel (`XDP_COPY`), with a program in driver or SKB mode.
    Copy,
}

/// One queue to bind to, and with what.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// The interface's name.
    pub interface: String,
    /// The queue's number, from 0.
    pub queue: u32,
    /// Zero-copy or copy.
    pub mode: BindMode,
    /// All frames of the queue: a power of two, 64 or more. The fill ring has as many places.
    pub frames: u32,
    /// Places of the RX ring: a power of two, 64 or more.
    pub rx_ring: u32,
    /// Places of the TX ring, and of the completion ring: a power of two, 64 or more.
    pub tx_ring: u32,
    /// The interface's MTU in bytes: decides between frames of 2048 and of 4096 bytes in copy mode; zero-copy has the larger.
    pub mtu: usize,
    /// Whether a packet may come, and be sent, in pieces (`XDP_USE_SG`).
    pub buffers: Buffers,
    /// Try huge pages first.
    pub huge_pages: bool,
    /// Let our system calls drive the driver's receive queue (`SO_PREFER_BUSY_POLL`).
    pub busy_poll: bool,
    /// The [`synmill_engine::device::Frame::home`] of the frames.
    pub home: u8,
}

impl XdpOptions {
    /// 8192 frames, RX ring of 4096 and TX ring of 2048 places, MTU 1500, packets in one piece, huge pages if there are any, no busy
    /// polling, home 0.
    #[must_use]
    pub fn new(interface: impl Into<String>, queue: u32, mode: BindMode) -> Self {
        Self {
            interface: interface.into(),
            queue,
            mode,
            frames: QUEUE_FRAMES as u32,
            rx_ring: 4096,
            tx_ring: 2048,
            mtu: 1500,
            buffers: Buffers::One,
            huge_pages: true,
            busy_poll: false,
            home: 0,
        }
    }
}

/// Why a queue was not bound. One line each: what, and how to fix it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such interface here.
    #[error("no interface {interface:?} in this network namespace: `ip link` lists them")]
    NoInterface {
        /// As it was given.
        interface: String,
    },
    /// An option that can never be right.
    #[error("{what} must be a power of two from 64 to 2^20, not {given}")]
    Size {
        /// Which one.
        what: &'static str,
        /// As it was given.
        given: u32,
    },
    /// Packets that no frame holds.
    #[error(
        "{interface}: an MTU of {mtu} is too large for a frame: `ip link set {interface} mtu {most}` or less"
    )]
    Mtu {
        /// The interface.
        interface: String,
        /// Its MTU in bytes.
        mtu: usize,
        /// The largest that there are frames for.
        most: usize,
    },
    /// `EPERM`.
    #[error("not allowed to {what}: {capability} is missing: {}", how_to_permit())]
    Permission {
        /// The refused act.
        what: &'static str,
        /// The capability that allows it.
        capability: &'static str,
    },
    /// `ENOBUFS` at the UMEM.
    #[error(
        "the frames need {needed} bytes of locked memory and RLIMIT_MEMLOCK allows {allowed}: `ulimit -l unlimited`, \
         or CAP_IPC_LOCK, or fewer frames"
    )]
    MemoryLock {
        /// Bytes of the frames.
        needed: u64,
        /// Bytes of the limit.
        allowed: u64,
    },
    /// `ENOMEM` at the mapping.
    #[error("no memory for {needed} bytes of frames: {source}")]
    Memory {
        /// Bytes of the frames.
        needed: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// `EBUSY` at the bind, for a second.
    #[error(
        "queue {queue} of {interface} is taken by another AF_XDP socket: stop that process, or choose another queue"
    )]
    Busy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
    },
    /// `EINVAL` at the bind, or a queue that could not send.
    #[error(
        "queue {queue} of {interface} is not active: it has {receive} to receive and {send} to send: `{change}`"
    )]
    QueueInactive {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// Active RX queues.
        receive: usize,
        /// Active TX queues.
        send: usize,
        /// The `ethtool` line that would make it active.
        change: String,
    },
    /// A zero-copy bind that the driver refused, in one of many ways.
    #[error(
        "the driver of {interface} has no zero-copy mode for queue {queue}{}",
        way_out.as_ref().map_or_else(String::new, |way_out| format!(": {way_out}"))
    )]
    NoZeroCopy {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// What may change that, as far as its answer tells.
        way_out: Option<String>,
    },
    /// Another answer.
    #[error("queue {queue} of {interface}: cannot {what}: {source}")]
    Kernel {
        /// The interface.
        interface: String,
        /// The queue.
        queue: u32,
        /// The refused act.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A bound socket in its parts.
pub(super) struct Opened {
    pub(super) umem: Umem,
    /// The interface's number.
    pub(super) index: u32,
    pub(super) descriptors: Vec<FrameDesc>,
    pub(super) frame_size: usize,
    pub(super) rx: RxQueue,
    pub(super) tx: TxQueue,
    pub(super) fill: FillQueue,
    pub(super) completion: CompQueue,
    /// Packets that the kernel sends for one kick, at most.
    pub(super) tx_budget: u32,
    pub(super) facts: Facts,
}

/// Checks the options, makes the memory, binds, and reads back what the kernel made of it.
pub(super) fn open(options: &XdpOptions) -> Result<Opened, OpenError> {
    let (frames, rx_ring) =
        (size("the number of frames", options.frames)?, size("the RX ring", options.rx_ring)?);
    let tx_ring = size("the TX ring", options.tx_ring)?;
    let (mtu, most) = (options.mtu, max_mtu(options.buffers));
    if mtu > most {
        return Err(OpenError::Mtu { interface: options.interface.clone(), mtu, most });
    }
    let frame_size = match (options.mode, mtu) {
        (BindMode::Copy, ..=1500) => 2048,
        // Some drivers (igb, igc, older ixgbe) count their buffers in whole kilobytes: of the 1792 bytes that a frame of 2048 leaves
        // them they use 1024, and drop what is longer.
        _ => MAX_FRAME_SIZE as u32,
    };
    let no_interface = || OpenError::NoInterface { interface: options.interface.clone() };
    let interface: Interface = options.interface.parse().map_err(|_| no_interface())?;
    let index = index(&options.interface).ok_or_else(no_interface)?;
    check_active(options, index)?;

    let kernel = |what, source| refused(options, what, source);
    let config = FrameSize::new(frame_size)
        .ok()
        .and_then(|frame_size| {
            UmemConfigBuilder::new()
                .frame_size(frame_size)
                .fill_queue_size(frames)
                .comp_queue_size(tx_ring)
                .build()
                .ok()
        })
        .ok_or_else(|| kernel("lay out frames", io::ErrorKind::InvalidInput.into()))?;
    let (umem, descriptors, huge_pages) = memory(options, config, u64::from(frame_size))?;

    let mode = match options.mode {
        BindMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        BindMode::Copy => BindFlags::XDP_COPY,
    };
    let pieces = match options.buffers {
        Buffers::One => BindFlags::empty(),
        Buffers::Several => BindFlags::XDP_USE_SG,
    };
    let config = SocketConfigBuilder::new()
        .rx_queue_size(rx_ring)
        .tx_queue_size(tx_ring)
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode | pieces | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    let (tx, rx, rings) = bind(options, config, &umem, &interface)?;
    // Only a UMEM that is shared already gives no rings.
    let (fill, completion) =
        rings.ok_or_else(|| kernel("get its rings", io::ErrorKind::InvalidData.into()))?;

    let fd = rx.fd().as_raw_fd();
    let flags: u32 = get_option(fd, libc::SOL_XDP, libc::XDP_OPTIONS)
        .map_err(|source| kernel("read back its mode", source))?;
    let wanted = options.tx_ring.min(2 * BURST as u32);
    let is_set = set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, wanted).is_ok();
    let tx_budget = if is_set { wanted } else { TX_BUDGET_AT_FIRST };
    if options.busy_poll {
        busy_poll::prefer(fd).map_err(|source| {
            if source.raw_os_error() == Some(libc::EPERM) {
                OpenError::Permission { what: "busy-poll", capability: "CAP_NET_ADMIN" }
            } else {
                kernel("busy-poll", source)
            }
        })?;
    }
    let zero_copy = flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
    let facts = Facts { zero_copy, huge_pages, busy_poll: options.busy_poll };
    Ok(Opened {
        umem,
        index,
        descriptors,
        frame_size: frame_size as usize,
        rx,
        tx,
        fill,
        completion,
        tx_budget,
        facts,
    })
}

fn size(what: &'static str, given: u32) -> Result<QueueSize, OpenError> {
    let size = QueueSize::new(given).ok().filter(|_| (64..=1 << 20).contains(&given));
    size.ok_or(OpenError::Size { what, given })
}

fn refused(options: &XdpOptions, what: &'static str, source: io::Error) -> OpenError {
    OpenError::Kernel { interface: options.interface.clone(), queue: options.queue, what, source }
}

/// The frames: in huge pages if asked for and there, and with the limit on locked memory raised if need be.
fn memory(
    options: &XdpOptions,
    config: UmemConfig,
    frame_size: u64,
) -> Result<(Umem, Vec<FrameDesc>, bool), OpenError> {
    let needed = u64::from(options.frames) * frame_size;
    let count = NonZeroU32::new(options.frames)
        .ok_or(OpenError::Size { what: "the number of frames", given: options.frames })?;
    // A mapping that is not a multiple of its page cannot be unmapped by its length.
    let try_huge = options.huge_pages && huge_page_size().is_some_and(|page| needed.is_multiple_of(page));
    if try_huge && let Ok((umem, descriptors)) = Umem::new(config, count, true) {
        return Ok((umem, descriptors, true));
    }
    let mut raised = false;
    loop {
        let error = match Umem::new(config, count, false) {
            Ok((umem, descriptors)) => return Ok((umem, descriptors, false)),
            Err(error) => cause(&error),
        };
        return Err(match error.raw_os_error() {
            Some(libc::ENOBUFS) if !raised => {
                raised = true;
                raise_memory_lock();
                continue;
            }
            Some(libc::ENOBUFS) => OpenError::MemoryLock { needed, allowed: memory_lock().rlim_cur },
            Some(libc::EPERM) => {
                OpenError::Permission { what: "make an AF_XDP socket", capability: "CAP_NET_RAW" }
            }
            Some(libc::ENOMEM) => OpenError::Memory { needed, source: error },
            _ => refused(options, "make an AF_XDP socket", error),
        });
    }
}

type Bound = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

/// Binds; a queue whose last socket is on its way out gets a second.
fn bind(
    options: &XdpOptions,
    config: SocketConfig,
    umem: &Umem,
    interface: &Interface,
) -> Result<Bound, OpenError> {
    let XdpOptions { interface: name, queue, .. } = options;
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        // SAFETY: the flag that forbids libxdp a program of its own is set, which is all that the contract asks for.
        let error = match unsafe { Socket::new(config, umem, interface, *queue) } {
            Ok(bound) => return Ok(bound),
            Err(error) => cause(&error),
        };
        return Err(match error.raw_os_error() {
            Some(libc::EBUSY) if Instant::now() < deadline => {
                sleep(Duration::from_millis(20));
                continue;
            }
            Some(libc::EBUSY) => OpenError::Busy { interface: name.clone(), queue: *queue },
            Some(libc::ENODEV) => OpenError::NoInterface { interface: name.clone() },
            Some(libc::EPERM) => {
                OpenError::Permission { what: "bind an AF_XDP socket", capability: "CAP_NET_RAW" }
            }
            Some(libc::ENETDOWN) => refused(options, "bind while the interface is down", error),
            _ if options.mode == BindMode::ZeroCopy => {
                let driver = nic::driver(name).unwrap_or_default();
                let way_out = way_to_zero_copy(&driver, options.buffers, &error);
                OpenError::NoZeroCopy { interface: name.clone(), queue: *queue, way_out }
            }
            Some(libc::EINVAL) if options.buffers == Buffers::Several => {
                let what = "bind (is the queue active? `ethtool -l` lists them; packets of several buffers need Linux 6.6, a smaller \
                            MTU does without)";
                refused(options, what, error)
            }
            Some(libc::EINVAL) => {
                refused(options, "bind (is the queue active? `ethtool -l` lists them)", error)
            }
            _ => refused(options, "bind", error),
        });
    }
}

/// What may make a driver bind without copying that refused with this error. That the queue is active is known by then.
fn way_to_zero_copy(driver: &str, buffers: Buffers, error: &io::Error) -> Option<String> {
    match (driver, error.raw_os_error()) {
        (_, Some(libc::EOPNOTSUPP)) if buffers == Buffers::Several => Some(format!(
            "perhaps none for packets of several buffers, which an MTU of {} or less does without",
            one_buffer_mtu(driver)
        )),
        ("virtio_net", Some(libc::EOPNOTSUPP)) => Some("virtio_net has it since Linux 6.13".into()),
        ("virtio_net", Some(libc::EINVAL)) => Some(
            "its NIC does without the kernel's DMA mapping: QEMU's disable-legacy=on,iommu_platform=on"
                .into(),
        ),
        ("virtio_net", Some(libc::ENOENT)) => {
            Some("its NIC cannot reset one queue alone: QEMU's queue_reset=on".into())
        }
        (_, Some(libc::EOPNOTSUPP)) => None,
        _ => Some(format!("{error}: another MTU, fewer queues, or offloads switched off may help")),
    }
}

/// The kernel's answer inside an error of xsk-rs.
fn cause(error: &dyn std::error::Error) -> io::Error {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match source.and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}

/// The size in bytes of the huge pages that a mapping gets by default, if any are reserved.
fn huge_page_size() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (value("HugePages_Free")? > 0).then_some(value("Hugepagesize")? * 1024).filter(|&size| size > 0)
}

fn memory_lock() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit. It cannot fail with a limit that exists.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    limit
}

/// As high as it goes: without end where that is allowed, else to the hard limit.
fn raise_memory_lock() {
    let hard = memory_lock().rlim_max;
    for (soft, hard) in [(libc::RLIM_INFINITY, libc::RLIM_INFINITY), (hard, hard)] {
        let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
        // SAFETY: the kernel reads one rlimit.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } == 0 {
            return;
        }
    }
}

pub(super) fn set_option(fd: RawFd, level: libc::c_int, option: libc::c_int, value: u32) -> io::Result<()> {
    let len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel reads the four bytes of `value`.
    let done = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A socket option of four bytes.
pub(super) fn get_option(fd: RawFd, level: libc::c_int, option: libc::c_int) -> io::Result<u32> {
    let mut value = 0_u32;
    let mut len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, which `value` has.
    let done = unsafe { libc::getsockopt(fd, level, option, (&raw mut value).cast(), &raw mut len) };
    if done == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// The interface's number in this network namespace.
fn index(interface: &str) -> Option<u32> {
    let name = std::ffi::CString::new(interface).ok()?;
    // SAFETY: a C string that lives across the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// Refuses a queue that cannot both receive and send. The kernel binds where either is possible, and sends nothing.
fn check_active(options: &XdpOptions, index: u32) -> Result<(), OpenError> {
    let XdpOptions { interface: name, queue, .. } = options;
    // Where the queues are not known, binding decides.
    let Ok(nic::Queues { rx: receive, tx: send }) = nic::queues(name, index) else {
        return Ok(());
    };
    let wanted = *queue as usize + 1;
    if wanted <= receive.min(send) {
        return Ok(());
    }
    let driver = nic::driver(name).unwrap_or_default();
    let change = nic::set_queues(name, &driver, wanted);
    Err(OpenError::QueueInactive { interface: name.clone(), queue: *queue, receive, send, change })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_zero_copy_has_the_driver_s_reason() {
        let of =
            |driver, buffers, errno| way_to_zero_copy(driver, buffers, &io::Error::from_raw_os_error(errno));
        let way = |driver, errno| of(driver, Buffers::One, errno);
        for (errno, part) in [
            (libc::EOPNOTSUPP, "since Linux 6.13"),
            (libc::EINVAL, "iommu_platform=on"),
            (libc::ENOENT, "queue_reset=on"),
            (libc::ENOMEM, "fewer queues"),
        ] {
            let line = way("virtio_net", errno).unwrap();
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
        assert_eq!(way("igb", libc::EOPNOTSUPP), None);
        assert!(of("igb", Buffers::Several, libc::EOPNOTSUPP).unwrap().contains("an MTU of 3506 or less"));
        assert!(way("ice", libc::EINVAL).unwrap().contains("another MTU"));
    }
}
