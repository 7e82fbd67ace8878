//! More connections than there is room for: the policy of each bound, and that established connections stay.

use std::rc::Rc;

use synmill_engine::device::pair::Faults;
use synmill_engine::service::Discard;

use crate::harness::{Plan, Simulation, secs};
use crate::services::{Talk, Tally};

/// Returns a plan with a small table at the server.
fn small() -> Plan {
    Plan { slots: [128, 64], faults: Faults::NONE, ..Plan::of(1, 0.0) }
}

#[test]
fn time_wait_gives_way_when_the_table_is_full() {
    let tally = Rc::new(Tally::default());
    let (client, server) = (Talk::asks(10, 10, false, &tally), Talk::answers(10, 10, true, &tally));
    let plan = Plan { time_wait: secs(60), ..small() };
    let [_, far] = Simulation::new(&plan, &client, &server).run(5000, 16);
    assert_eq!(tally.whole.get(), 2 * 5000);
    assert!(far.ended_evicted_time_wait >= 5000 - 64, "{far:#?}");
    assert_eq!(far.drop_table_full, 0);
}

#[test]
fn established_connections_never_give_way() {
    let mut simulation = Simulation::new(&small(), &Discard, &Discard);
    let mut opened = 0;
    while simulation.counts()[1].curr_estab < 64 {
        if opened < 64 && simulation.open(opened) {
            opened += 1;
        }
        simulation.step();
    }
    // Ten more clients try until they give up, and no established connection ends.
    while opened < 74 {
        opened += u64::from(simulation.open(opened));
        simulation.step();
    }
    while simulation.step() {}
    let [near, far] = simulation.counts();
    assert_eq!((near.attempt_fails, far.curr_estab, far.passive_opens), (10, 64, 64));
    assert_eq!(far.drop_table_full, 10 * 7, "a client sends its SYN seven times");
    simulation.pair.far.endpoint_mut().0.drain();
    while simulation.step() {}
    simulation.assert_clean();
}
