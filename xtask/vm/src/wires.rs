//! The wire between the guest's two NICs: QEMU's back ends, or TAP devices of the host.

use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, unshare};
use synmill_lab::output;

use crate::guest::{Driver, Plan, WIRES};

/// The kind of wire between the two NICs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wires {
    /// QEMU's own hub, which needs nothing from the host. A NIC that spreads flows over its queues itself works with it.
    Hub,
    /// A TAP device for each NIC, and a bridge between them: virtio-net leaves the choice of the queue to its back end, and only TAP
    /// has several queues. The devices are in a network namespace without a name, which ends with its last process, QEMU, so nothing
    /// is left behind. It takes root.
    Taps { queues: u32 },
}

impl Wires {
    /// Returns the wire that a plan needs.
    pub(crate) fn of(plan: &Plan) -> Self {
        match plan.driver {
            Driver::Virtio | Driver::VirtioCopy if plan.queues > 1 => Self::Taps { queues: plan.queues },
            _ => Self::Hub,
        }
    }

    /// Returns whether only root can make the wire.
    pub(crate) fn need_root(self) -> bool {
        matches!(self, Self::Taps { .. })
    }

    /// Returns the name of an end, and QEMU's back end for it.
    pub(crate) fn back_end(self, end: usize) -> (&'static str, String) {
        let wire = WIRES[end];
        let back_end = match self {
            Self::Hub => format!("hubport,hubid=0,id={wire}"),
            // Without virtio's header there are no offloads: checksums are complete, as on any other wire.
            Self::Taps { queues } => format!(
                "tap,id={wire},ifname={},queues={queues},script=no,downscript=no,vhost=off,vnet_hdr=off",
                TAPS[end]
            ),
        };
        (wire, back_end)
    }

    /// Runs `action`, which starts QEMU, in the network namespace of the wire.
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
/// At least the MTU of every test in the guest.
const MTU: &str = "9000";

/// Makes the two TAP devices and their bridge in this thread's namespace.
fn join_taps() -> Result<()> {
    let ip = |line: &str| output(Command::new("ip").args(line.split(' '))).map(drop);
    ip(&format!("link add name {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"))?;
    for tap in TAPS {
        ip(&format!("tuntap add dev {tap} mode tap multi_queue"))?;
        ip(&format!("link set {tap} mtu {MTU} master {BRIDGE}"))?;
    }
    for device in [BRIDGE].into_iter().chain(TAPS) {
        // The host's kernel must not send anything on the wire.
        ip(&format!("link set {device} addrgenmode none"))?;
        ip(&format!("link set {device} up"))?;
    }
    Ok(())
}
