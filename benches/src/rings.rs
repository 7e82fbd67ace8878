//! The rings of an interface, for the peers that are no endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use synmill::host::nic::{Interface, Link, buffers, link};
use synmill::host::program::{AttachMode, Program};
use synmill::host::rings::{BindMode, XdpDevice, XdpOptions};
use synmill_engine::device::{Device as _, RingCounts};

use crate::counts::total;

/// Turns without a frame before a thread sleeps.
const SPINS: u32 = 2000;
/// The longest sleep.
const SLEEP: Duration = Duration::from_millis(10);
/// Longest wait for the carrier after the program is attached.
const CARRIER_BACK: Duration = Duration::from_secs(10);

/// The mode of program and rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Native XDP, packets copied
    Copy,
    /// Generic XDP, packets copied
    Skb,
    /// Native XDP, nothing copied
    Zerocopy,
}

/// Loads the program for this interface.
///
/// # Errors
/// The kernel refuses it, or the interface has no Ethernet address.
pub fn load(interface: &Interface) -> Result<Program> {
    Ok(Program::load(mac(interface)?, buffers(&interface.driver, interface.mtu), None)?)
}

/// Attaches the program and binds every queue, in order. Packets to one of `addresses` come to the rings.
///
/// # Errors
/// The kernel refuses it.
pub fn reach(
    interface: &Interface,
    mode: Mode,
    addresses: &[SocketAddr],
    program: &mut Program,
) -> Result<Vec<XdpDevice>> {
    for address in addresses {
        program.add_listener(address.ip().into(), address.port())?;
    }
    let (attach, bind) = match mode {
        Mode::Copy => (AttachMode::Driver, BindMode::Copy),
        Mode::Skb => (AttachMode::Skb, BindMode::Copy),
        Mode::Zerocopy => (AttachMode::Driver, BindMode::ZeroCopy),
    };
    program.attach(&interface.name, attach)?;
    let mut devices = Vec::new();
    for queue in 0..interface.queues.rx {
        let device = XdpDevice::open(&XdpOptions {
            mtu: interface.mtu,
            buffers: buffers(&interface.driver, interface.mtu),
            ..XdpOptions::new(&interface.name, queue as u32, bind)
        })?;
        program.set_socket(queue as u32, device.fd())?;
        devices.push(device);
    }
    await_carrier(interface)?;
    Ok(devices)
}

/// Waits for the carrier: some drivers reset the link when a program is attached.
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

/// Returns the interface's Ethernet address.
///
/// # Errors
/// It has none.
pub fn mac(interface: &Interface) -> Result<[u8; 6]> {
    interface.mac.with_context(|| format!("{} is no Ethernet interface", interface.name))
}

/// Counts the losses at the rings of all devices.
pub fn losses(devices: &mut [XdpDevice]) -> Value {
    let of = |device: &mut XdpDevice| {
        let RingCounts { rx_ring_full, fill_ring_empty, rx_dropped, tx_invalid, tx_ring_full, .. } =
            device.ring_counts();
        json!({
            "rx_ring_full": rx_ring_full,
            "fill_ring_empty": fill_ring_empty,
            "rx_dropped": rx_dropped,
            "tx_invalid": tx_invalid,
            "tx_ring_full": tx_ring_full,
        })
    };
    total(devices.iter_mut().map(of))
}

/// The sleep of an idle thread.
#[derive(Debug, Default)]
pub struct Idle(u32);

impl Idle {
    /// Notes whether a turn had a frame. After many without one, sleeps until a frame comes, or for a moment, so that the thread sees a
    /// signal.
    #[inline]
    pub fn after(&mut self, had_frame: bool, devices: &mut [XdpDevice]) {
        self.0 = if had_frame { 0 } else { self.0 + 1 };
        if self.0 >= SPINS {
            XdpDevice::wait_any(devices, SLEEP);
        }
    }
}

/// Returns a flag that SIGTERM and SIGINT set.
///
/// # Errors
/// The kernel refuses the signal handler.
pub fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("installing a signal handler")?;
    }
    Ok(stop)
}
