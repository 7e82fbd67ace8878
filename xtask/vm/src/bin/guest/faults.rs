//! Faults while connections come and go: a killed process, a link down, a lost carrier, an unplugged NIC.

use anyhow::{Result, ensure};
use synmill_lab::{
    Attached, CLIENT_V4, CLIENT_V6, SERVER_INTERFACE, SERVER_V6, SOURCES_V4, SOURCES_V6, Side, Synmill,
};
use synmill_vm::guest::{Driver, NICS, WIRES};

use crate::harness::{LISTEN, Stage, Test, alike, until_true};

pub(crate) const TESTS: &[Test] = &[
    ("kill_and_restart", kill_and_restart),
    ("link_down_and_up", link_down_and_up),
    ("carrier_lost_and_back", carrier_lost_and_back),
];

/// The test that leaves the guest without its NICs.
pub(crate) const LAST: &[Test] = &[("unplugged", unplugged)];

/// Times that a link goes down, because each rebuild of the rings could lose a frame.
const TIMES: usize = 3;

/// Starts `serve` for both IP versions in the best mode.
fn serve(stage: &Stage<'_>) -> Result<Synmill> {
    stage.serve(&format!("--mode {} {LISTEN}", stage.best()))
}

/// Starts `bench` against it for this duration.
fn bench(stage: &Stage<'_>, version: u8, duration: &str) -> Result<Synmill> {
    let load = "--workload http --rate 100 --warmup 0s --ramp 0s";
    stage.bench(version, &format!("--mode {} {load} --duration {duration}", stage.best()))
}

/// Waits until serve prints a further line that fulfils `condition`.
fn until_line(serve: &mut Synmill, what: &str, condition: impl Fn(&str) -> bool) -> Result<()> {
    let so_far = serve.process.said().lines().count();
    serve.process.until(what, |said| said.lines().skip(so_far).any(&condition))
}

/// Waits until serve has opened connections in a further second.
fn goes_on(serve: &mut Synmill) -> Result<()> {
    until_line(serve, "opened connections", |line| {
        line.contains("  opened ") && !line.contains("  opened 0/s")
    })
}

/// Waits until serve has opened no connection in a further second.
fn falls_silent(serve: &mut Synmill) -> Result<()> {
    until_line(serve, "no opened connection", |line| line.contains("  opened 0/s"))
}

/// Waits until serve has said this so many times.
fn says(serve: &mut Synmill, start: &str, times: usize) -> Result<()> {
    serve.process.until(&format!("`{start}`, {times} times"), |said| {
        said.lines().filter(|line| line.starts_with(start)).count() >= times
    })
}

/// Waits until an end has no XDP program: the kernel removes a killed process's link some time later.
fn until_detached(stage: &Stage<'_>, side: Side) -> Result<()> {
    until_true("the program is gone", || Ok(stage.lab.attached(side)? == Attached::Nothing))
}

/// Checks that a load over both IP versions arrives complete, and returns its connections.
fn comes_through(stage: &Stage<'_>, serve: Synmill) -> Result<u64> {
    let runs = [bench(stage, 4, "1s")?.finish()?, bench(stage, 6, "500ms")?.finish()?];
    alike(&[&serve.stop()?], &[&runs[0], &runs[1]])
}

/// Either end is killed with connections open, and another process takes its interface at once.
fn kill_and_restart(stage: &mut Stage<'_>) -> Result<()> {
    let mut first = serve(stage)?;
    let peer = bench(stage, 4, "60s")?;
    goes_on(&mut first)?;
    first.kill()?;
    until_detached(stage, Side::Server)?;
    let mut second = serve(stage)?;
    goes_on(&mut second)?;
    peer.kill()?;
    until_detached(stage, Side::Client)?;
    bench(stage, 4, "1s")?.finish()?;
    second.stop()?;
    let opened = comes_through(stage, serve(stage)?)?;
    stage.note(format!("{opened} connections afterwards"));
    Ok(())
}

/// Restores the settings that the kernel drops with an interface that goes down: its IPv6 address and its routes.
fn restore(stage: &Stage<'_>) -> Result<()> {
    for command in [
        format!("ip -6 address replace {SERVER_V6}/64 dev {SERVER_INTERFACE} nodad"),
        format!("ip route replace {SOURCES_V4} via {CLIENT_V4}"),
        format!("ip -6 route replace {SOURCES_V6} via {CLIENT_V6}"),
    ] {
        stage.ask(Side::Server, &command)?;
    }
    Ok(())
}

/// The interface is switched off and on: serve says so, and waiting connections continue.
fn link_down_and_up(stage: &mut Stage<'_>) -> Result<()> {
    if stage.plan.driver == Driver::Vmxnet3 {
        // docs/drivers.md: a client of the kernel meets the same.
        stage.note("not tried: its driver passes the program by after that");
        return Ok(());
    }
    let mut serve = serve(stage)?;
    let bench = bench(stage, 4, "10m")?;
    goes_on(&mut serve)?;
    for time in 1..=TIMES {
        stage.ask(Side::Server, &format!("ip link set {SERVER_INTERFACE} down"))?;
        says(&mut serve, "note: the interface was switched off", time)?;
        stage.ask(Side::Server, &format!("ip link set {SERVER_INTERFACE} up"))?;
        says(&mut serve, "note: the link is up again", time)?;
        goes_on(&mut serve)?;
    }
    restore(stage)?;
    bench.kill()?;
    serve.stop()?;
    comes_through(stage, self::serve(stage)?).map(drop)
}

/// The cable is pulled out and plugged in: serve says so, and waiting connections continue.
fn carrier_lost_and_back(stage: &mut Stage<'_>) -> Result<()> {
    let mut serve = serve(stage)?;
    let bench = bench(stage, 4, "10m")?;
    goes_on(&mut serve)?;
    stage.monitor(&format!("set_link {} off", WIRES[1]))?;
    // The emulated e1000e does not report it to the kernel.
    let is_reported = stage.plan.driver != Driver::E1000e;
    let lost = if is_reported {
        says(&mut serve, "note: the link has lost its carrier", 1)
    } else {
        falls_silent(&mut serve)
    };
    // Even after a failure: the next tests need the link.
    stage.monitor(&format!("set_link {} on", WIRES[1]))?;
    lost?;
    if is_reported {
        says(&mut serve, "note: the link is up again", 1)?;
    }
    goes_on(&mut serve)?;
    bench.kill()?;
    serve.stop()?;
    comes_through(stage, self::serve(stage)?).map(drop)
}

/// Each NIC is unplugged with connections open: its end prints one error and a report whose accounts close, and exits 1.
fn unplugged(stage: &mut Stage<'_>) -> Result<()> {
    let mut serve = serve(stage)?;
    let bench = bench(stage, 4, "10m")?;
    goes_on(&mut serve)?;
    for (nic, end) in [(NICS[1], serve), (NICS[0], bench)] {
        stage.monitor(&format!("device_del {nic}"))?;
        let run = end.end()?;
        ensure!(run.status.code() == Some(1), "{nic} unplugged, and its end ends with {}", run.status);
        let errors: Vec<&str> = run.said.lines().filter(|line| line.starts_with("error: ")).collect();
        ensure!(errors.len() == 1 && errors[0].contains("is gone"), "{nic} unplugged: {errors:?}");
        ensure!(!run.report.is_null(), "{nic} unplugged, and there is no report");
    }
    Ok(())
}
