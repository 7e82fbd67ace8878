//! The engine without a kernel: connections opened, used and closed between two workers over a link in memory.
//!
//! `cargo bench --bench conn_rate`. One thread runs both ends in turn; the time of each end's turns is summed by itself and
//! includes its device's copies. Prints medians of several rounds.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use hdrhistogram::Histogram;
use synmill::device::pair::{Faults, PairDevice, pair};
use synmill::endpoint::{Config, Endpoint, Listener, Listeners, Open};
use synmill::flow::{Address, FlowKey};
use synmill::service::{Http, Memo, Pending, Service, Taken, Then};
use synmill::stats::{Counters, Snapshot};
use synmill::time::Instant;
use synmill::wire::{Link, Mac};
use synmill::worker::{Worker, join};

const CLIENT: Mac = [2, 0, 0, 0, 0, 1];
const SERVER: Mac = [2, 0, 0, 0, 0, 2];
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: synmill\r\nConnection: close\r\n\r\n";
const ROUNDS: usize = 9;
const CONNECTIONS: u64 = 200_000;
const AT_ONCE: u64 = 32;

/// Sends one request and closes when the peer does.
#[derive(Clone)]
struct Asker;

impl Service for Asker {
    fn on_data(&self, _memo: &mut Memo, text: &[u8]) -> Taken {
        Taken::Bytes(text.len())
    }

    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        *memo = Memo::of(memo.get() + bytes);
    }

    fn pending(&self, memo: &Memo) -> Pending {
        Pending { bytes: REQUEST.len() as u64 - memo.get(), then: Then::CloseAfterPeer }
    }

    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
        let at = (memo.get() + at) as usize;
        into.copy_from_slice(&REQUEST[at..at + into.len()]);
    }
}

fn worker<S: Service>(service: S, mac: Mac, device: PairDevice) -> Worker<PairDevice, Listeners<S>> {
    let listener = Listener { address: Address::v4([0; 4]), port: 80, service };
    let config = Config {
        application: Listeners(vec![listener]),
        owned: Vec::new(),
        mac,
        mtu: 1500,
        max_connections: 65_536,
        max_kept_frames: 1024,
        time_wait: Duration::from_millis(1),
        accept_partial_checksums: false,
        piggyback: true,
        seed: [3, 5, 7, 11],
    };
    let mut endpoints = vec![Endpoint::new(config, Instant::ZERO, Arc::new(Counters::default()))];
    let seat = join(&mut endpoints).remove(0);
    Worker::new(device, endpoints.remove(0), seat)
}

fn name(number: u64) -> FlowKey {
    let host = (number / 60_000) as u8;
    FlowKey {
        local: Address::v4([198, 19, 0, 1 + host]),
        remote: Address::v4([198, 18, 0, 2]),
        local_port: 1024 + (number % 60_000) as u16,
        remote_port: 80,
    }
}

/// One round: seconds spent by the client's side and by the server's, and the server's counts. The length of each of
/// the server's turns, in nanoseconds, goes to `turns`.
fn round(turns: &mut Histogram<u64>) -> (f64, f64, Snapshot) {
    let (near, far, link) = pair(1, &Faults::NONE, 4096, 2048);
    let mut client = worker(Asker, CLIENT, near);
    let mut server = worker(Http::of_size(64), SERVER, far);
    let way = Link { destination: SERVER, source: CLIENT, tags: Default::default() };
    let (mut client_s, mut server_s) = (0.0, 0.0);
    let mut opened = 0;
    let mut now = Instant::ZERO;
    loop {
        now = now + Duration::from_micros(10);
        link.set_now(now);
        let start = Clock::now();
        let counters = client.endpoint().counters();
        let ended = counters.ended_closed.get() + counters.curr_time_wait.get();
        let (endpoint, out) = client.endpoint_mut();
        while opened < CONNECTIONS && opened - ended < AT_ONCE && !out.free.is_empty() {
            let open = Open { key: name(opened), link: way, role: 0 };
            endpoint.open(now, &open, out).expect("a new name and a free slot");
            opened += 1;
        }
        client.turn(now);
        let middle = Clock::now();
        server.turn(now);
        let end = Clock::now();
        client_s += (middle - start).as_secs_f64();
        server_s += (end - middle).as_secs_f64();
        turns.saturating_record((end - middle).as_nanos() as u64);
        if opened == CONNECTIONS && client.endpoint().is_empty() && server.endpoint().is_empty() {
            let counts = server.endpoint().counters().snapshot();
            assert_eq!(counts.ended_closed, CONNECTIONS);
            return (client_s, server_s, counts);
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut turns = Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("bounds that fit");
    let rounds: Vec<_> = (0..ROUNDS).map(|_| round(&mut turns)).collect();
    let per_connection = |seconds: f64| seconds * 1e9 / CONNECTIONS as f64;
    let client = median(rounds.iter().map(|round| per_connection(round.0)).collect());
    let server = median(rounds.iter().map(|round| per_connection(round.1)).collect());
    let counts = &rounds[0].2;
    let packets = |segments: u64| segments as f64 / CONNECTIONS as f64;
    println!(
        "open, request, response, close; medians of {ROUNDS} rounds of {CONNECTIONS} connections, {AT_ONCE} at once"
    );
    println!("responder  {server:7.1} ns per connection  {:5.2} M connections/s", 1e3 / server);
    println!("opener     {client:7.1} ns per connection  {:5.2} M connections/s", 1e3 / client);
    println!(
        "packets per connection: {:.2} to the responder, {:.2} from it",
        packets(counts.in_segs),
        packets(counts.out_segs + counts.retrans_segs)
    );
    let us = |quantile| turns.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "a turn of the responder, us: p50 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1}",
        us(0.5),
        us(0.99),
        us(0.999),
        us(1.0)
    );
}
