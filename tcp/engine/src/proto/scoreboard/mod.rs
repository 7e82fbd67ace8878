//! The scoreboard of RFC 6675: the numbers in flight that a peer with SACK has not reported, as holes between its reports.
//!
//! Each transmission of a hole has a number. A hole that was sent again counts as lost once more when something that was sent later has
//! arrived: RFC 8985's rule, with the order of transmissions in place of their times.

use super::{SackBlocks, SeqNum};

/// The most holes. A report that would make another one is not taken: its text is sent again at worst.
const MOST: usize = 32;
/// Segments that may overtake one before that one counts as lost: RFC 5681's three duplicates.
const REORDERING: u32 = 3;
/// The most segments of reordering that are learnt: Linux's tcp_max_reordering.
const MOST_REORDERING: u32 = 300;

/// Numbers that the peer has not reported, below a number that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hole {
    start: SeqNum,
    end: SeqNum,
    /// Everything before it has been sent again.
    next: SeqNum,
    /// The transmission that sent `start` again. Each further segment of the hole counts as the next transmission.
    first: u32,
    /// SND.NXT when `next` moved last: greater numbers were sent later.
    nxt: SeqNum,
}

impl Hole {
    const fn len(&self) -> u32 {
        self.end.0.wrapping_sub(self.start.0)
    }

    fn is_sent_again(&self) -> bool {
        self.next.after(self.start)
    }

    /// Returns the transmission that sent `at` again.
    fn transmission(&self, at: SeqNum, mss: u32) -> u32 {
        self.first.wrapping_add((at - self.start) / mss)
    }

    /// Returns the part from `start` on.
    fn from(self, start: SeqNum, mss: u32) -> Self {
        let first = self.transmission(start, mss);
        Self { start, next: if self.next.before(start) { start } else { self.next }, first, ..self }
    }

    /// Returns the part up to `end`.
    fn to(self, end: SeqNum) -> Self {
        Self { end, next: if self.next.after(end) { end } else { self.next }, ..self }
    }
}

/// The holes, in the order of their numbers. There is none while nothing is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scoreboard {
    holes: [Hole; MOST],
    len: usize,
    /// The number after the highest one reported.
    high: SeqNum,
    /// A timeout has found every hole before it lost.
    lost_until: SeqNum,
    /// Segments sent again so far.
    transmissions: u32,
    /// The latest of them that has arrived.
    arrived: u32,
    /// Segments of reordering seen, at least [`REORDERING`].
    reordering: u32,
}

impl Scoreboard {
    /// Returns the scoreboard of a connection whose unacknowledged numbers start at `una`.
    #[must_use]
    pub fn new(una: SeqNum) -> Self {
        Self {
            holes: [Hole::default(); MOST],
            len: 0,
            high: una,
            lost_until: una,
            transmissions: 1,
            arrived: 0,
            reordering: REORDERING,
        }
    }

    fn holes(&self) -> &[Hole] {
        &self.holes[..self.len]
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn insert(&mut self, at: usize, hole: Hole) {
        self.holes.copy_within(at..self.len, at + 1);
        self.holes[at] = hole;
        self.len += 1;
    }

    fn remove(&mut self, at: usize) {
        self.holes.copy_within(at + 1..self.len, at);
        self.len -= 1;
    }

    /// Returns how many numbers beyond `una` the peer has reported.
    pub(super) fn reported(&self, una: SeqNum) -> u32 {
        if self.is_empty() {
            return 0;
        }
        (self.high - una) - self.holes().iter().map(Hole::len).sum::<u32>()
    }

    /// Takes an acknowledgement of everything before `una`.
    pub(super) fn acknowledge(&mut self, una: SeqNum, mss: u32) {
        if !self.is_empty() {
            let high = self.high;
            self.fill(self.holes[0].start, una, high, mss);
        }
        if una.after(self.lost_until) {
            // It must not fall behind by half the sequence space: it would count as ahead again.
            self.lost_until = una;
        }
        if self.is_empty() {
            self.high = una;
        }
    }

    /// Takes a segment's blocks; `una` to `nxt` are in flight. Blocks outside of it mean nothing: an old one or a duplicate's
    /// (RFC 2883) lies below, a lie anywhere.
    pub(super) fn report(&mut self, blocks: &SackBlocks, una: SeqNum, nxt: SeqNum, mss: u32) {
        let flight = nxt - una;
        let mut sorted = [(SeqNum(0), SeqNum(0)); SackBlocks::MOST];
        let sorted = &mut sorted[..blocks.as_slice().len()];
        sorted.copy_from_slice(blocks.as_slice());
        sorted.sort_unstable_by_key(|(start, _)| *start - una);
        if self.is_empty() {
            self.high = una;
        }
        let before = self.high;
        for &(start, end) in &*sorted {
            let (from, to) = (start - una, end - una);
            if from == 0 || from >= to || to > flight {
                continue;
            }
            if start.after(self.high) {
                if self.len == MOST {
                    continue;
                }
                let hole = Hole { start: self.high, end: start, next: self.high, first: 0, nxt: una };
                self.insert(self.len, hole);
            } else {
                self.fill(start, end, before, mss);
            }
            if end.after(self.high) {
                self.high = end;
            }
        }
    }

    /// Takes the numbers from `start` to `end` out of the holes. `high` was the highest number reported before them.
    fn fill(&mut self, start: SeqNum, end: SeqNum, high: SeqNum, mss: u32) {
        let mut at = 0;
        while at < self.len {
            let hole = self.holes[at];
            if hole.end.at_or_before(start) {
                at += 1;
                continue;
            }
            if hole.start.at_or_after(end) {
                return;
            }
            let has_head = hole.start.before(start);
            let has_tail = hole.end.after(end);
            if has_head && has_tail && self.len == MOST {
                return;
            }
            let (from, to) =
                (if has_head { start } else { hole.start }, if has_tail { end } else { hole.end });
            self.on_arrival(&hole, from, to, high, mss);
            match (has_head, has_tail) {
                (false, false) => {
                    self.remove(at);
                    continue;
                }
                (true, false) => self.holes[at] = hole.to(start),
                (false, true) => self.holes[at] = hole.from(end, mss),
                (true, true) => {
                    self.holes[at] = hole.to(start);
                    self.insert(at + 1, hole.from(end, mss));
                }
            }
            at += 1;
        }
    }

    /// Learns from the numbers `from` to `to` of a hole, which have arrived.
    fn on_arrival(&mut self, hole: &Hole, from: SeqNum, to: SeqNum, high: SeqNum, mss: u32) {
        if hole.next.after(from) {
            let last = if hole.next.before(to) { hole.next } else { to };
            let transmission = hole.transmission(last - 1, mss);
            if (transmission.wrapping_sub(self.arrived) as i32) > 0 {
                self.arrived = transmission;
            }
        } else if high.after(to) && self.lost_until.at_or_before(from) {
            // It was overtaken, and not lost.
            let overtaken = (high - to).div_ceil(mss).min(MOST_REORDERING);
            self.reordering = self.reordering.max(overtaken + 1);
        }
    }

    /// Returns how many segments may overtake one with `flight` numbers in flight: fewer where fewer can come (RFC 5827), none in a
    /// recovery (RFC 8985 section 6.2) as long as nothing was ever reordered.
    fn threshold(&self, flight: u32, recovers: bool, mss: u32) -> u32 {
        if self.reordering > REORDERING {
            self.reordering
        } else if recovers {
            1
        } else {
            flight.div_ceil(mss).saturating_sub(1).clamp(1, REORDERING)
        }
    }

    /// Returns how many holes are lost. They are the first ones: RFC 6675 section 4, IsLost.
    fn lost(&self, flight: u32, recovers: bool, mss: u32) -> usize {
        let most = (self.threshold(flight, recovers, mss) - 1) * mss;
        let by_timeout = self.holes().iter().take_while(|hole| hole.start.before(self.lost_until)).count();
        let (mut above, mut high) = (0, self.high);
        for (index, hole) in self.holes().iter().enumerate().rev() {
            above += high - hole.end;
            high = hole.start;
            if above > most {
                return by_timeout.max(index + 1);
            }
        }
        by_timeout
    }

    /// Is something lost that was not sent again?
    pub(super) fn has_loss(&self, flight: u32, recovers: bool, mss: u32) -> bool {
        self.next_lost(flight, recovers, mss).is_some()
    }

    /// Returns the first lost numbers to be sent again, and how many they are.
    pub(super) fn next_lost(&self, flight: u32, recovers: bool, mss: u32) -> Option<(SeqNum, u32)> {
        if self.is_empty() {
            return None;
        }
        let lost = &self.holes[..self.lost(flight, recovers, mss)];
        let hole = lost.iter().find(|hole| hole.next.before(hole.end))?;
        Some((hole.next, hole.end - hole.next))
    }

    /// Notes that the numbers from `at` on were sent again.
    pub(super) fn sent_again(&mut self, at: SeqNum, len: u32, nxt: SeqNum) {
        let transmission = self.transmissions;
        self.transmissions = transmission.wrapping_add(1);
        // One hole may end where the next starts.
        let mut holes = self.holes[..self.len].iter_mut();
        let Some(hole) = holes.find(|hole| hole.next == at && hole.end != at) else { return };
        if !hole.is_sent_again() {
            hole.first = transmission;
        }
        // A segment that repeats FIN after text ends behind its hole.
        hole.next = if len == 0 || (at + len).after(hole.end) { hole.end } else { at + len };
        hole.nxt = nxt;
    }

    /// Finds the holes that were sent again and lost again: something that was sent later has arrived.
    pub(super) fn lose_again(&mut self, mss: u32) {
        let is_ordered = self.reordering == REORDERING;
        let (segments, bytes) = if is_ordered { (1, 0) } else { (self.reordering, self.reordering * mss) };
        let (arrived, high) = (self.arrived, self.high);
        for hole in &mut self.holes[..self.len] {
            let later = arrived.wrapping_sub(hole.first) as i32;
            if hole.is_sent_again() && (later >= segments as i32 || high.after(hole.nxt + bytes)) {
                hole.next = hole.start;
            }
        }
    }

    /// Has the first hole sent again, and returns its first number and its length.
    pub(super) fn lose_first(&mut self) -> Option<(SeqNum, u32)> {
        let hole = self.holes[..self.len].first_mut()?;
        hole.next = hole.start;
        Some((hole.start, hole.len()))
    }

    /// Takes a timeout: all numbers that the peer has not reported are lost. Its reports count for nothing after a second timeout in a row
    /// (`again`), or if the peer has discarded reported text (RFC 2018 section 8).
    pub(super) fn lose_all(&mut self, una: SeqNum, nxt: SeqNum, again: bool) {
        if again || self.is_empty() || self.holes[0].start != una {
            self.len = 0;
            self.high = una;
        }
        if nxt.after(self.high) {
            if self.len == MOST || self.holes().last().is_some_and(|last| last.end == self.high) {
                self.holes[self.len - 1].end = nxt;
            } else {
                let hole = Hole { start: self.high, end: nxt, ..Hole::default() };
                self.insert(self.len, hole);
            }
            self.high = nxt;
        }
        for hole in &mut self.holes[..self.len] {
            hole.next = hole.start;
        }
        self.lost_until = nxt;
    }

    /// Returns how many of `flight` numbers are still on their way: RFC 6675 section 4, SetPipe.
    pub(super) fn pipe(&self, una: SeqNum, flight: u32, recovers: bool, mss: u32) -> u32 {
        if self.is_empty() {
            return flight;
        }
        let lost = self.lost(flight, recovers, mss);
        let (lost, rest) = self.holes().split_at(lost);
        let sent_again = lost.iter().map(|hole| hole.next - hole.start).sum::<u32>();
        let not_lost = rest.iter().map(Hole::len).sum::<u32>();
        (una + flight) - self.high + sent_again + not_lost
    }
}

#[cfg(test)]
mod tests;
