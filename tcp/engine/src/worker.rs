//! The loop that moves bursts between a device and an endpoint, and frames between workers.

use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use crate::device::umem::HEADROOM;
use crate::device::{BURST, Burst, Census, Device, Frame, LINK_HEADER, MAX_FRAME_SIZE};
use crate::endpoint::{Application, Endpoint, Outbox};
use crate::stats::DropReason;
use crate::time::Instant;

/// The most frames that wait in a worker's inbox.
const INBOX: usize = 4 * BURST;
/// Free frames in the outbox when a turn begins.
const FREE: usize = 2 * BURST;
/// How long a worker turns without work before it sleeps. Waking up takes some 50 us, so this is longer than the pauses between
/// 10,000 connections a second.
const SPIN: Duration = Duration::from_micros(200);
/// The longest sleep: after it the worker sees other workers' frames and the control's phase.
const SLEEP: Duration = Duration::from_millis(1);
/// How long before an order is due a worker stops sleeping. Sleeps last too long, mostly by less than this.
const AWAKE: Duration = Duration::from_micros(200);
/// Turns in a row without a frame to reset a connection with, after which the worker gives up the rest.
const FRUITLESS: usize = 10_000;
/// Kicks at the end: for each, the kernel sends a part of the TX ring.
const LAST_KICKS: usize = 64;
/// Time between two reads of the rings' counts.
const RING_COUNTS_EVERY: Duration = Duration::from_millis(100);

/// A buffer for a frame's bytes on their way to another worker.
struct Handed {
    len: usize,
    bytes: Box<[u8]>,
}

/// The frames that wait for a worker, as copies in buffers that the workers reuse.
struct Inbox {
    filled: ArrayQueue<Handed>,
    empty: ArrayQueue<Handed>,
}

impl Inbox {
    /// Returns an empty inbox for frames of at most `longest` bytes.
    fn new(longest: usize) -> Self {
        let (filled, empty) = (ArrayQueue::new(INBOX), ArrayQueue::new(INBOX));
        while empty.push(Handed { len: 0, bytes: vec![0; longest].into() }).is_ok() {}
        Self { filled, empty }
    }

    /// Leaves a copy. Returns whether there was room for it.
    fn put(&self, frame: &[u8]) -> bool {
        let Some(mut handed) = self.empty.pop() else { return false };
        let room = handed.bytes.get_mut(..frame.len());
        let fits = room.map(|room| room.copy_from_slice(frame)).is_some();
        handed.len = frame.len();
        // Either queue has a place for every buffer.
        let kept = if fits { self.filled.push(handed) } else { self.empty.push(handed) };
        fits && kept.is_ok()
    }

    /// Calls `read` with the oldest waiting frame, if there is one.
    fn take<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let handed = self.filled.pop()?;
        let done = read(&handed.bytes[..handed.len]);
        let _ = self.empty.push(handed);
        Some(done)
    }
}

/// A worker's place among its siblings: its own inbox, and their inboxes.
pub struct Seat {
    number: usize,
    inboxes: Vec<Arc<Inbox>>,
}

/// Makes siblings of endpoints that serve the same addresses. Each sibling sees which flows the others own, and hands their segments
/// over.
#[must_use]
pub fn join<A: Application>(endpoints: &mut [Endpoint<A>]) -> Vec<Seat> {
    let lookups: Vec<_> = endpoints.iter().map(Endpoint::lookup).enumerate().collect();
    for (number, endpoint) in endpoints.iter_mut().enumerate() {
        endpoint.set_siblings(lookups.iter().filter(|(other, _)| *other != number).cloned().collect());
    }
    let inboxes: Vec<_> = endpoints
        .iter()
        .map(|endpoint| {
            let longest = (LINK_HEADER + endpoint.mtu()).max(MAX_FRAME_SIZE - HEADROOM);
            // A worker without siblings gets no frames handed over.
            Arc::new(Inbox::new(if lookups.len() > 1 { longest } else { 0 }))
        })
        .collect();
    (0..endpoints.len()).map(|number| Seat { number, inboxes: inboxes.clone() }).collect()
}

/// The phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Workers serve.
    Running = 0,
    /// Workers accept no connection, and finish the open ones. They run on until [`Phase::Stopping`]: siblings' flows may still arrive
    /// at their queues.
    Draining,
    /// Workers reset the open connections, and stop.
    Stopping,
}

/// The phase as the control plane sets it and the workers read it.
#[derive(Debug, Default)]
pub struct Control {
    phase: AtomicU8,
}

impl Control {
    /// Sets the phase for all workers. Phases only go forward.
    pub fn set(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Relaxed);
    }

    /// Returns the present phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Stopping,
        }
    }
}

/// A device and the endpoint that serves it.
pub struct Worker<D, A> {
    device: D,
    endpoint: Endpoint<A>,
    seat: Seat,
    outbox: Outbox,
    burst: Burst,
}

impl<D: Device, A: Application> Worker<D, A> {
    /// Returns a worker in the seat that [`join`] returned for this endpoint.
    #[must_use]
    pub fn new(device: D, endpoint: Endpoint<A>, seat: Seat) -> Self {
        Self { device, endpoint, seat, outbox: Outbox::new(), burst: Burst::with_capacity(BURST) }
    }

    /// Returns a worker without siblings.
    #[must_use]
    pub fn alone(device: D, mut endpoint: Endpoint<A>) -> Self {
        let seat = join(slice::from_mut(&mut endpoint)).remove(0);
        Self::new(device, endpoint, seat)
    }

    /// Returns the endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint<A> {
        &self.endpoint
    }

    /// Returns the endpoint, for OPEN, and the outbox that goes with it.
    pub fn endpoint_mut(&mut self) -> (&mut Endpoint<A>, &mut Outbox) {
        (&mut self.endpoint, &mut self.outbox)
    }

    /// Returns the device.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Returns where all frames are: the device's census, and the number of frames that the worker and its endpoint hold.
    #[must_use]
    pub fn census(&self) -> (Census, usize) {
        (self.device.census(), self.outbox.frames() + self.burst.len() + self.endpoint.frames_kept())
    }

    /// Does one turn: receives a burst, answers it, takes the frames that siblings handed over, handles deadlines, carries out the
    /// application's orders, sends. Returns whether there was anything to do.
    pub fn turn(&mut self, now: Instant) -> bool {
        let wanted = FREE.saturating_sub(self.outbox.free.len());
        self.device.alloc(&mut self.outbox.free, wanted);
        let received = self.device.receive(&mut self.burst, BURST);
        if received > 0 {
            self.endpoint.on_burst(now, &mut self.burst, false, &mut self.outbox);
            self.hand_over();
        }
        let handed = self.take_inbox(now);
        self.endpoint.on_tick(now, &mut self.outbox);
        self.endpoint.poll_application(now, &mut self.outbox);
        self.endpoint.poll_transmit(now, &mut self.outbox);
        let sent = self.flush();
        received + handed + sent > 0
    }

    /// Gives the turn's frames to the device. Returns how many were to be sent.
    fn flush(&mut self) -> usize {
        let sent = self.outbox.transmit.len();
        self.device.recycle(&mut self.outbox.recycle);
        // Even with nothing to send: frames that the kernel has not sent yet need another kick.
        self.device.transmit(&mut self.outbox.transmit);
        sent
    }

    /// Copies frames of other workers' flows into their inboxes. Drops and counts a frame whose inbox is full.
    fn hand_over(&mut self) {
        let counters = self.endpoint.counters();
        for (worker, frame) in self.outbox.hand_over.drain(..) {
            if self.seat.inboxes[worker].put(&frame) {
                counters.frames_handed_out.add(1);
            } else {
                counters.drop_for(DropReason::HandOverFull);
            }
            self.outbox.recycle.push(frame);
        }
    }

    /// Processes the frames that siblings received for this worker's flows, as far as there are free frames to copy them into.
    fn take_inbox(&mut self, now: Instant) -> usize {
        let inbox = &self.seat.inboxes[self.seat.number];
        if inbox.filled.is_empty() {
            return 0;
        }
        // Half of the free frames stay for the segments of this worker's own connections.
        while self.burst.len() < BURST && self.outbox.free.len() > BURST {
            let free = &mut self.outbox.free;
            let copy =
                |bytes: &[u8]| Some(filled(free.pop_if(|frame| frame.capacity() >= bytes.len())?, bytes));
            match inbox.take(copy) {
                Some(Some(frame)) => self.burst.push(frame),
                Some(None) => {
                    self.endpoint.counters().frames_handed_in.add(1);
                    self.endpoint.counters().drop_for(DropReason::HandOverFull);
                    break;
                }
                None => break,
            }
        }
        let taken = self.burst.len();
        self.endpoint.on_burst(now, &mut self.burst, true, &mut self.outbox);
        taken
    }

    /// Turns until [`Phase::Stopping`]. Reads `clock` once a turn.
    pub fn run(&mut self, control: &Control, clock: impl Fn() -> Instant) {
        let mut counted = clock();
        let mut busy = counted;
        let mut draining = false;
        loop {
            let now = clock();
            match control.phase() {
                Phase::Running => {}
                Phase::Draining => {
                    if !draining {
                        draining = true;
                        self.endpoint.drain();
                    }
                }
                Phase::Stopping => {
                    self.abort(now);
                    break;
                }
            }
            if self.turn(now) || self.endpoint.is_ready() {
                busy = now;
            } else {
                std::hint::spin_loop();
            }
            if now - counted >= RING_COUNTS_EVERY {
                counted = now;
                self.count_rings();
            }
            if now - busy > SPIN {
                self.sleep(now);
            }
        }
        self.close();
    }

    /// Sleeps until a frame arrives or a deadline comes. Before an order that is due soon it spins instead: sleeps last too long.
    fn sleep(&mut self, now: Instant) {
        if self.endpoint.application().stays_awake() {
            return;
        }
        let tick = self.endpoint.next_tick_ms().map_or(SLEEP, |tick| Duration::from_millis(u64::from(tick)));
        let order = self.endpoint.application().next_poll().map_or(SLEEP, |due| due - now);
        if order > AWAKE {
            self.device.wait(tick.min(SLEEP).min(order - AWAKE));
        }
    }

    /// Gives every frame back, so that the device can free its memory, and lets the last frames leave the TX ring.
    fn close(&mut self) {
        self.endpoint.release(&mut self.outbox);
        let Outbox { recycle, free, hand_over, .. } = &mut self.outbox;
        recycle.append(free);
        recycle.extend(hand_over.drain(..).map(|(_, frame)| frame));
        for _ in 0..LAST_KICKS {
            self.flush();
        }
        self.count_rings();
    }

    /// Resets every open connection, as far as frames come back to do it with.
    fn abort(&mut self, now: Instant) {
        // In a turn without a frame the device sends nothing. Many such turns in a row mean that the device has stopped.
        let mut fruitless = 0;
        while fruitless < FRUITLESS {
            let wanted = FREE.saturating_sub(self.outbox.free.len());
            self.device.alloc(&mut self.outbox.free, wanted);
            let done = self.endpoint.abort(now, &mut self.outbox);
            fruitless = if self.flush() > 0 { 0 } else { fruitless + 1 };
            if done {
                break;
            }
        }
    }

    /// Copies the rings' counts into the counters.
    fn count_rings(&mut self) {
        self.endpoint.counters().set_rings(&self.device.ring_counts());
    }
}

fn filled(mut frame: Frame, bytes: &[u8]) -> Frame {
    frame.set_len(bytes.len());
    frame.copy_from_slice(bytes);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_keeps_whole_frames_in_order_and_refuses_what_it_has_no_room_for() {
        let inbox = Inbox::new(9022);
        for round in 0..3 {
            for number in 0..INBOX {
                assert!(inbox.put(&vec![number as u8; 22 + 17 * number]), "round {round}");
            }
            assert!(!inbox.put(&[0; 60]), "full");
            for number in 0..INBOX {
                let whole = |bytes: &[u8]| bytes == vec![number as u8; 22 + 17 * number];
                assert_eq!(inbox.take(whole), Some(true), "round {round}");
            }
            assert_eq!(inbox.take(<[u8]>::len), None);
            assert!(!inbox.put(&[0; 9023]), "too long, and its buffer is not lost");
        }
    }
}
