//! As many flows as an endpoint may hold, entered into the index and the records, found by name, and taken out again. Knows flows;
//! never TCP.
//!
//! Ten million always, and the hundred million of `endpoint::MAX_CONNECTIONS` where there is memory for them; it says which.

use std::fs;
use std::io::{self, Write as _};

use synmill_engine::endpoint::MAX_CONNECTIONS;
use synmill_engine::flow::{Address, FlowHasher, FlowKey, FlowTable, Full, Slots, Words};

/// What a machine has to have available for all of them, in bytes: a good third more than they take.
const ROOMY: u64 = 12_000_000_000;
/// Flows whose lines are asked for before the first is looked at.
const GROUP: u64 = 64;

/// A record that names its flow, and says which it is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Record {
    key: FlowKey,
    number: u64,
}

impl Words<8> for Record {
    fn to_words(&self) -> [u64; 8] {
        let ([a, b], [c, d]) = (self.key.local.halves(), self.key.remote.halves());
        let ports = u64::from(self.key.local_port) << 16 | u64::from(self.key.remote_port);
        [a, b, c, d, ports, self.number, !self.number, 0]
    }

    fn from_words([a, b, c, d, ports, number, check, _]: [u64; 8]) -> Self {
        assert_eq!(number, !check);
        let address =
            |high: u64, low: u64| Address::v6((u128::from(high) << 64 | u128::from(low)).to_be_bytes());
        let key = FlowKey {
            local: address(a, b),
            remote: address(c, d),
            local_port: (ports >> 16) as u16,
            remote_port: ports as u16,
        };
        Self { key, number }
    }
}

/// Flow number `number`: IPv4 and IPv6 in turn, no two alike.
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

    /// Goes through all flows, in groups whose lines are on their way.
    fn for_each(&mut self, order: impl Fn(u64) -> u64, mut with: impl FnMut(&mut Self, u64, FlowKey, u64)) {
        for first in (0..self.count).step_by(GROUP as usize) {
            let group = (first..self.count.min(first + GROUP)).map(&order);
            let group: Vec<(u64, FlowKey, u64)> = group
                .map(|number| {
                    let key = flow(number);
                    (number, key, self.hasher.hash(&key))
                })
                .collect();
            for &(number, _, hash) in &group {
                self.table.prefetch(hash);
                self.slots.prefetch_to_write(self.slot(number));
            }
            for (number, key, hash) in group {
                with(self, number, key, hash);
            }
        }
    }

    /// The slot of a flow: the numbers backwards, so that the two are not the same.
    fn slot(&self, number: u64) -> u32 {
        (self.count - 1 - number) as u32
    }

    /// The slot that is found for a name.
    fn find(&self, key: &FlowKey, hash: u64) -> Option<u32> {
        let words = Record { key: *key, number: 0 }.to_words();
        self.table.find(hash, |slot| (0..5).all(|word| self.slots.word(slot, word) == words[word]))
    }
}

/// All numbers below `count` in an order without pattern: `count` and the step have no common factor.
fn shuffled(count: u64) -> impl Fn(u64) -> u64 {
    const STEP: u64 = 0x9e37_79b1;
    assert!(!count.is_multiple_of(STEP), "the step is a prime");
    move |at| at * STEP % count
}

fn inserted_found_and_removed(count: u64) {
    let mut flows = Flows::new(count);
    let taken = FlowTable::bytes_for(count as usize) + Slots::<8>::bytes_for(count as usize);
    assert_eq!(flows.table.memory_bytes() + flows.slots.memory_bytes(), taken);

    flows.for_each(
        |number| number,
        |flows, number, key, hash| {
            let slot = flows.slot(number);
            flows.slots.set(slot, &Record { key, number });
            assert_eq!(flows.table.insert(hash, slot), Ok(()));
        },
    );
    assert_eq!(flows.table.len() as u64, count);
    assert_eq!(flows.table.insert(1, 1), Err(Full));

    let mut sum = 0;
    flows.for_each(shuffled(count), |flows, number, key, hash| {
        let slot = flows.find(&key, hash).expect("it was inserted");
        assert_eq!(flows.slots.get::<Record>(slot), Record { key, number });
        sum += number;
    });
    assert_eq!(sum, count * (count - 1) / 2, "each was looked for once");
    // Names that are not in it.
    for number in count..count + 1_000_000 {
        let key = flow(number);
        assert_eq!(flows.find(&key, flows.hasher.hash(&key)), None);
    }

    flows.for_each(shuffled(count), |flows, number, key, hash| {
        let slot = flows.slot(number);
        assert!(flows.table.remove(hash, slot));
        // Its record stays as it was; its name leads nowhere.
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
    // Past the harness, which keeps to itself what a test that passes prints.
    writeln!(io::stderr(), "{said}").unwrap();
}
