//! A client in a VLAN: synmill answers tagged frames with their tags.

use anyhow::{Result, ensure};
use synmill_lab::{CLIENT_INTERFACE, CLIENT_V4, SERVER_INTERFACE, Side};

use crate::harness::{Stage, Test};

pub(crate) const TESTS: &[Test] = &[("vlan", vlan)];

/// The VLAN's interfaces at both ends.
const CLIENT: &str = "smc0.5";
const SERVER: &str = "sms0.5";
/// An address that only serve has, so that serve answers for it in the VLAN.
const OWNED: &str = "198.18.0.9";
/// Bytes of an answer.
const ANSWER: usize = 100_000;

fn vlan(stage: &mut Stage<'_>) -> Result<()> {
    let done = make(stage).and_then(|()| notes(stage)).and_then(|()| serves(stage));
    unmake(stage)?;
    done
}

/// Makes the client's kernel send everything with the tag of VLAN 5.
fn make(stage: &Stage<'_>) -> Result<()> {
    for (side, command) in [
        (Side::Client, format!("ip link add link {CLIENT_INTERFACE} name {CLIENT} type vlan id 5")),
        (Side::Client, format!("ip link set {CLIENT} addrgenmode none")),
        (Side::Client, format!("ip address delete {CLIENT_V4}/24 dev {CLIENT_INTERFACE}")),
        (Side::Client, format!("ip address add {CLIENT_V4}/24 dev {CLIENT}")),
        (Side::Client, format!("ip link set {CLIENT} up")),
        // A NIC with a VLAN filter receives the VLANs of its interfaces only.
        (Side::Server, format!("ip link add link {SERVER_INTERFACE} name {SERVER} type vlan id 5")),
    ] {
        stage.ask(side, &command)?;
    }
    Ok(())
}

fn unmake(stage: &Stage<'_>) -> Result<()> {
    let _ = stage.ask(Side::Server, &format!("ethtool -K {SERVER_INTERFACE} rxvlan on"));
    for (side, interface) in [(Side::Client, CLIENT), (Side::Server, SERVER)] {
        if stage.ask(side, "ip -oneline link")?.contains(interface) {
            stage.ask(side, &format!("ip link delete {interface}"))?;
        }
    }
    let restore = format!("ip address replace {CLIENT_V4}/24 dev {CLIENT_INTERFACE}");
    stage.ask(Side::Client, &restore).map(drop)
}

/// Where the NIC strips tags, serve says so and names the command against it.
fn notes(stage: &mut Stage<'_>) -> Result<()> {
    let features = stage.ask(Side::Server, &format!("ethtool -k {SERVER_INTERFACE}"))?;
    if !features.contains("rx-vlan-offload: on") {
        return Ok(());
    }
    let run = stage.serve(&format!("--mode {} --listen {OWNED}:80", stage.best()))?.stop()?;
    let (what, way_out) = ("takes their tags off", format!("ethtool -K {SERVER_INTERFACE} rxvlan off"));
    ensure!(run.said.contains(what) && run.said.contains(&way_out), "not said: {way_out}: {}", run.said);
    stage.ask(Side::Server, &way_out)?;
    stage.note("tags were taken off");
    Ok(())
}

fn serves(stage: &Stage<'_>) -> Result<()> {
    let serve = stage.serve(&format!("--mode {} --listen {OWNED}:80=http:{ANSWER}", stage.best()))?;
    let got = stage.fetch(&format!("http://{OWNED}/"))?.len();
    ensure!(got == ANSWER, "the client in the VLAN got {got} bytes of {ANSWER}");
    ensure!(serve.stop()?.count("passive_opens")? == 1, "serve opened another number of connections");
    Ok(())
}
