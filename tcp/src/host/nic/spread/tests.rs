use std::cell::RefCell;

use super::*;
use crate::host::nic::ethtool::facts::{NTUPLE, SET_FLAGS};
use crate::host::nic::ethtool::fake::{Fake, State, Takes};
use crate::host::nic::ethtool::hash::SET_HASH;
use crate::host::nic::ethtool::rules::{ADD_RULE, DELETE_RULE};
use crate::text::hex;

thread_local! {
    static TOLD: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn tell(line: &str) {
    TOLD.with_borrow_mut(|told| told.push(line.to_owned()));
}

fn web() -> Flow {
    Flow::TcpTo("198.18.0.2:80".parse().unwrap())
}

fn web_v6() -> Flow {
    Flow::TcpTo("[fd00:18::2]:80".parse().unwrap())
}

fn on(nic: &Fake, steering: &Steering, queues: &[usize]) -> Result<Spread, String> {
    let mut spread = Spread::on(Box::new(nic.clone()), tell);
    spread.set(steering, queues).map(|()| spread)
}

/// As kill -9 does: takes nothing back.
fn kill(mut spread: Spread) {
    spread.undo.clear();
}

/// A key as `--rss-key` has it.
fn key(bytes: &[u8]) -> Option<HashKey> {
    Some(hex(bytes).parse().unwrap())
}

fn rules(flows: &[Flow]) -> Steering {
    Steering::Rules(flows.to_vec())
}

/// Returns the NIC's settings, without the orders it got.
fn kept(nic: &Fake) -> (u32, usize, Option<usize>, Vec<u32>, Vec<u8>) {
    let State { flags, rules, contexts, table, key, .. } = nic.state();
    (flags, rules.len(), contexts.map(|contexts| contexts.len()), table, key)
}

/// Returns each rule's location, kind, queue and context.
fn led(nic: &Fake) -> Vec<(u32, u32, u64, u32)> {
    let rules = nic.state().rules;
    let parts = rules.iter().map(|(&location, class)| {
        let (flow, ring, context) = class.leads();
        (location, flow, ring, context)
    });
    parts.collect()
}

#[test]
fn one_queue_gets_rules_of_its_own() {
    let nic = Fake::new(|_| {});
    let before = kept(&nic);
    let spread = on(&nic, &rules(&[web(), web_v6(), Flow::Arp]), &[2]).unwrap();
    assert_eq!(led(&nic), [(0, 1, 2, 0), (1, 5, 2, 0), (2, 0x12, 2, 0)]);
    assert_eq!(spread.context(), 0);
    assert_eq!(
        spread.notes()[0],
        "t0: TCP to 198.18.0.2:80 goes to queue 2, until the end; by hand: ethtool -N t0 delete 0"
    );
    drop(spread);
    assert_eq!(kept(&nic), before);
}

#[test]
fn several_queues_share_a_context() {
    let nic = Fake::new(|_| {});
    let before = kept(&nic);
    let mut spread = on(&nic, &rules(&[web(), Flow::Arp]), &[1, 3, 2]).unwrap();
    assert_eq!(led(&nic), [(0, 0x2000_0001, 0, 1), (1, 0x12, 1, 0)]);
    let contexts = nic.state().contexts.unwrap();
    assert_eq!(contexts[&1], [1, 3, 2, 1, 3, 2, 1, 3]);
    assert_eq!(spread.context(), 1);
    assert!(spread.notes()[0].contains("by hand: ethtool -X t0 context 1 delete"), "{:?}", spread.notes());
    assert_eq!(spread.restore(), [""; 0]);
    assert_eq!(kept(&nic), before);
    // Rules before their context, and none of it twice.
    let orders = nic.state().orders;
    assert_eq!(orders, [SET_HASH, ADD_RULE, ADD_RULE, DELETE_RULE, DELETE_RULE, SET_HASH]);
    drop(spread);
    assert_eq!(nic.state().orders, orders);
}

#[test]
fn rules_are_put_in_force_for_as_long_as_they_are_there() {
    let nic = Fake::new(|state| state.flags = 1 << 8);
    let spread = on(&nic, &rules(&[web()]), &[1]).unwrap();
    assert_eq!(nic.state().flags, NTUPLE | 1 << 8);
    assert!(spread.notes()[0].ends_with("by hand: ethtool -K t0 ntuple off"), "{:?}", spread.notes());
    drop(spread);
    assert_eq!(nic.state().orders, [SET_FLAGS, ADD_RULE, DELETE_RULE, SET_FLAGS]);
    assert_eq!(nic.state().flags, 1 << 8);
    // A NIC whose rules cannot be switched takes them, or refuses the first of them.
    let nic = Fake::new(|state| (state.flags, state.fails) = (0, Some((SET_FLAGS, 1, libc::EOPNOTSUPP))));
    drop(on(&nic, &rules(&[web()]), &[1]).unwrap());
    assert_eq!(nic.state().orders, [SET_FLAGS, ADD_RULE, DELETE_RULE]);
}

#[test]
fn a_place_is_found_where_the_driver_finds_none() {
    let nic = Fake::new(|state| (state.chooses, state.room) = (false, 3));
    let first = on(&nic, &rules(&[web()]), &[1]).unwrap();
    let second = on(&nic, &rules(&[web_v6()]), &[1]).unwrap();
    assert_eq!(led(&nic), [(1, 5, 1, 0), (2, 1, 1, 0)]);
    drop((first, second));
}

#[test]
fn what_was_there_is_used_and_stays() {
    for queues in [&[3][..], &[0, 1]] {
        let nic = Fake::new(|_| {});
        let flows = rules(&[web(), Flow::Arp]);
        kill(on(&nic, &flows, queues).unwrap());
        let (there, orders) = (kept(&nic), nic.state().orders);
        let spread = on(&nic, &flows, queues).unwrap();
        assert!(!spread.has_changed_anything());
        let stays = |note: &String| note.contains("was there already, and stays; by hand: ethtool -");
        assert!(spread.notes().iter().all(stays), "{:?}", spread.notes());
        drop(spread);
        assert_eq!((kept(&nic), nic.state().orders), (there.clone(), orders));
        // A missing rule is added, and only that one is taken back.
        let spread = on(&nic, &rules(&[web(), web_v6(), Flow::Arp]), queues).unwrap();
        assert_eq!(kept(&nic).1, 3);
        assert_eq!(kept(&nic).2, there.2, "another context");
        drop(spread);
        assert_eq!(kept(&nic), there);
    }
}

#[test]
fn the_table_is_spread_over_the_queues_and_set_back() {
    let nic = Fake::new(|_| {});
    let before = kept(&nic);
    let spread = on(&nic, &Steering::Table { key: None }, &[1, 2]).unwrap();
    assert_eq!(nic.state().table, [1, 2, 1, 2, 1, 2, 1, 2]);
    assert_eq!(
        spread.notes(),
        ["t0: all that is hashed is spread over --queues 1-2, until the end; by hand: ethtool -X t0 default"]
    );
    drop(spread);
    assert_eq!(kept(&nic), before);

    // A table of the user's own, and the key.
    let own = vec![0, 0, 0, 3, 0, 0, 0, 3];
    let nic = Fake::new(|state| (state.table, state.mixing) = (own.clone(), 1));
    let before = kept(&nic);
    let bytes: Vec<u8> = (101..=140).collect();
    let spread = on(&nic, &Steering::Table { key: key(&bytes) }, &[0, 1, 2, 3]).unwrap();
    assert_eq!((nic.state().table, nic.state().key), (vec![0, 1, 2, 3, 0, 1, 2, 3], bytes));
    let note = &spread.notes()[0];
    assert!(note.contains("ethtool -X t0 default, ethtool -X t0 hkey 01:02:03:"), "{note}");
    assert!(note.ends_with("28 (the table was another, though)"), "{note}");
    drop(spread);
    assert_eq!(kept(&nic), before);
}

#[test]
fn the_key_is_set_back_with_the_default_table() {
    let nic = Fake::new(|_| {});
    let before = kept(&nic);
    let bytes: Vec<u8> = (101..=140).collect();
    let spread = on(&nic, &Steering::Table { key: key(&bytes) }, &[1, 2]).unwrap();
    assert_eq!((nic.state().table, nic.state().key), (vec![1, 2, 1, 2, 1, 2, 1, 2], bytes));
    drop(spread);
    assert_eq!(kept(&nic), before);
    // The key, and then the table's freedom to follow the queues.
    assert_eq!(nic.state().orders, [SET_HASH; 3]);
}

#[test]
fn a_table_that_is_right_is_left_alone() {
    let nic = Fake::new(|_| {});
    let key = key(&(1..=40).collect::<Vec<_>>());
    let spread = on(&nic, &Steering::Table { key }, &[0, 1, 2, 3]).unwrap();
    assert!(!spread.has_changed_anything() && spread.notes()[0].contains("already"), "{:?}", spread.notes());
    drop(spread);
    let spread = on(&nic, &Steering::Untouched, &[0]).unwrap();
    assert!(!spread.has_changed_anything() && spread.notes().is_empty());
    drop(spread);
    assert_eq!(nic.state().orders, [0; 0]);
}

/// Each failure leaves the NIC as it was, and is one line with a way out.
#[test]
fn a_refusal_leaves_nothing_behind() {
    type Change = fn(&mut State);
    let by_rules = || rules(&[web(), web_v6(), Flow::Arp]);
    let by_table = || Steering::Table { key: None };
    let taken: Change = |state| {
        let nic = Fake::new(|_| {});
        kill(on(&nic, &rules(&[web_v6()]), &[1]).unwrap());
        state.rules = nic.state().rules;
    };
    let table: [(Steering, &[usize], Change, &str); 16] = [
        (by_rules(), &[2], |s| s.takes = Takes::Ether, "t0 takes no flow rule for TCP to 198.18.0.2:80"),
        (by_rules(), &[2], |s| s.takes = Takes::Ether, "use --steer rss"),
        (by_rules(), &[2], |s| s.takes = Takes::None, "asking t0 for its flow rules"),
        (by_rules(), &[2], |s| s.room = 2, "no room for a flow rule for ARP: ethtool -n t0 lists"),
        (by_rules(), &[2], |s| (s.chooses, s.room) = (false, 2), "no room for a flow rule for ARP"),
        (
            by_rules(),
            &[2],
            taken,
            "flow rule 0 of t0 sends TCP to [fd00:18::2]:80 elsewhere: ethtool -N t0 delete 0",
        ),
        (
            by_rules(),
            &[2],
            |s| s.fails = Some((ADD_RULE, 2, libc::EEXIST)),
            "in the way of one for TCP to [fd00",
        ),
        (by_rules(), &[2], |s| s.fails = Some((ADD_RULE, 3, libc::EIO)), "setting a flow rule for ARP on t0"),
        (by_rules(), &[2], |s| (s.flags, s.fails) = (0, Some((SET_FLAGS, 1, libc::EIO))), "in force"),
        (
            by_rules(),
            &[2],
            |s| (s.flags, s.fails) = (0, Some((ADD_RULE, 1, libc::EINVAL))),
            "takes no flow rule",
        ),
        (
            by_rules(),
            &[1, 2],
            |s| s.contexts = None,
            "has no RSS contexts: give one queue with --queues, or use --steer rss",
        ),
        (
            by_rules(),
            &[1, 2],
            |s| s.fails = Some((ADD_RULE, 2, libc::EINVAL)),
            "takes no flow rule for TCP to [fd00",
        ),
        (by_rules(), &[1, 2], |s| s.fails = Some((SET_HASH, 1, libc::EIO)), "making an RSS context on t0"),
        (
            by_table(),
            &[1, 2],
            |s| (s.table, s.key) = (Vec::new(), Vec::new()),
            "t0 has no RSS table: leave --steer out",
        ),
        (
            by_table(),
            &[0, 1, 2],
            |s| s.table = vec![0, 1],
            "has room for 2 queues of 3: name fewer with --queues",
        ),
        (by_table(), &[1, 2], |s| s.fails = Some((SET_HASH, 1, libc::EBUSY)), "setting the RSS table of t0"),
    ];
    for (steering, queues, change, part) in table {
        let nic = Fake::new(change);
        let before = kept(&nic);
        let Err(line) = on(&nic, &steering, queues) else { panic!("set in spite of: {part}") };
        assert!(line.contains(part) && !line.contains('\n'), "says: {line}\n not: {part}");
        assert_eq!(kept(&nic), before, "{line}");
        assert_eq!(TOLD.take(), [""; 0], "{line}");
    }
}

#[test]
fn a_key_that_could_not_be_set_back_is_not_set() {
    let nic = Fake::new(|state| state.key = vec![0; 40]);
    let Err(line) = on(&nic, &Steering::Table { key: key(&[1; 40]) }, &[1]) else { panic!("it is set") };
    assert!(line.contains("does not show its RSS key"), "{line}");
    assert_eq!(nic.state().orders, [0; 0]);
}

#[test]
fn what_cannot_be_taken_back_is_told() {
    let nic = Fake::new(|state| state.fails = Some((DELETE_RULE, 1, libc::EIO)));
    drop(on(&nic, &rules(&[web()]), &[1]).unwrap());
    let told = TOLD.take();
    assert!(told[0].starts_with("note: what --steer set is still there"), "{told:?}");
    assert!(told[0].ends_with("ethtool -N t0 delete 0") && told.len() == 1, "{told:?}");
    // Somebody else removed the rule, or the NIC is gone.
    for errno in [libc::ENOENT, libc::ENODEV] {
        let nic = Fake::new(|state| state.fails = Some((DELETE_RULE, 1, errno)));
        drop(on(&nic, &rules(&[web()]), &[1]).unwrap());
        assert_eq!(TOLD.take(), [""; 0]);
    }
}
