//! A bare sender of full frames on AF_XDP, and a socket that counts them: the most that the rings carry. See [`synmill_benches::numbered`]
//! for the frames.

use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand};
use serde_json::{Value, json};
use synmill::host::nic::Interface;
use synmill::host::nic::route::next_hop;
use synmill::host::program::Program;
use synmill::host::rings::XdpDevice;
use synmill_benches::cores::{check, pin};
use synmill_benches::counts::total;
use synmill_benches::numbered::{self, Template};
use synmill_benches::rings::{Idle, Mode, load, losses, mac, reach, stop_flag};
use synmill_engine::device::{BURST, Burst, Device as _};
use synmill_engine::wire::{self, Checks};

/// The source port.
const FROM_PORT: u16 = 80;
/// Longest wait for the receiver's Ethernet address.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two readings of the losses, at which a device with losses gives the fill ring more frames.
const LOOK: Duration = Duration::from_millis(100);
/// The time before the window.
const WARM_UP: Duration = Duration::from_secs(1);

/// Sends full TCP segments as fast as the rings take them, or counts them
///
/// There is no connection: nothing is acknowledged or retransmitted. Prints its counts as one line of JSON.
#[derive(Parser)]
#[command(name = "synmill-bulk", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints `ready: ...` on standard error, and sends until SIGTERM or SIGINT
    Send {
        /// The receiver's address
        #[arg(long, value_name = "ADDR:PORT")]
        to: SocketAddrV4,
        /// Write and sum up the text of each frame, as a sender of new text has to
        #[arg(long)]
        anew: bool,
        #[command(flatten)]
        rings: Rings,
    },
    /// Counts frames for some seconds, after one second that does not count
    Count {
        /// The sender's destination; the address has to be the interface's
        #[arg(long, value_name = "ADDR:PORT")]
        at: SocketAddrV4,
        /// The window's length
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
        /// Check all of each frame with its checksums, as TCP has to; a wrong frame has no text
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
    /// The core of the thread
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// The mode of program and rings
    #[arg(long, value_enum, default_value_t = Mode::Copy)]
    mode: Mode,
}

impl Rings {
    /// Pins this thread and returns the interface.
    fn interface(&self) -> Result<Interface> {
        check(&[self.core])?;
        pin(self.core)?;
        Ok(Interface::find(&self.interface)?)
    }

    /// Opens all queues: RSS may choose any of them.
    fn open(
        &self,
        interface: &Interface,
        at: Option<SocketAddrV4>,
        program: &mut Program,
    ) -> Result<Vec<XdpDevice>> {
        let at: Vec<SocketAddr> = at.into_iter().map(SocketAddr::V4).collect();
        reach(interface, self.mode, &at, program)
    }
}

fn main() -> Result<()> {
    let stop = stop_flag()?;
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

/// Sends until `stop` is set, and returns the counts.
fn send(
    rings: &Rings,
    to: SocketAddrV4,
    write: fn(&Template, &mut [u8], u32),
    stop: &AtomicBool,
) -> Result<Value> {
    let interface = rings.interface()?;
    let (mac, to_mac) = (mac(&interface)?, next_hop(&interface, (*to.ip()).into(), PATIENCE)?);
    let from = interface.addresses.iter().find_map(|&(address, _)| match address {
        IpAddr::V4(address) => Some(SocketAddrV4::new(address, FROM_PORT)),
        IpAddr::V6(_) => None,
    });
    let from = from.with_context(|| format!("{} has no IPv4 address", interface.name))?;
    let template = Template::new([mac, to_mac], [from, to], interface.mtu);
    let mut program = load(&interface)?;
    let mut devices = rings.open(&interface, None, &mut program)?;
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
        // Without frames, too: those that the kernel has not sent yet need another kick.
        sent += device.transmit(&mut frames) as u64;
    }
    Ok(total([json!({ "frames": sent }), losses(&mut devices[..1])]))
}

/// The counts of the window.
#[derive(Default)]
struct Window {
    frames: u64,
    text_bytes: u64,
    /// The expected number, after the first frame.
    next: Option<u32>,
    /// Missing numbers.
    lost: u64,
    /// Wrong frames, if they are checked.
    wrong: u64,
}

impl Window {
    fn take(&mut self, frame: &[u8], check: bool) {
        if check && wire::parse(frame, Checks::default()).is_err() {
            self.wrong += 1;
            return;
        }
        let Some((number, text)) = numbered::read(frame) else { return };
        // Frames of one sender's queue come in order, so numbers only miss some.
        self.lost += u64::from(self.next.map_or(0, |next| number.wrapping_sub(next)));
        self.next = Some(number.wrapping_add(1));
        self.frames += 1;
        self.text_bytes += text as u64;
    }
}

/// Counts, and returns the counts of the window, with the losses of warm-up and window.
fn count(rings: &Rings, at: SocketAddrV4, length: Duration, check: bool, stop: &AtomicBool) -> Result<Value> {
    let interface = rings.interface()?;
    let mut program = load(&interface)?;
    let mut devices = rings.open(&interface, Some(at), &mut program)?;
    let mut burst = Burst::with_capacity(BURST);
    let mut idle = Idle::default();
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
        let mut had_frame = false;
        for device in &mut devices {
            if device.receive(&mut burst, BURST) > 0 {
                had_frame = true;
                burst.iter().for_each(|frame| window.take(frame, check));
                device.recycle(&mut burst);
            }
        }
        idle.after(had_frame, &mut devices);
    }
    let seconds = start.elapsed().as_secs_f64();
    let counts = json!({
        "frames": window.frames,
        "text_bytes": window.text_bytes,
        "seconds": seconds,
        "lost": window.lost,
        "wrong": window.wrong,
    });
    Ok(total([counts, losses(&mut devices)]))
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
