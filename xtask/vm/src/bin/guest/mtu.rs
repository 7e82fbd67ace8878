//! Packets larger than Ethernet's: frames of 4096 bytes, and where drivers end. Knows their limits; never what else is sent.

use anyhow::{Result, ensure};
use synmill_lab::{SERVER_V4, Side};
use synmill_vm::guest::Driver;

use crate::harness::{Stage, Test, towards};

/// This file's.
pub(crate) const TESTS: &[Test] = &[
    ("mtu_3000", |stage| with(stage, 3000)),
    ("mtu_3494", |stage| with(stage, 3494)),
    ("mtu_3498", |stage| with(stage, 3498)),
    ("mtu_9000", |stage| with(stage, 9000)),
];

/// The bytes of an answer: more than a packet holds, of the longest, too.
const ANSWER: usize = 20_000;

/// Runs with this MTU at both ends, and gives back the one that there was.
fn with(stage: &mut Stage<'_>, mtu: u32) -> Result<()> {
    let done = set(stage, mtu).and_then(|()| granted_or_refused(stage, mtu));
    set(stage, stage.plan.mtu)?;
    done
}

fn set(stage: &Stage<'_>, mtu: u32) -> Result<()> {
    for side in [Side::Client, Side::Server] {
        stage.ask(side, &["ip", "link", "set", side.interface(), "mtu", &mtu.to_string()])?;
        stage.lab.wait_running(side)?;
    }
    Ok(())
}

/// Whole answers come; where serve says in one line why the best mode does not go with this MTU, in the next that does.
fn granted_or_refused(stage: &mut Stage<'_>, mtu: u32) -> Result<()> {
    if stage.plan.driver == Driver::Vmxnet3 && mtu > 3058 {
        return lost_without_us(stage, mtu);
    }
    let Some(reason) = refusal(stage.plan.driver, stage.best(), mtu) else {
        return whole(stage, stage.best());
    };
    let said = stage.refusal(&["--mode", stage.best(), "--listen", &format!("{SERVER_V4}:80")])?;
    ensure!(said.contains(reason), "refused, and not because {reason}: {said}");
    stage.note(format!("refused: {}", said.trim()));
    whole(stage, "auto")?;
    stage.note("whole in mode auto");
    Ok(())
}

/// QEMU's vmxnet3 receives no frame of more than 3072 bytes, which take two of the kernel's buffers: the two kernels do not hear each other.
fn lost_without_us(stage: &mut Stage<'_>, mtu: u32) -> Result<()> {
    let ping = |size: u32| {
        let size = size.to_string();
        let argv = ["busybox", "ping", "-c", "1", "-W", "5", "-s", &size, SERVER_V4];
        stage.ask(Side::Client, &argv).is_ok()
    };
    // Of IP and ICMP 28 bytes.
    ensure!(ping(3058 - 28), "the kernels do not hear each other at all");
    ensure!(!ping(mtu - 28), "vmxnet3 receives packets of two buffers now: hold synmill to them, too");
    stage.note("lost by QEMU between the kernels, too");
    Ok(())
}

/// Answers reach the kernel's client and ours whole.
fn whole(stage: &Stage<'_>, mode: &str) -> Result<()> {
    let (listen, service) = (format!("{SERVER_V4}:80"), format!("http:{ANSWER}"));
    let serve = stage.serve(&["--mode", mode, "--listen", &listen, "--service", &service])?;
    let got = stage.fetch(&format!("http://{SERVER_V4}/"))?.len();
    ensure!(got == ANSWER, "the kernel's client got {got} bytes of {ANSWER}");
    let towards = towards(4);
    let mut options: Vec<&str> = towards.iter().map(String::as_str).collect();
    options.extend(["--mode", mode, "--workload", "http", "--rate", "50", "--warmup", "0s"]);
    options.extend(["--ramp", "0s", "--duration", "1s"]);
    let run = stage.bench(&options)?.finish(stage)?;
    // The kernel's client is in the one account only.
    let served = serve.stop(stage)?;
    let opened = run.counter("active_opens")?;
    ensure!(opened > 0 && run.counter("established")? == opened, "of {opened} connections some failed");
    ensure!(served.counter("passive_opens")? == opened + 1, "serve has other connections than its clients");
    Ok(())
}

/// What the refusal of this MTU in a driver's best mode says, if it has to refuse.
fn refusal(driver: Driver, best: &str, mtu: u32) -> Option<&'static str> {
    match driver {
        // Packets of several buffers it copies only.
        Driver::Virtio if mtu > 3494 && best == "zerocopy" => {
            Some("perhaps none for packets of several buffers")
        }
        // Its buffers have 3072 bytes.
        Driver::Igb if mtu > 3050 => Some("does not take the XDP program"),
        _ => None,
    }
}
