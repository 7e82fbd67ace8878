//! Busy polling and its watchdog.

use anyhow::{Result, ensure};
use synmill_vm::guest::Driver;

use crate::harness::{LISTEN_V4, Stage, Test};

pub(crate) const TESTS: &[Test] = &[("busy_poll", busy_poll)];

/// The words of the note about a stall.
const NOTE: &str = "that is off there now";

/// Both ends poll: every connection ends in order, even where the driver stalls until the watchdog wakes it.
fn busy_poll(stage: &mut Stage<'_>) -> Result<()> {
    let mode = stage.best();
    let serve = stage.serve(&format!("--mode {mode} --busy-poll {LISTEN_V4}"))?;
    let load = "--workload http --rate 100 --warmup 0s --duration 2s";
    let run = stage.bench(4, &format!("--mode {mode} --busy-poll {load}"))?.finish()?;
    let served = serve.stop()?;
    // Segments that waited for the watchdog are late and retransmitted, so the ends do not count the same segments.
    let opened = run.count("active_opens")?;
    for (what, count) in [
        ("established here", run.count("established")?),
        ("closed here", run.count("ended_closed")? + run.count("curr_time_wait")?),
        ("opened at the server", served.count("passive_opens")?),
    ] {
        ensure!(count == opened, "of {opened} connections {count} were {what}");
    }
    let stalls = run.count("busy_poll_stalls")?;
    stage.note(format!("{opened} connections, {stalls} stalls"));
    ensure!(
        (stalls > 0) == run.said.contains(NOTE),
        "{stalls} stalls, and the note about them is missing or wrong"
    );
    // Its TX queue has a NAPI of its own, which nobody polls.
    let stalls_surely = stage.plan.driver == Driver::Virtio && mode == "zerocopy";
    ensure!(
        stalls > 0 || !stalls_surely,
        "virtio_net no longer stalls under busy polling: what has changed?"
    );
    Ok(())
}
