//! The rings of an interface, for the peers that are no endpoints. Knows sockets, the program and modes; never what frames carry.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};
use synmill::host::nic::{Interface, Link, buffers, link};

use synmill::host::program::{AttachMode, Program};
use synmill::host::rings::{BindMode, XdpDevice, XdpOptions};
use synmill_engine::device::RingCounts;

/// How long a driver may take to bring the carrier back after the program was attached.
const CARRIER_BACK: Duration = Duration::from_secs(10);

/// How the driver is reached.
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
/// What the kernel refused; or the interface has no Ethernet address.
pub fn load(interface: &Interface) -> Result<Program> {
    Ok(Program::load(mac(interface)?, buffers(&interface.driver, interface.mtu), None)?)
}

/// Attaches the program and binds every queue, in order. What is sent to one of `addresses` comes to the rings.
///
/// # Errors
/// What the kernel refused.
pub fn reach(
    interface: &Interface,
    mode: Mode,
    addresses: &[SocketAddr],
    steer: &mut Program,
) -> Result<Vec<XdpDevice>> {
    for address in addresses {
        steer.add_listener(address.ip().into(), address.port())?;
    }
    let (attach, bind) = match mode {
        Mode::Copy => (AttachMode::Driver, BindMode::Copy),
        Mode::Skb => (AttachMode::Skb, BindMode::Copy),
        Mode::Zerocopy => (AttachMode::Driver, BindMode::ZeroCopy),
    };
    steer.attach(&interface.name, attach)?;
    let mut devices = Vec::new();
    for queue in 0..interface.queues.rx {
        let device = XdpDevice::open(&XdpOptions {
            mtu: interface.mtu,
            buffers: buffers(&interface.driver, interface.mtu),
            ..XdpOptions::new(&interface.name, queue as u32, bind)
        })?;
        steer.set_socket(queue as u32, device.fd())?;
        devices.push(device);
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

/// The interface's own Ethernet address.
///
/// # Errors
/// It has none.
pub fn mac(interface: &Interface) -> Result<[u8; 6]> {
    interface.mac.with_context(|| format!("{} is no Ethernet interface", interface.name))
}

/// What the rings lost, added up.
pub fn add(total: &mut RingCounts, other: &RingCounts) {
    total.rx_ring_full += other.rx_ring_full;
    total.fill_ring_empty += other.fill_ring_empty;
    total.rx_dropped += other.rx_dropped;
    total.tx_invalid += other.tx_invalid;
    total.tx_ring_full += other.tx_ring_full;
}

/// Puts what the rings lost beside other counts, which are an object.
pub fn tell(counts: &mut Value, rings: &RingCounts) {
    for (name, count) in [
        ("rx_ring_full", rings.rx_ring_full),
        ("fill_ring_empty", rings.fill_ring_empty),
        ("rx_dropped", rings.rx_dropped),
        ("tx_invalid", rings.tx_invalid),
        ("tx_ring_full", rings.tx_ring_full),
    ] {
        counts[name] = json!(count);
    }
}
