//! How long one core's engine takes for a connection on in-memory rings, beside connections that stay.
//!
//! `cargo xtask bench conn_rate`. A connection is 3 packets in and 3 out: SYN; SYN,ACK; ACK with a request; response with FIN; FIN,ACK;
//! ACK. The engine verifies and writes checksums. The timed part does not include the peer, which writes and reads the frames.
//!
//! - `responder`: its table is full, so each new connection evicts the oldest one in TIME-WAIT.
//! - `request`: a request and its response on a connection that stays; all other connections have their turn before its next request.
//! - `generator`: the other end, with 1024 connections under way besides those that stay.
//! - `floor`: the responder without TCP, layer by layer: answers alone, with an index, with records.
//! - `workers`: engines on a core each that look into each other's indexes, all at work all the time.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use anyhow::Result;
use synmill_benches::cores;
use synmill_benches::engine::{
    Batches, Dialogue, Family, Floor, Layer, Opener, Requests, Responder, Setup, nanos_each,
};
use synmill_benches::rows::{self, Options, Row};
use synmill_benches::timing::{Rounds, is_room_for};

const BENCH: &str = "conn_rate";

/// The extent of each case.
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

/// Returns a case in ns and in rates.
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
    let suffix = if dialogue == Dialogue::Http { "-http" } else { "" };
    let case = format!("generator{suffix}/{resident}");
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

/// Returns the connections/s of so many engines together, each on a core of its own.
fn workers(extent: Extent, count: u8, resident: usize) -> Result<f64> {
    let setup = Setup::of(Family::V4, resident);
    let clients = (0..count).map(|network| setup.client(network)).collect();
    let cores = cores::allowed()?;
    let (barrier, at_work) = (Barrier::new(count.into()), AtomicUsize::new(count.into()));
    let engine = |mut responder: Responder, core| {
        cores::pin(core)?;
        responder.fill();
        responder.warm();
        barrier.wait();
        let rounds = extent.measure(&mut responder);
        // The others' rounds need company to their end.
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
    if cores::allowed()?.len() < 2 {
        println!("workers are left out: there is one core");
        return Ok(Vec::new());
    }
    // In turn, so that both meet the same machine.
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

    // Threads inherit the pin of this one.
    let mut last = all_workers(extent, if options.quick { 100_000 } else { 1_000_000 })?;
    cores::pin_to_first()?;
    let mut rows = Vec::new();
    for resident in v4 {
        rows.extend(responder(extent, Family::V4, *resident)?);
        rows.extend(floor(extent, Layer::Record, *resident)?);
    }
    // The memory of these layers grows little or not at all.
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
