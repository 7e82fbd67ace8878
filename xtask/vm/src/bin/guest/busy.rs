//! Busy polling, and its watchdog. Knows what is said of it; never how it is done.

use anyhow::{Result, ensure};
use synmill_lab::SERVER_V4;
use synmill_vm::guest::Driver;

use crate::harness::{Stage, Test, towards};

/// This file's.
pub(crate) const TESTS: &[Test] = &[("busy_poll", busy_poll)];

/// What is said where it stalls.
const NOTE: &str = "that is off there now";

/// Both ends poll: every connection comes to its end, whether the driver has its wakeups only or not at all.
fn busy_poll(stage: &mut Stage<'_>) -> Result<()> {
    let listen = format!("{SERVER_V4}:80");
    let serve = stage.serve(&["--mode", stage.best(), "--busy-poll", "--listen", &listen])?;
    let towards = towards(4);
    let mut options: Vec<&str> = towards.iter().map(String::as_str).collect();
    options.extend(["--mode", stage.best(), "--busy-poll", "--workload", "http", "--rate", "100"]);
    options.extend(["--warmup", "0s", "--duration", "2s"]);
    let mut bench = stage.bench(&options)?;
    bench.process.end()?;
    let said = bench.process.said();
    let run = bench.finish(stage)?;
    let served = serve.stop(stage)?;
    // What waited for the watchdog is late, and sent again: the ends are not alike in segments.
    let opened = run.counter("active_opens")?;
    for (what, count) in [
        ("established here", run.counter("established")?),
        ("closed here", run.counter("ended_closed")? + run.counter("curr_time_wait")?),
        ("opened at the server", served.counter("passive_opens")?),
    ] {
        ensure!(count == opened, "of {opened} connections {count} were {what}");
    }
    let stalls = run.counter("busy_poll_stalls")?;
    stage.note(format!("{opened} connections, {stalls} stalls"));
    ensure!((stalls > 0) == said.contains(NOTE), "{stalls} stalls, and not a word of it, or the wrong one");
    // Its sending has a NAPI of its own, which no one polls.
    let stalls_surely = stage.plan.driver == Driver::Virtio && stage.best() == "zerocopy";
    ensure!(
        stalls > 0 || !stalls_surely,
        "virtio_net sends while it is polled for preference: what has changed?"
    );
    Ok(())
}
