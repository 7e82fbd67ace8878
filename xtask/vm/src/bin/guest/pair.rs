//! Both ends are ours, each on its NIC, in the best mode there is: what one counts the other has to count, too. Knows loads; never modes'
//! names.

use anyhow::{Result, ensure};
use synmill_lab::{SERVER_V4, SERVER_V6};

use crate::harness::{Report, Stage, Test, alike, towards};

/// This file's.
pub(crate) const TESTS: &[Test] = &[
    ("pair_ipv4_peer", |stage| pair(stage, 4, "peer")),
    ("pair_ipv4_fin", |stage| pair(stage, 4, "fin")),
    ("pair_ipv6_rst", |stage| pair(stage, 6, "rst")),
];

/// Connections with a request each over one IP version, ended in one way.
fn pair(stage: &mut Stage<'_>, version: u8, close: &str) -> Result<()> {
    let listen = if version == 4 { format!("{SERVER_V4}:80") } else { format!("[{SERVER_V6}]:80") };
    let (mode, towards) = (stage.best(), towards(version));
    let serve = stage.serve(&["--mode", mode, "--listen", &listen])?;
    let mut options: Vec<&str> = towards.iter().map(String::as_str).collect();
    options.extend(["--mode", mode, "--workload", "http", "--close", close]);
    options.extend(["--rate", "100", "--warmup", "0s", "--duration", "2s"]);
    let bench = stage.bench(&options)?.finish(stage)?;
    let serve = serve.stop(stage)?;

    for report in [&serve, &bench] {
        ensure!(report.text("/mode")? == mode, "in mode {} instead of {mode}", report.text("/mode")?);
        check_workers(stage, report)?;
    }
    let started = bench.count("/connections/started")?;
    for what in ["/connections/established", "/connections/closed", "/requests/done"] {
        let count = bench.count(what)?;
        ensure!(count == started, "{started} connections started, {what} {count}");
    }
    let opened = alike(&[&serve], &[&bench])?;
    let workers = serve.count("/workers")?;
    stage.note(format!(
        "{opened} connections, {mode}, {workers} worker{}",
        if workers == 1 { "" } else { "s" }
    ));
    Ok(())
}

/// All of them have their workers.
fn check_workers(stage: &Stage<'_>, report: &Report) -> Result<()> {
    let (workers, wanted) = (report.count("/workers")?, stage.workers()?);
    ensure!(workers == wanted, "{workers} workers for {} queues instead of {wanted}", stage.plan.queues);
    Ok(())
}
