//! The measurement of `cargo xtask run`: synmill beside the kernel's TCP, with the generator's own output.

use anyhow::{Result, bail};
use synmill_lab::{Interrupt, Lab, LabOptions};

use super::client::Generator;
use super::scenario::{Case, PeerKind};
use super::server::Server;
use super::stage::Stage;

const SECONDS: u32 = 5;
/// The server closes connections, which the generator opens as fast as it can.
const ARGUMENTS: [&str; 6] = ["--rate", "max", "--workload", "connect", "--close", "peer"];

pub(super) fn perform(interrupt: &Interrupt) -> Result<()> {
    let stage = Stage::up(interrupt, Lab::DEMONSTRATION_PREFIX, LabOptions::default())?;
    let cores = stage.server_cores(1)?;
    let (mut rates, mut doubts) = (Vec::new(), Vec::new());
    for (name, peer) in [("synmill serve", PeerKind::Serve), ("the kernel's TCP", PeerKind::Kernel)] {
        println!("\n== The benchmark: {name}, a core for the server and one for the generator");
        let server = Server::start(&stage, &Case::plain(name, peer, "close"), &cores)?;
        let generator = Generator::new(&stage, SECONDS, &ARGUMENTS.map(str::to_owned))?;
        println!("{}\n{}", server.shown, generator.shown());
        let outcome = generator.run(&stage, cores[0], true)?;
        server.stop(&stage)?;
        rates.push(outcome.report.number("/rate_per_s/achieved")?);
        doubts.extend(outcome.problems.into_iter().map(|problem| format!("{name}: {problem}")));
    }
    let [ours, kernel] = rates[..] else { bail!("two rates were expected") };
    println!("\n== The benchmark: the ratio");
    print!("{}", ratio(ours, kernel, &doubts));
    println!(
        "On a veth pair the kernel receives on the sender's core, so its server used a part of the generator's core. \
         `cargo xtask bench lab` measures it on its own core, too."
    );
    drop(stage);
    println!("\n== Done");
    println!("The lab is gone. More measurements: cargo xtask bench");
    println!("On a NIC: cargo xtask run --interface IF --listen ADDR:PORT --service http:1024");
    Ok(())
}

/// Returns the ratio, and why it is in doubt, if it is.
fn ratio(ours: f64, kernel: f64, doubts: &[String]) -> String {
    let times = ours / kernel;
    let in_doubt = if doubts.is_empty() { "" } else { ", in doubt:" };
    let reasons: String = doubts.iter().map(|doubt| format!("  {doubt}\n")).collect();
    format!(
        "synmill serve {ours:.0} connections/s, the kernel's TCP {kernel:.0}: {times:.2} times{in_doubt}\n{reasons}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_of_doubtful_rates_is_in_doubt() {
        let sure = "synmill serve 300 connections/s, the kernel's TCP 100: 3.00 times";
        assert_eq!(ratio(300.0, 100.0, &[]), format!("{sure}\n"));
        let doubt = "the kernel's TCP: 3 of 10 connections failed".to_owned();
        let doubtful = format!("{sure}, in doubt:\n  {doubt}\n");
        assert_eq!(ratio(300.0, 100.0, &[doubt]), doubtful);
    }
}
