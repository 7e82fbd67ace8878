//! One engine alone on in-memory rings, and the peer that writes and reads its frames.

mod client;
mod floor;
mod opener;
mod responder;
mod segments;
mod server;

use std::thread;
use std::time::Instant as Clock;

pub use client::{Client, Family, Heard};
pub use floor::{Floor, Layer};
pub use opener::{Dialogue, Opener, RESPONSE, generator};
pub use responder::{Engine, Pace, Requests, Responder, Rings, Serving, Setup};
pub use segments::segment;

use synmill_engine::device::Device;
use synmill_engine::device::memory::MemoryDevice;
use synmill_engine::endpoint::{Application, Config, Endpoint, Settings};
use synmill_engine::time::Instant;
use synmill_engine::wire::Mac;
use synmill_engine::worker::{Worker, join};

/// The peer's Ethernet address.
pub const PEER: Mac = [2, 0, 0, 0, 0, 1];
/// The engine's Ethernet address.
pub const ENGINE: Mac = [2, 0, 0, 0, 0, 2];

/// Bits of pi instead of random ones: a hash whose keys are small numbers fills the table unevenly.
pub const SEED: [u64; 4] =
    [0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344, 0xA409_3822_299F_31D0, 0x082E_FA98_EC4E_6C89];

/// Frames of an engine: more than wait on both sides together.
const FRAMES: usize = 4096;

/// An engine that works in batches of frames, and its peer.
pub trait Batches {
    /// Puts the peer's frames in.
    fn prepare(&mut self);

    /// Does the engine's part, which is measured.
    fn turn(&mut self);

    /// Reads the engine's frames; returns the number of connections, or requests, that ended with this batch.
    fn collect(&mut self) -> u64;

    /// Does one whole batch.
    fn batch(&mut self) -> u64 {
        self.prepare();
        self.turn();
        self.collect()
    }
}

/// Returns the nanoseconds of the engine's part for a connection or request, over at least `count` of them.
pub fn nanos_each(batches: &mut impl Batches, count: u64) -> f64 {
    let (mut nanos, mut done) = (0, 0);
    while done < count {
        batches.prepare();
        let start = Clock::now();
        batches.turn();
        nanos += start.elapsed().as_nanos();
        done += batches.collect();
    }
    nanos as f64 / done as f64
}

fn endpoint<A: Application>(application: A, settings: Settings, mac: Mac) -> Endpoint<A> {
    let config = Config {
        application,
        settings,
        owned: Vec::new(),
        mac,
        mtu: 1500,
        max_kept_frames: FRAMES / 8,
        seed: SEED,
    };
    Endpoint::new(config, Instant::ZERO, Default::default())
}

/// Returns a worker without siblings.
pub fn worker<D: Device, A: Application>(
    device: D,
    application: A,
    settings: Settings,
    mac: Mac,
) -> Worker<D, A> {
    let mut endpoints = vec![endpoint(application, settings, mac)];
    let seat = join(&mut endpoints).remove(0);
    Worker::new(device, endpoints.remove(0), seat)
}

/// Returns siblings, a worker for each application. As in `synmill serve`, a thread of its own makes each worker's memory, so that workers
/// mostly share no cache line.
fn workers<A: Application + Send>(
    applications: Vec<impl FnOnce() -> A + Send>,
    slots: usize,
) -> Vec<Worker<MemoryDevice, A>> {
    let settings = Settings { max_connections: slots, ..Settings::default() };
    let parts = |application| (endpoint(application, settings, ENGINE), MemoryDevice::new(FRAMES, 2048));
    let (mut endpoints, devices): (Vec<_>, Vec<_>) = thread::scope(|scope| {
        let makers: Vec<_> =
            applications.into_iter().map(|application| scope.spawn(move || parts(application()))).collect();
        makers.into_iter().map(|maker| maker.join().expect("a worker's parts")).unzip()
    });
    let seats = join(&mut endpoints);
    let worker = |((endpoint, device), seat)| Worker::new(device, endpoint, seat);
    endpoints.into_iter().zip(devices).zip(seats).map(worker).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_packet_has_one_answer_through_several_laps_of_names() {
        for family in [Family::V4, Family::V6] {
            let mut responder = Responder::new(Setup { family, resident: 1000, spare: 8192 });
            responder.fill();
            for _ in 0..1000 {
                assert_eq!(responder.batch(), synmill_engine::device::BURST as u64);
            }
            let mut requests = Requests::new(&mut responder);
            for _ in 0..100 {
                requests.batch();
            }
            responder.check();
            assert_eq!(responder.held(), 1000 + 8192, "TIME-WAIT has the room that is left");
        }
    }

    #[test]
    fn the_floor_answers_as_the_engine_does() {
        let setup = Setup { family: Family::V4, resident: 1000, spare: 8192 };
        for layer in Layer::ALL {
            let mut floor = Responder::of(Floor::new(layer, setup), setup.client(0), setup);
            floor.fill();
            for _ in 0..1000 {
                assert_eq!(floor.batch(), synmill_engine::device::BURST as u64, "{layer:?}");
            }
        }
    }

    #[test]
    fn siblings_know_their_own_connections() {
        let setup = Setup { family: Family::V4, resident: 100, spare: 8192 };
        let mut siblings = Responder::siblings(setup, vec![setup.client(0), setup.client(1)]);
        for _ in 0..100 {
            siblings
                .iter_mut()
                .for_each(|responder| while responder.fill_some(|all| while all.turn_once() {}) {});
            for responder in &mut siblings {
                responder.batch();
            }
        }
        siblings.iter().for_each(Responder::check);
    }

    #[test]
    fn a_generator_holds_what_it_holds_and_goes_on_with_the_rest() {
        for dialogue in [Dialogue::Connect, Dialogue::Http] {
            let mut opener = Opener::new(dialogue, 500);
            opener.fill();
            let closed: u64 = (0..300).map(|_| opener.batch()).sum();
            assert!(closed > 10_000, "{closed} in 300 batches");
            opener.check();
        }
    }
}
