//! The loop body that moves bursts between a device and an endpoint, and segments between workers. Knows a [`Device`], an
//! [`Endpoint`] and `now`; never AF_XDP, eBPF or the command line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;

use crate::device::umem::HEADROOM;
use crate::device::{BURST, Burst, Census, Device, Frame, LINK_HEADER, MAX_FRAME_SIZE};
use crate::endpoint::{Application, Endpoint, Outbox};
use crate::stats::DropReason;
use crate::time::Instant;

/// Frames that wait in a worker's inbox, at most.
const INBOX: usize = 4 * BURST;
/// Free frames at hand when a turn begins.
const FREE: usize = 2 * BURST;
/// How long a worker turns without work before it sleeps: longer than the pauses in 10,000 connections a second, because
/// getting up takes some 50 us.
const SPIN: Duration = Duration::from_micros(200);
/// The longest sleep, so that other workers' frames and the control's word are seen.
const SLEEP: Duration = Duration::from_millis(1);
/// How long before something is due a worker is awake: more than a sleep mostly outlasts its time.
const AWAKE: Duration = Duration::from_micros(200);
/// Turns in a row without a frame to reset a connection with, after which the rest is given up.
const FRUITLESS: usize = 10_000;
/// Kicks at the end: the kernel sends a part of the TX ring for each.
const LAST_KICKS: usize = 64;
/// Time between two looks at the rings' own counts.
const RING_COUNTS_EVERY: Duration = Duration::from_millis(100);

/// Room for a frame's bytes on their way to another worker, and how many there are.
struct Handed {
    len: usize,
    bytes: Box<[u8]>,
}

/// Frames that wait for a worker: handed over by copy, into room that goes back and forth.
struct Inbox {
    filled: ArrayQueue<Handed>,
    empty: ArrayQueue<Handed>,
}

impl Inbox {
    /// For frames of at most so many bytes.
    fn new(longest: usize) -> Self {
        let (filled, empty) = (ArrayQueue::new(INBOX), ArrayQueue::new(INBOX));
        while empty.push(Handed { len: 0, bytes: vec![0; longest].into() }).is_ok() {}
        Self { filled, empty }
    }

    /// Leaves a copy; whether there was room for it.
    fn put(&self, frame: &[u8]) -> bool {
        let Some(mut handed) = self.empty.pop() else { return false };
        let room = handed.bytes.get_mut(..frame.len());
        let fits = room.map(|room| room.copy_from_slice(frame)).is_some();
        handed.len = frame.len();
        // Each queue has places for all.
        let kept = if fits { self.filled.push(handed) } else { self.empty.push(handed) };
        fits && kept.is_ok()
    }

    /// Has the first that waits read, if there is one.
    fn take<T>(&self, read: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let handed = self.filled.pop()?;
        let done = read(&handed.bytes[..handed.len]);
        // Its place was left free for it.
        let _ = self.empty.push(handed);
        Some(done)
    }
}

/// A worker's place among its siblings: its own inbox, and theirs.
pub struct Seat {
    number: usize,
    inboxes: Vec<Arc<Inbox>>,
}

/// Makes siblings of endpoints that serve the same addresses: each can see which flows the others own, and hands their
/// segments over.
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
            // Nobody hands anything over to the only one.
            Arc::new(Inbox::new(if lookups.len() > 1 { longest } else { 0 }))
        })
        .collect();
    (0..endpoints.len()).map(|number| Seat { number, inboxes: inboxes.clone() }).collect()
}

/// What a worker is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Serve.
    Running = 0,
    /// Accept no more, and finish what is open. The worker goes on until told to stop: siblings' flows may still arrive here.
    Draining,
    /// Reset what is open, and stop.
    Stopping,
}

/// How the control plane tells its workers what to do.
#[derive(Debug, Default)]
pub struct Control {
    phase: AtomicU8,
}

impl Control {
    /// Tells all workers. The phases only go forward.
    pub fn set(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Relaxed);
    }

    /// What was told last.
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
    /// A worker in its seat, which [`join`] gave out for this endpoint.
    #[must_use]
    pub fn new(device: D, endpoint: Endpoint<A>, seat: Seat) -> Self {
        Self { device, endpoint, seat, outbox: Outbox::new(), burst: Burst::with_capacity(BURST) }
    }

    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint<A> {
        &self.endpoint
    }

    /// The endpoint, for OPEN, and the outbox that goes with it.
    pub fn endpoint_mut(&mut self) -> (&mut Endpoint<A>, &mut Outbox) {
        (&mut self.endpoint, &mut self.outbox)
    }

    /// The device.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Where all frames are: the device's census, and what the worker and its endpoint hold.
    #[must_use]
    pub fn census(&self) -> (Census, usize) {
        (self.device.census(), self.outbox.frames() + self.burst.len() + self.endpoint.frames_kept())
    }

    /// One turn: receive a burst, answer it, take what siblings have handed over, handle deadlines, do what the application
    /// wants, send. Whether there was anything to do.
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

    /// Gives the turn's frames back to the device; how many were to be sent.
    fn flush(&mut self) -> usize {
        let sent = self.outbox.transmit.len();
        self.device.recycle(&mut self.outbox.recycle);
        // Called with nothing to send, too: what the kernel has not sent yet wants another kick.
        self.device.transmit(&mut self.outbox.transmit);
        sent
    }

    /// Copies frames of other workers' flows into their inboxes. A full inbox is a counted drop.
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

    /// Takes what siblings saw of our flows, as far as there are free frames to copy it into.
    fn take_inbox(&mut self, now: Instant) -> usize {
        let inbox = &self.seat.inboxes[self.seat.number];
        if inbox.filled.is_empty() {
            return 0;
        }
        // Half of the free frames are left for what our own connections have to say.
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

    /// Turns until told to stop. `clock` reads the present, once a turn.
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

    /// Sleeps until something arrives or is due. What is due in a moment is waited for awake: a sleeper gets up late.
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

    /// Gives every frame back, so that the device's memory goes with it, and lets what was sent last leave the TX ring.
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

    /// Resets every connection that is left, as far as frames come back to do it with.
    fn abort(&mut self, now: Instant) {
        // A turn without a frame is one in which the device sends nothing: there are so many of them in a row only when it has stopped.
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

    /// Copies the rings' own counts into the counters.
    fn count_rings(&mut self) {
        let counts = self.device.ring_counts();
        let counters = self.endpoint.counters();
        counters.rx_ring_full.set(counts.rx_ring_full);
        counters.fill_ring_empty.set(counts.fill_ring_empty);
        counters.rx_dropped.set(counts.rx_dropped);
        counters.tx_invalid.set(counts.tx_invalid);
        counters.tx_ring_full.set(counts.tx_ring_full);
        counters.busy_poll_stalls.set(counts.busy_poll_stalls);
        counters.tx_stalls.set(counts.tx_stalls);
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
            assert!(!inbox.put(&[0; 9023]), "too long, and its room is not lost");
        }
    }
}
