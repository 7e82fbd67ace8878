//! How many connections one core's engine opens, answers and closes: on in-memory rings, beside connections that stay.
//!
//! `cargo xtask bench conn_rate`. A connection is 3 packets in and 3 out: SYN; SYN,ACK; ACK with a request; response with FIN; FIN,ACK;
//! ACK. Checksums are verified and written, and the peer's frames are made and read outside the timed part. The table is full: each
//! new connection takes the place of the oldest in TIME-WAIT.

use std::time::Instant as Clock;

use core_affinity::CoreId;
use synmill_benches::engine::{Family, Responder, Setup};

/// Connections in one round, and rounds of each case.
const ROUND: u64 = 200_000;
const ROUNDS: usize = 9;

/// Nanoseconds per connection: the least and the median of the rounds.
fn rate(responder: &mut Responder) -> (f64, f64) {
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round(responder)).collect();
    rounds.sort_by(f64::total_cmp);
    (rounds[0], rounds[ROUNDS / 2])
}

fn round(responder: &mut Responder) -> f64 {
    let mut nanos = 0;
    let mut connections = 0;
    while connections < ROUND {
        responder.prepare();
        let start = Clock::now();
        responder.turn();
        nanos += start.elapsed().as_nanos();
        responder.collect();
        connections += Responder::BATCH;
    }
    nanos as f64 / connections as f64
}

fn main() {
    core_affinity::set_for_current(CoreId { id: 0 });
    let residents: Vec<usize> =
        std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    for resident in residents {
        let spare = (resident / 16).clamp(8192, 65_536);
        let start = Clock::now();
        let mut responder = Responder::new(Setup { family: Family::V4, resident, spare });
        responder.fill();
        let filled = start.elapsed().as_secs_f64();
        // Until TIME-WAIT fills the room that is left.
        for _ in 0..2 * spare as u64 / Responder::BATCH {
            responder.prepare();
            responder.turn();
            responder.collect();
        }
        let (least, median) = rate(&mut responder);
        let counts = responder.counts();
        println!(
            "responder {resident:>9} resident: {median:6.1} ns per connection (least {least:6.1}), {:.2} M/s; filled in {filled:.1} s; held {}, {} evicted, {} retransmitted",
            1e3 / median,
            responder.held(),
            counts.ended_evicted_time_wait,
            counts.retrans_segs
        );
        assert!(counts.laws().iter().all(|law| law.holds()), "{:?}", counts.laws());
    }
}
