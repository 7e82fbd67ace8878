//! The time of the engine's steps, each by itself: parse, emit, hash, look-up, timers.
//!
//! `cargo xtask bench micro`. criterion measures, and the figures are its medians. Each step runs in a loop of its own, with its code in
//! the cache. Cases whose data is not in the cache have `cold` in their name. No case measures a checksum by itself: the cases of
//! `parse-text` with 20, 60 and 1460 bytes differ only in that.

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant as Clock};

use anyhow::{Context as _, Result};
use criterion::{Bencher, Criterion};
use std::hint::black_box;
use synmill_benches::cores::pin_to_first;
use synmill_benches::engine::{ENGINE, PEER, SEED, segment};
use synmill_benches::rows::{self, Options, Row};
use synmill_benches::scratch::Folder;
use synmill_engine::flow::{
    Address, Armed, Deadlines, FlowHasher, FlowKey, FlowTable, Marked, Share, Timers,
};
use synmill_engine::proto::{Flags, Segment, SeqNum, Timestamps};
use synmill_engine::time::Millis;
use synmill_engine::wire::{self, Checks, Link, TcpPacket};

const BENCH: &str = "micro";
/// Connections in the table and in the wheel.
const MANY: u32 = 1_000_000;
/// A stride through [`MANY`] numbers, so that each is far from the last one.
const STRIDE: u32 = 618_033;

/// A segment with its name.
struct Case {
    name: &'static str,
    key: FlowKey,
    segment: Segment,
}

const V4: FlowKey = FlowKey {
    local: Address::v4([198, 19, 3, 4]),
    remote: Address::v4([198, 18, 0, 2]),
    local_port: 40_000,
    remote_port: 80,
};
const V6: FlowKey = FlowKey {
    local: Address::v6([0xfd, 0, 0, 0x19, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 3, 4]),
    remote: Address::v6([0xfd, 0, 0, 0x18, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
    ..V4
};
const LINK: Link = Link { destination: ENGINE, source: PEER, tags: [wire::Tag { tpid: 0, tci: 0 }; 2] };

fn cases() -> Vec<Case> {
    let case = |name, key, flags, text_len| {
        let segment = segment(flags, SeqNum(77), SeqNum(99), Timestamps { value: 1, echo: 2 });
        Case { name, key, segment: Segment { text_len, ..segment } }
    };
    let text = Flags::ACK.with(Flags::PSH);
    vec![
        case("syn", V4, Flags::SYN.with(Flags::ACK), 0),
        case("ack", V4, Flags::ACK, 0),
        case("text-20", V4, text, 20),
        case("text-60", V4, text, 60),
        case("text-1460", V4, text, 1460),
        case("syn-v6", V6, Flags::SYN.with(Flags::ACK), 0),
        case("text-60-v6", V6, text, 60),
    ]
}

fn write(case: &Case, frame: &mut [u8]) -> usize {
    wire::emit(frame, black_box(&LINK), black_box(&case.key), black_box(&case.segment))
}

fn packets(criterion: &mut Criterion) {
    for case in cases() {
        let mut frame = vec![0x61; 2048];
        let len = write(&case, &mut frame);
        let whole = &frame[..len];
        wire::parse(whole, Checks::default()).expect("a segment that is right");
        // As in the engine, the parser writes a segment to its final place.
        let mut packet = TcpPacket::default();
        let mut parse = |bencher: &mut Bencher<'_>| {
            bencher.iter(|| wire::parse_into(black_box(whole), Checks::default(), black_box(&mut packet)));
        };
        criterion.bench_function(&format!("parse-{}", case.name), &mut parse);
        criterion.bench_function(&format!("emit-{}", case.name), |bencher| {
            bencher.iter(|| write(&case, black_box(&mut frame)));
        });
    }
}

fn hashes(criterion: &mut Criterion) {
    let hasher = FlowHasher::new(SEED);
    for (name, key) in [("hash-v4", V4), ("hash-v6", V6)] {
        criterion.bench_function(name, |bencher| bencher.iter(|| hasher.hash(black_box(&key))));
    }
}

/// Returns the name of a connection.
fn name_of(number: u32) -> FlowKey {
    let [_, high, low, _] = (number << 2).to_be_bytes();
    FlowKey { local: Address::v4([198, 19, high, low]), local_port: 1024 + (number & 0x3f) as u16, ..V4 }
}

fn look_ups(criterion: &mut Criterion) {
    let hasher = FlowHasher::new(SEED);
    let mut table = FlowTable::new(MANY as usize);
    let hashes: Vec<u64> = (0..2 * MANY).map(|number| hasher.hash(&name_of(number))).collect();
    for slot in 0..MANY {
        table.insert(hashes[slot as usize], slot).expect("room for so many");
    }
    // The cache has the hashes, which are read in order, and not the lines of the table.
    for (name, first) in [("lookup-hit-cold/1000000", 0), ("lookup-miss-cold/1000000", MANY)] {
        let at = Cell::new(0);
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                let number = at.get();
                at.set(if number + 1 == MANY { 0 } else { number + 1 });
                let hash = hashes[(first + number) as usize];
                let found = table.find(hash, |slot| slot == number);
                debug_assert_eq!(found.is_some(), first == 0);
                found
            });
        });
    }
}

/// A connection as the wheel sees it.
#[derive(Clone, Copy, Default)]
struct Mark {
    armed: Armed,
    deadline: Millis,
}

impl Marked for Mark {
    fn armed(&self) -> Armed {
        self.armed
    }

    fn set_armed(&mut self, armed: Armed) {
        self.armed = armed;
    }
}

/// All connections, by slot.
struct Marks(Vec<Mark>);

impl Deadlines for Marks {
    fn armed(&self, slot: u32) -> Armed {
        self.0[slot as usize].armed
    }

    fn set_armed(&mut self, slot: u32, armed: Armed) {
        self.0[slot as usize].armed = armed;
    }

    fn deadline(&self, slot: u32) -> Option<Millis> {
        Some(self.0[slot as usize].deadline)
    }

    fn prefetch(&self, _slot: u32) {}
}

/// Returns the times to set `count` deadlines and to poll them, in a wheel of a million.
fn set_and_fire(count: u64) -> (Duration, Duration) {
    let (mut set, mut fire) = (Duration::ZERO, Duration::ZERO);
    let mut timers = Timers::new(MANY as usize, Share::Half, Millis(0));
    let mut marks = Marks(vec![Mark::default(); MANY as usize]);
    let (mut slot, mut now, mut left) = (0, Millis(0), count);
    while left > 0 {
        let batch = left.min(u64::from(MANY) / 2);
        let start = Clock::now();
        for number in 0..batch as u32 {
            // From 200 ms to a second, as of retransmissions.
            let deadline = now + (200 + number % 800);
            let mark = &mut marks.0[slot as usize];
            mark.deadline = deadline;
            timers.arm(slot, mark, deadline);
            slot = (slot + STRIDE) % MANY;
        }
        set += start.elapsed();
        assert_eq!(timers.take_full(), 0, "room for an entry a connection");
        let start = Clock::now();
        let mut fired = 0;
        while fired < batch {
            now = now + 1;
            while timers.poll(now, &mut { usize::MAX }, &mut marks).is_some() {
                fired += 1;
            }
        }
        fire += start.elapsed();
        left -= batch;
    }
    (set, fire)
}

fn timers(criterion: &mut Criterion) {
    criterion
        .bench_function("timer-set/1000000", |bencher| bencher.iter_custom(|count| set_and_fire(count).0));
    criterion
        .bench_function("timer-fire/1000000", |bencher| bencher.iter_custom(|count| set_and_fire(count).1));
}

/// Reads criterion's medians, in ns, sorted by name.
fn medians(folder: &Path) -> Result<Vec<Row>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?.path();
        let file = |name| -> Result<serde_json::Value> {
            let file = entry.join("new").join(name);
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            Ok(serde_json::from_str(&text)?)
        };
        let name = file("benchmark.json")?["full_id"].as_str().context("a name")?.to_owned();
        let median = file("estimates.json")?["median"]["point_estimate"].as_f64().context("a median")?;
        found.push(Row::new(BENCH, name, median, "ns"));
    }
    found.sort_by(|one, other| one.case.cmp(&other.case));
    Ok(found)
}

fn main() -> Result<()> {
    let options = Options::of_process();
    pin_to_first()?;
    let folder = Folder::new("micro")?;
    let (samples, warm_up_ms, measurement_ms) = if options.quick { (10, 20, 50) } else { (50, 300, 1000) };
    let mut criterion = Criterion::default()
        .output_directory(folder.path())
        .without_plots()
        .sample_size(samples)
        .warm_up_time(Duration::from_millis(warm_up_ms))
        .measurement_time(Duration::from_millis(measurement_ms));
    packets(&mut criterion);
    hashes(&mut criterion);
    look_ups(&mut criterion);
    timers(&mut criterion);
    let found = medians(folder.path())?;
    rows::print(&found);
    rows::write(&options, &found)
}
