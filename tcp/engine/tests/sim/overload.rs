//! More connections than there is room for: the policy of each bound, and that established connections live on.

use std::rc::Rc;
use std::time::Duration;

use synmill_engine::service::Discard;

use crate::harness::{Setup, Simulation};
use crate::services::{Talk, Tally};

#[test]
fn time_wait_gives_way_when_the_table_is_full() {
    let tally = Rc::new(Tally::default());
    let client = Talk { sends: 10, hears: 10, answers: false, closes: false, tally: Rc::clone(&tally) };
    let server = Talk { sends: 10, hears: 10, answers: true, closes: true, tally: Rc::clone(&tally) };
    let setup = Setup { connections: 64, time_wait: Duration::from_secs(60), ..Setup::default() };
    let mut simulation = Simulation::new(&setup, &client, &server);
    simulation.run(0, 5000, 16);
    simulation.assert_clean();
    let (_, far) = simulation.counts();
    assert_eq!(tally.whole.get(), 2 * 5000);
    assert!(far.ended_evicted_time_wait >= 5000 - 64, "{far:#?}");
    assert_eq!(far.drop_table_full, 0);
}

#[test]
fn established_connections_never_give_way() {
    let small = Setup { connections: 64, ..Setup::default() };
    let mut simulation = Simulation::new(&small, &Discard, &Discard);
    let mut opened = 0;
    while simulation.counts().1.curr_estab < 64 {
        if opened < 64 && simulation.open(opened) {
            opened += 1;
        }
        simulation.step();
    }
    // Ten more knock until they give up, and nobody who is in has to go.
    while opened < 74 {
        opened += u64::from(simulation.open(opened));
        simulation.step();
    }
    while simulation.step() {}
    let (near, far) = simulation.counts();
    assert_eq!((near.attempt_fails, far.curr_estab, far.passive_opens), (10, 64, 64));
    assert_eq!(far.drop_table_full, 10 * 7, "SYN goes seven times");
    simulation.server.endpoint_mut().0.drain();
    while simulation.step() {}
    simulation.assert_clean();
}
