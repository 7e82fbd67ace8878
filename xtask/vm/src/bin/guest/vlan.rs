//! A client in a VLAN: tagged frames are answered with their tags. Knows tags; never who else may see them.

use anyhow::{Result, ensure};
use synmill_lab::{CLIENT_INTERFACE, CLIENT_V4, SERVER_INTERFACE, Side};

use crate::harness::{Stage, Test};

/// This file's.
pub(crate) const TESTS: &[Test] = &[("vlan", vlan)];

/// The VLAN's interfaces at both ends.
const CLIENT: &str = "smc0.5";
const SERVER: &str = "sms0.5";
/// An address that only serve has, so that serve answers for it in the VLAN, too.
const OWNED: &str = "198.18.0.9";
/// The bytes of an answer.
const ANSWER: usize = 100_000;

fn vlan(stage: &mut Stage<'_>) -> Result<()> {
    let done = make(stage).and_then(|()| told(stage)).and_then(|()| served(stage));
    unmake(stage)?;
    done
}

/// The client's kernel speaks with the tag of VLAN 5 only.
fn make(stage: &Stage<'_>) -> Result<()> {
    let address = format!("{CLIENT_V4}/24");
    for (side, arguments) in [
        (
            Side::Client,
            &["link", "add", "link", CLIENT_INTERFACE, "name", CLIENT, "type", "vlan", "id", "5"][..],
        ),
        (Side::Client, &["link", "set", CLIENT, "addrgenmode", "none"]),
        (Side::Client, &["address", "delete", &address, "dev", CLIENT_INTERFACE]),
        (Side::Client, &["address", "add", &address, "dev", CLIENT]),
        (Side::Client, &["link", "set", CLIENT, "up"]),
        // A NIC that filters lets through the VLANs it knows.
        (Side::Server, &["link", "add", "link", SERVER_INTERFACE, "name", SERVER, "type", "vlan", "id", "5"]),
    ] {
        stage.ask(side, &[&["ip"][..], arguments].concat())?;
    }
    Ok(())
}

fn unmake(stage: &Stage<'_>) -> Result<()> {
    let address = format!("{CLIENT_V4}/24");
    let _ = stage.ask(Side::Server, &["ethtool", "-K", SERVER_INTERFACE, "rxvlan", "on"]);
    for (side, interface) in [(Side::Client, CLIENT), (Side::Server, SERVER)] {
        if stage.ask(side, &["ip", "-oneline", "link"])?.contains(interface) {
            stage.ask(side, &["ip", "link", "delete", interface])?;
        }
    }
    stage.ask(Side::Client, &["ip", "address", "replace", &address, "dev", CLIENT_INTERFACE]).map(drop)
}

/// Where the NIC takes tags off serve says so, and how it is told not to.
fn told(stage: &mut Stage<'_>) -> Result<()> {
    let features = stage.ask(Side::Server, &["ethtool", "-k", SERVER_INTERFACE])?;
    if !features.contains("rx-vlan-offload: on") {
        return Ok(());
    }
    let serve = stage.serve(&["--mode", stage.best(), "--listen", &format!("{OWNED}:80")])?;
    let said = serve.process.said();
    serve.stop(stage)?;
    let (what, way_out) = ("takes their tags off", format!("ethtool -K {SERVER_INTERFACE} rxvlan off"));
    ensure!(said.contains(what) && said.contains(&way_out), "not said: {way_out}: {said}");
    let way_out: Vec<&str> = way_out.split(' ').collect();
    stage.ask(Side::Server, &way_out)?;
    stage.note("tags were taken off");
    Ok(())
}

fn served(stage: &Stage<'_>) -> Result<()> {
    let listen = format!("{OWNED}:80=http:{ANSWER}");
    let serve = stage.serve(&["--mode", stage.best(), "--listen", &listen])?;
    let got = stage.fetch(&format!("http://{OWNED}/"))?.len();
    ensure!(got == ANSWER, "the client in the VLAN got {got} bytes of {ANSWER}");
    let report = serve.stop(stage)?;
    ensure!(report.counter("passive_opens")? == 1, "serve opened another number of connections");
    Ok(())
}
