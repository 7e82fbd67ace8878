//! A stateless reflector on AF_XDP: the ceiling of plain AF_XDP. Knows queues, sockets and cores; what is answered is
//! [`synmill_benches::reflect`]'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use core_affinity::CoreId;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use synmill::device::xdp::{BindMode, XdpDevice, XdpOptions};
use synmill::device::{BURST, Burst, Device as _, RingCounts};
use synmill::interface::{Interface, Link, link};
use synmill::steer::{AttachMode, Steer};
use synmill_benches::check_cores;
use synmill_benches::reflect::{Reflector, Service};

/// Turns without a frame before a worker sleeps: as many as an endpoint's worker.
const SPINS: u32 = 2000;
/// The longest sleep, so that the end is seen.
const SLEEP: Duration = Duration::from_millis(10);
/// How long a driver may take to bring the carrier back after the program was attached.
const CARRIER_BACK: Duration = Duration::from_secs(10);

/// A stateless reflector on AF_XDP: the ceiling of plain AF_XDP that others are compared with
///
/// Says `ready: ...` on standard error when it answers. Ends at SIGTERM or SIGINT, and prints what it counted as one
/// line of JSON.
#[derive(Parser)]
#[command(name = "synmill-reflector", version)]
struct Arguments {
    /// The interface
    #[arg(long, value_name = "IF")]
    interface: String,
    /// What to answer for; repeatable. The address has to be one of the interface's, or unspecified
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// One worker, pinned, for each of these cores; the interface's queues are dealt out to them
    #[arg(long, value_delimiter = ',', default_value = "0")]
    cores: Vec<usize>,
    /// How the driver is reached
    #[arg(long, value_enum, default_value_t = Mode::Copy)]
    mode: Mode,
    /// What is said
    #[arg(long, value_enum, default_value_t = Said::Http)]
    service: Said,
    /// Bytes of the body of an HTTP response; it has to fit into one packet
    #[arg(long, value_name = "SIZE", default_value_t = 64)]
    body: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// Native XDP, packets copied
    Copy,
    /// Generic XDP, packets copied
    Skb,
    /// Native XDP, nothing copied
    Zerocopy,
}

#[derive(Clone, Copy, ValueEnum)]
enum Said {
    /// FIN at once after the handshake
    Close,
    /// A response to whatever text comes, with FIN on it
    Http,
}

/// Every received frame is replied to or dropped; not every reply found room in the ring.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    frames: u64,
    replies: u64,
    syns: u64,
    dropped: u64,
    rings: RingCounts,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.replies += other.replies;
        self.syns += other.syns;
        self.dropped += other.dropped;
        self.add_rings(&other.rings);
    }

    fn add_rings(&mut self, other: &RingCounts) {
        self.rings.rx_ring_full += other.rx_ring_full;
        self.rings.fill_ring_empty += other.fill_ring_empty;
        self.rings.rx_dropped += other.rx_dropped;
        self.rings.tx_invalid += other.tx_invalid;
        self.rings.tx_ring_full += other.tx_ring_full;
    }
}

/// One core's reflector.
struct Worker {
    devices: Vec<XdpDevice>,
    reflector: Reflector,
    burst: Burst,
    replies: Burst,
    dropped: Burst,
    counts: Counts,
}

impl Worker {
    fn new(devices: Vec<XdpDevice>, reflector: Reflector) -> Self {
        let burst = || Burst::with_capacity(BURST);
        let counts = Counts::default();
        Self { devices, reflector, burst: burst(), replies: burst(), dropped: burst(), counts }
    }

    /// Reflects until told to stop.
    fn run(mut self, core: usize, stop: &AtomicBool) -> Result<Counts> {
        if !core_affinity::set_for_current(CoreId { id: core }) {
            bail!("this thread cannot be pinned to core {core}");
        }
        let mut idle = 0;
        while !stop.load(Relaxed) {
            if self.turn() {
                idle = 0;
            } else {
                idle += 1;
                if idle >= SPINS {
                    XdpDevice::wait_any(&mut self.devices, SLEEP);
                }
            }
        }
        for device in &mut self.devices {
            let rings = device.ring_counts();
            self.counts.add_rings(&rings);
        }
        Ok(self.counts)
    }

    /// A burst from each queue, and its replies; whether there was a frame.
    fn turn(&mut self) -> bool {
        let before = self.counts.frames;
        for device in &mut self.devices {
            self.counts.frames += device.receive(&mut self.burst, BURST) as u64;
            for mut frame in self.burst.drain(..) {
                let len = frame.len();
                frame.set_len(frame.capacity());
                if let Some(reply) = self.reflector.reflect(&mut frame, len) {
                    self.counts.syns += u64::from(reply.is_syn);
                    frame.set_len(reply.len);
                    self.replies.push(frame);
                } else {
                    self.dropped.push(frame);
                }
            }
            if !self.dropped.is_empty() {
                self.counts.dropped += self.dropped.len() as u64;
                device.recycle(&mut self.dropped);
            }
            // With nothing to send, too: what the kernel has not sent yet wants another kick.
            self.counts.replies += device.transmit(&mut self.replies) as u64;
        }
        self.counts.frames > before
    }
}

/// Attaches the program and binds every queue; the devices of each worker.
fn reach(arguments: &Arguments, interface: &Interface, steer: &mut Steer) -> Result<Vec<Vec<XdpDevice>>> {
    for address in &arguments.listen {
        steer.add_listener(address.ip().into(), address.port())?;
    }
    let (attach, bind) = match arguments.mode {
        Mode::Copy => (AttachMode::Driver, BindMode::Copy),
        Mode::Skb => (AttachMode::Skb, BindMode::Copy),
        Mode::Zerocopy => (AttachMode::Driver, BindMode::ZeroCopy),
    };
    steer.attach(&interface.name, attach)?;
    let mut devices: Vec<Vec<XdpDevice>> = arguments.cores.iter().map(|_| Vec::new()).collect();
    for queue in 0..interface.queues.rx {
        let options = XdpOptions::new(&interface.name, queue as u32, bind);
        let device = XdpDevice::open(&XdpOptions { mtu: interface.mtu, ..options })?;
        steer.set_socket(queue as u32, device.fd())?;
        let worker = queue % devices.len();
        devices[worker].push(device);
    }
    await_carrier(interface)?;
    Ok(devices)
}

/// Some drivers reset the link when a program comes.
fn await_carrier(interface: &Interface) -> Result<()> {
    let deadline = Instant::now() + CARRIER_BACK;
    while link(interface.index).context("asking for the carrier")? != Link::Up {
        if Instant::now() > deadline {
            bail!("{} has no carrier", interface.name);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("catching signals")?;
    }
    check_cores(&arguments.cores)?;
    let interface = Interface::find(&arguments.interface)?;
    let (queues, workers) = (interface.queues.rx, arguments.cores.len());
    if workers > queues {
        bail!("{workers} cores and {queues} queues: a core without a queue has nothing to do");
    }
    let mac = interface.mac.with_context(|| format!("{} is no Ethernet interface", interface.name))?;
    let service = match arguments.service {
        Said::Close => Service::Close,
        Said::Http => Service::Http { body_len: arguments.body },
    };
    let reflector = Reflector::new(service, interface.mtu)
        .with_context(|| format!("a body of {} bytes does not fit into one packet", arguments.body))?;

    let mut steer = Steer::load(mac, None)?;
    let devices = reach(&arguments, &interface, &mut steer)?;
    let addresses: Vec<String> = arguments.listen.iter().map(ToString::to_string).collect();
    eprintln!(
        "ready: {service:?} on {}, {queues} queues of {}, {workers} workers",
        addresses.join(" and "),
        interface.name
    );
    let threads: Vec<_> = devices
        .into_iter()
        .zip(arguments.cores)
        .map(|(devices, core)| {
            let (worker, stop) = (Worker::new(devices, reflector.clone()), Arc::clone(&stop));
            thread::spawn(move || worker.run(core, &stop))
        })
        .collect();
    let mut total = Counts::default();
    for thread in threads {
        total.add(&thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
    }
    println!("{}", line(&total));
    Ok(())
}

fn line(counts: &Counts) -> serde_json::Value {
    let RingCounts { rx_ring_full, fill_ring_empty, rx_dropped, tx_invalid, tx_ring_full, .. } = counts.rings;
    json!({
        "frames": counts.frames,
        "replies": counts.replies,
        "syns": counts.syns,
        "dropped": counts.dropped,
        "rx_ring_full": rx_ring_full,
        "fill_ring_empty": fill_ring_empty,
        "rx_dropped": rx_dropped,
        "tx_invalid": tx_invalid,
        "tx_ring_full": tx_ring_full,
    })
}
