//! A bare sender of full frames on AF_XDP and a socket that counts them: what the rings carry at most. Knows rings, cores and
//! windows of time; what a frame is made of is [`synmill_benches::numbered`]'s.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use core_affinity::CoreId;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use synmill::host::nic::Interface;
use synmill::host::nic::route::next_hop;
use synmill::host::program::Program;
use synmill::host::rings::XdpDevice;
use synmill_benches::check_cores;
use synmill_benches::numbered::{self, Template};
use synmill_benches::rings::{self, Mode, reach};
use synmill_engine::device::{BURST, Burst, Device as _, RingCounts};
use synmill_engine::wire::{self, Checks};

/// The port that it is sent from.
const FROM_PORT: u16 = 80;
/// How long the receiver's Ethernet address may take to be found.
const PATIENCE: Duration = Duration::from_secs(5);
/// Turns without a frame before the receiver sleeps: as many as an endpoint's worker.
const SPINS: u32 = 2000;
/// The longest sleep, so that the end is seen.
const SLEEP: Duration = Duration::from_millis(10);
/// How often the device is asked for its losses: it takes more frames to receive into when there were some.
const LOOK: Duration = Duration::from_millis(100);
/// What does not count yet.
const WARM_UP: Duration = Duration::from_secs(1);

/// Sends full TCP segments as fast as the rings take them, or counts them
///
/// There is no connection: nothing is acknowledged, and what is lost stays lost. Prints what it counted as one line of JSON.
#[derive(Parser)]
#[command(name = "synmill-bulk", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Says `ready: ...` on standard error, and sends until SIGTERM or SIGINT
    Send {
        /// Where to
        #[arg(long, value_name = "ADDR:PORT")]
        to: SocketAddrV4,
        /// Write and sum up the text of each frame: as one has to whose text is new
        #[arg(long)]
        anew: bool,
        #[command(flatten)]
        rings: Rings,
    },
    /// Counts what comes for some seconds, after one that does not count
    Count {
        /// What it was sent to; the address has to be the interface's
        #[arg(long, value_name = "ADDR:PORT")]
        at: SocketAddrV4,
        /// The window's length
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
        /// Check all of each frame, its text's checksum too, as TCP has to; what is wrong is no text
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        rings: Rings,
    },
}

#[derive(Args)]
struct Rings {
    /// The interface; its first queue is used
    #[arg(long, value_name = "IF")]
    interface: String,
    /// The core to run on
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// How the driver is reached
    #[arg(long, value_enum, default_value_t = Mode::Copy)]
    mode: Mode,
}

impl Rings {
    /// The interface, on the right core.
    fn interface(&self) -> Result<Interface> {
        check_cores(&[self.core])?;
        if !core_affinity::set_for_current(CoreId { id: self.core }) {
            bail!("this thread cannot be pinned to core {}", self.core);
        }
        Ok(Interface::find(&self.interface)?)
    }

    /// All of its queues; the program sends to whichever it wants.
    fn open(
        &self,
        interface: &Interface,
        at: Option<SocketAddrV4>,
        steer: &mut Program,
    ) -> Result<Vec<XdpDevice>> {
        let at: Vec<SocketAddr> = at.into_iter().map(SocketAddr::V4).collect();
        reach(interface, self.mode, &at, steer)
    }
}

fn main() -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("catching signals")?;
    }
    let counts = match Arguments::parse().command {
        Command::Send { to, anew, rings } => {
            let write = if anew { Template::write_anew } else { Template::write };
            send(&rings, to, write, &stop)?
        }
        Command::Count { at, seconds, check, rings } => {
            count(&rings, at, Duration::from_secs(seconds.into()), check, &stop)?
        }
    };
    println!("{counts}");
    Ok(())
}

/// Sends until told to stop; what was sent.
fn send(
    rings: &Rings,
    to: SocketAddrV4,
    write: fn(&Template, &mut [u8], u32),
    stop: &AtomicBool,
) -> Result<Value> {
    let interface = rings.interface()?;
    let (mac, to_mac) = (rings::mac(&interface)?, next_hop(&interface, (*to.ip()).into(), PATIENCE)?);
    let from = interface.addresses.iter().find_map(|(_, subnet)| match subnet.first().to_ip() {
        std::net::IpAddr::V4(address) => Some(SocketAddrV4::new(address, FROM_PORT)),
        std::net::IpAddr::V6(_) => None,
    });
    let from = from.with_context(|| format!("{} has no IPv4 address", interface.name))?;
    let template = Template::new([mac, to_mac], [from, to], interface.mtu);
    let mut steer = rings::load(&interface)?;
    let mut devices = rings.open(&interface, None, &mut steer)?;
    let device = devices.first_mut().context("an interface without a queue")?;
    eprintln!("ready: {} bytes a frame to {to}", template.frame_len());

    let (mut frames, mut number) = (Burst::with_capacity(BURST), 0_u32);
    let mut sent = 0;
    while !stop.load(Relaxed) {
        device.alloc(&mut frames, BURST);
        for frame in &mut frames {
            frame.set_len(template.frame_len());
            write(&template, frame, number);
            number = number.wrapping_add(1);
        }
        // With nothing to send, too: what the kernel has not sent yet wants another kick.
        sent += device.transmit(&mut frames) as u64;
    }
    let mut counts = json!({ "frames": sent });
    rings::tell(&mut counts, &device.ring_counts());
    Ok(counts)
}

/// What came in the window.
#[derive(Default)]
struct Window {
    frames: u64,
    text_bytes: u64,
    /// The number expected next, once there was one.
    next: Option<u32>,
    /// Numbers left out.
    lost: u64,
    /// Frames that were not as they should be, where that is looked at.
    wrong: u64,
}

impl Window {
    fn take(&mut self, frame: &[u8], check: bool) {
        if check && wire::parse(frame, Checks::default()).is_err() {
            self.wrong += 1;
            return;
        }
        let Some((number, text)) = numbered::read(frame) else { return };
        // From one queue to another nothing is overtaken: numbers only leave some out.
        self.lost += u64::from(self.next.map_or(0, |next| number.wrapping_sub(next)));
        self.next = Some(number.wrapping_add(1));
        self.frames += 1;
        self.text_bytes += text as u64;
    }
}

/// Counts through warm-up and window; what came in the window. The rings' losses are those of both.
fn count(rings: &Rings, at: SocketAddrV4, length: Duration, check: bool, stop: &AtomicBool) -> Result<Value> {
    let interface = rings.interface()?;
    let mut steer = rings::load(&interface)?;
    let mut devices = rings.open(&interface, Some(at), &mut steer)?;
    let mut burst = Burst::with_capacity(BURST);
    let mut idle = 0;
    let mut window = Window::default();
    let mut start = Instant::now() + WARM_UP;
    let mut next_look = Instant::now();
    let mut counts = false;
    loop {
        if stop.load(Relaxed) {
            bail!("a signal ended the count before its time");
        }
        let now = Instant::now();
        if !counts && now >= start {
            (counts, start) = (true, now);
            window = Window { next: window.next, ..Window::default() };
        }
        if counts && now >= start + length {
            break;
        }
        if now >= next_look {
            next_look = now + LOOK;
            for device in &mut devices {
                device.ring_counts();
            }
        }
        idle += 1;
        for device in &mut devices {
            if device.receive(&mut burst, BURST) > 0 {
                idle = 0;
                burst.iter().for_each(|frame| window.take(frame, check));
                device.recycle(&mut burst);
            }
        }
        if idle >= SPINS {
            XdpDevice::wait_any(&mut devices, SLEEP);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let mut lost = RingCounts::default();
    for device in &mut devices {
        rings::add(&mut lost, &device.ring_counts());
    }
    let mut counts = json!({
        "frames": window.frames,
        "text_bytes": window.text_bytes,
        "seconds": seconds,
        "lost": window.lost,
        "wrong": window.wrong,
    });
    rings::tell(&mut counts, &lost);
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_frame_is_no_text_where_it_is_looked_at() {
        let ends = ["198.18.0.2:80", "198.18.0.1:9"].map(|text| text.parse().unwrap());
        let template = Template::new([[2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]], ends, 1500);
        let mut frame = vec![0; template.frame_len()];
        let taken = |frame: &[u8], check| {
            let mut window = Window::default();
            window.take(frame, check);
            (window.text_bytes, window.wrong)
        };
        template.write_anew(&mut frame, 7);
        assert_eq!(taken(&frame, true), (1460, 0));
        frame[1000] ^= 1;
        assert_eq!((taken(&frame, true), taken(&frame, false)), ((0, 1), (1460, 0)));
    }
}
