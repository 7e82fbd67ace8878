//! The workers' loops as jobs: endpoints, devices, clock and seed put together. Knows what a worker is made of; never how it is
//! started.

use std::io::{self, BufWriter};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::crew::{Job, Outcome};
use super::{Error, files, say};
use crate::config::Config;
use crate::device::Device as _;
use crate::device::bundle::Bundle;
use crate::device::pcap::Capture;
use crate::device::xdp::XdpDevice;
use crate::endpoint::{self, Endpoint, Listeners};
use crate::interface::Interface;
use crate::preflight::Plan;
use crate::service::Service;
use crate::stats::Counters;
use crate::time;
use crate::worker::{self, Control, Worker};

/// One job for each worker, and the bytes of memory of all their connections. What the workers share is made here: the
/// seed, the clock's zero, and their seats.
pub(super) fn make<S>(
    config: &Config<S>,
    interface: &Interface,
    plan: &Plan,
    devices: Vec<Vec<XdpDevice>>,
    control: &Arc<Control>,
    counters: &[Arc<Counters>],
) -> Result<(Vec<Job>, usize), Error>
where
    S: Service + Clone + Send + 'static,
{
    let seed = seed()?;
    let zero = Instant::now();
    // Timestamps show the clock: from a zero that nobody knows they tell neither the uptime nor when we were started.
    let offset = time::Instant::ZERO + Duration::from_millis(random()? >> 32);
    let clock = move || offset + zero.elapsed();
    let count = plan.workers.len();
    let devices: Vec<_> = devices.into_iter().map(Bundle::new).collect();
    let endpoint = |(device, counters): (&Bundle<XdpDevice>, &Arc<Counters>)| {
        let listeners = config.listeners().iter().map(|listener| endpoint::Listener {
            address: listener.address.ip().into(),
            port: listener.address.port(),
            service: listener.service.clone(),
        });
        let config = endpoint::Config {
            application: Listeners(listeners.collect()),
            owned: plan.owned.clone(),
            mac: plan.mac,
            mtu: interface.mtu,
            max_connections: config.max_connections().div_ceil(count),
            // The rest is for receiving and sending.
            max_kept_frames: device.census().total / 2,
            time_wait: config.time_wait(),
            accept_partial_checksums: config.rings.accept_partial_checksums,
            piggyback: true,
            seed,
        };
        Endpoint::new(config, clock(), Arc::clone(counters))
    };
    let mut endpoints: Vec<Endpoint<Listeners<S>>> = devices.iter().zip(counters).map(endpoint).collect();
    let memory_bytes = endpoints.iter().map(Endpoint::memory_bytes).sum();
    let seats = worker::join(&mut endpoints);

    let captures = config.rings.pcap().map_or_else(Vec::new, |path| files::captures(path, count));
    let mut captures = captures.into_iter();
    let mut jobs = Vec::with_capacity(count);
    let parts = plan.workers.iter().zip(devices).zip(endpoints).zip(seats).zip(counters);
    for ((((place, device), endpoint), seat), counters) in parts {
        let control = Arc::clone(control);
        // That a veth cannot be polled was said at the start.
        let busy_poll = config.rings.busy_poll && interface.driver != "veth";
        let (queues, counters) = (place.queues.clone(), Arc::clone(counters));
        let remarks = move |devices: &Bundle<XdpDevice>| {
            say_remarks(&queues, devices.members(), busy_poll && counters.in_frames.get() > 0);
        };
        let run: Box<dyn FnOnce() -> Outcome + Send> = match captures.next() {
            None => Box::new(move || {
                let mut worker = Worker::new(device, endpoint, seat);
                worker.run(&control, clock);
                remarks(worker.device_mut());
                Ok(())
            }),
            Some(path) => {
                let date = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let file = BufWriter::new(files::create(&path)?);
                let failed =
                    move |error: io::Error| format!("writing the capture {}: {error}", path.display());
                let device = Capture::new(device, file, u64::MAX, date).map_err(&failed)?;
                Box::new(move || {
                    let mut worker = Worker::new(device, endpoint, seat);
                    worker.run(&control, clock);
                    let capture = worker.device_mut();
                    remarks(capture.device_mut());
                    capture.finish().map_err(failed)
                })
            }
        };
        jobs.push(Job { core: place.core, run });
    }
    Ok((jobs, memory_bytes))
}

/// Says what a worker's devices can tell only at the end; `has_polled`: they were to be busy-polled, and something came.
fn say_remarks(queues: &[usize], devices: &[XdpDevice], has_polled: bool) {
    for (queue, device) in queues.iter().zip(devices) {
        if let Some(error) = device.link_error() {
            say(&format!("note: queue {queue} could not send what it had last: {error}"));
        }
    }
    // The kernel names the NAPI instance with the first packet.
    if has_polled && devices.iter().all(|device| device.napi_id() == 0) {
        let queues = super::queues(queues);
        say(&format!("note: --busy-poll did nothing on {queues}: the driver names no NAPI to poll"));
    }
}

/// 256 random bits from the kernel.
fn seed() -> Result<[u64; 4], Error> {
    let mut seed = [0; 4];
    for word in &mut seed {
        *word = random()?;
    }
    Ok(seed)
}

fn random() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error(format!("the kernel gives no random numbers: {error}")))
}
