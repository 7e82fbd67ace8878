//! From options to a bound socket: memory, limits, flags, and the kernel's refusals in words.

use std::io;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use synmill_engine::device::{BURST, Buffers, MAX_FRAME_SIZE, QUEUE_FRAMES};
use xsk_rs::config::{
    BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, SocketConfigBuilder, UmemConfig,
    UmemConfigBuilder,
};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

use super::busy_poll;
use super::socket::{get_option, index, raise_memory_lock, set_option};
use crate::host::machine::{how_to_permit, meminfo_bytes};
use crate::host::{Error, nic};

/// `if_xdp.h`: packets that one kick may send in copy mode. Older kernels and some libcs do not have it.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
/// `net/xdp/xsk.c`, `TX_BATCH_SIZE`: packets that a system call sends without that option, before Linux 6.17.
const TX_BUDGET_AT_FIRST: u32 = 32;

/// How the driver moves packets. There is no third mode: some drivers bind without a mode and fail at the first send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindMode {
    /// By DMA into our frames (`XDP_ZEROCOPY`).
    ZeroCopy,
    /// By copy in the kernel (`XDP_COPY`), with a program in driver or SKB mode.
    Copy,
}

/// One queue to bind to, and the memory and rings for it.
#[derive(Clone, Debug)]
pub struct XdpOptions {
    /// The interface's name.
    pub interface: String,
    /// The queue's number, from 0.
    pub queue: u32,
    /// Zero-copy or copy.
    pub mode: BindMode,
    /// Frames of the queue, and places of the fill ring: a power of two, 64 or more.
    pub frames: u32,
    /// Places of the RX ring: a power of two, 64 or more.
    pub rx_ring: u32,
    /// Places of the TX ring and of the completion ring: a power of two, 64 or more.
    pub tx_ring: u32,
    /// The interface's MTU in bytes. In copy mode it decides between frames of 2048 and of 4096 bytes; zero-copy has the larger.
    pub mtu: usize,
    /// Whether a packet may come and go in pieces (`XDP_USE_SG`).
    pub buffers: Buffers,
    /// Try huge pages first.
    pub huge_pages: bool,
    /// Let the worker's system calls drive the driver's receive queue (`SO_PREFER_BUSY_POLL`).
    pub busy_poll: bool,
    /// The [`synmill_engine::device::Frame::home`] of the frames.
    pub home: u8,
}

impl XdpOptions {
    /// 8192 frames, an RX ring of 4096 and a TX ring of 2048 places, MTU 1500, packets in one piece, huge pages if there are any, no
    /// busy polling, home 0.
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

    /// Another answer of the kernel's.
    fn refused(&self, act: &str, answer: &io::Error) -> Error {
        format!("queue {} of {}: cannot {act}: {answer}", self.queue, self.interface).into()
    }

    fn no_interface(&self) -> Error {
        format!("no interface {:?} in this network namespace: `ip link` lists them", self.interface).into()
    }
}

/// `EPERM`.
fn permission(act: &str, capability: &str) -> Error {
    format!("not allowed to {act}: {capability} is missing: {}", how_to_permit()).into()
}

/// The facts that the kernel granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) zero_copy: bool,
    pub(super) huge_pages: bool,
    pub(super) busy_poll: bool,
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
    /// Most packets that the kernel sends for one kick.
    pub(super) tx_budget: u32,
    pub(super) facts: Facts,
}

/// Checks the options, makes the memory, binds, and reads back what the kernel granted.
pub(super) fn open(options: &XdpOptions) -> Result<Opened, Error> {
    let (frames, rx_ring) =
        (size("the number of frames", options.frames)?, size("the RX ring", options.rx_ring)?);
    let tx_ring = size("the TX ring", options.tx_ring)?;
    let (mtu, most, name) = (options.mtu, nic::max_mtu(options.buffers), &options.interface);
    if mtu > most {
        return Err(format!(
            "{name}: an MTU of {mtu} is too large for a frame: `ip link set {name} mtu {most}` or less"
        )
        .into());
    }
    let frame_size = match (options.mode, mtu) {
        (BindMode::Copy, ..=1500) => 2048,
        // Some drivers (igb, igc, older ixgbe) count their buffers in whole kilobytes: of the 1792 bytes that a frame of 2048 leaves
        // them they use 1024, and drop longer packets.
        _ => MAX_FRAME_SIZE as u32,
    };
    let interface: Interface = name.parse().map_err(|_| options.no_interface())?;
    let index = index(name).ok_or_else(|| options.no_interface())?;
    check_active(options, index)?;

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
        .ok_or_else(|| options.refused("lay out frames", &io::ErrorKind::InvalidInput.into()))?;
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
        rings.ok_or_else(|| options.refused("get its rings", &io::ErrorKind::InvalidData.into()))?;

    let fd = rx.fd().as_raw_fd();
    let flags: u32 = get_option(fd, libc::SOL_XDP, libc::XDP_OPTIONS)
        .map_err(|answer| options.refused("read back its mode", &answer))?;
    let wanted = options.tx_ring.min(2 * BURST as u32);
    let is_set = set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, wanted).is_ok();
    let tx_budget = if is_set { wanted } else { TX_BUDGET_AT_FIRST };
    if options.busy_poll {
        busy_poll::prefer(fd).map_err(|answer| match answer.raw_os_error() {
            Some(libc::EPERM) => permission("busy-poll", "CAP_NET_ADMIN"),
            _ => options.refused("busy-poll", &answer),
        })?;
    }
    let zero_copy = flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
    let facts = Facts { zero_copy, huge_pages, busy_poll: options.busy_poll };
    let frame_size = frame_size as usize;
    Ok(Opened { umem, index, descriptors, frame_size, rx, tx, fill, completion, tx_budget, facts })
}

fn size(what: &str, given: u32) -> Result<QueueSize, Error> {
    let size = QueueSize::new(given).ok().filter(|_| (64..=1 << 20).contains(&given));
    size.ok_or_else(|| format!("{what} must be a power of two from 64 to 2^20, not {given}").into())
}

/// Makes the frames: in huge pages if the options ask for them and there are some, and with the limit on locked memory raised if need
/// be.
fn memory(
    options: &XdpOptions,
    config: UmemConfig,
    frame_size: u64,
) -> Result<(Umem, Vec<FrameDesc>, bool), Error> {
    let needed = u64::from(options.frames) * frame_size;
    let count = NonZeroU32::new(options.frames).expect("the size was checked");
    // A mapping that is not a multiple of its page cannot be unmapped by its length.
    let try_huge = options.huge_pages && huge_page_size().is_some_and(|page| needed.is_multiple_of(page));
    if try_huge && let Ok((umem, descriptors)) = Umem::new(config, count, true) {
        return Ok((umem, descriptors, true));
    }
    let mut raised = false;
    loop {
        let answer = match Umem::new(config, count, false) {
            Ok((umem, descriptors)) => return Ok((umem, descriptors, false)),
            Err(error) => cause(&error),
        };
        return Err(match answer.raw_os_error() {
            Some(libc::ENOBUFS) if !raised => {
                raised = true;
                raise_memory_lock();
                continue;
            }
            Some(libc::ENOBUFS) => {
                let allowed = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
                format!(
                    "the frames need {needed} bytes of locked memory and RLIMIT_MEMLOCK allows {allowed}: `ulimit -l unlimited`, \
                     or CAP_IPC_LOCK, or fewer frames"
                )
                .into()
            }
            Some(libc::EPERM) => permission("make an AF_XDP socket", "CAP_NET_RAW"),
            Some(libc::ENOMEM) => format!("no memory for {needed} bytes of frames: {answer}").into(),
            _ => options.refused("make an AF_XDP socket", &answer),
        });
    }
}

type Bound = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

/// Binds. A queue whose last socket is being closed gets a second for that.
fn bind(
    options: &XdpOptions,
    config: SocketConfig,
    umem: &Umem,
    interface: &Interface,
) -> Result<Bound, Error> {
    let XdpOptions { interface: name, queue, .. } = options;
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        // SAFETY: the flag that forbids libxdp a program of its own is set, which is all that the contract asks for.
        let answer = match unsafe { Socket::new(config, umem, interface, *queue) } {
            Ok(bound) => return Ok(bound),
            Err(error) => cause(&error),
        };
        return Err(match answer.raw_os_error() {
            Some(libc::EBUSY) if Instant::now() < deadline => {
                sleep(Duration::from_millis(20));
                continue;
            }
            Some(libc::EBUSY) => format!(
                "queue {queue} of {name} is taken by another AF_XDP socket: stop that process, or choose another queue"
            )
            .into(),
            Some(libc::ENODEV) => options.no_interface(),
            Some(libc::EPERM) => permission("bind an AF_XDP socket", "CAP_NET_RAW"),
            Some(libc::ENETDOWN) => options.refused("bind while the interface is down", &answer),
            _ if options.mode == BindMode::ZeroCopy => {
                let driver = nic::driver(name).unwrap_or_default();
                let way_out = way_to_zero_copy(&driver, options.buffers, &answer)
                    .map_or_else(String::new, |way_out| format!(": {way_out}"));
                Error::of_mode(format!("the driver of {name} has no zero-copy mode for queue {queue}{way_out}"))
            }
            Some(libc::EINVAL) if options.buffers == Buffers::Several => {
                let act = "bind (is the queue active? `ethtool -l` lists them; packets of several buffers need Linux 6.6, a smaller \
                           MTU does without)";
                options.refused(act, &answer)
            }
            Some(libc::EINVAL) => {
                options.refused("bind (is the queue active? `ethtool -l` lists them)", &answer)
            }
            _ => options.refused("bind", &answer),
        });
    }
}

/// Returns a change that may make a driver bind without copying after this error. The queue is known to be active by then.
fn way_to_zero_copy(driver: &str, buffers: Buffers, answer: &io::Error) -> Option<String> {
    match (driver, answer.raw_os_error()) {
        (_, Some(libc::EOPNOTSUPP)) if buffers == Buffers::Several => Some(format!(
            "perhaps none for packets of several buffers, which an MTU of {} or less does without",
            nic::one_buffer_mtu(driver)
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
        _ => Some(format!("{answer}: another MTU, fewer queues, or offloads switched off may help")),
    }
}

/// Returns the kernel's answer inside an error of xsk-rs.
fn cause(error: &dyn std::error::Error) -> io::Error {
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    match source.and_then(io::Error::raw_os_error) {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error.to_string()),
    }
}

/// Returns the size in bytes of the default huge pages, if any are reserved and free.
fn huge_page_size() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let free =
        text.lines().find_map(|line| line.strip_prefix("HugePages_Free:")?.trim().parse::<u64>().ok())?;
    (free > 0).then(|| meminfo_bytes(&text, "Hugepagesize:")).flatten().filter(|&size| size > 0)
}

/// Refuses a queue that cannot both receive and send. The kernel would bind where either is possible, and send nothing.
fn check_active(options: &XdpOptions, index: u32) -> Result<(), Error> {
    let XdpOptions { interface: name, queue, .. } = options;
    // Where the queues are not known, binding decides.
    let Ok(nic::Queues { rx, tx }) = nic::queues(name, index) else { return Ok(()) };
    let wanted = *queue as usize + 1;
    if wanted <= rx.min(tx) {
        return Ok(());
    }
    let driver = nic::driver(name).unwrap_or_default();
    let change = nic::set_queues(name, &driver, wanted);
    Err(format!("queue {queue} of {name} is not active: it has {rx} to receive and {tx} to send: `{change}`")
        .into())
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
