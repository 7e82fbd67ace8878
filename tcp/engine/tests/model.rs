//! The data that two threads touch, checked in all orders that the memory model allows and in which a thread is interrupted at most
//! three times (loom).
//!
//! `cargo test --package synmill-engine --features model --test model`

use loom::model::Builder;
use loom::thread;
use synmill_engine::flow::{FlowTable, Slots, Words};

/// More interruptions would take hours, and mistakes seldom need so many.
const INTERRUPTIONS: usize = 3;

fn model(check: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(INTERRUPTIONS);
    builder.check(check);
}

/// Two equal words, unless the record is torn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Twice(u64);

impl Words<2> for Twice {
    fn to_words(&self) -> [u64; 2] {
        [self.0; 2]
    }

    fn from_words([first, second]: [u64; 2]) -> Self {
        // The reader unpacks only words between which nothing was written.
        assert_eq!(first, second, "a torn record");
        Self(first)
    }
}

#[test]
fn a_record_is_read_whole_and_never_goes_back() {
    model(|| {
        let mut slots = Slots::<2>::new(1);
        let reader = slots.reader();
        let other = thread::spawn(move || {
            let (Twice(first), _) = reader.read(0);
            let (Twice(second), _) = reader.read(0);
            assert!(first <= second && second <= 2, "{first}, then {second}");
        });
        slots.set(0, &Twice(1));
        slots.set(0, &Twice(2));
        other.join().unwrap();
        assert_eq!(slots.get::<Twice>(0), Twice(2));
    });
}

#[test]
fn two_records_that_belong_together_are_from_one_moment() {
    model(|| {
        let mut slots = Slots::<2>::new(1);
        let mut others = Slots::<2>::new(1);
        let (reader, other_reader) = (slots.reader(), others.reader());
        let other = thread::spawn(move || {
            let (Twice(one), moment) = reader.read(0);
            let (Twice(belongs), _) = other_reader.read(0);
            if reader.is_still(0, moment) {
                assert_eq!(one, belongs);
            }
        });
        slots.set_with(0, &Twice(1), || others.set(0, &Twice(1)));
        other.join().unwrap();
    });
}

/// A second flow of the line comes meanwhile, and leaves.
#[test]
fn a_flow_is_found_for_as_long_as_it_is_there() {
    model(|| {
        let mut table = FlowTable::new(2);
        let index = table.index();
        table.insert(7, 0).unwrap();
        let other = thread::spawn(move || {
            assert!(index.find(7, |_| true).is_some());
        });
        table.insert(8, 1).unwrap();
        assert!(table.remove(8, 1));
        other.join().unwrap();
    });
}

/// One flow of a full line is a stray; another stray comes and leaves meanwhile. The word of the line's last flows describes both.
#[test]
fn flows_of_a_full_line_are_found_for_as_long_as_they_are_there() {
    while_flows_come_and_go([9, 10], |table| {
        table.insert(11, 11).unwrap();
        assert!(table.remove(11, 11));
    });
}

/// The line's last flow leaves and comes back meanwhile.
#[test]
fn a_stray_is_found_while_the_last_of_its_line_goes_and_comes() {
    while_flows_come_and_go([10], |table| {
        assert!(table.remove(9, 9));
        table.insert(9, 9).unwrap();
    });
}

/// Looks for the `wanted` ones of eleven flows whose home is one line, while another thread runs `meanwhile`.
fn while_flows_come_and_go<const N: usize>(wanted: [u64; N], meanwhile: fn(&mut FlowTable)) {
    model(move || {
        let mut table = FlowTable::new(12);
        for slot in 0..11 {
            table.insert(slot, slot as u32).unwrap();
        }
        let index = table.index();
        let other = thread::spawn(move || {
            for flow in wanted {
                assert!(index.find(flow, |_| true).is_some());
            }
        });
        meanwhile(&mut table);
        other.join().unwrap();
    });
}

/// A search never takes a slot's next owner for the last one, because a record names its flow.
#[test]
fn a_slot_that_changes_hands_is_not_mistaken() {
    model(|| {
        let (old, new) = (7, 8);
        let mut table = FlowTable::new(1);
        let mut slots = Slots::<2>::new(1);
        slots.set(0, &Twice(old));
        table.insert(old, 0).unwrap();
        let (index, reader) = (table.index(), slots.reader());
        let other = thread::spawn(move || {
            for flow in [old, new] {
                let found = index.find(flow, |slot| reader.read::<Twice>(slot).0 == Twice(flow));
                assert!(found.is_none_or(|slot| slot == 0));
            }
        });
        assert!(table.remove(old, 0));
        slots.set(0, &Twice(0));
        slots.set(0, &Twice(new));
        table.insert(new, 0).unwrap();
        other.join().unwrap();
        assert_eq!(table.find(new, |_| true), Some(0));
    });
}
