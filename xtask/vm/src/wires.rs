//! What joins the guest's two NICs, outside of it. Knows QEMU's back ends and `ip`; never drivers of the guest.

use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};
use synmill_lab::output;

use crate::guest::{Driver, Plan, WIRES};

/// What joins the two NICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wires {
    /// QEMU's own hub: nothing of the host's. A NIC that spreads flows over its queues by itself needs no more.
    Hub,
    /// A TAP device each, and a bridge between them: virtio-net leaves it to its back end which queue a frame comes in by, and only this one
    /// has several. They are in a network namespace without a name, which ends with its last process, QEMU: nothing is left behind, whatever
    /// happens. Takes root.
    Taps { queues: u32 },
}

impl Wires {
    /// What this plan needs.
    pub(crate) fn of(plan: &Plan) -> Self {
        match plan.driver {
            Driver::Virtio | Driver::VirtioCopy if plan.queues > 1 => Self::Taps { queues: plan.queues },
            _ => Self::Hub,
        }
    }

    /// Are they made of what only root may make?
    pub(crate) fn need_root(self) -> bool {
        matches!(self, Self::Taps { .. })
    }

    /// The name of an end, and QEMU's back end for it.
    pub(crate) fn back_end(self, end: usize) -> (&'static str, String) {
        let wire = WIRES[end];
        let back_end = match self {
            Self::Hub => format!("hubport,hubid=0,id={wire}"),
            // Without the header of virtio there are no offloads: checksums are whole, as on any other wire.
            Self::Taps { queues } => format!(
                "tap,id={wire},ifname={},queues={queues},script=no,downscript=no,vhost=off,vnet_hdr=off",
                TAPS[end]
            ),
        };
        (wire, back_end)
    }

    /// Has `action` start its process where the wires are.
    pub(crate) fn inside<T: Send>(self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        if self == Self::Hub {
            return action();
        }
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
                join_taps()?;
                action()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

const TAPS: [&str; 2] = ["tap-client", "tap-server"];
const BRIDGE: &str = "bridge";
/// Larger than any of the guest's, which its tests change.
const MTU: &str = "9000";

/// Makes the two devices and their bridge in the namespace that this thread is in.
fn join_taps() -> Result<()> {
    let ip = |line: &str| output(Command::new("ip").args(line.split(' '))).map(drop);
    ip(&format!("link add name {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
    for tap in TAPS {
        ip(&format!("tuntap add dev {tap} mode tap multi_queue"))?;
        ip(&format!("link set {tap} mtu {MTU} master {BRIDGE}"))?;
    }
    for device in [BRIDGE].into_iter().chain(TAPS) {
        // Nothing of the host's own may be heard on the wire.
        ip(&format!("link set {device} addrgenmode none"))?;
        ip(&format!("link set {device} up"))?;
    }
    Ok(())
}
