//! `--steer`: the NIC steers packets to the named queues, and synmill restores its settings afterwards.

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{SERVER_INTERFACE, SERVER_V4, SERVER_V6, Side};
use synmill_vm::guest::Driver;

use crate::harness::{LISTEN, LISTEN_V4, Stage, Test};

pub(crate) const TESTS: &[Test] = &[("steer_by_rules", by_rules), ("steer_by_table", by_table)];

/// Fetches over each IP version: as many flows, which RSS would spread over both queues.
const FETCHES: usize = 8;

/// Returns the RSS table, as ethtool prints it.
fn table(stage: &Stage<'_>, side: Side) -> Result<String> {
    stage.ask(side, &format!("ethtool -x {}", side.interface()))
}

/// Returns the error of `synmill serve` for this steering to one of its queues.
fn refusal(stage: &Stage<'_>, steer: &str) -> Result<String> {
    stage.refusal(&format!("--mode {} {LISTEN_V4} --queues 0 --steer {steer}", stage.best()))
}

/// None of the emulated NICs has flow rules. The 82576 reports that it has none set, and refuses each new one.
fn by_rules(stage: &mut Stage<'_>) -> Result<()> {
    let is_igb = stage.plan.driver == Driver::Igb;
    if is_igb && stage.plan.queues == 1 {
        stage.note("no rule is needed");
        return Ok(());
    }
    let said = refusal(stage, "ntuple")?;
    let reason = if is_igb { "takes no flow rule for TCP to" } else { "has no flow rules" };
    ensure!(said.contains(reason), "not for the reason that it {reason}: {said}");
    if is_igb {
        let rules = stage.ask(Side::Server, &format!("ethtool -n {SERVER_INTERFACE}"))?;
        ensure!(rules.contains("Total 0 rules"), "rules were left: {rules}");
    }
    stage.note("refused");
    Ok(())
}

/// At both ends each queue in turn receives all packets, and synmill restores the table.
fn by_table(stage: &mut Stage<'_>) -> Result<()> {
    match stage.plan.driver {
        Driver::Igb => {}
        Driver::Virtio | Driver::VirtioCopy | Driver::E1000e => {
            let said = refusal(stage, "rss")?;
            ensure!(said.contains("has no RSS table"), "not for the reason that it has no table: {said}");
            stage.note("refused");
            return Ok(());
        }
        // It has a table only if it has enough interrupt vectors.
        Driver::Vmxnet3 => return Ok(()),
    }
    for queue in (0..stage.plan.queues).rev() {
        served_by(stage, queue).with_context(|| format!("queue {queue}"))?;
    }
    left_by_a_killed_one(stage)?;
    stage.note(format!("{} queues", stage.plan.queues));
    Ok(())
}

/// Checks a run whose two ends use this queue only; the kernel keeps the other.
fn served_by(stage: &Stage<'_>, queue: u32) -> Result<()> {
    let before = [table(stage, Side::Server)?, table(stage, Side::Client)?];
    let alone = format!("--mode {} --queues {queue} --steer rss", stage.best());
    let serve = stage.serve(&format!("{alone} {LISTEN}"))?;
    for number in 0..FETCHES {
        for host in [SERVER_V4.to_owned(), format!("[{SERVER_V6}]")] {
            let got = stage.fetch(&format!("http://{host}/")).with_context(|| format!("fetch {number}"))?;
            ensure!(got.len() == 1024, "{} bytes at fetch {number}", got.len());
        }
    }
    // Answers arrive at bench's queue, and so do questions of neighbours for its addresses.
    let load = "--workload connect --rate 50 --warmup 0s --duration 1s";
    let bench = stage.bench(4, &format!("{alone} {load}"))?.finish()?;
    let report = serve.stop()?;

    ensure!(report.count("/workers")? == 1, "{} workers", report.count("/workers")?);
    let strays = report.count("/steering/passed_no_socket")?;
    ensure!(strays == 0, "{strays} of serve's packets came to another queue");
    let (started, established) =
        (bench.count("/connections/started")?, bench.count("/connections/established")?);
    ensure!(started == established, "{established} of {started} connections established");
    let after = [table(stage, Side::Server)?, table(stage, Side::Client)?];
    ensure!(before == after, "the tables were not put back: {} and then {}", before.concat(), after.concat());
    Ok(())
}

/// Checks that a killed run leaves its table behind, and that the next run finds it right and leaves it.
fn left_by_a_killed_one(stage: &Stage<'_>) -> Result<()> {
    let before = table(stage, Side::Server)?;
    let options = format!("--mode {} {LISTEN_V4} --queues 0 --steer rss", stage.best());
    stage.serve(&options)?.kill()?;
    let left = table(stage, Side::Server)?;
    let run = stage.serve(&options)?.stop()?;
    ensure!(stage.plan.queues == 1 || left != before, "the table was put back after all");
    ensure!(run.said.contains("its RSS table stays as it is"), "not said: {}", run.said);
    ensure!(table(stage, Side::Server)? == left, "the table has changed");
    // The command of the note.
    stage.ask(Side::Server, &format!("ethtool -X {SERVER_INTERFACE} default")).map(drop)
}
