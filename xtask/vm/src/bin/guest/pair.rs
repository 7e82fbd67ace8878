//! synmill at both ends, each on its NIC, in the best mode: both must count the same.

use anyhow::{Result, ensure};

use crate::harness::{LISTEN, Stage, Test, alike};

pub(crate) const TESTS: &[Test] = &[
    ("pair_ipv4_peer", |stage| pair(stage, 4, "peer")),
    ("pair_ipv4_fin", |stage| pair(stage, 4, "fin")),
    ("pair_ipv6_rst", |stage| pair(stage, 6, "rst")),
];

/// Runs connections with a request each over one IP version, closed in one way.
fn pair(stage: &mut Stage<'_>, version: u8, close: &str) -> Result<()> {
    let mode = stage.best();
    let serve = stage.serve(&format!("--mode {mode} {LISTEN}"))?;
    let load = "--workload http --rate 100 --warmup 0s --duration 2s";
    let bench = stage.bench(version, &format!("--mode {mode} --close {close} {load}"))?.finish()?;
    let serve = serve.stop()?;

    let wanted = stage.workers()?;
    for run in [&serve, &bench] {
        ensure!(run.text("/mode")? == mode, "in mode {} instead of {mode}", run.text("/mode")?);
        let workers = run.count("/workers")?;
        ensure!(workers == wanted, "{workers} workers for {} queues instead of {wanted}", stage.plan.queues);
    }
    let started = bench.count("/connections/started")?;
    for what in ["/connections/established", "/connections/closed", "/requests/done"] {
        let count = bench.count(what)?;
        ensure!(count == started, "{started} connections started, {what} {count}");
    }
    let opened = alike(&[&serve], &[&bench])?;
    let s = if wanted == 1 { "" } else { "s" };
    stage.note(format!("{opened} connections, {mode}, {wanted} worker{s}"));
    Ok(())
}
