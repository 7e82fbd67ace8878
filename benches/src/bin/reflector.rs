//! A stateless reflector on AF_XDP: the ceiling of plain AF_XDP. Knows queues, sockets and cores; what is answered is
//! [`synmill_benches::reflect`]'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use core_affinity::CoreId;
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use synmill::host::nic::Interface;
use synmill::host::rings::XdpDevice;
use synmill_benches::check_cores;
use synmill_benches::reflect::{Reflector, Service};
use synmill_benches::rings::{self, Mode, reach};
use synmill_engine::device::{BURST, Burst, Device as _, RingCounts};

/// Turns without a frame before a worker sleeps: as many as an endpoint's worker.
const SPINS: u32 = 2000;
/// The longest sleep, so that the end is seen.
const SLEEP: Duration = Duration::from_millis(10);

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
        rings::add(&mut self.rings, &other.rings);
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
            rings::add(&mut self.counts.rings, &device.ring_counts());
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

/// The devices of each worker: every queue, dealt out.
fn deal(devices: Vec<XdpDevice>, workers: usize) -> Vec<Vec<XdpDevice>> {
    let mut hands: Vec<Vec<XdpDevice>> = (0..workers).map(|_| Vec::new()).collect();
    for (queue, device) in devices.into_iter().enumerate() {
        hands[queue % workers].push(device);
    }
    hands
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
    let service = match arguments.service {
        Said::Close => Service::Close,
        Said::Http => Service::Http { body_len: arguments.body },
    };
    let reflector = Reflector::new(service, interface.mtu)
        .with_context(|| format!("a body of {} bytes does not fit into one packet", arguments.body))?;

    let mut steer = rings::load(&interface)?;
    let devices = deal(reach(&interface, arguments.mode, &arguments.listen, &mut steer)?, workers);
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
    let mut line = json!({
        "frames": counts.frames,
        "replies": counts.replies,
        "syns": counts.syns,
        "dropped": counts.dropped,
    });
    rings::tell(&mut line, &counts.rings);
    line
}
