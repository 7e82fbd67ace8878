//! Every mode on this driver: granted where it should be, refused with its reason where it should not. Knows the drivers' table; never
//! what is sent over a connection.

use anyhow::{Context as _, Result, bail, ensure};
use synmill_lab::{SERVER_V4, SERVER_V6, Side};
use synmill_vm::guest::Row;

use crate::harness::{Attached, Stage, Test, alike, towards};

/// This file's.
pub(crate) const TESTS: &[Test] = &[("ladder", ladder)];

/// All modes, each with a load if it is bound.
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

/// A mode that the driver has: a load over both IP versions goes through, and nothing is lost.
fn granted(stage: &Stage<'_>, mode: &str, row: &mut Row) -> Result<()> {
    let listen = [format!("{SERVER_V4}:80"), format!("[{SERVER_V6}]:80")];
    let mut serve = stage.serve(&["--mode", mode, "--listen", &listen[0], "--listen", &listen[1]])?;
    let said = serve.process.said();
    let told = said.lines().find_map(|line| line.strip_prefix("mode: ")).context("serve told no mode")?;
    let (bound, reasons) = told.split_once(" (").unwrap_or((told, ""));
    row.bound = Some(bound.into());
    row.zero_copy = bound == "zerocopy";
    row.native = stage.attached(Side::Server)? == Attached::Native;

    let expected = if mode == "auto" { stage.best() } else { mode };
    ensure!(bound == expected, "{bound} is in force instead of {expected}: {told}");
    ensure!(row.native == (expected != "skb"), "{bound}, and the program is not where it belongs");
    if mode == "auto" {
        for faster in ["zerocopy", "copy"].into_iter().filter(|mode| !stage.grants(mode)) {
            ensure!(reasons.contains(faster) && reasons.contains(reason(stage, faster)), "not said: {told}");
        }
    }

    let mut runs = Vec::new();
    for (version, times) in [(4, ["--duration", "2s"]), (6, ["--duration", "500ms"])] {
        let towards = towards(version);
        let mut options: Vec<&str> = towards.iter().map(String::as_str).collect();
        options.extend(["--mode", mode, "--workload", "http", "--rate", "100", "--warmup", "0s"]);
        options.extend(times);
        let run = stage.bench(&options)?.finish(stage).with_context(|| format!("IPv{version}"))?;
        ensure!(run.text("/mode")? == expected, "bench is in mode {}", run.text("/mode")?);
        runs.push(run);
    }
    if serve.process.status()?.is_some() {
        bail!("serve has ended");
    }
    let served = serve.stop(stage)?;
    row.connections = Some(alike(&[&served], &runs.iter().collect::<Vec<_>>())?);
    Ok(())
}

/// A mode that it does not have: exit status 1, one line, and nothing is left on the interface.
fn refused(stage: &Stage<'_>, mode: &str, row: &mut Row) -> Result<()> {
    let listen = format!("{SERVER_V4}:80");
    let said = stage.refusal(&["--mode", mode, "--listen", &listen])?;
    row.errors = said.trim().trim_start_matches("error: ").into();
    ensure!(said.contains(reason(stage, mode)), "refused without the reason: {said}");
    Ok(())
}

/// What a refusal of this mode has to say on this driver.
fn reason(stage: &Stage<'_>, mode: &str) -> &'static str {
    match mode {
        "zerocopy" if stage.plan.driver.has_native_xdp() => "has no zero-copy mode",
        _ => "has no native XDP",
    }
}
