//! The second records of connections that need one, and the received frames they keep: text that came out of order or that the
//! service has not taken, and text that it sends back. Knows queues of frames; never why a frame is kept.

use crate::device::{Burst, Frame};
use crate::flow::{SlotReader, Slots, Words};
use crate::proto::{Rtt, SackBlocks, SeqNum, Transfer};

const NONE: u32 = u32::MAX;
/// The most frames one connection may keep in each of its queues.
pub(super) const FRAMES_PER_QUEUE: u32 = 64;

/// Text in a kept frame.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) frame: Frame,
    /// The number of its first byte, where that matters.
    pub(super) seq: SeqNum,
    /// Where the text starts in the frame.
    pub(super) start: u16,
    /// Bytes of text.
    pub(super) len: u16,
}

impl Piece {
    pub(super) fn end(&self) -> SeqNum {
        self.seq + u32::from(self.len)
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.frame[usize::from(self.start)..][..usize::from(self.len)]
    }

    /// Forgets the first `bytes` bytes.
    pub(super) fn trim(&mut self, bytes: u16) {
        self.seq += u32::from(bytes);
        self.start += bytes;
        self.len -= bytes;
    }
}

struct Node {
    piece: Option<Piece>,
    next: u32,
}

/// A queue of pieces, linked through the pool.
#[derive(Clone, Copy)]
pub(super) struct Queue {
    head: u32,
    tail: u32,
    frames: u32,
}

impl Queue {
    const EMPTY: Self = Self { head: NONE, tail: NONE, frames: 0 };

    pub(super) const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    pub(super) const fn is_full(&self) -> bool {
        self.frames >= FRAMES_PER_QUEUE
    }
}

/// The second record.
pub(super) struct Record {
    pub(super) transfer: Transfer,
    /// Received text that the service has not taken: in order of numbers, gaps and overlaps possible.
    pub(super) held: Queue,
    /// The first number of the text that came last: its block is told first (RFC 2018 section 4).
    pub(super) latest: SeqNum,
    /// Text that goes back to the peer, from the first unacknowledged byte on.
    pub(super) kept: Queue,
    /// Bytes in `kept`.
    pub(super) kept_bytes: u32,
}

impl Record {
    pub(super) fn is_idle(&self) -> bool {
        self.transfer.is_idle() && self.held.is_empty() && self.kept.is_empty()
    }
}

/// What other threads are told of a second record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) rtt: Rtt,
    pub(super) congestion_window: u32,
    pub(super) slow_start_threshold: u32,
    pub(super) retransmissions: u32,
    pub(super) held_bytes: u32,
}

impl Words<4> for Told {
    fn to_words(&self) -> [u64; 4] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [
            self.rtt.to_bits().into(),
            pair(self.congestion_window, self.slow_start_threshold),
            pair(self.retransmissions, self.held_bytes),
            0,
        ]
    }

    fn from_words([rtt, congestion, counts, _]: [u64; 4]) -> Self {
        Self {
            rtt: Rtt::from_bits(rtt as u32),
            congestion_window: congestion as u32,
            slow_start_threshold: (congestion >> 32) as u32,
            retransmissions: counts as u32,
            held_bytes: (counts >> 32) as u32,
        }
    }
}

/// The pool of pieces: as many as frames may be kept at all.
pub(super) struct Pieces {
    nodes: Box<[Node]>,
    free: u32,
    in_use: usize,
}

impl Pieces {
    fn new(count: usize) -> Self {
        let nodes = (0..count as u32)
            .map(|number| Node {
                piece: None,
                next: if number + 1 < count as u32 { number + 1 } else { NONE },
            })
            .collect();
        Self { nodes, free: if count == 0 { NONE } else { 0 }, in_use: 0 }
    }

    pub(super) fn is_exhausted(&self) -> bool {
        self.free == NONE
    }

    fn node(&mut self, piece: Piece) -> Result<u32, Piece> {
        if self.free == NONE {
            return Err(piece);
        }
        let number = self.free;
        self.free = self.nodes[number as usize].next;
        self.nodes[number as usize] = Node { piece: Some(piece), next: NONE };
        self.in_use += 1;
        Ok(number)
    }

    pub(super) fn push(&mut self, queue: &mut Queue, piece: Piece) -> Result<(), Piece> {
        let number = self.node(piece)?;
        if queue.tail == NONE {
            queue.head = number;
        } else {
            self.nodes[queue.tail as usize].next = number;
        }
        queue.tail = number;
        queue.frames += 1;
        Ok(())
    }

    /// Inserts in order of numbers; what is covered whole by one piece already there is handed back.
    pub(super) fn insert(&mut self, queue: &mut Queue, piece: Piece) -> Result<(), Piece> {
        let (mut before, mut at) = (NONE, queue.head);
        while at != NONE {
            let Some(other) = &self.nodes[at as usize].piece else { break };
            if other.seq.at_or_before(piece.seq) && piece.end().at_or_before(other.end()) {
                return Err(piece);
            }
            if piece.seq.before(other.seq) {
                break;
            }
            (before, at) = (at, self.nodes[at as usize].next);
        }
        if at == NONE {
            return self.push(queue, piece);
        }
        let number = self.node(piece)?;
        self.nodes[number as usize].next = at;
        if before == NONE {
            queue.head = number;
        } else {
            self.nodes[before as usize].next = number;
        }
        queue.frames += 1;
        Ok(())
    }

    pub(super) fn front(&mut self, queue: &Queue) -> Option<&mut Piece> {
        if queue.head == NONE { None } else { self.nodes[queue.head as usize].piece.as_mut() }
    }

    pub(super) fn pop(&mut self, queue: &mut Queue) -> Option<Piece> {
        if queue.head == NONE {
            return None;
        }
        let number = queue.head;
        let node = &mut self.nodes[number as usize];
        let piece = node.piece.take();
        queue.head = node.next;
        node.next = self.free;
        self.free = number;
        self.in_use -= 1;
        queue.frames -= 1;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        piece
    }

    /// Takes the last piece, if its number is after `seq`.
    pub(super) fn pop_last_after(&mut self, queue: &mut Queue, seq: SeqNum) -> Option<Piece> {
        let last = self.nodes.get(queue.tail as usize)?;
        if !last.piece.as_ref()?.seq.after(seq) {
            return None;
        }
        if queue.head == queue.tail {
            return self.pop(queue);
        }
        let mut before = queue.head;
        while self.nodes[before as usize].next != queue.tail {
            before = self.nodes[before as usize].next;
        }
        let mut rest = Queue { head: queue.tail, frames: 1, ..*queue };
        self.nodes[before as usize].next = NONE;
        queue.tail = before;
        queue.frames -= 1;
        self.pop(&mut rest)
    }

    pub(super) fn iter(&self, queue: &Queue) -> impl Iterator<Item = &Piece> {
        let mut at = queue.head;
        std::iter::from_fn(move || {
            if at == NONE {
                return None;
            }
            let node = &self.nodes[at as usize];
            at = node.next;
            node.piece.as_ref()
        })
    }

    /// Copies `into.len()` bytes from position `at` of a queue's bytes.
    pub(super) fn read(&self, queue: &Queue, at: u32, mut into: &mut [u8]) {
        let mut skip = at as usize;
        for piece in self.iter(queue) {
            if into.is_empty() {
                return;
            }
            let text = piece.text();
            if skip >= text.len() {
                skip -= text.len();
                continue;
            }
            let count = (text.len() - skip).min(into.len());
            into[..count].copy_from_slice(&text[skip..skip + count]);
            into = &mut into[count..];
            skip = 0;
        }
    }
}

/// All second records a worker can give out.
pub(super) struct Records {
    records: Box<[Record]>,
    /// The same by number, as far as other threads are told.
    told: Slots<4>,
    free: Vec<u32>,
    pub(super) pieces: Pieces,
}

impl Records {
    pub(super) fn new(records: usize, frames: usize) -> Self {
        let unused = Transfer::new(Rtt::NONE, 0, SeqNum(0), 0);
        let record = || Record {
            transfer: unused,
            held: Queue::EMPTY,
            latest: SeqNum(0),
            kept: Queue::EMPTY,
            kept_bytes: 0,
        };
        Self {
            records: std::iter::repeat_with(record).take(records).collect(),
            told: Slots::new(records),
            free: (0..records as u32).rev().collect(),
            pieces: Pieces::new(frames),
        }
    }

    /// Bytes of memory that so many records and frames take.
    pub(super) fn bytes_for(records: usize, frames: usize) -> usize {
        records * (size_of::<Record>() + size_of::<u32>())
            + Slots::<4>::bytes_for(records)
            + frames * size_of::<Node>()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.records)
            + self.told.memory_bytes()
            + size_of_val(&*self.pieces.nodes)
            + self.free.capacity() * size_of::<u32>()
    }

    /// Is less than half of the records left?
    pub(super) fn is_scarce(&self) -> bool {
        self.free.len() < self.records.len() / 2
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Frees a record; the frames it kept go to `frames`.
    pub(super) fn put(&mut self, number: u32, frames: &mut Burst) {
        let record = &mut self.records[number as usize];
        for queue in [&mut record.held, &mut record.kept] {
            while let Some(piece) = self.pieces.pop(queue) {
                frames.push(piece.frame);
            }
        }
        record.kept_bytes = 0;
        self.free.push(number);
    }

    /// Takes every frame out of every record.
    pub(super) fn release(&mut self, frames: &mut Burst) {
        for record in &mut self.records {
            for queue in [&mut record.held, &mut record.kept] {
                while let Some(piece) = self.pieces.pop(queue) {
                    frames.push(piece.frame);
                }
            }
        }
    }

    /// Starts a record anew.
    pub(super) fn start(&mut self, number: u32, transfer: Transfer) {
        self.records[number as usize].transfer = transfer;
    }

    /// Another thread's view.
    pub(super) fn reader(&self) -> SlotReader<4> {
        self.told.reader()
    }

    /// Tells other threads how a record is now.
    pub(super) fn tell(&mut self, number: u32) {
        let transfer = &self.records[number as usize].transfer;
        let told = Told {
            rtt: transfer.rtt,
            congestion_window: transfer.congestion_window,
            slow_start_threshold: transfer.slow_start_threshold,
            retransmissions: transfer.retransmissions,
            held_bytes: transfer.held_bytes,
        };
        self.told.set(number, &told);
    }

    pub(super) fn get(&self, number: u32) -> &Record {
        &self.records[number as usize]
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut Record {
        &mut self.records[number as usize]
    }

    /// What a record holds beyond `nxt`, as blocks: the one with the latest text first.
    pub(super) fn sack_blocks(&self, number: u32, nxt: SeqNum) -> SackBlocks {
        let record = &self.records[number as usize];
        let mut rest = SackBlocks::NONE;
        let mut blocks = SackBlocks::NONE;
        let mut pieces = self.pieces.iter(&record.held).filter(|piece| piece.seq.after(nxt)).peekable();
        while let Some(first) = pieces.next() {
            let (start, mut end) = (first.seq, first.end());
            while let Some(next) = pieces.next_if(|next| next.seq.at_or_before(end)) {
                end = if next.end().after(end) { next.end() } else { end };
            }
            let newest = record.latest.at_or_after(start) && record.latest.before(end);
            if newest { &mut blocks } else { &mut rest }.push(start, end);
        }
        for (start, end) in rest.as_slice() {
            blocks.push(*start, *end);
        }
        blocks
    }

    /// A record and the pool its queues live in.
    pub(super) fn split(&mut self, number: u32) -> (&mut Record, &mut Pieces) {
        (&mut self.records[number as usize], &mut self.pieces)
    }

    /// Frames kept in all records.
    pub(super) fn frames(&self) -> usize {
        self.pieces.in_use
    }

    /// Records in use.
    pub(super) fn in_use(&self) -> usize {
        self.records.len() - self.free.len()
    }
}
