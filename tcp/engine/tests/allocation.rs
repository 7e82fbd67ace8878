//! After its start an endpoint allocates nothing: not when connections open, not when text arrives in or out of order, not when timers
//! expire. A generator allocates nothing when it opens and measures connections, and when the reader collects its measurements.
#![allow(
    unsafe_code,
    reason = "the test counts in an allocator of its own, which passes every call to the system's"
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
use synmill_engine::stats::{Counters, Law};
use synmill_engine::time::Instant;
use synmill_engine::wire::{Link, Mac, Tag};
use synmill_engine::worker::Worker;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system's allocator with the same arguments; counting does not change the result.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract; the memory came from the system's allocator.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract; the memory came from the system's allocator.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MACS: [Mac; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];
const LINK: Link = Link { destination: MACS[1], source: MACS[0], tags: [Tag { tpid: 0, tci: 0 }; 2] };
const SERVER: Address = Address::v4([198, 18, 0, 2]);
const TIME_WAIT: Duration = Duration::from_millis(500);

/// Returns a worker of one side: 0 opens connections, 1 listens.
fn worker<A: Application>(side: usize, device: PairDevice, application: A) -> Worker<PairDevice, A> {
    let config = Config {
        application,
        owned: Vec::new(),
        mac: MACS[side],
        mtu: 1500,
        settings: Settings { max_connections: 256, time_wait: TIME_WAIT, ..Settings::default() },
        max_kept_frames: 512,
        seed: [side as u64, 2, 3, 4],
    };
    Worker::alone(device, Endpoint::new(config, Instant::ZERO, Arc::new(Counters::default())))
}

fn listeners<S>(service: S) -> Listeners<S> {
    Listeners(vec![Listener { address: Address::v4([0; 4]), port: 80, service }])
}

/// Opens `count` connections from one address, a few at a time, and runs until all are over.
fn run<C: Service, S: Service>(
    client: &mut Worker<PairDevice, Listeners<C>>,
    server: &mut Worker<PairDevice, Listeners<S>>,
    wire: &pair::Link,
    now: &mut Instant,
    count: u16,
) {
    let mut opened = 0;
    // Ten times as many turns as the runs below take.
    for _ in 0..10_000_000 {
        while opened < count && client.endpoint().len() < 32 {
            let local = Address::v4([198, 19, 0, 1]);
            let key = FlowKey { local, remote: SERVER, local_port: 1024 + opened, remote_port: 80 };
            let (endpoint, out) = client.endpoint_mut();
            let order = Open { key, link: LINK, role: 0 };
            if out.free.is_empty() || endpoint.open(*now, &order, out).is_err() {
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
            let next = wire.next_arrival().map_or(tick, |arrival| arrival.min(tick));
            *now = next.max(*now + Duration::from_nanos(1));
            wire.set_now(*now);
        }
    }
    panic!("it never ends");
}

/// Returns two devices and a link with these faults. More packets have been on the link than the test will ever send at once, so that
/// the link's own memory does not grow.
fn filled_pair(percent: f64, delay_us: [u64; 2]) -> (PairDevice, PairDevice, pair::Link) {
    let probability = percent / 100.0;
    let [least, most] = delay_us.map(Duration::from_micros);
    let faults = Faults {
        loss: probability,
        duplication: probability,
        reordering: probability,
        delay: least..=most,
        ..Faults::NONE
    };
    let (mut near, mut far, wire) = pair(7, &faults, 2048, 2048);
    for reordering in [0.0, 1.0] {
        wire.set_faults(&Faults { reordering, ..Faults::NONE });
        for round in 0..8 {
            let (device, mut burst) = (if round % 2 == 0 { &mut near } else { &mut far }, Burst::new());
            device.alloc(&mut burst, 512);
            for frame in &mut burst {
                frame.set_len(60);
                frame.fill(0);
            }
            device.transmit(&mut burst);
        }
    }
    wire.set_faults(&faults);
    (near, far, wire)
}

/// Returns the allocations of the second of two runs.
fn allocations<C: Service + Copy, S: Service + Copy>(client: C, server: S, percent: f64) -> u64 {
    let (near, far, wire) = filled_pair(percent, [20, 60]);
    let (mut client, mut server) = (worker(0, near, listeners(client)), worker(1, far, listeners(server)));
    let mut now = Instant::ZERO;
    // In the first run the endpoints learn each other's addresses.
    run(&mut client, &mut server, &wire, &mut now, 500);
    let before = ALLOCATIONS.load(Relaxed);
    run(&mut client, &mut server, &wire, &mut now, 500);
    let after = ALLOCATIONS.load(Relaxed);
    assert!(server.endpoint().counters().snapshot().ended() >= 1000);
    after - before
}

/// Runs two rounds of trials of every kind of load, with a reader that collects now and then. Returns the allocations of the second
/// round.
fn allocations_of_a_generator(percent: f64) -> u64 {
    let (near, far, wire) = filled_pair(percent, [500, 1000]);
    let (recorder, mut collector) = meters(2);
    let desk = Arc::<Desk>::default();
    let space = Space::new(&["198.19.0.0/24".parse().unwrap()], 1024..=2023, &[(SERVER, 80)]).unwrap();
    let share = Share::Split { workers: 1, number: 0 };
    let setup = Setup {
        targets: vec![Target { script: Script::http("a", "/", None, None, 3, CloseBy::Fin), link: LINK }],
        walk: Walk::new(Arc::new(space), share, TIME_WAIT, 1),
        recorder,
        desk: Arc::clone(&desk),
        workers: 1,
        number: 0,
        timeout: Duration::from_millis(700),
        holds: false,
        slots: 256,
    };
    let mut client = worker(0, near, Generator::new(setup, Instant::ZERO));
    let mut server = worker(1, far, listeners(Http::of_size(4000)));
    let mut sum = Interval::default();
    let mut now = Instant::ZERO;
    let mut before = 0;
    // In the first three trials both ends learn the other's address.
    let loads = [Load::Rate(300), Load::Concurrency(50), Load::Max];
    for (number, load) in loads.into_iter().chain(loads).enumerate() {
        if number == loads.len() {
            before = ALLOCATIONS.load(Relaxed);
        }
        let tenth = Duration::from_millis(100);
        let (number, start, duration) = (number as u64 + 1, now, 18 * tenth);
        let trial = Trial { number, load, start, ramp: tenth, warmup: tenth, duration, drain: tenth };
        assert!(desk.hand_in(trial));
        let mut read = now;
        while desk.over() < trial.number {
            let moved = client.turn(now) | server.turn(now);
            // The worker cuts more often than this, so at times it finds no empty interval.
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
        assert!(totals.closed > 100 && totals.laws().iter().all(Law::holds), "{totals:#?}");
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
