//! A connection's one cache line, and the array of them. Knows layout and free slots; never what happens on a connection.

use std::ops::{Deref, DerefMut};

use super::paths::Paths;
use super::{Id, Varies};
use crate::flow::{Address, Armed, FlowKey, Marked, SlotReader, Slots, Words};
use crate::proto::{State, Tcb};
use crate::service::Memo;
use crate::sync::{Arc, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::time::{Instant, Millis};

/// Everything about a connection that every segment needs: exactly one cache line, IPv4 and IPv6 alike.
///
/// | word | what |
/// |---|---|
/// | 0, 1 | the address that varies: the peer's, or a generator's own |
/// | 2 | its port; the other address, port and the role (numbered); the next hop (numbered); when it was opened, in s |
/// | 3 | the service's memo; in SYN-RECEIVED and TIME-WAIT its neighbours in the order of eviction; in a free slot the next free one |
/// | 4-7 | the control block, and in its spare byte the timer wheel's mark |
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connection {
    address: Address,
    port: u16,
    /// The number of what it shares with others.
    pub(super) shared: u16,
    pub(super) next_hop: u16,
    born_s: u16,
    pub(super) memo: Memo,
    pub(super) tcb: Tcb,
}

/// Where the memo stands among the words, and the control block.
const MEMO: usize = 3;
const TCB: usize = 4;

impl Words<8> for Connection {
    #[inline]
    fn to_words(&self) -> [u64; 8] {
        let [high, low] = self.address.halves();
        let numbers = u64::from(self.port)
            | u64::from(self.shared) << 16
            | u64::from(self.next_hop) << 32
            | u64::from(self.born_s) << 48;
        let [send, receive, time, rest] = self.tcb.words();
        [high, low, numbers, self.memo.get(), send, receive, time, rest]
    }

    #[inline]
    fn from_words([high, low, numbers, memo, send, receive, time, rest]: [u64; 8]) -> Self {
        Self {
            address: Address::from_halves([high, low]),
            port: numbers as u16,
            shared: (numbers >> 16) as u16,
            next_hop: (numbers >> 32) as u16,
            born_s: (numbers >> 48) as u16,
            memo: Memo::of(memo),
            tcb: Tcb::from_words([send, receive, time, rest]),
        }
    }
}

impl Marked for Connection {
    #[inline]
    fn armed(&self) -> Armed {
        Armed(self.tcb.spare)
    }

    #[inline]
    fn set_armed(&mut self, armed: Armed) {
        self.tcb.spare = armed.0;
    }
}

impl Connection {
    #[inline(always)]
    pub(super) fn new(
        varies: Varies,
        key: &FlowKey,
        shared: u16,
        next_hop: u16,
        tcb: Tcb,
        now: Instant,
    ) -> Self {
        let [(address, port), _] = varies.split(key);
        Self { address, port, shared, next_hop, born_s: seconds(now), memo: Memo::default(), tcb }
    }

    /// The connection's name, given the address and port that it shares with others.
    #[inline]
    pub(super) const fn key(&self, varies: Varies, shared: (Address, u16)) -> FlowKey {
        varies.join((self.address, self.port), shared)
    }

    /// Since it was opened, in seconds modulo 2^16: some 18 hours. Opened in the second after `now`, it is no age at all.
    pub(super) fn age_s(&self, now: Instant) -> u16 {
        match seconds(now).wrapping_sub(self.born_s) {
            u16::MAX => 0,
            age => age,
        }
    }
}

fn seconds(now: Instant) -> u16 {
    (now.as_nanos() / 1_000_000_000) as u16
}

/// The connection that is being worked on: a copy of its line. Who takes one writes it back.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) slot: u32,
    /// Whose it is to the application: of what it shares with others.
    role: u16,
    connection: Connection,
}

impl Current {
    /// The connection as the application knows it.
    #[inline]
    pub(super) const fn id(&self) -> Id {
        Id { slot: self.slot, role: self.role }
    }

    /// It is over: nothing of it is left but the wheel's mark, and its state is CLOSED.
    #[inline]
    pub(super) fn clear(&mut self) {
        let armed = self.armed();
        self.connection = Connection::default();
        self.set_armed(armed);
    }
}

impl Deref for Current {
    type Target = Connection;

    #[inline]
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Current {
    #[inline]
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// All connections a worker can hold, allocated at the start.
pub(super) struct Connections {
    slots: Slots<8>,
    /// The last slot given back, plus one; 0 for none.
    free: u32,
    /// Slots never used before start here.
    fresh: Arc<AtomicU64>,
}

/// Another thread's view of them.
#[derive(Clone, Debug)]
pub(super) struct ConnectionReader {
    pub(super) slots: SlotReader<8>,
    fresh: Arc<AtomicU64>,
}

impl ConnectionReader {
    /// Slots ever used.
    pub(super) fn used(&self) -> u32 {
        self.fresh.load(Acquire) as u32
    }
}

impl Connections {
    pub(super) fn new(capacity: usize) -> Self {
        Self { slots: Slots::new(capacity), free: 0, fresh: Arc::new(AtomicU64::new(0)) }
    }

    pub(super) fn bytes_for(capacity: usize) -> usize {
        Slots::<8>::bytes_for(capacity)
    }

    pub(super) fn reader(&self) -> ConnectionReader {
        ConnectionReader { slots: self.slots.reader(), fresh: Arc::clone(&self.fresh) }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.memory_bytes()
    }

    #[inline]
    pub(super) fn prefetch(&self, slot: u32) {
        self.slots.prefetch_to_write(slot);
    }

    /// The connection in a slot that was used before, to be worked on. (Of a free one the first role is told.)
    #[inline]
    pub(super) fn get(&self, slot: u32, paths: &Paths) -> Current {
        let connection: Connection = self.slots.get(slot);
        Current { slot, role: paths.shared(connection.shared).role, connection }
    }

    /// Work is done.
    #[inline]
    pub(super) fn set(&mut self, current: &Current) {
        self.slots.set(current.slot, &current.connection);
    }

    /// The same, with what else belongs to the same moment.
    #[inline]
    pub(super) fn set_with(&mut self, current: &Current, meanwhile: impl FnOnce()) {
        self.slots.set_with(current.slot, &current.connection, meanwhile);
    }

    /// Is there a live connection in a slot whose address and port that vary are these, and what it shares with others?
    #[inline]
    pub(super) fn shared_of(&self, slot: u32, (address, port): (Address, u16)) -> Option<u16> {
        let address = address.halves();
        let [high, low, numbers, .., rest] = self.slots.words(slot);
        let is_called = [high, low] == address && numbers as u16 == port;
        (is_called && Tcb::peek(rest).0 != State::Closed).then_some((numbers >> 16) as u16)
    }

    #[inline]
    pub(super) fn state(&self, slot: u32) -> State {
        Tcb::peek(self.slots.word(slot, TCB + 3)).0
    }

    /// The wheel's mark.
    #[inline]
    pub(super) fn armed(&self, slot: u32) -> Armed {
        Armed(Tcb::peek(self.slots.word(slot, TCB + 3)).1)
    }

    /// See [`Tcb::timer`].
    #[inline]
    pub(super) fn deadline(&self, slot: u32) -> Millis {
        Millis(self.slots.word(slot, TCB + 2) as u32)
    }

    #[inline]
    pub(super) fn memo(&self, slot: u32) -> Memo {
        Memo::of(self.slots.word(slot, MEMO))
    }

    #[inline]
    pub(super) fn set_memo(&mut self, slot: u32, memo: Memo) {
        self.slots.set_words(slot, MEMO, [memo.get()]);
    }

    /// A free slot, if there is one.
    pub(super) fn take(&mut self) -> Option<u32> {
        let slot = if self.free != 0 {
            let slot = self.free - 1;
            self.free = self.memo(slot).get() as u32;
            slot
        } else {
            let fresh = self.fresh.load(Relaxed);
            if fresh as usize == self.slots.len() {
                return None;
            }
            self.fresh.store(fresh + 1, Release);
            fresh as u32
        };
        Some(slot)
    }

    /// A connection begins in a slot that was taken. The wheel's mark stays with the slot: an entry of the last owner may still be in
    /// the wheel.
    #[inline(always)]
    pub(super) fn start(&self, Id { slot, role }: Id, connection: Connection) -> Current {
        let mut current = Current { slot, role, connection };
        current.set_armed(self.armed(slot));
        current
    }

    /// The slot is free again.
    pub(super) fn put(&mut self, current: &mut Current) {
        current.clear();
        current.memo = Memo::of(u64::from(self.free));
        self.free = current.slot + 1;
        self.set(current);
    }

    /// All slots ever used; those in CLOSED are free.
    pub(super) fn used(&self) -> u32 {
        self.fresh.load(Relaxed) as u32
    }
}
