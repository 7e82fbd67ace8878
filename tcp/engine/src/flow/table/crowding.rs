//! How crowded a full table gets: by tuples that a peer has picked, and after a long life.

use super::*;
use crate::flow::{Address, FlowHasher, FlowKey};

/// Pseudo-random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    fn seed(&mut self) -> [u64; 4] {
        std::array::from_fn(|_| self.next())
    }
}

/// The cost of searches in a table.
#[derive(Clone, Copy, Debug)]
struct Crowding {
    /// Lines beyond the first that a hit reads, one hit for each entry.
    astray: usize,
    /// Lines that a miss reads: the sum over one miss from each line, and the longest.
    missing: usize,
    longest: usize,
}

impl Crowding {
    /// Returns the cost in a table that holds these hashes, each with its number as slot. Asserts that the summaries of strays are right.
    fn of(table: &FlowTable, hashes: &[u64]) -> Self {
        let index = &table.index;
        let mut strays = vec![0; index.lines.len()];
        let mut astray = 0;
        for (slot, &hash) in (0..).zip(hashes) {
            let (place, ..) = index.search(hash, |candidate| candidate == slot).expect("it is in the table");
            let home = index.home(hash);
            let distance = (place + strays.len() - home) % strays.len();
            astray += distance;
            strays[home] += usize::from(distance > 0);
        }
        let (mut missing, mut longest) = (0, 0);
        // The hashes of misses are pseudo-random, too.
        let mut random = Random(3);
        for (line, strays) in index.lines.iter().zip(strays) {
            assert_eq!(line.read().strays() == Strays::default(), strays == 0, "{:?}", line.read().strays());
            let looked_at = index.reach(line.strays(), random.next()) + 1;
            missing += looked_at;
            longest = longest.max(looked_at);
        }
        Self { astray, missing, longest }
    }

    /// Returns the cost in a table that these flows fill.
    fn filled_with(keys: &[FlowKey], hasher: &FlowHasher) -> Self {
        let mut table = FlowTable::new(keys.len());
        let hashes: Vec<u64> = keys.iter().map(|key| hasher.hash(key)).collect();
        for (slot, hash) in (0..).zip(&hashes) {
            table.insert(*hash, slot).unwrap();
        }
        Self::of(&table, &hashes)
    }
}

const FLOWS: usize = 100_000;

fn from(remote: Address, remote_port: u16) -> FlowKey {
    FlowKey { local: Address::v4([198, 18, 0, 2]), remote, local_port: 80, remote_port }
}

fn v6_halves(high: u64, low: u64) -> Address {
    Address::v6((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

/// Tuples that a peer finds by trial with a wrong guess of our seed: under that seed, all have their homes in the same thousandth.
fn found_by_search(known: &FlowHasher) -> Vec<FlowKey> {
    let ports = (0..u32::MAX).flat_map(|address| {
        (1024..=u16::MAX).map(move |port| from(Address::v4((0x0a00_0000 + address).to_be_bytes()), port))
    });
    ports.filter(|key| known.hash(key) >> 54 == 0).take(FLOWS).collect()
}

/// Tuples that cancel a part of the hash without a seed, so that it is equal for all of them.
fn found_by_algebra() -> Vec<FlowKey> {
    (0..FLOWS as u64).map(|number| from(v6_halves(0xfd00 << 48 | number, 1), 1024)).collect()
}

/// Tuples in patterns that a poor hash would not spread.
fn in_patterns() -> [Vec<FlowKey>; 5] {
    let tuples = |tuple: &dyn Fn(u32) -> FlowKey| (0..FLOWS as u32).map(tuple).collect();
    let v4 = |bits: u32| Address::v4(bits.to_be_bytes());
    [
        // One port and consecutive addresses; then with their bits reversed.
        tuples(&|number| from(v4(0x0a00_0000 + number), 1024)),
        tuples(&|number| from(v4(number.reverse_bits()), 1024)),
        // Address and port with equal lower bits.
        tuples(&|number| from(v4(number << 4 ^ 0x0a00_0000), number as u16)),
        // IPv6 addresses with equal halves, and with halves of a constant sum.
        tuples(&|number| from(v6_halves(u64::from(number) << 32, u64::from(number) << 32), 1024)),
        tuples(&|number| from(v6_halves(1 << 40 | u64::from(number), (1 << 40) - u64::from(number)), 1024)),
    ]
}

/// A peer that knows the seed fills one corner of the table, and searches become as long as the table. A peer with a wrong seed has tuples
/// like any others.
#[test]
fn tuples_picked_for_a_seed_that_is_not_ours_are_like_any_others() {
    let mut random = Random(1);
    let unseeded = FlowHasher::new([0; 4]);
    let known = FlowHasher::new(random.seed());
    let picked = [found_by_search(&unseeded), found_by_search(&known), found_by_algebra()];

    // Under the seed that they were found with, they do harm: ten thousand fill a thousand lines in a row.
    for (keys, hasher) in picked.iter().zip([unseeded, known, unseeded]) {
        let crowding = Crowding::filled_with(&keys[..FLOWS / 10], &hasher);
        assert!(crowding.longest >= FLOWS / 10 / ENTRIES, "{crowding:?}");
    }

    let secrets: Vec<FlowHasher> = (0..4).map(|_| FlowHasher::new(random.seed())).collect();
    let of_random: Vec<Crowding> = secrets
        .iter()
        .map(|secret| {
            let remote = |bits: u64| from(Address::v4((bits as u32).to_be_bytes()), (bits >> 32) as u16);
            let keys: Vec<FlowKey> = (0..FLOWS).map(|_| remote(random.next())).collect();
            Crowding::filled_with(&keys, secret)
        })
        .collect();
    let most_astray = of_random.iter().map(|crowding| crowding.astray).max().unwrap();
    let longest = of_random.iter().map(|crowding| crowding.longest).max().unwrap();
    for (number, keys) in picked.iter().chain(&in_patterns()).enumerate() {
        for secret in &secrets {
            let crowding = Crowding::filled_with(keys, secret);
            assert!(
                crowding.astray <= most_astray + FLOWS / 200 && crowding.longest <= 2 * longest,
                "set {number}: {crowding:?}, and of random tuples {of_random:?}"
            );
        }
    }
}

/// Twenty million operations on a full table. Entries never move, so a table after a long life differs from a fresh one: later entries take
/// the holes, and searches get longer, up to a bound. The test holds that bound, and that it does not grow.
#[test]
fn a_table_that_stays_full_gets_no_slower() {
    const ROUNDS: usize = 20;
    const PAIRS: usize = 500_000;
    let mut random = Random(2);
    let mut table = FlowTable::new(FLOWS);
    let mut hashes: Vec<u64> = (0..FLOWS).map(|_| random.next()).collect();
    for (slot, hash) in (0..).zip(&hashes) {
        table.insert(*hash, slot).unwrap();
    }
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let mut gone = 0;
        for _ in 0..PAIRS {
            let slot = random.below(FLOWS);
            assert_eq!(table.insert(0, 0), Err(Full));
            gone = std::mem::replace(&mut hashes[slot], random.next());
            assert!(table.remove(gone, slot as u32));
            assert_eq!(table.insert(hashes[slot], slot as u32), Ok(()));
        }
        assert_eq!(table.len(), FLOWS);
        assert_eq!(table.find(gone, |_| true), None);
        seen.push(Crowding::of(&table, &hashes));
    }

    // The first round replaces each entry five times: later rounds do not differ from it.
    let settled = seen[0];
    for (round, crowding) in seen.iter().enumerate() {
        let has_grown = crowding.astray > settled.astray + settled.astray / 10
            || crowding.missing > settled.missing + settled.missing / 5;
        assert!(!has_grown, "round {round}: {seen:#?}");
        // Lines that a search reads: seldom more than one, for hits and misses.
        assert!(crowding.astray < FLOWS / 20, "round {round}: {crowding:?}");
        assert!(crowding.missing < table.index.lines.len() * 21 / 20, "round {round}: {crowding:?}");
        assert!(crowding.longest < 20, "round {round}: {crowding:?}");
    }
}
