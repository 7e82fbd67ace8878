//! Queues of virtio_net that are off until a program is attached. Knows what serve says of them; never what the driver does with them.

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{SERVER_INTERFACE, SERVER_V4, Side};
use synmill_vm::guest::{Driver, Plan};

use crate::harness::{Stage, Test, alike, towards};

/// The driver switches on one for each of the guest's two cores, and only if they are all to be had.
const ON: u32 = 2;

/// This file's, where there are queues to spare.
pub(crate) const fn tests(plan: &Plan) -> &'static [Test] {
    match plan.driver {
        Driver::Virtio | Driver::VirtioCopy if plan.queues >= 2 * ON => &[("spare_queues", spare_queues)],
        _ => &[],
    }
}

/// Refused with the line that helps as long as some are off; whole with all of them on.
fn spare_queues(stage: &mut Stage<'_>) -> Result<()> {
    let (mode, listen, all) = (stage.best(), format!("{SERVER_V4}:80"), stage.plan.queues);
    let options = ["--mode", mode, "--listen", &listen];
    combine(stage, ON)?;
    let refusal = stage.refusal(&options);
    // The line that the refusal gives.
    combine(stage, all)?;
    let (said, way_out) = (refusal?, format!("`ethtool -L {SERVER_INTERFACE} combined {all}` first"));
    ensure!(said.contains(&way_out), "not said: {way_out}: {said}");

    let serve = stage.serve(&options)?;
    let towards = towards(4);
    let mut options: Vec<&str> = towards.iter().map(String::as_str).collect();
    options.extend(["--mode", mode, "--workload", "http", "--rate", "100", "--warmup", "0s"]);
    options.extend(["--duration", "1s"]);
    let bench = stage.bench(&options)?.finish(stage)?;
    let opened = alike(&[&serve.stop(stage)?], &[&bench]).context("with all queues on")?;
    stage.note(format!("{ON} of {all} refused, {opened} connections with {all}"));
    Ok(())
}

/// Switches so many of the server's queues on, and no more.
fn combine(stage: &Stage<'_>, queues: u32) -> Result<()> {
    let queues = queues.to_string();
    stage.ask(Side::Server, &["ethtool", "-L", SERVER_INTERFACE, "combined", &queues]).map(drop)
}
