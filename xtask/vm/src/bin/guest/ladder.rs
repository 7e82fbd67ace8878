//! Every mode on this driver: synmill grants it, or refuses it with the reason.

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{Attached, Side};
use synmill_vm::guest::Row;

use crate::harness::{LISTEN, LISTEN_V4, Stage, Test, alike};

pub(crate) const TESTS: &[Test] = &[("ladder", ladder)];

/// Tries all modes, and reports a row for each.
fn ladder(stage: &mut Stage<'_>) -> Result<()> {
    let mut wrong = Vec::new();
    for mode in ["zerocopy", "copy", "skb", "auto"] {
        let mut row = Row {
            mode: mode.into(),
            bound: None,
            native: false,
            zero_copy: false,
            connections: None,
            errors: String::new(),
        };
        let done =
            if stage.grants(mode) { granted(stage, mode, &mut row) } else { refused(stage, mode, &mut row) };
        if let Err(error) = done {
            row.errors = format!("{error:#}");
            wrong.push(format!("{mode}: {error:#}"));
        }
        stage.note(format!("{mode} {}", row.bound.as_deref().unwrap_or("refused")));
        stage.row(row)?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Checks a mode that the driver has: it carries a load over both IP versions without losses.
fn granted(stage: &Stage<'_>, mode: &str, row: &mut Row) -> Result<()> {
    let mut serve = stage.serve(&format!("--mode {mode} {LISTEN}"))?;
    let said = serve.process.said();
    let told = said.lines().find_map(|line| line.strip_prefix("mode: ")).context("serve told no mode")?;
    let (bound, reasons) = told.split_once(" (").unwrap_or((told, ""));
    row.bound = Some(bound.into());
    row.zero_copy = bound == "zerocopy";
    row.native = stage.lab.attached(Side::Server)? == Attached::Native;

    let expected = if mode == "auto" { stage.best() } else { mode };
    ensure!(bound == expected, "{bound} is in force instead of {expected}: {told}");
    ensure!(row.native == (expected != "skb"), "{bound}, and the program is not where it belongs");
    if mode == "auto" {
        for faster in ["zerocopy", "copy"].into_iter().filter(|mode| !stage.grants(mode)) {
            ensure!(reasons.contains(faster) && reasons.contains(reason(stage, faster)), "not said: {told}");
        }
    }

    let mut runs = Vec::new();
    for (version, duration) in [(4, "2s"), (6, "500ms")] {
        let load = format!("--workload http --rate 100 --warmup 0s --duration {duration}");
        let bench = stage.bench(version, &format!("--mode {mode} {load}"))?;
        let run = bench.finish().with_context(|| format!("IPv{version}"))?;
        ensure!(run.text("/mode")? == expected, "bench is in mode {}", run.text("/mode")?);
        runs.push(run);
    }
    serve.process.check()?;
    row.connections = Some(alike(&[&serve.stop()?], &runs.iter().collect::<Vec<_>>())?);
    Ok(())
}

/// Checks a mode that the driver does not have: synmill refuses it with the reason.
fn refused(stage: &Stage<'_>, mode: &str, row: &mut Row) -> Result<()> {
    let said = stage.refusal(&format!("--mode {mode} {LISTEN_V4}"))?;
    row.errors = said.trim().trim_start_matches("error: ").into();
    ensure!(said.contains(reason(stage, mode)), "refused without the reason: {said}");
    Ok(())
}

/// Returns a part of the refusal of this mode on this driver.
fn reason(stage: &Stage<'_>, mode: &str) -> &'static str {
    match mode {
        "zerocopy" if stage.plan.driver.has_native_xdp() => "has no zero-copy mode",
        _ => "has no native XDP",
    }
}
