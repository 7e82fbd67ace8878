//! Sequence numbers that wrap around at 2^32 within a connection.

use std::rc::Rc;

use synmill_engine::device::pair::Faults;
use synmill_engine::flow::FlowKey;
use synmill_engine::proto::IsnSecret;
use synmill_engine::time::Instant;

use crate::harness::{Plan, Simulation, name};
use crate::services::{Talk, Tally};

/// Returns a start time at which this side's initial number for its first connection is `below` the wrap.
fn start(plan: &Plan, side: usize, below: u32) -> Instant {
    let mut key = name(0);
    if side == 1 {
        let FlowKey { local: remote, remote: local, local_port: remote_port, remote_port: local_port } = key;
        key = FlowKey { local, remote, local_port, remote_port };
    }
    let secret = IsnSecret::from_seed(&plan.seed_of(side, 0));
    let at_zero = secret.isn(key.name(&mut [0; FlowKey::NAME_MAX]), Instant::ZERO);
    // The number moves by one in 4 us.
    Instant::from_nanos(u64::from(0u32.wrapping_sub(below).wrapping_sub(at_zero.0)) * 4000)
}

#[test]
fn connections_whose_first_number_is_just_below_the_wrap_work() {
    for seed in 0..300 {
        for side in 0..2 {
            let tally = Rc::new(Tally::default());
            let client = Talk::asks(3000, 5000, true, &tally);
            let server = Talk::answers(5000, 3000, false, &tally);
            let faults = Faults { loss: 0.02, reordering: 0.05, duplication: 0.02, ..Faults::NONE };
            let plan = Plan { faults, ..Plan::of(seed, 0.0) };
            let plan = Plan { start: start(&plan, side, (seed as u32 * 37) % 3100), ..plan };
            Simulation::new(&plan, &client, &server).run(1, 1);
            assert_eq!(tally.whole.get(), 2, "seed {seed}, side {side}");
        }
    }
}
