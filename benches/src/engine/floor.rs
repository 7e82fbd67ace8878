//! The floor: the least that an engine of this kind does for the same frames, layer by layer, made of synmill's own parts. It has no RFC
//! 9293, no timers and no service: it assumes that each segment is the expected one.

use synmill_engine::device::memory::MemoryDevice;
use synmill_engine::device::{BURST, Burst, Device as _, Frame};
use synmill_engine::flow::{FlowHasher, FlowKey, FlowTable, Slots, Words};
use synmill_engine::proto::{Flags, SeqNum};
use synmill_engine::time::Instant;
use synmill_engine::wire::{self, Checks, Layout, TcpPacket};

use super::responder::Engine;
use super::segments::answer;
use super::{FRAMES, RESPONSE, SEED, Setup};

/// A part of an engine, on top of the layers before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// It reads segments and verifies their checksums, and writes answers with checksums. It has no state.
    Wire,
    /// It hashes names, inserts and finds them, and removes those of ended connections.
    Index,
    /// Each connection has a record of a cache line. It compares, reads and writes the record with each segment, safe for readers.
    Record,
}

impl Layer {
    /// All layers, the lowest first.
    pub const ALL: [Self; 3] = [Self::Wire, Self::Index, Self::Record];

    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Index => "index",
            Self::Record => "record",
        }
    }
}

/// How many connections ahead of a slot's reuse its lines are prefetched.
const AHEAD: usize = BURST / 2;

/// A connection's record: its name, and five words in place of its state.
struct Record([u64; 8]);

impl Record {
    /// Returns the part of a name that differs: all connections go to one address and port.
    #[inline]
    fn name(key: &FlowKey) -> [u64; 3] {
        let [high, low] = key.remote.halves();
        [high, low, u64::from(key.remote_port)]
    }
}

impl Words<8> for Record {
    #[inline]
    fn to_words(&self) -> [u64; 8] {
        self.0
    }

    #[inline]
    fn from_words(words: [u64; 8]) -> Self {
        Self(words)
    }
}

/// A segment between two passes.
#[derive(Default)]
struct Work {
    packet: TcpPacket,
    hash: u64,
    slot: Option<u32>,
    frame: Option<Frame>,
}

/// The engine without TCP.
pub struct Floor {
    layer: Layer,
    device: MemoryDevice,
    received: Burst,
    transmit: Burst,
    recycle: Burst,
    work: Box<[Work]>,
    hasher: FlowHasher,
    table: FlowTable,
    records: Slots<8>,
    /// By slot, the hash of its owner's name; 0 without an owner.
    hashes: Box<[u64]>,
    /// The first slot of connections that do not stay.
    first: u32,
    /// The slot of the next connection. Its owner has ended by then.
    next: u32,
}

impl Floor {
    /// Returns a floor with an engine's number of slots.
    #[must_use]
    pub fn new(layer: Layer, setup: Setup) -> Self {
        let slots = setup.slots();
        let burst = || Burst::with_capacity(BURST);
        let has = |least: Layer| if layer >= least { slots } else { 0 };
        Self {
            layer,
            device: MemoryDevice::new(FRAMES, 2048),
            received: burst(),
            transmit: burst(),
            recycle: burst(),
            work: std::iter::repeat_with(Work::default).take(BURST).collect(),
            hasher: FlowHasher::new(SEED),
            table: FlowTable::new(has(Layer::Index)),
            records: Slots::new(has(Layer::Record)),
            hashes: vec![0; has(Layer::Index)].into_boxed_slice(),
            first: setup.resident as u32,
            next: 0,
        }
    }

    /// Gives a slot to a new connection, and removes the slot's owner.
    #[inline]
    fn enter(&mut self, work: &Work) {
        let slot = self.next;
        let gone = std::mem::replace(&mut self.hashes[slot as usize], work.hash);
        if gone != 0 {
            assert!(self.table.remove(gone, slot), "the slot's owner is in the table");
        }
        assert_eq!(self.table.insert(work.hash, slot), Ok(()), "a place for every slot");
        self.next = if slot as usize + 1 < self.hashes.len() { slot + 1 } else { self.first };
        if self.layer >= Layer::Record {
            let [high, low, port] = Record::name(&work.packet.key);
            self.records.set(slot, &Record([high, low, port, 0, 0, 0, 0, 0]));
        }
        let ahead = slot as usize + AHEAD;
        if let Some(hash) = self.hashes.get(ahead) {
            self.table.prefetch_to_write(*hash);
            if self.layer >= Layer::Record {
                self.records.prefetch_to_write(ahead as u32);
            }
        }
    }

    /// Finds a segment's connection, and stores its numbers in the record.
    #[inline]
    fn note(&mut self, work: &Work) {
        if self.layer < Layer::Record {
            assert!(work.slot.is_some(), "a segment of a connection");
            return;
        }
        let name = Record::name(&work.packet.key);
        let is_it = |slot: u32| self.records.words(slot)[..3] == name;
        let slot = work.slot.filter(|slot| is_it(*slot)).or_else(|| self.table.find(work.hash, is_it));
        let slot = slot.expect("a segment of a connection");
        let mut record: Record = self.records.get(slot);
        record.0[4] = u64::from(work.packet.segment.seq.0) << 32 | u64::from(work.packet.segment.ack.0);
        self.records.set(slot, &record);
    }

    /// Writes the answer to a segment of a client that loses nothing, over that segment.
    #[inline]
    fn answer(&mut self, packet: &TcpPacket, mut frame: Frame, now: Instant) {
        let heard = &packet.segment;
        let mut segment = answer(heard, now.millis().0);
        if heard.flags.has(Flags::SYN) {
            segment.seq = SeqNum(0);
        } else if heard.text_len > 0 {
            segment.flags = Flags::ACK.with(Flags::PSH).with(Flags::FIN);
            segment.text_len = RESPONSE.len() as u16;
        } else if !heard.flags.has(Flags::FIN) {
            self.recycle.push(frame);
            return;
        }
        let link = packet.link.reversed();
        let layout = Layout::of(&link, &packet.key, &segment.options);
        let start = layout.header_len();
        frame.set_len(start + usize::from(segment.text_len));
        if segment.text_len > 0 {
            frame[start..].copy_from_slice(RESPONSE);
        }
        layout.emit(&mut frame, &link, &packet.key, &segment);
        self.transmit.push(frame);
    }
}

impl Engine for Floor {
    type Rings = MemoryDevice;

    fn rings(&mut self) -> &mut MemoryDevice {
        &mut self.device
    }

    /// Goes through the passes of an endpoint: see `synmill_engine::endpoint`.
    fn turn(&mut self, now: Instant) {
        let count = self.device.receive(&mut self.received, BURST);
        let mut all = std::mem::take(&mut self.work);
        for (work, frame) in all.iter_mut().zip(self.received.drain(..)) {
            let read = wire::parse_into(&frame, Checks::default(), &mut work.packet);
            assert!(matches!(read, Ok(None)), "{read:?} is no segment");
            work.frame = Some(frame);
            if self.layer >= Layer::Index {
                work.hash = self.hasher.hash(&work.packet.key);
                self.table.prefetch_to_write(work.hash);
            }
        }
        let work = &mut all[..count];
        for work in work.iter_mut().filter(|_| self.layer >= Layer::Index) {
            if opens(work) {
                self.table.prefetch_further_to_write(work.hash);
                continue;
            }
            // The first entry with this fingerprint.
            work.slot = self.table.find(work.hash, |_| true);
            if let Some(slot) = work.slot.filter(|_| self.layer >= Layer::Record) {
                self.records.prefetch_to_write(slot);
            }
        }
        for is_opening in [false, true] {
            for work in work.iter_mut().filter(|work| opens(work) == is_opening) {
                let Some(frame) = work.frame.take() else { continue };
                if self.layer >= Layer::Index {
                    if is_opening { self.enter(work) } else { self.note(work) }
                }
                self.answer(&work.packet, frame, now);
            }
        }
        self.work = all;
        self.device.transmit(&mut self.transmit);
        self.device.recycle(&mut self.recycle);
    }
}

fn opens(work: &Work) -> bool {
    work.packet.segment.flags.has(Flags::SYN)
}
