//! `--steer`: the NIC brings packets to the queues named, and is afterwards as it was. Knows which of the drivers can; never what is sent.

use anyhow::{Context as _, Result, ensure};
use synmill_lab::{SERVER_INTERFACE, SERVER_V4, SERVER_V6, Side};
use synmill_vm::guest::Driver;

use crate::harness::{Stage, Test, towards};

/// This file's.
pub(crate) const TESTS: &[Test] = &[("steer_by_rules", by_rules), ("steer_by_table", by_table)];

/// Fetches over each IP version: as many flows, which by themselves would come to both queues.
const FETCHES: usize = 8;

/// The RSS table, as ethtool shows it.
fn table(stage: &Stage<'_>, side: Side) -> Result<String> {
    stage.ask(side, &["ethtool", "-x", side.interface()])
}

/// What `synmill serve` says that refuses this steering to one of its queues.
fn refusal(stage: &Stage<'_>, steer: &str) -> Result<String> {
    let listen = format!("{SERVER_V4}:80");
    stage.refusal(&["--mode", stage.best(), "--listen", &listen, "--queues", "0", "--steer", steer])
}

/// None of the emulated NICs has flow rules: an 82576 answers that it has none there, and takes none.
fn by_rules(stage: &mut Stage<'_>) -> Result<()> {
    if stage.plan.driver == Driver::Igb && stage.plan.queues == 1 {
        stage.note("no rule is needed");
        return Ok(());
    }
    let said = refusal(stage, "ntuple")?;
    let reason =
        if stage.plan.driver == Driver::Igb { "takes no flow rule for TCP to" } else { "has no flow rules" };
    ensure!(said.contains(reason), "not for the reason that it {reason}: {said}");
    if stage.plan.driver == Driver::Igb {
        let rules = stage.ask(Side::Server, &["ethtool", "-n", SERVER_INTERFACE])?;
        ensure!(rules.contains("Total 0 rules"), "rules were left: {rules}");
    }
    stage.note("refused");
    Ok(())
}

/// One queue after the other has all packets, at either end, and the table is put back.
fn by_table(stage: &mut Stage<'_>) -> Result<()> {
    match stage.plan.driver {
        Driver::Igb => {}
        Driver::Virtio | Driver::VirtioCopy | Driver::E1000e => {
            let said = refusal(stage, "rss")?;
            ensure!(said.contains("has no RSS table"), "not for the reason that it has no table: {said}");
            stage.note("refused");
            return Ok(());
        }
        // Whether it has a table depends on how many vectors it got.
        Driver::Vmxnet3 => return Ok(()),
    }
    for queue in (0..stage.plan.queues).rev() {
        served_by(stage, &queue.to_string()).with_context(|| format!("queue {queue}"))?;
    }
    left_by_a_killed_one(stage)?;
    stage.note(format!("{} queues", stage.plan.queues));
    Ok(())
}

/// Both ends serve this queue alone; the kernel keeps the other.
fn served_by(stage: &Stage<'_>, queue: &str) -> Result<()> {
    let before = [table(stage, Side::Server)?, table(stage, Side::Client)?];
    let listen = [format!("{SERVER_V4}:80"), format!("[{SERVER_V6}]:80")];
    let alone = ["--mode", stage.best(), "--queues", queue, "--steer", "rss"];
    let listening = ["--listen", &listen[0], "--listen", &listen[1]];
    let serve = stage.serve(&[&alone[..], &listening].concat())?;
    for number in 0..FETCHES {
        for host in &listen {
            let got =
                stage.fetch(&format!("http://{host}/")).with_context(|| format!("fetch {number}"))?.len();
            ensure!(got == 1024, "{got} bytes at fetch {number}");
        }
    }
    // Answers come to the generator's queue, and neighbours find its addresses there.
    let towards = towards(4);
    let mut options: Vec<&str> = towards.iter().map(String::as_str).collect();
    options.extend(alone);
    options.extend(["--workload", "connect", "--rate", "50", "--warmup", "0s", "--duration", "1s"]);
    let bench = stage.bench(&options)?.finish(stage)?;
    let report = serve.stop(stage)?;

    ensure!(report.count("/workers")? == 1, "{} workers", report.count("/workers")?);
    let strays = report.count("/steering/passed_no_socket")?;
    ensure!(strays == 0, "{strays} of our packets came to another queue");
    let (started, established) =
        (bench.count("/connections/started")?, bench.count("/connections/established")?);
    ensure!(started == established, "{established} of {started} connections established");
    let after = [table(stage, Side::Server)?, table(stage, Side::Client)?];
    ensure!(before == after, "the tables were not put back: {} and then {}", before.concat(), after.concat());
    Ok(())
}

/// A table that a killed run left is as the next one wants it, and stays.
fn left_by_a_killed_one(stage: &Stage<'_>) -> Result<()> {
    let before = table(stage, Side::Server)?;
    let listen = format!("{SERVER_V4}:80");
    let options = ["--mode", stage.best(), "--listen", &listen, "--queues", "0", "--steer", "rss"];
    stage.serve(&options)?.kill()?;
    let left = table(stage, Side::Server)?;
    let serve = stage.serve(&options)?;
    let said = serve.process.said();
    serve.stop(stage)?;
    ensure!(stage.plan.queues == 1 || left != before, "the table was put back after all");
    ensure!(said.contains("its RSS table stays as it is"), "not said: {said}");
    ensure!(table(stage, Side::Server)? == left, "the table has changed");
    // The line that the note gives.
    stage.ask(Side::Server, &["ethtool", "-X", SERVER_INTERFACE, "default"]).map(drop)
}
