//! Sequence numbers that pass 2^32 in mid-connection.

use std::rc::Rc;

use synmill_engine::device::pair::Faults;
use synmill_engine::flow::FlowKey;
use synmill_engine::proto::IsnSecret;
use synmill_engine::time::Instant;

use crate::harness::{Setup, Simulation, name};
use crate::services::{Talk, Tally};

/// A start time at which this side's initial number for its first connection lies `below` the wrap.
fn start(setup: &Setup, side: u64, below: u32) -> Instant {
    let key = name(0);
    let key = if side == 0 {
        key
    } else {
        FlowKey {
            local: key.remote,
            remote: key.local,
            local_port: key.remote_port,
            remote_port: key.local_port,
        }
    };
    let at_zero =
        IsnSecret::from_seed(&setup.seed_of(side)).isn(key.name(&mut [0; FlowKey::NAME_MAX]), Instant::ZERO);
    // The number moves by one in 4 us.
    Instant::from_nanos(u64::from(0u32.wrapping_sub(below).wrapping_sub(at_zero.0)) * 4000)
}

#[test]
fn connections_whose_first_number_is_just_below_the_wrap_work() {
    for seed in 0..300 {
        for side in 0..2 {
            let tally = Rc::new(Tally::default());
            let client =
                Talk { sends: 3000, hears: 5000, answers: false, closes: true, tally: Rc::clone(&tally) };
            let server =
                Talk { sends: 5000, hears: 3000, answers: true, closes: false, tally: Rc::clone(&tally) };
            let faults = Faults { loss: 0.02, reordering: 0.05, duplication: 0.02, ..Faults::NONE };
            let setup = Setup { seed, faults, ..Setup::default() };
            let below = (seed as u32 * 37) % 3100;
            let setup = Setup { start: start(&setup, side, below), ..setup };
            let mut simulation = Simulation::new(&setup, &client, &server);
            simulation.run(0, 1, 1);
            simulation.assert_clean();
            assert_eq!(tally.whole.get(), 2, "seed {seed}, side {side}");
        }
    }
}
