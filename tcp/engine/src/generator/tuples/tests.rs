//! Spaces and walks as the generator uses them.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const TIME_WAIT: Duration = Duration::from_secs(60);
const START: Instant = Instant::from_nanos(5_000_000_000);

const ONE: &str = "198.18.0.2:80";
const ONE_V6: &str = "[fd00:18::2]:80";
const BOTH: &str = "198.18.0.2:80 [fd00:18::2]:443";

fn targets_of(words: &str) -> Vec<(Address, u16)> {
    let targets = words.split_whitespace().map(|word| word.parse::<SocketAddr>().unwrap());
    targets.map(|target| (target.ip().into(), target.port())).collect()
}

/// Returns the prefixes of addresses within them.
fn prefixes_of(words: &str) -> Vec<Prefix> {
    let prefix = |word: &str| {
        let (address, len) = word.split_once('/').unwrap();
        Prefix::new(address.parse::<IpAddr>().unwrap().into(), len.parse().unwrap()).unwrap()
    };
    words.split_whitespace().map(prefix).collect()
}

fn space_of(sources: &str, ports: RangeInclusive<u16>, targets: &str) -> Result<Space, SpaceError> {
    Space::new(&prefixes_of(sources), ports, &targets_of(targets))
}

/// Returns a space of `len` tuples.
fn space_with(len: u64) -> Arc<Space> {
    let targets: Vec<_> = (1..=len.div_ceil(65535) as u16).map(|port| (targets_of(ONE)[0].0, port)).collect();
    assert_eq!(len % targets.len() as u64, 0);
    let ports = (len / targets.len() as u64) as u16;
    Arc::new(Space::new(&prefixes_of("198.19.0.1/32"), 1..=ports, &targets).unwrap())
}

fn split(workers: u64, number: u64) -> Share {
    Share::Split { workers, number }
}

/// Returns all tuples that the walk has at one time.
fn all_at(walk: &mut Walk, now: Instant) -> Vec<Tuple> {
    std::iter::from_fn(|| walk.next(now)).collect()
}

#[test]
fn a_space_has_every_combination_from_first_to_last() {
    // A combination: the source, and the target's number.
    let check =
        |sources: &str, ports: RangeInclusive<u16>, targets: &str, len: u64, first: &str, last: &str| {
            let space = space_of(sources, ports, targets).unwrap();
            let shown = |index| {
                let (key, target) = space.tuple(index);
                assert_eq!((key.remote, key.remote_port), targets_of(targets)[usize::from(target)]);
                format!("{} {target}", SocketAddr::new(key.local.to_ip(), key.local_port))
            };
            assert_eq!((space.len(), &*shown(0), &*shown(len - 1)), (len, first, last), "{sources}");
        };
    check("198.19.0.5/32", 7..=7, ONE, 1, "198.19.0.5:7 0", "198.19.0.5:7 0");
    check("198.19.0.5/31", 1..=2, ONE, 4, "198.19.0.4:1 0", "198.19.0.5:2 0");
    check("198.19.0.5/30", 1..=2, ONE, 4, "198.19.0.5:1 0", "198.19.0.6:2 0");
    let [many, all] = [65534 * 64512, ((1 << 32) - 2) * 65535];
    check("198.19.0.0/16", 1024..=65535, ONE, many, "198.19.0.1:1024 0", "198.19.255.254:65535 0");
    check("198.19.0.0/0", 1..=65535, ONE, all, "0.0.0.1:1 0", "255.255.255.254:65535 0");
    let (sources, targets) =
        ("198.19.1.0/24 10.0.0.9/32 10.1.0.0/31", "198.18.0.2:80 198.18.0.2:81 198.18.0.3:80");
    check(sources, 5..=6, targets, 257 * 2 * 3, "198.19.1.1:5 0", "10.1.0.1:6 2");
    check("fd00:19::/128", 9..=9, ONE_V6, 1, "[fd00:19::]:9 0", "[fd00:19::]:9 0");
    check("fd00:19::/127", 9..=9, ONE_V6, 2, "[fd00:19::]:9 0", "[fd00:19::1]:9 0");
    check("fd00:19::/126", 9..=9, ONE_V6, 3, "[fd00:19::1]:9 0", "[fd00:19::3]:9 0");
    let all = ((1u64 << 32) - 1) * 65535;
    for sources in ["::/0", "::/1"] {
        check(sources, 1..=65535, ONE_V6, all, "[::1]:1 0", "[::ffff:ffff]:65535 0");
    }
    for sources in ["fd00:19::/64", "fd00:19::/95", "fd00:19::/96"] {
        check(sources, 1..=65535, ONE_V6, all, "[fd00:19::1]:1 0", "[fd00:19::ffff:ffff]:65535 0");
    }
    // All targets have as many combinations as those of the family with fewer.
    let v4_first = "198.19.0.0/24 fd00:19::/64";
    check(v4_first, 1..=100, BOTH, 254 * 100 * 2, "198.19.0.1:1 0", "[fd00:19::fe]:100 1");
    let v6_first = "fd00:19::/127 198.19.0.0/24";
    check(v6_first, 1..=100, BOTH, 2 * 100 * 2, "198.19.0.1:1 0", "[fd00:19::1]:100 1");
    // A family without a target has no combination.
    check("fd00:19::/128 198.19.0.0/24", 1..=1, ONE, 254, "198.19.0.1:1 0", "198.19.0.254:1 0");
}

#[test]
fn a_space_beyond_64_bits_is_cut() {
    let target = targets_of(ONE_V6)[0].0;
    let targets: Vec<_> = (0..=u16::MAX).map(|port| (target, port)).collect();
    let source = |network| Prefix::new(Address::v6([network; 16]), 8).unwrap();
    let space = Space::new(&(0..64).map(source).collect::<Vec<_>>(), 1..=65535, &targets).unwrap();
    assert!(space.len() > 1 << 63);
    let (key, target) = space.tuple(space.len() - 1);
    assert_eq!((key.local_port, target), (65535, 65535));
    let mut walk = Walk::new(Arc::new(space), split(3, 2), TIME_WAIT, 7);
    let seen: HashSet<_> = (0..100_000).map(|_| walk.next(START).unwrap().key).collect();
    assert_eq!(seen.len(), 100_000);
}

#[test]
fn what_makes_no_space_says_what_to_give() {
    let v4 = "198.19.0.0/16";
    for (sources, (low, high), targets, expected) in [
        (v4, (0, 5), ONE, "source ports 0-5 cannot be used: give a range within 1-65535"),
        (v4, (6, 5), ONE, "source ports 6-5 cannot be used"),
        ("", (1, 5), ONE, "target 198.18.0.2 has no source: give a source prefix of IPv4"),
        ("fd00::/64", (1, 5), ONE, "give a source prefix of IPv4"),
        (v4, (1, 5), BOTH, "target fd00:18::2 has no source: give a source prefix of IPv6"),
        (v4, (1, 5), "", "0 targets cannot be used: give 1 to 65536"),
        (v4, (1, 5), "198.18.0.2:80 [fd00:18::2]:443 198.18.0.2:80", "198.18.0.2 port 80 is given twice"),
        (
            "198.19.0.0/16 198.19.7.7/32",
            (1, 5),
            ONE,
            "sources 198.19.0.0/16 and 198.19.7.7/32 overlap: leave out the one within the other",
        ),
        ("198.19.7.7/32 10.0.0.0/8 198.19.0.0/16", (1, 5), ONE, "overlap"),
        ("198.19.0.0/16 198.19.0.0/16", (1, 5), ONE, "overlap"),
        ("fd00::/64 198.19.0.0/16 fd00::8/128", (1, 5), BOTH, "sources fd00::/64 and fd00::8/128 overlap"),
    ] {
        let error = space_of(sources, RangeInclusive::new(low, high), targets).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    // The prefix of all IPv6 does not overlap IPv4.
    assert!(space_of("::/0 198.19.0.0/16", 1..=5, BOTH).is_ok());
}

#[test]
fn a_lap_meets_each_tuple_once() {
    for len in [1, 2, 3, 5, 8, 64, 4095, 4096, 4097, 12_289, 65_535, 70_000, 131_070] {
        let space = space_with(len);
        for workers in [1, 2, 3, 7, 13, 64, len + 3] {
            if len > 5000 && workers > 100 {
                continue;
            }
            let mut seen = HashSet::new();
            for number in 0..workers {
                let mut walk = Walk::new(space.clone(), split(workers, number), TIME_WAIT, 11 * len);
                let lap = all_at(&mut walk, START);
                let share = (len + workers - 1 - number) / workers;
                assert_eq!(lap.len() as u64, share, "{len} {workers} {number}");
                seen.extend(lap.iter().map(|tuple| tuple.key));
                assert_eq!(walk.next(START + (TIME_WAIT - Duration::from_nanos(1))), None);
                // The next lap differs only in the mark of the lap.
                let key = |tuple: &Tuple| (tuple.key, tuple.target, tuple.block % BLOCKS);
                let again = all_at(&mut walk, START + TIME_WAIT);
                assert!(lap.iter().map(key).eq(again.iter().map(key)), "{len} {workers} {number}");
            }
            assert_eq!(seen.len() as u64, len, "{len} tuples, {workers} workers");
        }
    }
}

#[test]
fn workers_have_the_places_of_one_sequence_in_turn() {
    let space = space_with(70_000);
    let whole = all_at(&mut Walk::new(space.clone(), split(1, 0), TIME_WAIT, 5), START);
    for number in 0..3 {
        let share = all_at(&mut Walk::new(space.clone(), split(3, number), TIME_WAIT, 5), START);
        let expected = whole.iter().skip(number as usize).step_by(3);
        assert!(share.iter().map(|tuple| tuple.key).eq(expected.map(|tuple| tuple.key)), "{number}");
    }
    let other = Walk::new(space, split(1, 0), TIME_WAIT, 6).next(START).unwrap();
    assert_ne!(other.key, whole[0].key);
}

#[test]
fn neighbours_are_far_apart_and_targets_take_turns() {
    let targets = "198.18.0.2:80 198.18.0.2:81 [fd00:18::2]:80";
    let space = space_of("198.19.0.0/24 fd00:19::/64", 1024..=65535, targets).unwrap();
    let mut walk = Walk::new(Arc::new(space), split(1, 0), TIME_WAIT, 3);
    let tuples: Vec<_> = (0..30_000).map(|_| walk.next(START).unwrap()).collect();
    for near in tuples.chunks(100) {
        let sources: HashSet<_> = near.iter().map(|tuple| tuple.key.local.octets()[15]).collect();
        assert!(sources.len() > 90, "{} sources in a hundred", sources.len());
    }
    for target in 0..3 {
        let count = tuples.iter().filter(|tuple| tuple.target == target).count();
        assert_eq!(count, 10_000, "target {target}");
    }
}

#[test]
fn what_comes_up_soon_is_known() {
    // A lap without a jump at its end, and blocks of one tuple and of many.
    for len in [3, 100, 65_535, 655_350] {
        let mut walk = Walk::new(space_with(len), split(1, 0), TIME_WAIT, 7);
        let mut coming = VecDeque::new();
        let mut known = 0;
        for _ in 0..len.min(1000) {
            let tuple = walk.next(START).unwrap();
            coming.push_back(*walk.upcoming());
            if coming.len() > AHEAD {
                known += u64::from(coming.pop_front() == Some(tuple.key));
            }
        }
        assert_eq!(known, len.min(1000).saturating_sub(AHEAD as u64), "of {len}");
    }
}

#[test]
fn queues_have_what_is_answered_to_them() {
    let key: Vec<u8> = (0..40u32).map(|place| (place * place * 37 + 11) as u8).collect();
    let table: Vec<u32> = (0..128).map(|entry| entry % 4).collect();
    let rss = Arc::new(Rss::new(&key, table).unwrap());
    let space = Arc::new(space_of("198.19.0.0/28 fd00:19::/64", 1024..=4000, BOTH).unwrap());
    let mut seen = HashSet::new();
    for queues in [vec![0], vec![2, 1], vec![3], vec![4], vec![]] {
        let share = Share::Queues { rss: rss.clone(), queues: queues.clone() };
        let mut walk = Walk::new(space.clone(), share, TIME_WAIT, 1);
        let lap = all_at(&mut walk, START);
        assert!(lap.iter().all(|tuple| queues.contains(&rss.queue(&tuple.key))));
        let (mine, all) = rss.share(&queues);
        let expected = space.len() * mine as u64 / all as u64;
        assert!(expected.abs_diff(lap.len() as u64) * 20 <= expected, "{} of {expected}", lap.len());
        let before = seen.len();
        seen.extend(lap.iter().map(|tuple| tuple.key));
        assert_eq!(seen.len(), before + lap.len());
        assert_eq!(all_at(&mut walk, START + TIME_WAIT).len(), lap.len());
    }
    assert_eq!(seen.len() as u64, space.len());
}

#[test]
fn a_call_looks_at_a_bounded_number_of_places() {
    // A key of zeros sends all packets to the first queue: the second queue's worker finds no tuple, at 32 places per call.
    let rss = Arc::new(Rss::new(&[0; 40], vec![0, 1]).unwrap());
    let share = Share::Queues { rss, queues: vec![1] };
    let mut walk = Walk::new(space_with(60_000), share, Duration::ZERO, 1);
    let mut calls = 0;
    while walk.lap < 2 {
        assert_eq!(walk.next(START), None);
        calls += 1;
    }
    assert_eq!(calls, 60_000 / 32 + 1);
}

/// Opens `rate` connections per second for `time`, in a space of `len` tuples. `life` returns the lifetime of a connection. Checks that
/// no tuple returns before its TIME-WAIT has ended. Returns how many connections were opened, and for how many a tuple was missing.
fn run(len: u64, rate: u64, time: Duration, mut life: impl FnMut(u64) -> Duration) -> (u64, u64) {
    let mut walk = Walk::new(space_with(len), split(1, 0), TIME_WAIT, rate);
    // When a tuple is free again; `None` while its connection is open.
    let mut taken: HashMap<FlowKey, Option<Instant>> = HashMap::new();
    let mut open: BTreeMap<(Instant, u64), Tuple> = BTreeMap::new();
    let (mut opened, mut missed) = (0, 0);
    for k in 0..rate * time.as_secs() {
        let now = START + Duration::from_nanos(1_000_000_000 * k / rate);
        while let Some(first) = open.first_entry()
            && first.key().0 <= now
        {
            let ((end, _), tuple) = first.remove_entry();
            walk.ended(tuple.block, end);
            taken.insert(tuple.key, Some(end + TIME_WAIT));
        }
        let Some(tuple) = walk.next(now) else {
            missed += 1;
            continue;
        };
        match taken.insert(tuple.key, None) {
            // The connection lives longer than a lap.
            Some(None) => continue,
            Some(Some(until)) => assert!(until <= now, "{tuple:?} is back {:?} early", until - now),
            None => {}
        }
        opened += 1;
        open.insert((now + life(k), k), tuple);
    }
    (opened, missed)
}

#[test]
fn hours_pass_without_a_tuple_coming_back_early() {
    let hours = 3 * 3600 * SECOND;
    let short = Duration::from_millis(3);
    for (len, rate) in [(1, 1), (50, 1), (13_107, 150), (13_107, 250)] {
        // Some connections live long: most of them less than a lap, some much longer.
        let life = |k: u64| match k % 1009 {
            0 => SECOND * 10,
            1 if k.is_multiple_of(10_007) => SECOND * 1000,
            _ => short,
        };
        let (opened, missed) = run(len, rate, hours, life);
        assert_eq!(missed == 0, rate == 150, "{missed} of {opened} at {rate}/s");
        // The most that the space can give. The walk gives at least three quarters of it.
        let most = len * (hours.as_secs() / TIME_WAIT.as_secs() + 1);
        assert!(opened <= most && opened * 4 >= most.min(rate * hours.as_secs()) * 3, "{opened} at {rate}/s");
    }
}

#[test]
fn a_late_connection_holds_its_own_block_only() {
    let mut walk = Walk::new(space_with(65_535), split(1, 0), TIME_WAIT, 1);
    let first = all_at(&mut walk, START);
    let late = START + (TIME_WAIT - SECOND);
    walk.ended(first[20_000].block, late);
    let block = first[20_000].block % BLOCKS;
    let here = |tuple: &Tuple| tuple.block % BLOCKS == block;
    let second = all_at(&mut walk, START + TIME_WAIT);
    assert_eq!(second.iter().filter(|tuple| here(tuple)).count(), 0);
    assert_eq!(second.len(), first.len() - first.iter().filter(|tuple| here(tuple)).count());
    let now = START + TIME_WAIT * 2;
    assert_eq!(all_at(&mut walk, now).len(), first.len());
    // A connection of an earlier lap ends while the walk is in its block: the rest of the block waits.
    let now = now + TIME_WAIT;
    let one = walk.next(now).unwrap();
    let old = first[first.partition_point(|tuple| tuple.block % BLOCKS < one.block % BLOCKS)].block;
    assert_eq!(walk.next(now).unwrap().block, one.block);
    walk.ended(one.block, now);
    assert_eq!(walk.next(now).unwrap().block, one.block);
    walk.ended(old, now);
    assert_eq!(walk.next(now).unwrap().block % BLOCKS, one.block % BLOCKS + 1);
}

#[test]
fn what_is_needed_is_enough() {
    let day = 86_400 * SECOND;
    for (rate, time_wait, duration, expected) in [
        (0, TIME_WAIT, day, 0),
        (1000, TIME_WAIT, SECOND, 1000),
        (1000, TIME_WAIT, TIME_WAIT, 60_000),
        (1000, Duration::ZERO, day, 1),
        (3, Duration::from_millis(500), day, 4),
        (100_000, TIME_WAIT, day, 6_000_000 + 1466 + 1),
        (u64::MAX, day, day, u64::MAX),
    ] {
        assert_eq!(needed(rate, time_wait, duration), expected, "{rate}/s {time_wait:?} {duration:?}");
    }
    for rate in [1, 17, 500, 1000] {
        let enough = needed(rate, TIME_WAIT + SECOND, day);
        let (opened, missed) = run(enough, rate, TIME_WAIT * 10, |_| SECOND);
        assert_eq!((opened, missed), (rate * 600, 0), "{rate}/s");
        let (_, missed) = run(enough - enough / 10, rate, TIME_WAIT * 10, |_| SECOND);
        assert!(missed > 0, "{rate}/s");
    }
}

#[test]
fn memory_does_not_grow_with_the_tuples() {
    for source in ["198.19.0.1/32", "198.19.0.0/24", "198.19.0.0/16", "0.0.0.0/0"] {
        let space = Arc::new(space_of(source, 1024..=65535, ONE).unwrap());
        let walk = Walk::new(space.clone(), split(1, 0), TIME_WAIT, 1);
        let bytes = size_of::<Walk>() + walk.free_at.capacity() * size_of::<Instant>();
        assert!(bytes <= 33 * 1024, "{bytes} bytes");
        let bytes = size_of::<Space>()
            + (space.v4.capacity() + space.v6.capacity()) * size_of::<Run>()
            + space.targets.capacity() * size_of::<(Address, u16)>();
        assert!(bytes <= 512, "{bytes} bytes");
    }
}

proptest! {
    #[test]
    fn any_shape_is_walked_once_a_lap(
        v4_len in 26u8..=32,
        v6_len in 122u8..=128,
        other in any::<bool>(),
        low in 1u16..=u16::MAX,
        ports in 0u16..40,
        families in 1usize..=3,
        workers in 1u64..40,
        seed in any::<u64>(),
    ) {
        let v4 = Prefix::new(Address::v4([198, 19, 3, 77]), v4_len).unwrap();
        let v6 = Prefix::new(Address::v6([0xfd; 16]), v6_len).unwrap();
        let more = Prefix::host(Address::v4([10, 1, 1, 1]));
        let sources = if other { vec![v4, v6, more] } else { vec![v6, v4] };
        let all = [
            (Address::v4([198, 18, 0, 2]), 80),
            (Address::v6([0xfc; 16]), 80),
            (Address::v6([0xfc; 16]), 81),
        ];
        let targets = match families {
            1 => &all[..1],
            2 => &all[1..],
            _ => &all[..],
        };
        let high = low.saturating_add(ports);
        let space = Arc::new(Space::new(&sources, low..=high, targets).unwrap());
        let mut seen = HashSet::new();
        for number in 0..workers {
            let mut walk = Walk::new(space.clone(), split(workers, number), TIME_WAIT, seed);
            for tuple in all_at(&mut walk, START) {
                let key = tuple.key;
                prop_assert!(seen.insert(key), "{:?} twice", key);
                prop_assert_eq!((key.remote, key.remote_port), targets[usize::from(tuple.target)]);
                prop_assert!((low..=high).contains(&key.local_port));
                prop_assert_eq!(key.local.is_v4(), key.remote.is_v4());
                prop_assert!(sources.iter().any(|source| source.contains(key.local)));
            }
        }
        prop_assert_eq!(seen.len() as u64, space.len());
    }

    #[test]
    fn no_tuple_comes_back_early(
        len in 1u64..6000,
        rate in 1u64..80,
        lives in prop::collection::vec(0u64..200_000, 1..20),
    ) {
        run(len, rate, 300 * SECOND, |k| Duration::from_millis(lives[(k * k % 1009) as usize % lives.len()]));
    }
}
