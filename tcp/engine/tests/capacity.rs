//! As many flows as an endpoint may hold: inserted into the index and the records, found by name, and removed.
//!
//! The test always takes ten million flows. It takes the hundred million of `endpoint::MAX_CONNECTIONS` where there is memory for them,
//! and prints whether there is.

use std::convert::identity;
use std::fs;
use std::io::{self, Write as _};

use synmill_engine::endpoint::MAX_CONNECTIONS;
use synmill_engine::flow::{Address, FlowHasher, FlowKey, FlowTable, Full, Slots, Words};

/// The memory in bytes that must be available for all flows: a good third more than they take.
const ROOMY: u64 = 12_000_000_000;
/// Flows whose lines are prefetched before the first is used.
const GROUP: u64 = 64;

/// A record with the name and the number of its flow, packed.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Record([u64; 8]);

impl Record {
    fn new(key: &FlowKey, number: u64) -> Self {
        let ([a, b], [c, d]) = (key.local.halves(), key.remote.halves());
        let ports = u64::from(key.local_port) << 16 | u64::from(key.remote_port);
        Self([a, b, c, d, ports, number, !number, 0])
    }
}

impl Words<8> for Record {
    fn to_words(&self) -> [u64; 8] {
        self.0
    }

    fn from_words(words: [u64; 8]) -> Self {
        assert_eq!(words[5], !words[6]);
        Self(words)
    }
}

/// Returns the name of flow `number`: IPv4 and IPv6 alternate, and no two are equal.
fn flow(number: u64) -> FlowKey {
    let (address, port) = ((number / 2 / 50_000) as u32, (1024 + number / 2 % 50_000) as u16);
    let (local, remote) = if number.is_multiple_of(2) {
        (Address::v4([198, 18, 0, 2]), Address::v4((0x0a00_0000 + address).to_be_bytes()))
    } else {
        let v6 = |low: u32| Address::v6((0xfd00_0018_u128 << 96 | u128::from(low)).to_be_bytes());
        (v6(2), v6(0x1_0000 + address))
    };
    FlowKey { local, remote, local_port: 80, remote_port: port }
}

/// An index and its records, as an endpoint has them.
struct Flows {
    hasher: FlowHasher,
    table: FlowTable,
    slots: Slots<8>,
    count: u64,
}

impl Flows {
    fn new(count: u64) -> Self {
        Self {
            hasher: FlowHasher::new([0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 3]),
            table: FlowTable::new(count as usize),
            slots: Slots::new(count as usize),
            count,
        }
    }

    /// Calls `with` for all flows in this order, in groups whose lines it prefetches.
    fn for_each(&mut self, order: impl Fn(u64) -> u64, mut with: impl FnMut(&mut Self, u64, FlowKey, u64)) {
        for first in (0..self.count).step_by(GROUP as usize) {
            let named = |number| (number, flow(number), self.hasher.hash(&flow(number)));
            let group: Vec<_> = (first..self.count.min(first + GROUP)).map(|at| named(order(at))).collect();
            for &(number, _, hash) in &group {
                self.table.prefetch(hash);
                self.slots.prefetch_to_write(self.slot(number));
            }
            for (number, key, hash) in group {
                with(self, number, key, hash);
            }
        }
    }

    /// Returns the slot of a flow. Slots run backwards, so that slot and number differ.
    fn slot(&self, number: u64) -> u32 {
        (self.count - 1 - number) as u32
    }

    /// Returns the slot that the index has for a name.
    fn find(&self, key: &FlowKey, hash: u64) -> Option<u32> {
        let Record(words) = Record::new(key, 0);
        self.table.find(hash, |slot| (0..5).all(|word| self.slots.word(slot, word) == words[word]))
    }
}

/// Returns an order of all numbers below `count` without a pattern: `count` and the step have no common factor.
fn shuffled(count: u64) -> impl Fn(u64) -> u64 {
    const STEP: u64 = 0x9e37_79b1;
    assert!(!count.is_multiple_of(STEP), "the step is a prime");
    move |at| at * STEP % count
}

fn inserted_found_and_removed(count: u64) {
    let mut flows = Flows::new(count);
    let taken = FlowTable::bytes_for(count as usize) + Slots::<8>::bytes_for(count as usize);
    assert_eq!(flows.table.memory_bytes() + flows.slots.memory_bytes(), taken);

    flows.for_each(identity, |flows, number, key, hash| {
        let slot = flows.slot(number);
        flows.slots.set(slot, &Record::new(&key, number));
        assert_eq!(flows.table.insert(hash, slot), Ok(()));
    });
    assert_eq!(flows.table.len() as u64, count);
    assert_eq!(flows.table.insert(1, 1), Err(Full));

    let mut sum = 0;
    flows.for_each(shuffled(count), |flows, number, key, hash| {
        let slot = flows.find(&key, hash).expect("it was inserted");
        assert_eq!(flows.slots.get::<Record>(slot), Record::new(&key, number));
        sum += number;
    });
    assert_eq!(sum, count * (count - 1) / 2, "each was looked for once");
    // Names of no flow.
    for number in count..count + 1_000_000 {
        let key = flow(number);
        assert_eq!(flows.find(&key, flows.hasher.hash(&key)), None);
    }

    flows.for_each(shuffled(count), |flows, number, key, hash| {
        let slot = flows.slot(number);
        assert!(flows.table.remove(hash, slot));
        // The record stays, but the index no longer has its name.
        assert_eq!(flows.find(&key, hash), None);
    });
    assert!(flows.table.is_empty());
}

fn available_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    value.unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn every_flow_is_found_and_leaves_nothing() {
    inserted_found_and_removed(10_000_000);
    let available = available_bytes();
    let all = MAX_CONNECTIONS as u64;
    let said = if available > ROOMY {
        inserted_found_and_removed(all);
        format!("10 million flows, and {all}: {available} bytes were available")
    } else {
        format!("10 million flows, and not {all}: {available} bytes are available, and they want {ROOMY}")
    };
    // Not with `eprintln!`: the test harness hides the output of a passed test.
    writeln!(io::stderr(), "{said}").unwrap();
}
