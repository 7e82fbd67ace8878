//! Surprises of an interface that are no errors.

use synmill_engine::device::Buffers;
use synmill_engine::endpoint::Settings;

use super::options::Options;
use crate::host::nic::{Interface, buffers};

/// Returns what the user should know of the interface, a line each.
pub(super) fn notes(options: &Options, settings: &Settings, interface: &Interface) -> Vec<String> {
    let mut notes = Vec::new();
    let Interface { name, mtu, .. } = interface;
    let (is_veth, accepts_partial) = (interface.driver == "veth", settings.accept_partial_checksums);
    if !interface.carrier {
        notes.push(format!("{name} has no carrier yet: nothing arrives until its other end is up"));
    }
    if is_veth && !accepts_partial {
        notes.push(format!(
            "{name} is a veth: a kernel at its other end may leave checksums unfinished, and those segments are dropped; \
             there: ethtool -K <peer> tx off, or here: --accept-partial-checksums"
        ));
    }
    if is_veth && accepts_partial && buffers(&interface.driver, *mtu) == Buffers::Several {
        notes.push(format!(
            "{name} is a veth with an MTU of {mtu}: a kernel at its other end may send many segments as one packet, larger than a frame, \
             and they are lost; there: ethtool -K <peer> tso off"
        ));
    }
    if is_veth && options.busy_poll {
        notes.push(format!("--busy-poll does nothing on {name}: veth has no NAPI to poll"));
    }
    if interface.offloads.lro {
        notes.push(format!(
            "{name} merges segments (LRO) into packets that may be larger than a frame, and are lost then: \
             ethtool -K {name} lro off"
        ));
    }
    if interface.offloads.strips_vlan && interface.carries_vlans {
        let fix = if is_veth {
            "at its other end: ethtool -K <peer> txvlan off".into()
        } else {
            format!("ethtool -K {name} rxvlan off")
        };
        notes.push(format!(
            "{name} has VLANs and takes their tags off: a packet with a tag is answered without one; {fix}"
        ));
    }
    notes
}
