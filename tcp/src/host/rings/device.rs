//! The four rings of a queue as a [`Device`].

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};
use std::time::Duration;

use synmill_engine::device::umem::{HEADROOM, Region};
use synmill_engine::device::{
    BURST, Buffers, Burst, Census, Device, Frame, LINK_HEADER, RingCounts, SHORTEST, large_frames,
    refill_quota,
};
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue, Umem};

use super::busy_poll;
use super::large::Large;
use super::open::{self, Facts, XdpOptions};
use super::socket::{get_option, kick, poll, wake_receiver};
use super::watchdog::{Stall, Watchdog};
use crate::host::Error;
use crate::host::nic::{Link, link};

/// Places in the TX ring that are kept for a burst's replies and for free frames handed out before, for each piece of a packet. Never
/// more than a quarter of the ring.
const TX_RESERVE: usize = 4 * BURST;
/// Chunks on the RX side at first. The kernel uses them in turn: many more than arrive between two receives evict each other, and other
/// data, from the caches. The number doubles whenever the kernel finds no chunk.
const RECEIVING_AT_FIRST: usize = 2048;
/// `if_xdp.h`: the packet continues in the next descriptor.
const XDP_PKT_CONTD: u32 = 1;
/// Most devices that [`Device::wait_any`] watches at once: as many as [`Frame::home`] can name.
const MOST_DEVICES: usize = 256;

/// One queue of an interface, bound until the value is dropped.
///
/// A chunk without a [`Frame`] is in exactly one of: `free`, the RX side (fill ring, the driver, RX ring) or the TX side
/// (TX ring, the driver, completion ring). Every unsafe ring call below rests on this: a number enters a ring only from
/// `free` or from a frame given back, and leaves it only when the kernel returned its descriptor.
pub struct XdpDevice {
    // Dropping all four closes the socket and frees the queue.
    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    umem: Umem,
    region: Region,
    free: Vec<u32>,
    /// Each chunk's first descriptor, with the packet at [`HEADROOM`]. Descriptors cannot be made, only copied.
    descriptors: Box<[FrameDesc]>,
    /// The last descriptor received in each chunk whose packet started elsewhere.
    shifted: Box<[FrameDesc]>,
    scratch: [FrameDesc; BURST],
    frame_size: usize,
    /// The frames for packets longer than a chunk, if there may be such packets. Free frames are then taken from here.
    large: Option<Large>,
    /// Chunks of the longest packet.
    pieces: usize,
    tx_size: u32,
    /// Kicks that send the answers to a burst.
    kicks: u32,
    /// Chunks on the RX side, and as many as there should be and may be.
    receiving: usize,
    receiving_wanted: usize,
    receiving_most: usize,
    /// Chunks on the TX side.
    sending: usize,
    counts: RingCounts,
    /// How often a driver in zero-copy mode found an empty fill ring before it was filled. Nothing was lost by that.
    empty_at_bind: u64,
    /// Frames too short to be sent.
    runts: u64,
    link_error: Option<i32>,
    /// The interface's number.
    index: u32,
    /// The last caller of `alloc` did not get all frames.
    starved: bool,
    watchdog: Watchdog,
    facts: Facts,
}

impl XdpDevice {
    /// Binds to a queue. The XDP program must be attached before, and its map gets [`XdpDevice::fd`] afterwards.
    ///
    /// The fill ring is filled right after the bind, and the driver woken: xsk-rs gives the ring out only then, though libxdp has mapped
    /// it with the UMEM. virtio-net and igb do not mind. A driver that needs frames at the bind would need a patch of xsk-rs: a way to
    /// produce to the fill queue inside its `Umem`.
    ///
    /// Waits up to a second for a queue that the kernel has not released yet.
    ///
    /// # Errors
    /// One line: what the kernel refuses, and how to make it grant that.
    pub fn open(options: &XdpOptions) -> Result<Self, Error> {
        let open::Opened { umem, index, descriptors, frame_size, rx, tx, fill, completion, tx_budget, facts } =
            open::open(options)?;
        // SAFETY: the first descriptor came with the UMEM. The slice is empty: only its address counts.
        let data = unsafe { umem.data(&descriptors[0]) }.contents().as_ptr();
        // The memory is a mapping made by the C library, so its provenance is exposed; the descriptor points behind the headroom.
        let base = ptr::with_exposed_provenance_mut(data.expose_provenance() - descriptors[0].addr());
        let base = NonNull::new(base).expect("xsk-rs refuses a null mapping");
        // SAFETY: the mapping holds so many chunks, lives as long as the handle, and a chunk with a frame is in no ring (see the type).
        let region = unsafe {
            Region::lent(base, descriptors.len(), frame_size, options.home, Box::new(umem.clone()))
        };
        let longest = LINK_HEADER + options.mtu;
        let (large, receiving_most) = match options.buffers {
            Buffers::One => (None, descriptors.len()),
            Buffers::Several => {
                let large = Large::new(large_frames(descriptors.len()), longest, options.home);
                // With no more chunks than places, the RX ring never fills in the middle of a packet.
                (Some(large), descriptors.len().min(options.rx_ring as usize))
            }
        };
        let mut device = Self {
            rx,
            tx,
            fill,
            completion,
            umem,
            region,
            free: (0..descriptors.len() as u32).rev().collect(),
            shifted: descriptors.clone().into_boxed_slice(),
            frame_size,
            pieces: large.as_ref().map_or(1, |_| longest.div_ceil(frame_size - HEADROOM)),
            large,
            receiving_wanted: RECEIVING_AT_FIRST.min(receiving_most),
            receiving_most,
            descriptors: descriptors.into_boxed_slice(),
            scratch: [FrameDesc::default(); BURST],
            tx_size: options.tx_ring,
            kicks: (BURST as u32).div_ceil(tx_budget),
            receiving: 0,
            sending: 0,
            counts: RingCounts::default(),
            empty_at_bind: 0,
            runts: 0,
            link_error: None,
            index,
            starved: false,
            watchdog: Watchdog::new(facts.busy_poll),
            facts,
        };
        device.refill();
        wake_receiver(device.raw_fd());
        device.empty_at_bind =
            device.rx.fd().xdp_statistics().map_or(0, |kernel| kernel.rx_fill_ring_empty_descs());
        Ok(device)
    }

    /// Returns the socket, for the program's map.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as the queues are, and the borrow of `self` keeps them.
        unsafe { BorrowedFd::borrow_raw(self.raw_fd()) }
    }

    /// Returns whether the driver moves packets without copying them, as the kernel reports it.
    #[must_use]
    pub fn is_zero_copy(&self) -> bool {
        self.facts.zero_copy
    }

    /// Returns the bytes of memory for frames.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.region.memory_bytes() + self.large.as_ref().map_or(0, Large::memory_bytes)
    }

    /// Returns whether the frames are in huge pages.
    #[must_use]
    pub fn huge_pages(&self) -> bool {
        self.facts.huge_pages
    }

    /// Returns the NAPI instance that packets came from (`SO_INCOMING_NAPI_ID`). If it is 0 after packets came, busy polling has no effect.
    #[must_use]
    pub fn napi_id(&self) -> u32 {
        get_option(self.raw_fd(), libc::SOL_SOCKET, libc::SO_INCOMING_NAPI_ID).unwrap_or(0)
    }

    /// Returns why the last attempt to send failed: `ENETDOWN` while the link is down, `ENXIO` once the interface is gone. Only sending
    /// finds this out.
    #[must_use]
    pub fn link_error(&self) -> Option<io::Error> {
        self.link_error.map(io::Error::from_raw_os_error)
    }

    fn raw_fd(&self) -> RawFd {
        self.rx.fd().as_raw_fd()
    }

    fn number(&self, descriptor: &FrameDesc) -> u32 {
        (descriptor.addr() / self.frame_size) as u32
    }

    /// Gives free chunks to the fill ring.
    fn refill(&mut self) {
        let mut quota =
            refill_quota(self.descriptors.len(), self.free.len(), self.receiving, self.receiving_wanted);
        while quota > 0 {
            let batch = quota.min(BURST);
            let from = self.free.len() - batch;
            for (place, number) in self.scratch.iter_mut().zip(self.free.drain(from..)) {
                *place = self.descriptors[number as usize];
            }
            // SAFETY: these chunks were free, so no frame and no other ring has them; none is taken before the RX ring returns it.
            let produced = unsafe { self.fill.produce(&self.scratch[..batch]) };
            debug_assert_eq!(produced, batch, "the fill ring has room for every chunk");
            self.receiving += batch;
            quota -= batch;
        }
    }

    /// Takes the sent chunks back from the completion ring.
    fn reclaim(&mut self) {
        while self.sending > 0 {
            // SAFETY: the kernel is done with what the completion ring returns.
            let count = unsafe { self.completion.consume(&mut self.scratch) };
            for place in 0..count {
                self.free.push(self.number(&self.scratch[place]));
            }
            self.sending -= count;
            if count > 0 {
                self.watchdog.completed();
            }
            if count < BURST {
                break;
            }
        }
    }

    /// The first `count` descriptors of the scratch array go to the TX ring, which has room for them.
    fn submit(&mut self, count: usize) {
        // SAFETY: the chunks came from frames that were given back, so no one else has them; none is taken before the
        // completion ring returns it.
        let produced = unsafe { self.tx.produce(&self.scratch[..count]) };
        debug_assert_eq!(produced, count, "the caller left within the room it found");
        self.sending += count;
    }

    /// Makes the kernel send the rest of the TX ring, if it needs a wakeup: one system call at most. Returns whether the kernel stopped
    /// half-way.
    ///
    /// In zero-copy mode a driver that has taken all may complete them only at the next wakeup, so a lack of frames kicks it, too.
    fn kick(&mut self) -> bool {
        let starved = self.starved && self.facts.zero_copy;
        let waiting = self.sending > 0 && (starved || self.tx.nb_free_exact() < self.tx_size);
        if !waiting || !(self.facts.busy_poll || self.tx.needs_wakeup()) {
            return false;
        }
        let kicked = kick(self.raw_fd());
        self.link_error = None;
        let Err(error) = kicked else {
            self.watchdog.kicked();
            return false;
        };
        match error.raw_os_error() {
            // The kernel has sent as many as it does at once.
            Some(libc::EAGAIN) => true,
            Some(libc::EBUSY | libc::ENOBUFS | libc::EINTR) => false,
            errno => {
                self.link_error = errno;
                false
            }
        }
    }

    fn consume(&mut self, into: &mut Burst, limit: usize) -> usize {
        // SAFETY: the kernel is done with what the RX ring returns.
        let count = unsafe { self.rx.consume(&mut self.scratch[..limit]) };
        let before = into.len();
        for descriptor in &self.scratch[..count] {
            let (addr, len) = (descriptor.addr(), descriptor.lengths().data());
            let (number, start) = (addr / self.frame_size, addr % self.frame_size);
            let frame = self.region.take(number as u32, start, len);
            let goes_on = descriptor.has_more_frames();
            match &mut self.large {
                Some(large) if goes_on || !large.is_between() => {
                    into.extend(large.join(&frame, !goes_on));
                    self.free.push(self.region.give_back(frame));
                }
                _ => {
                    if start != HEADROOM {
                        self.shifted[number] = *descriptor;
                    }
                    into.push(frame);
                }
            }
        }
        self.receiving -= count;
        into.len() - before
    }

    /// Ends a frame of this device, whose memory is free again.
    fn put_back(&mut self, frame: Frame) {
        match &mut self.large {
            Some(large) if large.owns(&frame) => large.give_back(frame),
            _ => self.free.push(self.region.give_back(frame)),
        }
    }

    /// Ends a frame, and writes the descriptors of its packet to the scratch array, from `at` on. Returns how many there are; `None` if the
    /// TX ring has no `room` for them.
    fn describe(&mut self, frame: Frame, at: usize, room: usize) -> Option<usize> {
        if self.large.as_ref().is_some_and(|large| large.owns(&frame)) {
            let count = self.take_apart(&frame, at, room);
            self.put_back(frame);
            return count;
        }
        let (start, len) = (frame.start(), frame.len());
        let number = self.region.give_back(frame);
        if room == 0 {
            self.free.push(number);
            return None;
        }
        let known = if start == HEADROOM { &self.descriptors } else { &self.shifted };
        let descriptor = &mut self.scratch[at];
        *descriptor = known[number as usize];
        debug_assert_eq!(descriptor.addr(), number as usize * self.frame_size + start);
        // SAFETY: the chunk's frame was given back, so this is the only access to its memory.
        unsafe { self.umem.data_mut(descriptor) }.cursor().set_pos(len);
        Some(1)
    }

    /// Copies a packet into free chunks, and writes their descriptors to the scratch array, from `at` on. Returns how many there are;
    /// `None` if there are too few free chunks, or no `room` for them.
    fn take_apart(&mut self, packet: &[u8], at: usize, room: usize) -> Option<usize> {
        let piece_len = self.frame_size - HEADROOM;
        let count = packet.len().div_ceil(piece_len);
        let from = self.free.len().checked_sub(count).filter(|_| count <= room)?;
        let places = &mut self.scratch[at..at + count];
        for ((place, number), piece) in
            places.iter_mut().zip(self.free.drain(from..)).zip(packet.chunks(piece_len))
        {
            let mut frame = self.region.take(number, HEADROOM, piece.len());
            frame.copy_from_slice(piece);
            *place = self.descriptors[self.region.give_back(frame) as usize];
            // SAFETY: the chunk was free and its frame was given back, so this is the only access to its memory.
            unsafe { self.umem.data_mut(place) }.cursor().set_pos(piece.len());
            place.set_options(XDP_PKT_CONTD);
        }
        places[count - 1].set_options(0);
        Some(count)
    }
}

impl Device for XdpDevice {
    fn receive(&mut self, into: &mut Burst, limit: usize) -> usize {
        let limit = limit.min(BURST);
        let count = self.consume(into, limit);
        if count > 0 || limit == 0 {
            return count;
        }
        self.reclaim();
        self.refill();
        if !(self.facts.busy_poll || self.fill.needs_wakeup()) {
            return 0;
        }
        wake_receiver(self.raw_fd());
        self.consume(into, limit)
    }

    fn recycle(&mut self, frames: &mut Burst) {
        for frame in frames.drain(..) {
            self.put_back(frame);
        }
        self.refill();
    }

    fn alloc(&mut self, into: &mut Burst, limit: usize) -> usize {
        self.reclaim();
        // More free frames than the ring has room for would be lost there.
        let ring = self.tx_size as usize;
        let reserve = (TX_RESERVE * self.pieces).min(ring / 4);
        let room = (ring - reserve).saturating_sub(self.sending);
        let count = match &mut self.large {
            None => {
                let count = limit.min(self.free.len()).min(room);
                let from = self.free.len() - count;
                into.extend(self.free.drain(from..).map(|number| self.region.take(number, HEADROOM, 0)));
                count
            }
            Some(large) => {
                let count = limit.min(large.free()).min(room.min(self.free.len()) / self.pieces);
                into.extend(std::iter::from_fn(|| large.take()).take(count));
                count
            }
        };
        self.starved = count < limit;
        count
    }

    fn transmit(&mut self, frames: &mut Burst) -> usize {
        self.reclaim();
        let wanted = (frames.len() * self.pieces) as u32;
        let mut room = if frames.is_empty() { 0 } else { self.tx.nb_free(wanted) as usize };
        let (mut submitted, mut batch) = (0, 0);
        for frame in frames.drain(..) {
            if frame.len() < SHORTEST {
                self.runts += 1;
                self.put_back(frame);
                continue;
            }
            let Some(count) = self.describe(frame, batch, room) else {
                self.counts.tx_ring_full += 1;
                continue;
            };
            room -= count;
            submitted += 1;
            batch += count;
            // The next packet may take as many places.
            if batch + self.pieces > BURST {
                self.submit(batch);
                batch = 0;
            }
        }
        self.submit(batch);
        for _ in 0..self.kicks {
            if !self.kick() {
                break;
            }
        }
        self.refill();
        submitted
    }

    fn wait(&mut self, timeout: Duration) {
        Self::wait_any(std::slice::from_mut(self), timeout);
    }

    fn wait_any(devices: &mut [Self], timeout: Duration) {
        let mut timeout = timeout;
        let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; MOST_DEVICES];
        for (device, place) in devices.iter_mut().zip(&mut polled) {
            place.fd = device.raw_fd();
            device.kick();
            if device.sending > 0 && device.tx.nb_free_exact() < device.tx_size {
                // The kernel did not take everything, and nothing wakes the worker when it can.
                timeout = timeout.min(Duration::from_millis(1));
            }
        }
        let count = devices.len().min(MOST_DEVICES);
        poll(&mut polled[..count], timeout);
    }

    fn ring_counts(&mut self) -> RingCounts {
        let index = self.index;
        match self.watchdog.look(|| matches!(link(index), Ok(Link::Up) | Err(_))) {
            // If that fails, nothing comes back either: the other kind of stall follows.
            Some(Stall::BusyPoll) if busy_poll::stop_preferring(self.raw_fd()).is_ok() => {
                self.counts.busy_poll_stalls += 1;
            }
            Some(Stall::Stopped) => self.counts.tx_stalls += 1,
            Some(Stall::BusyPoll) | None => {}
        }
        // Without an answer the kernel's counts stay as they were.
        if let Ok(kernel) = self.rx.fd().xdp_statistics() {
            self.counts.rx_ring_full = kernel.rx_ring_full();
            let fill_ring_empty = kernel.rx_fill_ring_empty_descs().saturating_sub(self.empty_at_bind);
            if fill_ring_empty > self.counts.fill_ring_empty {
                self.receiving_wanted = (2 * self.receiving_wanted).min(self.receiving_most);
            }
            self.counts.fill_ring_empty = fill_ring_empty;
            let no_large_frame = self.large.as_ref().map_or(0, Large::lost);
            self.counts.rx_dropped = kernel.rx_dropped() + kernel.rx_invalid_descs() + no_large_frame;
            self.counts.tx_invalid = self.runts + kernel.tx_invalid_descs();
        }
        self.counts
    }

    fn census(&self) -> Census {
        let large = |of: fn(&Large) -> usize| self.large.as_ref().map_or(0, of);
        let census = Census {
            total: self.region.count() + large(Large::count),
            free: self.free.len() + large(Large::free),
            rings: self.receiving + self.sending + large(|large| large.joining().into()),
        };
        debug_assert_eq!(census.free + census.rings + self.region.out() + large(Large::out), census.total);
        census
    }
}
