//! A stateless reflector on AF_XDP: the ceiling of plain AF_XDP. See [`synmill_benches::reflect`] for its answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use synmill::host::nic::Interface;
use synmill::host::rings::XdpDevice;
use synmill_benches::cores::{check, pin};
use synmill_benches::counts::total;
use synmill_benches::reflect::{Reflector, Service};
use synmill_benches::rings::{Idle, Mode, load, losses, reach, stop_flag};
use synmill_engine::device::{BURST, Burst, Device as _};

/// A stateless reflector on AF_XDP: the ceiling of plain AF_XDP that others are compared with
///
/// Prints `ready: ...` on standard error when it answers. At SIGTERM or SIGINT it prints its counts as one line of JSON, and ends.
#[derive(Parser)]
#[command(name = "synmill-reflector", version)]
struct Arguments {
    /// The interface
    #[arg(long, value_name = "IF")]
    interface: String,
    /// An address of the interface, or the unspecified one, and a port; repeatable
    #[arg(long, value_name = "ADDR:PORT", required = true)]
    listen: Vec<SocketAddr>,
    /// Run a pinned worker on each of these cores, with a share of the interface's queues
    #[arg(long, value_delimiter = ',', default_value = "0")]
    cores: Vec<usize>,
    /// The mode of program and rings
    #[arg(long, value_enum, default_value_t = Mode::Copy)]
    mode: Mode,
    /// The service of every connection
    #[arg(long, value_enum, default_value_t = Said::Http)]
    service: Said,
    /// Bytes of an HTTP response's body, which has to fit into one packet
    #[arg(long, value_name = "SIZE", default_value_t = 64)]
    body: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Said {
    /// FIN after the handshake
    Close,
    /// A response to any text, with FIN on it
    Http,
}

/// Each received frame is answered or dropped. Replies without room in the ring are not counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    frames: u64,
    replies: u64,
    syns: u64,
    dropped: u64,
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

    /// Reflects until `stop` is set, and returns the counts.
    fn run(mut self, core: usize, stop: &AtomicBool) -> Result<Value> {
        pin(core)?;
        let mut idle = Idle::default();
        while !stop.load(Relaxed) {
            let had_frame = self.turn();
            idle.after(had_frame, &mut self.devices);
        }
        let Counts { frames, replies, syns, dropped } = self.counts;
        let counts = json!({"frames": frames, "replies": replies, "syns": syns, "dropped": dropped});
        Ok(total([counts, losses(&mut self.devices)]))
    }

    /// Answers a burst of each queue; returns whether there was a frame.
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
            // Without replies, too: frames that the kernel has not sent yet need another kick.
            self.counts.replies += device.transmit(&mut self.replies) as u64;
        }
        self.counts.frames > before
    }
}

/// Deals the devices out to workers.
fn deal(devices: Vec<XdpDevice>, workers: usize) -> Vec<Vec<XdpDevice>> {
    let mut hands: Vec<Vec<XdpDevice>> = (0..workers).map(|_| Vec::new()).collect();
    for (queue, device) in devices.into_iter().enumerate() {
        hands[queue % workers].push(device);
    }
    hands
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let stop = stop_flag()?;
    check(&arguments.cores)?;
    let interface = Interface::find(&arguments.interface)?;
    let (queues, workers) = (interface.queues.rx, arguments.cores.len());
    if workers > queues {
        bail!("{workers} cores and {queues} queues: name at most {queues} cores");
    }
    let service = match arguments.service {
        Said::Close => Service::Close,
        Said::Http => Service::Http { body_len: arguments.body },
    };
    let reflector = Reflector::new(service, interface.mtu)
        .with_context(|| format!("a body of {} bytes does not fit into one packet", arguments.body))?;

    let mut program = load(&interface)?;
    let devices = deal(reach(&interface, arguments.mode, &arguments.listen, &mut program)?, workers);
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
    let counts = threads
        .into_iter()
        .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        .collect::<Result<Vec<_>>>()?;
    println!("{}", total(counts));
    Ok(())
}
