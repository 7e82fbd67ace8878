//! What goes wrong while connections come and go: a process killed, a link down, a carrier lost, a NIC unplugged. Knows what serve says
//! of each; never what is sent over a connection.

use anyhow::{Result, ensure};
use synmill_lab::{
    CLIENT_V4, CLIENT_V6, SERVER_INTERFACE, SERVER_V4, SERVER_V6, SOURCES_V4, SOURCES_V6, Side,
};
use synmill_vm::guest::{Driver, NICS, WAIT, WIRES};

use crate::harness::{Attached, Stage, Synmill, Test, alike, towards, until};

/// This file's.
pub(crate) const TESTS: &[Test] = &[
    ("kill_and_restart", kill_and_restart),
    ("link_down_and_up", link_down_and_up),
    ("carrier_lost_and_back", carrier_lost_and_back),
];

/// The one that leaves the guest without its NICs.
pub(crate) const LAST: &[Test] = &[("unplugged", unplugged)];

/// How often a link goes down: a frame lost each time the rings are rebuilt would be missed.
const TIMES: usize = 3;

/// `serve` for both versions, in the best mode.
fn serve(stage: &Stage<'_>) -> Result<Synmill> {
    let listen = [format!("{SERVER_V4}:80"), format!("[{SERVER_V6}]:80")];
    stage.serve(&["--mode", stage.best(), "--listen", &listen[0], "--listen", &listen[1]])
}

/// `bench` towards it for as long as this, with its connections under way.
fn bench(stage: &Stage<'_>, version: u8, duration: &str) -> Result<Synmill> {
    let towards = towards(version);
    let mut options: Vec<&str> = towards.iter().map(String::as_str).collect();
    options.extend(["--mode", stage.best(), "--workload", "http", "--rate", "100", "--warmup", "0s"]);
    options.extend(["--ramp", "0s", "--duration", duration]);
    stage.bench(&options)
}

/// Waits until serve tells of a further second in which connections were opened.
fn goes_on(serve: &mut Synmill) -> Result<()> {
    let so_far = serve.process.said().lines().count();
    until("connections are opened", WAIT, || {
        ensure!(serve.process.status()?.is_none(), "serve has ended");
        let said = serve.process.said();
        let mut news = said.lines().skip(so_far);
        Ok(news.any(|line| line.contains("  opened ") && !line.contains("  opened 0/s")))
    })
}

/// A load on both versions comes through whole.
fn comes_through(stage: &Stage<'_>, serve: Synmill) -> Result<u64> {
    let runs = [bench(stage, 4, "1s")?.finish(stage)?, bench(stage, 6, "500ms")?.finish(stage)?];
    alike(&[&serve.stop(stage)?], &[&runs[0], &runs[1]])
}

/// Killed with connections under way, either end leaves an interface that another can take at once.
fn kill_and_restart(stage: &mut Stage<'_>) -> Result<()> {
    let mut first = serve(stage)?;
    let peer = bench(stage, 4, "60s")?;
    goes_on(&mut first)?;
    first.kill()?;
    // The kernel lets go of a killed process's link in its own time.
    until("the program is gone", WAIT, || Ok(stage.attached(Side::Server)? == Attached::Nothing))?;
    let mut second = serve(stage)?;
    goes_on(&mut second)?;
    peer.kill()?;
    until("the program is gone", WAIT, || Ok(stage.attached(Side::Client)? == Attached::Nothing))?;
    bench(stage, 4, "1s")?.finish(stage)?;
    second.stop(stage)?;
    let opened = comes_through(stage, serve(stage)?)?;
    stage.note(format!("{opened} connections afterwards"));
    Ok(())
}

/// What the kernel forgets about an interface that goes down: its IPv6 address, and the routes over it.
fn remember(stage: &Stage<'_>) -> Result<()> {
    let address = format!("{SERVER_V6}/64");
    for arguments in [
        &["-6", "address", "replace", &address, "dev", SERVER_INTERFACE, "nodad"][..],
        &["route", "replace", SOURCES_V4, "via", CLIENT_V4],
        &["-6", "route", "replace", SOURCES_V6, "via", CLIENT_V6],
    ] {
        stage.ask(Side::Server, &[&["ip"][..], arguments].concat())?;
    }
    Ok(())
}

/// The interface switched off and on: serve says so, and the connections that waited for it go on.
fn link_down_and_up(stage: &mut Stage<'_>) -> Result<()> {
    if stage.plan.driver == Driver::Vmxnet3 {
        // docs/drivers.md: seen with a client of the kernel's, too.
        stage.note("not tried: its driver passes the program by after that");
        return Ok(());
    }
    let mut serve = serve(stage)?;
    let bench = bench(stage, 4, "10m")?;
    goes_on(&mut serve)?;
    for time in 1..=TIMES {
        stage.ask(Side::Server, &["ip", "link", "set", SERVER_INTERFACE, "down"])?;
        says(&mut serve, "note: the interface was switched off", time)?;
        stage.ask(Side::Server, &["ip", "link", "set", SERVER_INTERFACE, "up"])?;
        says(&mut serve, "note: the link is up again", time)?;
        goes_on(&mut serve)?;
    }
    remember(stage)?;
    bench.kill()?;
    serve.stop(stage)?;
    let serve = self::serve(stage)?;
    comes_through(stage, serve).map(drop)
}

/// The cable pulled and plugged in: the same.
fn carrier_lost_and_back(stage: &mut Stage<'_>) -> Result<()> {
    let mut serve = serve(stage)?;
    let bench = bench(stage, 4, "10m")?;
    goes_on(&mut serve)?;
    stage.monitor(&format!("set_link {} off", WIRES[1]))?;
    // The kernel does not hear of it from the emulated e1000e: there it only becomes silent.
    let told = stage.plan.driver != Driver::E1000e;
    let lost = if told {
        says(&mut serve, "note: the link has lost its carrier", 1)
    } else {
        falls_silent(&mut serve)
    };
    // Whatever came of it: the tests after this one need the link.
    stage.monitor(&format!("set_link {} on", WIRES[1]))?;
    lost?;
    if told {
        says(&mut serve, "note: the link is up again", 1)?;
    }
    goes_on(&mut serve)?;
    bench.kill()?;
    serve.stop(stage)?;
    let serve = self::serve(stage)?;
    comes_through(stage, serve).map(drop)
}

/// Waits until serve tells of a second in which no connection was opened.
fn falls_silent(serve: &mut Synmill) -> Result<()> {
    let so_far = serve.process.said().lines().count();
    until("no connection is opened", WAIT, || {
        Ok(serve.process.said().lines().skip(so_far).any(|line| line.contains("  opened 0/s")))
    })
}

/// Waits until serve has said this so many times.
fn says(serve: &mut Synmill, start: &str, times: usize) -> Result<()> {
    until(&format!("serve says `{start}`, {times} times in all"), WAIT, || {
        ensure!(serve.process.status()?.is_none(), "serve has ended");
        Ok(serve.process.said().lines().filter(|line| line.starts_with(start)).count() >= times)
    })
}

/// Each NIC gone with connections under way: one line, a report whose accounts close, and exit status 1.
fn unplugged(stage: &mut Stage<'_>) -> Result<()> {
    let mut serve = serve(stage)?;
    let bench = bench(stage, 4, "10m")?;
    goes_on(&mut serve)?;
    for (nic, mut end) in [(NICS[1], serve), (NICS[0], bench)] {
        stage.monitor(&format!("device_del {nic}"))?;
        let status = end.process.end()?;
        let said = end.process.said();
        let (_, report) = end.end(stage)?;
        ensure!(status.code() == Some(1), "{nic} unplugged, and its end ends with {status}");
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        ensure!(errors.len() == 1 && errors[0].contains("is gone"), "{nic} unplugged: {errors:?}");
        ensure!(report.is_some(), "{nic} unplugged, and there is no report");
    }
    Ok(())
}
