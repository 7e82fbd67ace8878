//! The workers' loops as jobs: endpoints, devices, clock and seed put together. Knows what a worker is made of; never how it is
//! started.

use std::io::{self, BufWriter};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::crew::{self, Job, Outcome};
use super::{Error, files, say};
use crate::face::config::Rings;
use crate::host::nic::{Interface, Link, link};
use crate::host::preflight::Plan;
use crate::host::rings::XdpDevice;
use crate::text;
use synmill_engine::device::bundle::Bundle;
use synmill_engine::device::kept_frames;
use synmill_engine::device::pcap::Capture;
use synmill_engine::endpoint::{self, Application, Endpoint, Settings, Viewer};
use synmill_engine::stats::Counters;
use synmill_engine::time;
use synmill_engine::worker::{self, Control, Worker};

/// What all workers' times are told by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    zero: Instant,
    offset: time::Instant,
}

impl Clock {
    /// Timestamps show the clock: from a zero that nobody knows they tell neither the uptime nor when we were started.
    pub(super) fn start() -> Result<Self, Error> {
        let offset = time::Instant::ZERO + Duration::from_millis(random()? >> 32);
        Ok(Self { zero: Instant::now(), offset })
    }

    /// The present.
    pub(super) fn now(&self) -> time::Instant {
        self.offset + self.zero.elapsed()
    }
}

/// Where the workers are to work.
pub(super) struct Stage<'a> {
    pub(super) rings: &'a Rings,
    pub(super) interface: &'a Interface,
    pub(super) plan: &'a Plan,
    pub(super) clock: Clock,
    pub(super) control: &'a Arc<Control>,
    /// One for each worker.
    pub(super) counters: &'a [Arc<Counters>],
}

/// The worker that an application is for.
pub(super) struct Place {
    /// Its number.
    pub(super) number: usize,
    /// The connections that its endpoint holds at most.
    pub(super) slots: usize,
    /// The present.
    pub(super) now: time::Instant,
}

/// What the workers are made of.
pub(super) struct Made {
    /// One for each worker.
    pub(super) jobs: Vec<Job>,
    /// Their connections, for other threads.
    pub(super) viewers: Vec<Viewer>,
    /// Bytes of memory of all their connections.
    pub(super) memory_bytes: usize,
}

/// One job for each worker. What the workers share is made here: the seed and their seats.
pub(super) fn make<A>(
    stage: &Stage<'_>,
    settings: &Settings,
    application: impl FnMut(&Place) -> A + Send,
    devices: Vec<Vec<XdpDevice>>,
) -> Result<Made, Error>
where
    A: Application + Send + 'static,
{
    let Stage { rings, interface, plan, clock, control, counters } = *stage;
    let seed = seed()?;
    let count = plan.workers.len();
    let devices: Vec<_> = devices.into_iter().map(Bundle::new).collect();
    let slots = settings.max_connections.div_ceil(count);
    let max_kept_frames: Vec<_> =
        devices.iter().map(|device| device.members().len() * kept_frames(plan.buffers)).collect();
    let application = Mutex::new(application);
    let make_application = |place: &Place| application.lock().unwrap_or_else(PoisonError::into_inner)(place);
    let endpoint = |number: usize| {
        let config = endpoint::Config {
            application: make_application(&Place { number, slots, now: clock.now() }),
            owned: plan.owned.clone(),
            mac: plan.mac,
            mtu: interface.mtu,
            settings: Settings { max_connections: slots, ..*settings },
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

    let captures = rings.pcap().map_or_else(Vec::new, |path| files::captures(path, count));
    let mut captures = captures.into_iter();
    let mut jobs = Vec::with_capacity(count);
    let parts = plan.workers.iter().zip(devices).zip(endpoints).zip(seats).zip(counters);
    for ((((place, device), endpoint), seat), counters) in parts {
        let control = Arc::clone(control);
        // That a veth cannot be polled was said at the start.
        let busy_poll = rings.busy_poll && interface.driver != "veth";
        let (queues, counters, index) = (place.queues.clone(), Arc::clone(counters), interface.index);
        let remarks = move |devices: &Bundle<XdpDevice>| {
            // That the interface is gone is said elsewhere, and says it all.
            if !matches!(link(index), Ok(Link::Gone)) {
                say_remarks(&queues, devices.members(), busy_poll && counters.in_frames.get() > 0);
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
                let file = BufWriter::new(files::create(&path)?);
                let failed =
                    move |error: io::Error| format!("writing the capture {}: {error}", path.display());
                let device = Capture::new(device, file, u64::MAX, date).map_err(&failed)?;
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

/// Says what a worker's devices can tell only at the end; `has_polled`: they were to be busy-polled, and something came.
fn say_remarks(queues: &[usize], devices: &[XdpDevice], has_polled: bool) {
    for (queue, device) in queues.iter().zip(devices) {
        if let Some(error) = device.link_error() {
            say(&format!("note: queue {queue} could not send what it had last: {error}"));
        }
    }
    // The kernel names the NAPI instance with the first packet.
    if has_polled && devices.iter().all(|device| device.napi_id() == 0) {
        let queues = text::queues(queues);
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
