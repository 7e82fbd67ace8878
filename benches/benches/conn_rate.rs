//! How long one core's engine takes for a connection: on in-memory rings, beside connections that stay.
//!
//! `cargo xtask bench conn_rate`. A connection is 3 packets in and 3 out: SYN; SYN,ACK; ACK with a request; response with FIN; FIN,ACK;
//! ACK. Checksums are verified and written, and the peer's frames are made and read outside the timed part. The responder's table is
//! full: each new connection takes the place of the oldest in TIME-WAIT. `request` is a request and its response on a connection that
//! stays, and no connection comes again before all others. `generator` is the other end, with 1024 connections under way beside those
//! that stay. `floor` is what is left of the responder without TCP, layer by layer: answers alone, with an index, with records.
//! `workers` are engines on a core each that look into each other's indexes, both at work all the time.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use anyhow::{Context as _, Result};
use synmill_benches::engine::{
    Batches, Dialogue, Family, Floor, Layer, Opener, Requests, Responder, Setup, nanos_each,
};
use synmill_benches::rows::{self, Options, Row};
use synmill_benches::timing::{Rounds, is_room_for, pin, pin_to};

const BENCH: &str = "conn_rate";

/// How much is done of each case.
#[derive(Clone, Copy)]
struct Extent {
    /// Connections or requests in one round.
    round: u64,
    rounds: usize,
}

impl Extent {
    fn measure(self, batches: &mut impl Batches) -> Rounds {
        Rounds::of(self.rounds, || nanos_each(batches, self.round))
    }
}

/// Both units of a case.
fn both(rounds: &Rounds, case: &str, what: &str) -> [Row; 2] {
    let row = rounds.row(BENCH, case, what);
    let rate = Row::new(BENCH, case, 1e9 / row.value, &format!("{what}s_per_s"));
    [row, rate]
}

fn responder(extent: Extent, family: Family, resident: usize) -> Result<Vec<Row>> {
    let suffix = if family == Family::V6 { "-v6" } else { "" };
    let case = format!("responder{suffix}/{resident}");
    let setup = Setup::of(family, resident);
    if !is_room_for(setup.memory_bytes(), &case)? {
        return Ok(Vec::new());
    }
    let mut responder = Responder::new(setup);
    responder.fill();
    responder.warm();
    let mut rows = both(&extent.measure(&mut responder), &case, "connection").to_vec();
    let requests = extent.measure(&mut Requests::new(&mut responder));
    rows.extend(both(&requests, &format!("request{suffix}/{resident}"), "request"));
    responder.check();
    Ok(rows)
}

fn floor(extent: Extent, layer: Layer, resident: usize) -> Result<Vec<Row>> {
    let case = format!("floor-{}/{resident}", layer.name());
    let setup = Setup::of(Family::V4, resident);
    if !is_room_for(setup.memory_bytes(), &case)? {
        return Ok(Vec::new());
    }
    let mut floor = Responder::of(Floor::new(layer, setup), setup.client(0), setup);
    floor.fill();
    floor.warm();
    Ok(both(&extent.measure(&mut floor), &case, "connection").to_vec())
}

fn generator(extent: Extent, dialogue: Dialogue, resident: u64) -> Result<Vec<Row>> {
    let case = match dialogue {
        Dialogue::Connect => format!("generator/{resident}"),
        Dialogue::Http => format!("generator-http/{resident}"),
    };
    if !is_room_for(Opener::memory_bytes(resident), &case)? {
        return Ok(Vec::new());
    }
    let mut opener = Opener::new(dialogue, resident);
    opener.fill();
    nanos_each(&mut opener, extent.round);
    let rows = both(&extent.measure(&mut opener), &case, "connection").to_vec();
    opener.check();
    Ok(rows)
}

/// Connections a second of so many engines together, each on a core of its own.
fn workers(extent: Extent, count: u8, resident: usize) -> Result<f64> {
    let setup = Setup::of(Family::V4, resident);
    let clients = (0..count).map(|network| setup.client(network)).collect();
    let cores = core_affinity::get_core_ids().context("the kernel does not say on which cores we may run")?;
    let (barrier, at_work) = (Barrier::new(count.into()), AtomicUsize::new(count.into()));
    let engine = |mut responder: Responder, core| {
        pin_to(core)?;
        responder.fill();
        responder.warm();
        barrier.wait();
        let rounds = extent.measure(&mut responder);
        // The others' rounds are to be with company to their end.
        at_work.fetch_sub(1, Relaxed);
        while at_work.load(Relaxed) > 0 {
            responder.batch();
        }
        responder.check();
        Ok(1e9 / rounds.median())
    };
    thread::scope(|scope| {
        let start = |(responder, core)| scope.spawn(move || engine(responder, core));
        let threads: Vec<_> = Responder::siblings(setup, clients).into_iter().zip(cores).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("an engine that works")).sum()
    })
}

fn all_workers(extent: Extent, resident: usize) -> Result<Vec<Row>> {
    let cores = core_affinity::get_core_ids().map_or(0, |cores| cores.len());
    if cores < 2 {
        println!("workers are left out: there is one core");
        return Ok(Vec::new());
    }
    // By turns, so that both see the same machine.
    let (mut ones, mut twos) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        ones.push(workers(extent, 1, resident)?);
        twos.push(workers(extent, 2, resident)?);
    }
    let (one, two) = (rows::median(ones), rows::median(twos));
    println!(
        "workers at {resident}: one {:.2} M/s, two {:.2} M/s together: {:.2} times",
        one / 1e6,
        two / 1e6,
        two / one
    );
    Ok(vec![
        Row::new(BENCH, "workers/1", one, "connections_per_s"),
        Row::new(BENCH, "workers/2", two, "connections_per_s"),
        Row::new(BENCH, "workers/2-by-1", two / one, "ratio"),
    ])
}

fn main() -> Result<()> {
    let options = Options::of_process();
    let extent = if options.quick {
        Extent { round: 20_000, rounds: 3 }
    } else {
        Extent { round: 200_000, rounds: 15 }
    };
    let v4: &[usize] =
        if options.quick { &[1000, 100_000] } else { &[1000, 1_000_000, 10_000_000, 100_000_000] };
    let v6 = if options.quick { v4 } else { &v4[..2] };
    let opened: &[u64] = if options.quick { &[1000, 100_000] } else { &[1000, 1_000_000, 10_000_000] };

    // Before this thread is pinned, which the threads of workers would inherit.
    let mut last = all_workers(extent, if options.quick { 100_000 } else { 1_000_000 })?;
    pin(0)?;
    let mut rows = Vec::new();
    for resident in v4 {
        rows.extend(responder(extent, Family::V4, *resident)?);
        rows.extend(floor(extent, Layer::Record, *resident)?);
    }
    // What these know does not grow, or little.
    for layer in [Layer::Wire, Layer::Index] {
        for resident in &v4[..2] {
            rows.extend(floor(extent, layer, *resident)?);
        }
    }
    for resident in v6 {
        rows.extend(responder(extent, Family::V6, *resident)?);
    }
    for resident in opened {
        rows.extend(generator(extent, Dialogue::Connect, *resident)?);
        rows.extend(generator(extent, Dialogue::Http, *resident)?);
    }
    rows.append(&mut last);
    rows::write(&options, &rows)
}
