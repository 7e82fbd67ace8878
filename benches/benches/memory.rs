//! How many bytes an idle established connection takes, all in: record, index at its load, timers, pools.
//!
//! `cargo xtask bench memory`. Each case is a process of its own, which nothing of another case disturbs. It reads its resident memory
//! from /proc before the engine is made, when it is made, and when its table is full of connections. The client's memory is there before
//! the first reading. `established` is the bytes from the first reading to the last, `made` those to the second. `pause` is the worker's
//! longest turn while the table fills, by its thread's CPU time. `pause-wall` is that turn by the machine's clock, which includes the work
//! of others. `pause-of-nothing` is the longest pause of a loop that does nothing for as long: the machine's own part.

use std::process::{Command, Stdio};
use std::time::Instant as Clock;

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use synmill_benches::cores::pin_to_first;
use synmill_benches::engine::{Family, Responder, Setup};
use synmill_benches::rows::{self, Options, Row};
use synmill_benches::timing::{is_room_for, proc_bytes};

const BENCH: &str = "memory";
/// The environment variable with a process's case: family and number of connections.
const CASE: &str = "SYNMILL_MEMORY_CASE";
const FAMILIES: [(&str, Family); 2] = [("v4", Family::V4), ("v6", Family::V6)];

/// Returns the bytes of memory of this process, without those of files.
fn resident_bytes() -> Result<f64> {
    let kinds = ["RssAnon", "RssShmem", "HugetlbPages"];
    let bytes: u64 = kinds.iter().map(|kind| proc_bytes("/proc/self/status", kind)).sum::<Result<_>>()?;
    Ok(bytes as f64)
}

/// Returns this thread's CPU time in seconds.
fn thread_s() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}

/// Returns the longest pause, in seconds, of a loop that does nothing for `span_s`, by the thread's CPU time, which includes a hypervisor's
/// pauses.
fn pause_of_nothing_s(span_s: f64) -> f64 {
    let begin = thread_s();
    let (mut last, mut longest) = (begin, 0.0_f64);
    while last < begin + span_s {
        let now = thread_s();
        longest = longest.max(now - last);
        last = now;
    }
    longest
}

fn setup(family: Family, connections: usize) -> Setup {
    Setup { family, resident: connections, spare: 0 }
}

/// Measures a case in this process.
fn measure(name: &str, connections: usize) -> Result<Vec<Row>> {
    let (_, family) = FAMILIES.into_iter().find(|(known, _)| *known == name).context("no such family")?;
    pin_to_first()?;
    let setup = setup(family, connections);
    let client = setup.client(0);
    let before = resident_bytes()?;
    let mut responder = Responder::siblings(setup, vec![client]).remove(0);
    let made = resident_bytes()?;

    let (mut engine_s, mut longest_s, mut longest_wall_s) = (0.0, 0.0_f64, 0.0_f64);
    let mut turns = |responder: &mut Responder| {
        loop {
            let (wall, thread) = (Clock::now(), thread_s());
            if !responder.turn_once() {
                break;
            }
            let (thread, wall) = (thread_s() - thread, wall.elapsed().as_secs_f64());
            engine_s += wall;
            longest_s = longest_s.max(thread);
            longest_wall_s = longest_wall_s.max(wall);
        }
    };
    while responder.fill_some(&mut turns) {}
    let filled = resident_bytes()?;
    responder.check();
    ensure!(responder.held() == connections, "{} of {connections} are open", responder.held());

    let row =
        |figure: &str, value, unit| Row::new(BENCH, format!("{figure}-{name}/{connections}"), value, unit);
    let each = |bytes: f64| (bytes - before) / connections as f64;
    Ok(vec![
        row("established", each(filled), "bytes_per_connection"),
        row("made", each(made), "bytes_per_connection"),
        row("fill", engine_s, "s"),
        row("pause", longest_s * 1e6, "us"),
        row("pause-wall", longest_wall_s * 1e6, "us"),
        row("pause-of-nothing", pause_of_nothing_s(engine_s) * 1e6, "us"),
    ])
}

/// Measures a case in a process of its own.
fn measure_apart(name: &str, connections: usize) -> Result<Vec<Row>> {
    let case = format!("{name}/{connections}");
    let program = std::env::current_exe().context("finding this program")?;
    let output = Command::new(program).env(CASE, &case).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the process of `{case}`: {}", output.status);
    serde_json::from_slice(&output.stdout).with_context(|| format!("the output of the process of `{case}`"))
}

fn main() -> Result<()> {
    if let Ok(case) = std::env::var(CASE) {
        let (name, connections) = case.split_once('/').context("a family and a number")?;
        println!("{}", serde_json::to_string(&measure(name, connections.parse()?)?)?);
        return Ok(());
    }
    let options = Options::of_process();
    let sizes: &[usize] = if options.quick { &[100_000] } else { &[1_000_000, 10_000_000, 100_000_000] };
    let mut found = Vec::new();
    for (name, family) in FAMILIES {
        for connections in sizes {
            let needed = setup(family, *connections).memory_bytes();
            if is_room_for(needed, &format!("{name}/{connections}"))? {
                let rows = measure_apart(name, *connections)?;
                rows::print(&rows);
                found.extend(rows);
            }
        }
    }
    rows::write(&options, &found)
}
