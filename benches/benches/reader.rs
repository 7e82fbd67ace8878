//! The cost of a thread that reads all connections of a loaded worker without pause, as `synmill conns` does at its most.
//!
//! `cargo xtask bench reader`. The responder's engine works on one core, as in `conn_rate`. On another core a thread goes through all slots
//! and reads each connection, or only waits. Rounds alternate, so that both meet the same machine.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;

use anyhow::{Result, bail};
use synmill_benches::cores;
use synmill_benches::engine::{Batches as _, Family, Responder, Setup, nanos_each};
use synmill_benches::rows::{self, Options, Row, median};
use synmill_benches::timing::is_room_for;
use synmill_engine::endpoint::Viewer;
use synmill_engine::time::Instant;

const BENCH: &str = "reader";

/// Orders to the reader, and its counts.
#[derive(Default)]
struct Order {
    reads: AtomicBool,
    ends: AtomicBool,
    /// Slots that it has read.
    looks: AtomicU64,
    /// Connections that it has found.
    found: AtomicU64,
}

impl Order {
    /// Reads while `reads` is set, until `ends` is.
    fn obey(&self, viewer: &Viewer) {
        while !self.ends.load(Relaxed) {
            if !self.reads.load(Relaxed) {
                std::hint::spin_loop();
                continue;
            }
            for slot in 0..viewer.slots() {
                if !self.reads.load(Relaxed) {
                    break;
                }
                let view = viewer.view(slot, Instant::ZERO);
                self.looks.fetch_add(1, Relaxed);
                self.found.fetch_add(view.is_some().into(), Relaxed);
            }
        }
    }
}

/// Returns the ns per connection without a reader and with one, and the slots that it read for each connection.
fn measure(resident: usize, connections: u64, rounds: usize, reader: usize) -> [f64; 3] {
    let mut responder = Responder::new(Setup::of(Family::V4, resident));
    responder.fill();
    responder.warm();
    let viewer = responder.viewer();
    let order = Order::default();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let order = &order;
        scope.spawn(move || {
            cores::pin(reader).expect("a core that is allowed");
            order.obey(&viewer);
        });
        for _ in 0..rounds {
            order.reads.store(false, Relaxed);
            without.push(nanos_each(&mut responder, connections));
            order.reads.store(true, Relaxed);
            with.push(nanos_each(&mut responder, connections));
        }
        order.ends.store(true, Relaxed);
    });
    responder.batch();
    responder.check();
    let looks = order.looks.load(Relaxed) as f64 / (rounds as u64 * connections) as f64;
    [median(without), median(with), looks]
}

fn main() -> Result<()> {
    let options = Options::of_process();
    let (residents, connections, rounds): (&[usize], _, _) =
        if options.quick { (&[100_000], 20_000, 3) } else { (&[100_000, 1_000_000, 10_000_000], 200_000, 9) };
    let [engine, reader, ..] = cores::allowed()?[..] else { bail!("this bench needs two cores") };
    cores::pin(engine)?;
    let mut rows = Vec::new();
    for &resident in residents {
        if !is_room_for(Setup::of(Family::V4, resident).memory_bytes(), &format!("reader/{resident}"))? {
            continue;
        }
        let [without, with, looks] = measure(resident, connections, rounds, reader);
        let cost = 100.0 * (with / without - 1.0);
        println!(
            "{resident:>9} resident: alone {without:.1} ns per connection, read {with:.1} ns: {cost:+.1} %; \
             {looks:.1} slots looked at for each connection"
        );
        rows.push(Row::new(BENCH, format!("alone/{resident}"), without, "ns_per_connection"));
        rows.push(Row::new(BENCH, format!("read/{resident}"), with, "ns_per_connection"));
        rows.push(Row::new(BENCH, format!("cost/{resident}"), cost, "percent"));
        rows.push(Row::new(BENCH, format!("looks/{resident}"), looks, "slots_per_connection"));
    }
    rows::write(&options, &rows)
}
