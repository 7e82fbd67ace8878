//! Queues of virtio_net that are off until a program is attached.

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{SERVER_INTERFACE, Side};
use synmill_vm::guest::{Driver, Plan};

use crate::harness::{LISTEN_V4, Stage, Test, alike};

/// Queues that the driver switches on: one for each of the guest's two cores.
const ON: u32 = 2;

/// Returns the tests for a plan: none without spare queues.
pub(crate) const fn tests(plan: &Plan) -> &'static [Test] {
    match plan.driver {
        Driver::Virtio | Driver::VirtioCopy if plan.queues >= 2 * ON => &[("spare_queues", spare_queues)],
        _ => &[],
    }
}

/// With some queues off, synmill refuses and names the command that helps; with all of them on, it works.
fn spare_queues(stage: &mut Stage<'_>) -> Result<()> {
    let (mode, all) = (stage.best(), stage.plan.queues);
    let options = format!("--mode {mode} {LISTEN_V4}");
    combine(stage, ON)?;
    let refusal = stage.refusal(&options);
    // The command of the refusal.
    combine(stage, all)?;
    let (said, way_out) = (refusal?, format!("`ethtool -L {SERVER_INTERFACE} combined {all}` first"));
    ensure!(said.contains(&way_out), "not said: {way_out}: {said}");

    let serve = stage.serve(&options)?;
    let load = "--workload http --rate 100 --warmup 0s --duration 1s";
    let bench = stage.bench(4, &format!("--mode {mode} {load}"))?.finish()?;
    let opened = alike(&[&serve.stop()?], &[&bench]).context("with all queues on")?;
    stage.note(format!("{ON} of {all} refused, {opened} connections with {all}"));
    Ok(())
}

/// Sets the number of the server's queues that are on.
fn combine(stage: &Stage<'_>, queues: u32) -> Result<()> {
    stage.ask(Side::Server, &format!("ethtool -L {SERVER_INTERFACE} combined {queues}")).map(drop)
}
