//! Which addresses and ports a connection uses, and when they may be used again.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::toeplitz::Rss;
use crate::flow::{Address, FlowKey, Prefix};
use crate::random::GOLDEN;
use crate::time::Instant;

/// All combinations of a source address, a source port and a target. Each has a number, from which it is computed.
///
/// All targets have equally many combinations, and consecutive numbers have different targets. A target has sources of its own family
/// only. With targets of both families, the family with more source addresses uses only its first ones.
#[derive(Clone, Debug)]
pub struct Space {
    v4: Vec<Run>,
    v6: Vec<Run>,
    targets: Vec<(Address, u16)>,
    first_port: u16,
    ports: u64,
    /// Source addresses of a target.
    sources: u64,
}

/// The consecutive usable addresses of a prefix.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The first address; IPv4 mapped into IPv6.
    first: u128,
    /// How many addresses the family has in the runs before.
    before: u64,
}

/// Why there is no space.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpaceError {
    /// The range of ports is empty, or begins with port 0.
    #[error("source ports {low}-{high} cannot be used: give a range within 1-65535, the lower end first")]
    Ports {
        /// The first port.
        low: u16,
        /// The last port.
        high: u16,
    },
    /// Two prefixes have addresses in common.
    #[error("sources {0} and {1} overlap: leave out the one within the other")]
    Overlap(Prefix, Prefix),
    /// There is no target, or there are too many.
    #[error("{0} targets cannot be used: give 1 to 65536")]
    Targets(usize),
    /// A target is given twice: its combinations would be equal.
    #[error("target {address:?} port {port} is given twice: leave one out")]
    Twice {
        /// The target's address.
        address: Address,
        /// Its port.
        port: u16,
    },
    /// A target has no source of its family.
    #[error("target {target:?} has no source: give a source prefix of {family}")]
    NoSource {
        /// The target's address.
        target: Address,
        /// IPv4 or IPv6.
        family: &'static str,
    },
}

impl Space {
    /// Returns all combinations of the source prefixes, the `ports`, and the targets (address, port).
    ///
    /// An IPv4 prefix shorter than /31 is used without its first and last address, the network's and the broadcast address (RFC 1122
    /// section 3.2.1.3, RFC 3021). An IPv6 prefix shorter than /127 is used without its first, the subnet-router anycast address (RFC
    /// 4291 section 2.6.1, RFC 6164), and with 2^32 - 1 addresses at most.
    ///
    /// # Errors
    /// If there are no such combinations. Each [`SpaceError`] says what to type instead.
    pub fn new(
        sources: &[Prefix],
        ports: RangeInclusive<u16>,
        targets: &[(Address, u16)],
    ) -> Result<Self, SpaceError> {
        let (low, high) = ports.into_inner();
        if low == 0 || low > high {
            return Err(SpaceError::Ports { low, high });
        }
        if !(1..=1 << 16).contains(&targets.len()) {
            return Err(SpaceError::Targets(targets.len()));
        }
        let mut sorted: Vec<_> = targets.iter().map(|(address, port)| (address.octets(), *port)).collect();
        sorted.sort_unstable();
        if let Some([(address, port), _]) = sorted.array_windows().find(|[one, other]| one == other) {
            return Err(SpaceError::Twice { address: Address::v6(*address), port: *port });
        }
        for (number, source) in sources.iter().enumerate() {
            if let Some(earlier) = sources[..number].iter().find(|earlier| earlier.overlaps(source)) {
                return Err(SpaceError::Overlap(*earlier, *source));
            }
        }

        let (v4, v4_sources) = runs(sources, true);
        let (v6, v6_sources) = runs(sources, false);
        let mut fewest = u64::MAX;
        for (target, _) in targets {
            let (sources, family) = if target.is_v4() { (v4_sources, "IPv4") } else { (v6_sources, "IPv6") };
            if sources == 0 {
                return Err(SpaceError::NoSource { target: *target, family });
            }
            fewest = fewest.min(sources);
        }
        let ports = u64::from(high - low) + 1;
        // 64 bits must be able to number all combinations.
        let sources = fewest.min(u64::MAX / (ports * targets.len() as u64));
        Ok(Self { v4, v6, targets: targets.to_vec(), first_port: low, ports, sources })
    }

    /// Returns the number of combinations, at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub const fn len(&self) -> u64 {
        self.sources * self.ports * self.targets.len() as u64
    }

    /// Returns combination `index`, which is below [`Space::len`]: the connection's name, and the number of its target.
    #[must_use]
    #[inline(always)]
    pub fn tuple(&self, index: u64) -> (FlowKey, u16) {
        let (index, target) =
            (index / self.targets.len() as u64, (index % self.targets.len() as u64) as usize);
        let (source, port) = (index / self.ports, (index % self.ports) as u16);
        let (remote, remote_port) = self.targets[target];
        let runs = if remote.is_v4() { &self.v4 } else { &self.v6 };
        let run = &runs[runs.partition_point(|run| run.before <= source) - 1];
        let local = Address::v6((run.first + u128::from(source - run.before)).to_be_bytes());
        (FlowKey { local, remote, local_port: self.first_port + port, remote_port }, target as u16)
    }
}

/// Returns the usable addresses of one family's prefixes, and their number.
fn runs(prefixes: &[Prefix], v4: bool) -> (Vec<Run>, u64) {
    let mut before = 0;
    let mut runs = Vec::new();
    for prefix in prefixes.iter().filter(|prefix| prefix.first().is_v4() == v4) {
        // 2^32 - 1 addresses from the second on never reach the mapped IPv4 addresses.
        let free_bits = u32::from(128 - prefix.mapped_len()).min(32);
        let all = 1u64 << free_bits;
        let (skipped, count) = match (free_bits, v4) {
            (0 | 1, _) => (0, all),
            (_, true) => (1, all - 2),
            (_, false) => (1, all - 1),
        };
        runs.push(Run { first: prefix.first().bits() + skipped, before });
        before += count;
    }
    (runs, before)
}

/// Returns the number of tuples that `rate_per_s` connections per second need over `duration`, if each tuple is free again `time_wait`
/// after its connection ended. The connections' lifetimes are not included: add them to `time_wait` where they matter. With
/// [`Share::Queues`] this is a mean: the queues' shares of the space differ by chance.
#[must_use]
pub fn needed(rate_per_s: u64, time_wait: Duration, duration: Duration) -> u64 {
    let opened_in = |time: Duration| (u128::from(rate_per_s) * time.as_nanos()).div_ceil(1_000_000_000);
    let waiting = opened_in(time_wait);
    // Tuples become free by blocks: besides those in TIME-WAIT, one block waits for its last tuple.
    let others = u128::from(BLOCKS) - 1;
    let laps = waiting + waiting.div_ceil(others) + 1;
    opened_in(duration).min(laps).try_into().unwrap_or(u64::MAX)
}

/// A worker's share of the tuples of a space.
#[derive(Clone, Debug)]
pub enum Share {
    /// Every `workers`-th place of the common sequence, from place `number` on: all workers together have each tuple once.
    Split {
        /// The number of workers.
        workers: u64,
        /// This worker's number, from 0 on.
        number: u64,
    },
    /// The tuples whose replies arrive at one of the queues. If each queue belongs to one worker, all workers together have each tuple
    /// once.
    Queues {
        /// How the NIC chooses the queue.
        rss: Arc<Rss>,
        /// The worker's queues.
        queues: Vec<u16>,
    },
}

/// The combination of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// The connection's name; the source is local.
    pub key: FlowKey,
    /// The number of its target.
    pub target: u16,
    /// The argument for [`Walk::ended`].
    pub block: u16,
}

/// The most blocks of a walk: a power of two, so that a mark has bits left for the lap.
const BLOCKS: u16 = 4096;
/// The most blocks that the walk looks at for a free one.
const LOOK_AHEAD: usize = 16;
/// Places whose tuples are computed before they are due: a power of two.
const AHEAD: usize = 8;

/// The tuples of the next places.
#[derive(Clone, Debug)]
struct Ahead {
    /// A ring, from `at` on.
    tuples: [(FlowKey, u16); AHEAD],
    at: usize,
    /// The index of the first tuple, and of the one behind the last.
    first: u64,
    behind: u64,
}

impl Ahead {
    /// Returns no tuples: no index is as large as `first`.
    fn new() -> Self {
        Self { tuples: [(FlowKey::default(), 0); AHEAD], at: 0, first: u64::MAX, behind: 0 }
    }

    /// Takes the tuple of this index, and computes one more. After a jump it computes all anew.
    #[inline]
    fn take(&mut self, index: u64, stride: u64, space: &Space) -> (FlowKey, u16) {
        if self.first != index {
            self.jump(index, stride, space);
        }
        let tuple = std::mem::replace(&mut self.tuples[self.at], space.tuple(self.behind));
        self.at = (self.at + 1) % AHEAD;
        self.first = add(self.first, stride, space.len());
        self.behind = add(self.behind, stride, space.len());
        tuple
    }

    #[cold]
    fn jump(&mut self, index: u64, stride: u64, space: &Space) {
        (self.at, self.first, self.behind) = (0, index, index);
        for tuple in &mut self.tuples {
            *tuple = space.tuple(self.behind);
            self.behind = add(self.behind, stride, space.len());
        }
    }

    /// Returns the last computed tuple.
    #[inline]
    fn last(&self) -> &FlowKey {
        &self.tuples[(self.at + AHEAD - 1) % AHEAD].0
    }
}

/// A worker's order of the tuples of a space, lap after lap. All workers follow one permutation, a Weyl sequence: each place is a fixed
/// step behind the previous one. The step is about the golden section of the space and has no common divisor with it, so that a lap
/// meets each tuple once and consecutive tuples are far apart.
///
/// A lap consists of up to 4096 blocks. A block records when one of its connections was last opened or ended. The walk enters it only
/// when `time_wait` has passed since, so no tuple returns before its TIME-WAIT has ended. The walk does not wait for a connection that
/// lives longer than a lap: the caller must skip a tuple that is still in the table.
#[derive(Clone, Debug)]
pub struct Walk {
    space: Arc<Space>,
    share: Share,
    time_wait: Duration,
    /// The most places that one call looks at.
    tries: u32,
    /// The index of place 0 of the sequence, and the distance between the indices of consecutive places.
    offset: u64,
    step: u64,
    /// The worker's places in the sequence: the first, their distance, their number, and how many form a block.
    first: u64,
    apart: u64,
    places: u64,
    per_block: u64,
    /// The next place's index, and the distance to the index after it.
    index: u64,
    stride: u64,
    /// The position: laps begun, the block, the places left in it.
    lap: u16,
    block: usize,
    left: u64,
    /// When the walk may enter a block, by its number.
    free_at: Vec<Instant>,
    ahead: Ahead,
}

impl Walk {
    /// Returns a walk at its beginning. The common sequence depends on the space and the `seed` alone. A walk takes up to 32 KiB,
    /// however many tuples there are.
    #[must_use]
    pub fn new(space: Arc<Space>, share: Share, time_wait: Duration, seed: u64) -> Self {
        let len = space.len();
        let (first, apart, tries) = match &share {
            Share::Split { workers, number } => {
                assert!(number < workers, "a worker's number");
                (*number, *workers, 1)
            }
            // A place is this worker's with probability mine/all. The bound is 16 times the mean number of tries.
            Share::Queues { rss, queues } => match rss.share(queues) {
                (0, _) => (len, 1, 0),
                (mine, all) => (0, 1, 16 * all.div_ceil(mine) as u32),
            },
        };
        let places = len.saturating_sub(first).div_ceil(apart);
        let per_block = places.div_ceil(BLOCKS.into()).max(1);
        let blocks = places.div_ceil(per_block) as usize;
        let step = step(len);
        let offset = scale(seed.wrapping_mul(GOLDEN), len);
        let stride = (u128::from(step) * u128::from(apart) % u128::from(len)) as u64;
        Self {
            space,
            share,
            time_wait,
            tries,
            offset,
            step,
            first,
            apart,
            places,
            per_block,
            index: 0,
            stride,
            // One block before the first one.
            lap: 0,
            block: blocks.saturating_sub(1),
            left: 0,
            free_at: vec![Instant::ZERO; blocks],
            ahead: Ahead::new(),
        }
    }

    /// Returns a tuple for a connection that is opened now. Returns `None` while the next blocks wait for a TIME-WAIT to end. With
    /// [`Share::Queues`] it rarely returns `None` because none of the places it looked at was this worker's: call again.
    #[inline]
    pub fn next(&mut self, now: Instant) -> Option<Tuple> {
        for _ in 0..self.tries {
            if self.left == 0 && !self.enter(now) {
                return None;
            }
            let index = self.index;
            self.left -= 1;
            self.index = add(index, self.stride, self.space.len());
            let (key, target) = self.ahead.take(index, self.stride, &self.space);
            if self.is_ours(&key) {
                self.touch(self.block, now);
                return Some(Tuple { key, target, block: self.mark() });
            }
        }
        None
    }

    /// Returns the name of a tuple that a later call will return, unless the walk jumps or the tuple is another worker's. Before the
    /// first call of [`Walk::next`] it is meaningless.
    #[inline]
    #[must_use]
    pub fn upcoming(&self) -> &FlowKey {
        self.ahead.last()
    }

    /// A connection whose tuple had this `block` has ended, or was not opened after all: its TIME-WAIT begins.
    #[inline]
    pub fn ended(&mut self, block: u16, now: Instant) {
        let number = usize::from(block % BLOCKS);
        self.touch(number, now);
        // The connection is of an earlier lap, so its tuple may still be ahead in this block.
        if number == self.block && block != self.mark() {
            self.left = 0;
        }
    }

    /// Returns the current block's number and, in the bits above, the lap's.
    const fn mark(&self) -> u16 {
        self.lap.wrapping_mul(BLOCKS) | self.block as u16
    }

    fn touch(&mut self, block: usize, now: Instant) {
        let free_at = &mut self.free_at[block];
        *free_at = (*free_at).max(now + self.time_wait);
    }

    fn is_ours(&self, key: &FlowKey) -> bool {
        match &self.share {
            Share::Split { .. } => true,
            Share::Queues { rss, queues } => queues.contains(&rss.queue(key)),
        }
    }

    /// Enters the first free block of the next ones, so that a single late connection does not stop the walk.
    fn enter(&mut self, now: Instant) -> bool {
        let blocks = self.free_at.len();
        let mut next = (self.block + 1..=self.block + blocks.min(LOOK_AHEAD)).map(|block| block % blocks);
        let Some(block) = next.find(|block| self.free_at[*block] <= now) else { return false };
        if block <= self.block {
            self.lap = self.lap.wrapping_add(1);
        }
        self.block = block;
        let begin = block as u64 * self.per_block;
        self.left = self.per_block.min(self.places - begin);
        let place = u128::from(self.first + begin * self.apart);
        let len = self.space.len();
        self.index = add(self.offset, (place * u128::from(self.step) % u128::from(len)) as u64, len);
        true
    }
}

/// Returns `len` times `fraction` / 2^64.
const fn scale(fraction: u64, len: u64) -> u64 {
    ((fraction as u128 * len as u128) >> 64) as u64
}

/// Returns the sum of two numbers below `len`, modulo `len`.
#[inline]
const fn add(a: u64, b: u64, len: u64) -> u64 {
    if a >= len - b { a - (len - b) } else { a + b }
}

/// Returns a step that meets all of `len` places: near the golden section, without a common divisor.
fn step(len: u64) -> u64 {
    let coprime = |step: &u64| {
        let (mut a, mut b) = (len, *step);
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a == 1
    };
    // 1 is coprime to any length, and the search ends long before it.
    (0..=scale(GOLDEN, len)).rev().find(coprime).unwrap_or(0)
}

#[cfg(test)]
mod tests;
