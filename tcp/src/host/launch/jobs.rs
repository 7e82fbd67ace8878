//! The workers' loops as jobs: an endpoint, devices, a clock and a seed for each.

use std::fs::File;
use std::io::{self, BufWriter};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use synmill_engine::device::bundle::Bundle;
use synmill_engine::device::kept_frames;
use synmill_engine::device::pcap::Capture;
use synmill_engine::endpoint::{self, Application, Endpoint, Settings, Viewer};
use synmill_engine::stats::Counters;
use synmill_engine::time;
use synmill_engine::worker::{self, Control, Worker};

use super::crew::{self, Job, Outcome};
use crate::host::Error;
use crate::host::nic::{Interface, Link, link};
use crate::host::plan::Plan;
use crate::host::rings::XdpDevice;
use crate::text::queues;

/// The clock of all workers.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    zero: Instant,
    offset: time::Instant,
}

impl Clock {
    /// Starts at a random time. TCP timestamps show the clock, and so tell neither the uptime nor the start of the process.
    pub(super) fn start() -> Result<Self, Error> {
        let offset = time::Instant::ZERO + Duration::from_millis(random()? >> 32);
        Ok(Self { zero: Instant::now(), offset })
    }

    /// Returns the present.
    #[must_use]
    pub fn now(&self) -> time::Instant {
        self.offset + self.zero.elapsed()
    }
}

/// The parts that all workers share.
pub(super) struct Stage<'a> {
    pub(super) interface: &'a Interface,
    pub(super) plan: &'a Plan,
    pub(super) clock: Clock,
    pub(super) control: &'a Arc<Control>,
    /// The counters of each worker.
    pub(super) counters: &'a [Arc<Counters>],
    /// Receives remarks, a line each.
    pub(super) tell: fn(&str),
}

/// The worker that an application is for.
#[derive(Clone, Copy, Debug)]
pub struct ForWorker {
    /// The worker's number.
    pub number: usize,
    /// The most connections of the worker's endpoint.
    pub slots: usize,
    /// The present.
    pub now: time::Instant,
}

/// The workers' parts.
pub(super) struct Made {
    /// The job of each worker.
    pub(super) jobs: Vec<Job>,
    /// The workers' connections, for other threads.
    pub(super) viewers: Vec<Viewer>,
    /// Bytes of memory of all connections.
    pub(super) memory_bytes: usize,
}

/// Makes a job for each worker, and what they share: the seed and their seats.
pub(super) fn make<A>(
    stage: &Stage<'_>,
    application: impl FnMut(ForWorker) -> A + Send,
    devices: Vec<Vec<XdpDevice>>,
) -> Result<Made, Error>
where
    A: Application + Send + 'static,
{
    let Stage { interface, plan, clock, control, counters, tell } = *stage;
    let seed = [random()?, random()?, random()?, random()?];
    let count = plan.workers.len();
    let devices: Vec<_> = devices.into_iter().map(Bundle::new).collect();
    let slots = plan.settings.max_connections.div_ceil(count);
    let max_kept_frames: Vec<_> =
        devices.iter().map(|device| device.members().len() * kept_frames(plan.buffers)).collect();
    let application = Mutex::new(application);
    let endpoint = |number: usize| {
        let worker = ForWorker { number, slots, now: clock.now() };
        let application = application.lock().unwrap_or_else(PoisonError::into_inner)(worker);
        let config = endpoint::Config {
            application,
            settings: Settings { max_connections: slots, ..plan.settings },
            owned: plan.owned.clone(),
            mac: plan.mac,
            mtu: interface.mtu,
            max_kept_frames: max_kept_frames[number],
            seed,
        };
        Endpoint::new(config, clock.now(), Arc::clone(&counters[number]))
    };
    let cores: Vec<_> = plan.workers.iter().map(|place| place.core).collect();
    let mut endpoints = crew::make_on(&cores, endpoint)?;
    let memory_bytes = endpoints.iter().map(Endpoint::memory_bytes).sum();
    let viewers = endpoints.iter().map(Endpoint::viewer).collect();
    let seats = worker::join(&mut endpoints);

    let mut captures = plan.captures().into_iter();
    let mut jobs = Vec::with_capacity(count);
    let parts = plan.workers.iter().zip(devices).zip(endpoints).zip(seats).zip(counters);
    for ((((place, device), endpoint), seat), counters) in parts {
        let control = Arc::clone(control);
        // A note has said already that a veth cannot be polled.
        let busy_poll = plan.options.busy_poll && interface.driver != "veth";
        let (queues, counters, index) = (place.queues.clone(), Arc::clone(counters), interface.index);
        let remarks = move |devices: &Bundle<XdpDevice>| {
            // The watch reports an interface that is gone, which explains everything.
            if !matches!(link(index), Ok(Link::Gone)) {
                remarks(&queues, devices.members(), busy_poll && counters.in_frames.get() > 0)
                    .iter()
                    .for_each(|line| tell(line));
            }
        };
        let run: Box<dyn FnOnce() -> Outcome + Send> = match captures.next() {
            None => Box::new(move || {
                let mut worker = Worker::new(device, endpoint, seat);
                worker.run(&control, move || clock.now());
                remarks(worker.device_mut());
                Ok(())
            }),
            Some(path) => {
                let date = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let file = File::create(&path).map_err(|error| {
                    format!("cannot write {}: {error}: give another path", path.display())
                })?;
                let failed =
                    move |error: io::Error| format!("writing the capture {}: {error}", path.display());
                let device = Capture::new(device, BufWriter::new(file), u64::MAX, date).map_err(&failed)?;
                Box::new(move || {
                    let mut worker = Worker::new(device, endpoint, seat);
                    worker.run(&control, move || clock.now());
                    let capture = worker.device_mut();
                    remarks(capture.device_mut());
                    capture.finish().map_err(failed)
                })
            }
        };
        jobs.push(Job { core: place.core, run });
    }
    Ok(Made { jobs, viewers, memory_bytes })
}

/// Returns remarks that a worker's devices can make only at the end. `has_polled`: frames arrived while busy polling was wanted.
fn remarks(numbers: &[usize], devices: &[XdpDevice], has_polled: bool) -> Vec<String> {
    let unsent = numbers.iter().zip(devices).filter_map(|(queue, device)| {
        let error = device.link_error()?;
        Some(format!("note: queue {queue} could not send what it had last: {error}"))
    });
    let mut lines: Vec<String> = unsent.collect();
    // The kernel names the NAPI instance with the first packet.
    if has_polled && devices.iter().all(|device| device.napi_id() == 0) {
        let queues = queues(numbers);
        lines.push(format!("note: --busy-poll did nothing on {queues}: the driver names no NAPI to poll"));
    }
    lines
}

fn random() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| format!("the kernel gives no random numbers: {error}").into())
}
