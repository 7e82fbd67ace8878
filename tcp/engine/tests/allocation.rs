//! After its start an endpoint allocates nothing: not when connections open, not when text comes in or out of order, not when
//! timers run out. Nor does a generator: not when it opens and measures, not when what it measured is collected. Knows the allocator; never what is said.
#![allow(
    unsafe_code,
    reason = "an allocator that counts is what shows it; it only passes on to the system's"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use synmill_engine::device::pair::{self, Faults, PairDevice, pair};
use synmill_engine::device::{Burst, Device};
use synmill_engine::endpoint::{Application, Config, Endpoint, Listener, Listeners, Open, Settings};
use synmill_engine::flow::{Address, FlowKey};
use synmill_engine::generator::desk::{Desk, Trial};
use synmill_engine::generator::dialogue::Script;
use synmill_engine::generator::meters::{Interval, Meter, meters};
use synmill_engine::generator::tuples::{Share, Space, Walk};
use synmill_engine::generator::{CloseBy, Generator, Load, Setup, Target};
use synmill_engine::service::{Discard, Echo, Http, Service, Source};
use synmill_engine::stats::Counters;
use synmill_engine::time::Instant;
use synmill_engine::wire::{Link, Mac};
use synmill_engine::worker::{Worker, join};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator with the same arguments; counting changes nothing of what it returns.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on; the memory came from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promise, passed on; the memory came from the system's allocator.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MACS: [Mac; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

fn worker<S: Service>(side: usize, device: PairDevice, service: S) -> Worker<PairDevice, Listeners<S>> {
    seated(side, device, Listeners(vec![Listener { address: Address::v4([0; 4]), port: 80, service }]))
}

fn seated<A: Application>(side: usize, device: PairDevice, application: A) -> Worker<PairDevice, A> {
    let config = Config {
        application,
        owned: Vec::new(),
        mac: MACS[side],
        mtu: 1500,
        settings: Settings {
            max_connections: 256,
            time_wait: Duration::from_millis(500),
            ..Settings::default()
        },
        max_kept_frames: 512,
        seed: [side as u64, 2, 3, 4],
    };
    let mut endpoints = vec![Endpoint::new(config, Instant::ZERO, Arc::new(Counters::default()))];
    let seat = join(&mut endpoints).remove(0);
    Worker::new(device, endpoints.remove(0), seat)
}

/// Opens `count` connections from one address, a few at a time, and runs until all are over.
fn run<C: Service, S: Service>(
    client: &mut Worker<PairDevice, Listeners<C>>,
    server: &mut Worker<PairDevice, Listeners<S>>,
    wire: &pair::Link,
    now: &mut Instant,
    count: u16,
) {
    let link = Link { destination: MACS[1], source: MACS[0], tags: Default::default() };
    let mut opened = 0;
    // Bounded by what the runs below take, ten times over.
    for _ in 0..10_000_000 {
        while opened < count && client.endpoint().len() < 32 {
            let key = FlowKey {
                local: Address::v4([198, 19, 0, 1]),
                remote: Address::v4([198, 18, 0, 2]),
                local_port: 1024 + opened,
                remote_port: 80,
            };
            let (endpoint, out) = client.endpoint_mut();
            if out.free.is_empty() || endpoint.open(*now, &Open { key, link, role: 0 }, out).is_err() {
                break;
            }
            opened += 1;
        }
        let moved = client.turn(*now) | server.turn(*now);
        if opened == count && client.endpoint().is_empty() && server.endpoint().is_empty() {
            return;
        }
        if !moved {
            let ticks = [client.endpoint().next_tick_ms(), server.endpoint().next_tick_ms()];
            let tick = ticks.into_iter().flatten().min().map_or(1, |tick| tick.max(1));
            let tick = *now + Duration::from_millis(u64::from(tick));
            *now = wire
                .next_arrival()
                .map_or(tick, |arrival| arrival.min(tick))
                .max(*now + Duration::from_nanos(1));
            wire.set_now(*now);
        }
    }
    panic!("it never ends");
}

/// Puts more on the wire than will ever be there again: the link's own memory grows with that.
fn fill(wire: &pair::Link, device: &mut PairDevice) {
    for reordering in [0.0, 1.0] {
        wire.set_faults(&Faults { reordering, ..Faults::NONE });
        for _ in 0..4 {
            let mut burst = Burst::new();
            device.alloc(&mut burst, 512);
            for frame in &mut burst {
                frame.set_len(60);
                frame.fill(0);
            }
            device.transmit(&mut burst);
        }
    }
}

fn allocations<C: Service + Copy, S: Service + Copy>(client: C, server: S, percent: f64) -> u64 {
    let faults = Faults {
        loss: percent / 100.0,
        duplication: percent / 100.0,
        reordering: percent / 100.0,
        corruption: 0.0,
        delay: Duration::from_micros(20)..=Duration::from_micros(60),
    };
    let (mut near, mut far, wire) = pair(7, &faults, 2048, 2048);
    fill(&wire, &mut near);
    fill(&wire, &mut far);
    wire.set_faults(&faults);
    let (mut client, mut server) = (worker(0, near, client), worker(1, far, server));
    let mut now = Instant::ZERO;
    // The endpoints learn each other's addresses: once.
    run(&mut client, &mut server, &wire, &mut now, 500);
    let before = ALLOCATIONS.load(Relaxed);
    run(&mut client, &mut server, &wire, &mut now, 500);
    let after = ALLOCATIONS.load(Relaxed);
    assert!(server.endpoint().counters().snapshot().ended() >= 1000);
    after - before
}

/// Trials of every kind of load, with a collector that reads now and then. What is allocated in the second round of them.
fn allocations_of_a_generator(percent: f64) -> u64 {
    let faults = Faults {
        loss: percent / 100.0,
        duplication: percent / 100.0,
        reordering: percent / 100.0,
        corruption: 0.0,
        delay: Duration::from_micros(500)..=Duration::from_millis(1),
    };
    let (mut near, mut far, wire) = pair(7, &faults, 2048, 2048);
    fill(&wire, &mut near);
    fill(&wire, &mut far);
    wire.set_faults(&faults);
    let (recorder, mut collector) = meters(2);
    let desk = Arc::<Desk>::default();
    let sources = ["198.19.0.0/24".parse().unwrap()];
    let space = Space::new(&sources, 1024..=2023, &[(Address::v4([198, 18, 0, 2]), 80)]).unwrap();
    let setup = Setup {
        targets: vec![Target {
            script: Script::http("a", "/", None, None, 3, CloseBy::Fin),
            link: Link { destination: MACS[1], source: MACS[0], tags: Default::default() },
        }],
        walk: Walk::new(
            Arc::new(space),
            Share::Split { workers: 1, number: 0 },
            Duration::from_millis(500),
            1,
        ),
        recorder,
        desk: Arc::clone(&desk),
        workers: 1,
        number: 0,
        timeout: Duration::from_millis(700),
        holds: false,
        slots: 256,
    };
    let mut client = seated(0, near, Generator::new(setup, Instant::ZERO));
    let mut server = worker(1, far, Http::of_size(4000));
    let mut sum = Interval::default();
    let mut now = Instant::ZERO;
    let mut before = 0;
    // The first three are for what both ends learn once.
    let loads = [Load::Rate(300), Load::Concurrency(50), Load::Max];
    for (number, load) in loads.into_iter().chain(loads).enumerate() {
        if number == loads.len() {
            before = ALLOCATIONS.load(Relaxed);
        }
        let trial = Trial {
            number: number as u64 + 1,
            load,
            start: now,
            ramp: Duration::from_millis(100),
            warmup: Duration::from_millis(100),
            duration: Duration::from_millis(1800),
            drain: Duration::from_millis(100),
        };
        assert!(desk.hand_in(trial));
        let mut read = now;
        while desk.over() < trial.number {
            let moved = client.turn(now) | server.turn(now);
            // Rarer than intervals are cut: there is not always an empty one.
            if now - read > Duration::from_millis(1300) {
                read = now;
                collector.drain_into(&mut sum);
            }
            now = now + Duration::from_micros(if moved { 100 } else { 500 });
            wire.set_now(now);
            assert!(now < trial.end() + Duration::from_secs(1), "it never ends");
        }
        collector.drain_into(&mut sum);
        let totals = desk.tally.totals();
        assert!(
            totals.closed > 100 && totals.laws().iter().all(synmill_engine::stats::Law::holds),
            "{totals:#?}"
        );
    }
    let after = ALLOCATIONS.load(Relaxed);
    assert!(sum.counted.get(Meter::Life).len() > 600);
    after - before
}

/// One test, because the allocator counts for the whole process.
#[test]
fn nothing_is_allocated_after_the_start() {
    assert!(ALLOCATIONS.load(Relaxed) > 0, "the allocator counts");
    assert_eq!(allocations(Discard, Source { size: 50_000 }, 0.0), 0, "a stream without faults");
    assert_eq!(allocations(Discard, Source { size: 50_000 }, 3.0), 0, "a stream through faults");
    assert_eq!(allocations(Source { size: 20_000 }, Echo, 3.0), 0, "an echo through faults");
    assert_eq!(allocations_of_a_generator(0.0), 0, "a generator without faults");
    assert_eq!(allocations_of_a_generator(3.0), 0, "a generator through faults");
}
