//! Transfer records, and the received frames that they keep: text out of order, text that the service has not taken, and text
//! that it echoes.

use crate::device::{Burst, Frame};
use crate::flow::{SlotReader, Slots, Words};
use crate::proto::{Rtt, SackBlocks, Scoreboard, SeqNum, Tcb, Tcp, Transfer};

const NONE: u32 = u32::MAX;
/// The most frames one connection may keep in each of its queues.
pub(super) const FRAMES_PER_QUEUE: u32 = 64;
/// The most scoreboards: transfers that lose something at a time.
const MOST_SCOREBOARDS: usize = 4096;

/// Text in a kept frame.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) frame: Frame,
    /// The number of its first byte; unused for text that goes back.
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

    /// Removes the first `bytes` bytes.
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

/// A connection's transfer record, with the frames that it keeps.
pub(super) struct Record {
    pub(super) transfer: Transfer,
    /// Received text that the service has not taken, in order of first numbers; gaps and overlaps are possible.
    pub(super) held: Queue,
    /// The first number of the newest text: its SACK block goes first (RFC 2018 section 4).
    pub(super) latest: SeqNum,
    /// Text that the service echoes, from the first unacknowledged byte on.
    pub(super) kept: Queue,
    /// Bytes in `kept`.
    pub(super) kept_bytes: u32,
}

impl Record {
    pub(super) fn is_idle(&self) -> bool {
        self.transfer.is_idle() && self.held.is_empty() && self.kept.is_empty()
    }
}

/// The summary of a transfer record that other threads read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    pub(super) rtt: Rtt,
    pub(super) congestion_window: u32,
    pub(super) slow_start_threshold: u32,
    pub(super) retransmissions: u32,
    pub(super) held_bytes: u32,
}

impl Words<4> for Summary {
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

/// The pool of pieces: its size is the bound on kept frames.
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

    /// Inserts a piece in order of numbers. Returns the piece if one that is there covers it whole, or if the pool is empty.
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

    /// Returns the SACK blocks of the pieces beyond `nxt`, the block with the `latest` text first.
    pub(super) fn sack_blocks(&self, held: &Queue, nxt: SeqNum, latest: SeqNum) -> SackBlocks {
        SackBlocks::of_held(self.iter(held).map(|piece| (piece.seq, piece.end())), nxt, latest)
    }

    /// Takes every frame out of a record.
    fn release(&mut self, record: &mut Record, frames: &mut Burst) {
        for queue in [&mut record.held, &mut record.kept] {
            while let Some(piece) = self.pop(queue) {
                frames.push(piece.frame);
            }
        }
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

/// All transfer records of a worker.
pub(super) struct Records {
    records: Box<[Record]>,
    /// The summaries that other threads read, by number.
    summaries: Slots<4>,
    free: Vec<u32>,
    /// The scoreboards that no record has. They are boxed, because a record owns the one that it has.
    #[expect(clippy::vec_box, reason = "a record takes the box")]
    scoreboards: Vec<Box<Scoreboard>>,
    pub(super) pieces: Pieces,
}

impl Records {
    pub(super) fn new(records: usize, frames: usize) -> Self {
        let unused = Transfer::new(Rtt::NONE, 0, SeqNum(0), 0, false);
        let record = || Record {
            transfer: unused.clone(),
            held: Queue::EMPTY,
            latest: SeqNum(0),
            kept: Queue::EMPTY,
            kept_bytes: 0,
        };
        Self {
            records: std::iter::repeat_with(record).take(records).collect(),
            summaries: Slots::new(records),
            free: (0..records as u32).rev().collect(),
            scoreboards: std::iter::repeat_with(|| Box::new(Scoreboard::new(SeqNum(0))))
                .take(records.min(MOST_SCOREBOARDS))
                .collect(),
            pieces: Pieces::new(frames),
        }
    }

    /// Returns how many bytes of memory these records and frames take.
    pub(super) fn bytes_for(records: usize, frames: usize) -> usize {
        records * (size_of::<Record>() + size_of::<u32>())
            + Self::bytes_for_scoreboards(records)
            + Slots::<4>::bytes_for(records)
            + frames * size_of::<Node>()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.records)
            + self.summaries.memory_bytes()
            + size_of_val(&*self.pieces.nodes)
            + self.free.capacity() * size_of::<u32>()
            + Self::bytes_for_scoreboards(self.records.len())
    }

    fn bytes_for_scoreboards(records: usize) -> usize {
        records.min(MOST_SCOREBOARDS) * (size_of::<Scoreboard>() + size_of::<Box<Scoreboard>>())
    }

    /// Gives a record a scoreboard, if it wants one and one is left.
    pub(super) fn attach_scoreboard(&mut self, number: u32, una: SeqNum) {
        let transfer = &mut self.records[number as usize].transfer;
        if transfer.wants_scoreboard()
            && let Some(scoreboard) = self.scoreboards.pop()
        {
            transfer.attach_scoreboard(scoreboard, una);
        }
    }

    /// Is less than half of the records left?
    pub(super) fn is_scarce(&self) -> bool {
        self.free.len() < self.records.len() / 2
    }

    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Frees a record. The frames that it kept go to `frames`.
    pub(super) fn put(&mut self, number: u32, frames: &mut Burst) {
        let record = &mut self.records[number as usize];
        self.pieces.release(record, frames);
        record.kept_bytes = 0;
        self.scoreboards.extend(record.transfer.detach_scoreboard());
        self.free.push(number);
    }

    /// Takes every frame out of every record.
    pub(super) fn release(&mut self, frames: &mut Burst) {
        for record in &mut self.records {
            self.pieces.release(record, frames);
        }
    }

    /// Starts a record that was taken.
    pub(super) fn start(&mut self, number: u32, transfer: Transfer) {
        self.records[number as usize].transfer = transfer;
    }

    /// Returns the summaries, for other threads.
    pub(super) fn reader(&self) -> SlotReader<4> {
        self.summaries.reader()
    }

    /// Publishes the summary of a record.
    pub(super) fn publish(&mut self, number: u32) {
        let transfer = &self.records[number as usize].transfer;
        let summary = Summary {
            rtt: transfer.rtt,
            congestion_window: transfer.congestion_window,
            slow_start_threshold: transfer.slow_start_threshold,
            retransmissions: transfer.retransmissions,
            held_bytes: transfer.held_bytes,
        };
        self.summaries.set(number, &summary);
    }

    /// Joins a control block and its transfer record.
    #[inline(always)]
    pub(super) fn tcp<'a>(&'a mut self, tcb: &'a mut Tcb) -> Tcp<'a> {
        let transfer = tcb.transfer().map(|number| &mut self.records[number as usize].transfer);
        Tcp::new(tcb, transfer)
    }

    pub(super) fn get(&self, number: u32) -> &Record {
        &self.records[number as usize]
    }

    /// Returns a record and the pool of its queues.
    pub(super) fn split(&mut self, number: u32) -> (&mut Record, &mut Pieces) {
        (&mut self.records[number as usize], &mut self.pieces)
    }

    /// Returns how many frames all records keep.
    pub(super) fn frames(&self) -> usize {
        self.pieces.in_use
    }

    /// Returns how many records are in use.
    pub(super) fn in_use(&self) -> usize {
        self.records.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scoreboard_comes_back_with_its_record() {
        let mut records = Records::new(MOST_SCOREBOARDS + 1, 0);
        assert_eq!(records.scoreboards.len(), MOST_SCOREBOARDS);
        for sack in [true, false] {
            let number = records.take().unwrap();
            records.start(number, Transfer::new(Rtt::NONE, 1000, SeqNum(0), 65536, sack));
            for _ in 0..2 {
                records.attach_scoreboard(number, SeqNum(0));
            }
            assert_eq!(records.scoreboards.len(), MOST_SCOREBOARDS - usize::from(sack));
            records.put(number, &mut Burst::new());
            assert_eq!(records.scoreboards.len(), MOST_SCOREBOARDS);
        }
    }
}
