//! Packets beyond Ethernet's usual MTU, up to the limits of frames and drivers.

use anyhow::{Result, ensure};
use synmill_lab::{SERVER_V4, Side};
use synmill_vm::guest::Driver;

use crate::harness::{LISTEN_V4, Stage, Test};

pub(crate) const TESTS: &[Test] = &[
    ("mtu_3000", |stage| with(stage, 3000)),
    ("mtu_3494", |stage| with(stage, 3494)),
    ("mtu_3498", |stage| with(stage, 3498)),
    ("mtu_9000", |stage| with(stage, 9000)),
];

/// Bytes of an answer, more than the largest packet holds.
const ANSWER: usize = 20_000;

/// Tests with this MTU at both ends, and restores the plan's.
fn with(stage: &mut Stage<'_>, mtu: u32) -> Result<()> {
    let done = set(stage, mtu).and_then(|()| granted_or_refused(stage, mtu));
    set(stage, stage.plan.mtu)?;
    done
}

fn set(stage: &Stage<'_>, mtu: u32) -> Result<()> {
    for side in [Side::Client, Side::Server] {
        stage.ask(side, &format!("ip link set {} mtu {mtu}", side.interface()))?;
        stage.lab.wait_running(side)?;
    }
    Ok(())
}

/// Checks that complete answers arrive. Where the best mode does not allow this MTU, serve must say why in one line, and the next
/// mode must work.
fn granted_or_refused(stage: &mut Stage<'_>, mtu: u32) -> Result<()> {
    if stage.plan.driver == Driver::Vmxnet3 && mtu > 3058 {
        return lost_without_us(stage, mtu);
    }
    let mode = stage.best();
    let Some(reason) = refusal(stage.plan.driver, mode, mtu) else {
        return whole(stage, mode);
    };
    let said = stage.refusal(&format!("--mode {mode} {LISTEN_V4}"))?;
    ensure!(said.contains(reason), "refused, and not because {reason}: {said}");
    stage.note(format!("refused: {}", said.trim()));
    whole(stage, "auto")?;
    stage.note("whole in mode auto");
    Ok(())
}

/// QEMU's vmxnet3 receives no frame of more than 3072 bytes, which takes two of the kernel's buffers: not even the kernels' own
/// packets arrive.
fn lost_without_us(stage: &mut Stage<'_>, mtu: u32) -> Result<()> {
    let ping =
        |size: u32| stage.ask(Side::Client, &format!("busybox ping -c 1 -W 5 -s {size} {SERVER_V4}")).is_ok();
    // The headers of IP and ICMP have 28 bytes.
    ensure!(ping(3058 - 28), "the kernels do not reach each other at all");
    ensure!(!ping(mtu - 28), "vmxnet3 receives packets of two buffers now: test synmill with them, too");
    stage.note("lost by QEMU between the kernels, too");
    Ok(())
}

/// Checks that complete answers reach the kernel's client and bench.
fn whole(stage: &Stage<'_>, mode: &str) -> Result<()> {
    let serve = stage.serve(&format!("--mode {mode} {LISTEN_V4} --service http:{ANSWER}"))?;
    let got = stage.fetch(&format!("http://{SERVER_V4}/"))?.len();
    ensure!(got == ANSWER, "the kernel's client got {got} bytes of {ANSWER}");
    let load = "--workload http --rate 50 --warmup 0s --ramp 0s --duration 1s";
    let run = stage.bench(4, &format!("--mode {mode} {load}"))?.finish()?;
    let served = serve.stop()?;
    let opened = run.count("active_opens")?;
    ensure!(opened > 0 && run.count("established")? == opened, "of {opened} connections some failed");
    // One more: the kernel's client.
    ensure!(served.count("passive_opens")? == opened + 1, "serve has other connections than its clients");
    Ok(())
}

/// Returns a part of the refusal of this MTU in a driver's best mode, if the mode must refuse it.
fn refusal(driver: Driver, best: &str, mtu: u32) -> Option<&'static str> {
    match driver {
        // Its zero-copy mode takes packets of one buffer only.
        Driver::Virtio if mtu > 3494 && best == "zerocopy" => {
            Some("perhaps none for packets of several buffers")
        }
        // Its buffers have 3072 bytes.
        Driver::Igb if mtu > 3050 => Some("does not take the XDP program"),
        _ => None,
    }
}
