//! How evenly a generator opens connections: the gaps between SYNs, by the machine's clock.
//!
//! `cargo xtask bench gaps`. One thread runs a generator's worker and its responder in turn over a link in memory. For each rate it prints
//! the distances of the gaps from the asked one, and their distribution.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use anyhow::Result;
use hdrhistogram::Histogram;
use synmill_benches::engine::{Dialogue, ENGINE, PEER, generator, worker};
use synmill_benches::rows::{self, Options, Row};
use synmill_engine::device::pair::{Faults, Link, PairDevice, pair};
use synmill_engine::device::{Burst, Census, Device, RingCounts};
use synmill_engine::endpoint::{Listener, Listeners, Settings};
use synmill_engine::flow::Address;
use synmill_engine::generator::Load;
use synmill_engine::generator::desk::{Desk, Trial};
use synmill_engine::generator::meters::meters;
use synmill_engine::proto::Flags;
use synmill_engine::service::Http;
use synmill_engine::stats::Law;
use synmill_engine::time::Instant;
use synmill_engine::wire::{self, Checks, Packet};

const TIME_WAIT: Duration = Duration::from_millis(100);
const SLOTS: usize = 65_536;
const BENCH: &str = "gaps";
/// Columns of the longest bar.
const BAR: u64 = 50;

/// A device that records when SYNs leave.
struct Tap {
    device: PairDevice,
    zero: Clock,
    /// Nanoseconds since `zero`.
    syns: Vec<u64>,
}

impl Device for Tap {
    fn receive(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.device.receive(into, limit)
    }

    fn recycle(&mut self, frames: &mut Burst) {
        self.device.recycle(frames);
    }

    fn alloc(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.device.alloc(into, limit)
    }

    fn transmit(&mut self, frames: &mut Burst) -> usize {
        for frame in frames.iter() {
            if let Ok(Packet::Tcp(packet)) = wire::parse(frame, Checks::default())
                && packet.segment.flags.has(Flags::SYN)
            {
                self.syns.push(self.zero.elapsed().as_nanos() as u64);
            }
        }
        self.device.transmit(frames)
    }

    fn wait(&mut self, _timeout: Duration) {}

    fn wait_any(_devices: &mut [Self], _timeout: Duration) {}

    fn ring_counts(&mut self) -> RingCounts {
        self.device.ring_counts()
    }

    fn census(&self) -> Census {
        self.device.census()
    }
}

/// Runs a rate for some time and returns when its SYNs left.
fn run(rate_per_s: u64, duration: Duration) -> Vec<u64> {
    let (near, far, link): (_, _, Link) = pair(1, &Faults::NONE, 4096, 2048);
    let desk = Arc::<Desk>::default();
    let zero = Clock::now();
    let now = || Instant::from_nanos(zero.elapsed().as_nanos() as u64);
    let planned = (rate_per_s as f64 * duration.as_secs_f64()) as usize;
    let tap = Tap { device: near, zero, syns: Vec::with_capacity(2 * planned) };
    // Nobody reads the meters: there is one for each second, and one for the end.
    let generator = generator(Dialogue::Http, &desk, meters(8).0, SLOTS, TIME_WAIT, Duration::from_secs(3));
    let settings = Settings { max_connections: SLOTS, time_wait: TIME_WAIT, ..Settings::default() };
    let mut client = worker(tap, generator, settings, ENGINE);
    let service = Http::of_size(64);
    let listeners = Listeners(vec![Listener { address: Address::v4([0; 4]), port: 80, service }]);
    let mut server = worker(far, listeners, settings, PEER);
    let trial = Trial {
        number: 1,
        load: Load::Rate(rate_per_s),
        start: now() + Duration::from_millis(10),
        ramp: Duration::ZERO,
        warmup: Duration::ZERO,
        duration,
        drain: Duration::from_secs(1),
    };
    assert!(desk.hand_in(trial), "the first trial");
    while desk.over() == 0 {
        let time = now();
        link.set_now(time);
        client.turn(time);
        server.turn(time);
    }
    let totals = desk.tally.totals();
    assert!(totals.laws().iter().all(Law::holds), "{totals:#?}");
    println!(
        "{rate_per_s}/s for {} s: {planned} planned, {} started, {} closed",
        duration.as_secs_f64(),
        totals.started,
        totals.closed
    );
    std::mem::take(&mut client.device_mut().syns)
}

/// Prints the gaps' distances from the asked one, and a bar for each multiple of an eighth of it.
fn show(rate_per_s: u64, syns: &[u64]) -> [Row; 2] {
    let asked = 1_000_000_000 / rate_per_s;
    let mut distances = Histogram::<u64>::new_with_max(60_000_000_000, 3).expect("a minute, to three digits");
    // In eighths of the asked gap; the last bar has all gaps from twice on.
    let mut bars = [0_u64; 17];
    for pair in syns.windows(2) {
        let gap = pair[1] - pair[0];
        distances.saturating_record(gap.abs_diff(asked));
        bars[((gap * 8 + asked / 2) / asked).min(16) as usize] += 1;
    }
    let at = |quantile| distances.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "  |gap - {} us|: p50 {:.2} us, p90 {:.2} us, p99 {:.2} us, p99.9 {:.2} us, max {:.2} us",
        asked as f64 / 1e3,
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        distances.max() as f64 / 1e3
    );
    let gaps: u64 = bars.iter().sum::<u64>().max(1);
    for (eighths, count) in bars.iter().enumerate().filter(|(_, count)| **count > 0) {
        let bar = "#".repeat((count * BAR).div_ceil(gaps) as usize);
        println!("  {:>5.3} of it {count:>8} {bar}", eighths as f64 / 8.0);
    }
    [("p50", 0.5), ("p99", 0.99)].map(|(name, quantile)| {
        Row::new(BENCH, format!("{name}/{rate_per_s}"), at(quantile), "us_from_asked_gap")
    })
}

fn main() -> Result<()> {
    let options = Options::of_process();
    // The lowest rate takes some seconds for its first gap.
    let runs: &[(u64, u64)] =
        if options.quick { &[(1000, 1), (100_000, 1)] } else { &[(1, 5), (1000, 3), (100_000, 3)] };
    let mut rows = Vec::new();
    for &(rate_per_s, duration_s) in runs {
        let syns = run(rate_per_s, Duration::from_secs(duration_s));
        rows.extend(show(rate_per_s, &syns));
    }
    rows::write(&options, &rows)
}
