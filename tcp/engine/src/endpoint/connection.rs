//! A connection's cache line, the array of these lines, and the one that the endpoint works on.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};

use super::application::{Id, Varies};
use super::paths::Paths;
use crate::flow::{Address, Armed, Deadlines, FlowKey, Marked, SlotReader, Slots, Words};
use crate::proto::{State, Tcb, Timer};
use crate::service::Memo;
use crate::sync::{Arc, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use crate::time::{Instant, Millis};

/// All that every segment of a connection needs: exactly one cache line, for IPv4 and IPv6.
///
/// | word | what |
/// |---|---|
/// | 0, 1 | the address of the end that varies: the peer's, or a generator's own |
/// | 2 | its port; the number of the shared end and role; the number of the next hop; when it was opened, in s |
/// | 3 | the service's memo; in SYN-RECEIVED and TIME-WAIT its neighbours in the order of eviction; in a free slot the next free slot |
/// | 4-7 | the control block, with the timer wheel's mark in its spare byte |
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Connection {
    address: Address,
    port: u16,
    /// The number of its shared end and role.
    pub(super) shared: u16,
    pub(super) next_hop: u16,
    born_s: u16,
    pub(super) memo: Memo,
    pub(super) tcb: Tcb,
}

/// The places of the memo and of the control block's last two words.
const MEMO: usize = 3;
const TIME: usize = 6;
const REST: usize = 7;

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

    /// Returns the connection's name, given the shared end.
    #[inline]
    pub(super) const fn key(&self, varies: Varies, shared: (Address, u16)) -> FlowKey {
        varies.join((self.address, self.port), shared)
    }

    /// Returns the time since it was opened, in seconds modulo 2^16: some 18 hours. A connection opened just after `now` has the
    /// age 0.
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

/// The connection that the endpoint works on: a copy of its line. [`Connections::set`] or [`Connections::vacate`] consumes it, so
/// nothing uses it afterwards; a debug build panics where neither does.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) slot: u32,
    /// The application's number for it, see [`Id::role`].
    role: u16,
    connection: Connection,
    unsettled: Unsettled,
}

#[derive(Debug)]
struct Unsettled;

#[cfg(debug_assertions)]
impl Drop for Unsettled {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a connection was taken out, and neither put back nor ended");
    }
}

impl Current {
    /// Returns the connection as the application knows it.
    #[inline]
    pub(super) const fn id(&self) -> Id {
        Id { slot: self.slot, role: self.role }
    }

    /// Ends the work on the copy.
    #[inline(always)]
    fn settle(self) {
        let _ = ManuallyDrop::new(self.unsettled);
    }
}

/// A slot without a connection. The wheel's mark stays with it: the wheel may still hold an entry of the last owner.
#[must_use = "a slot that is neither used nor put back is lost"]
pub(super) struct Vacant {
    pub(super) slot: u32,
    armed: Armed,
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

/// All connections of a worker, allocated at the start.
pub(super) struct Connections {
    slots: Slots<8>,
    /// The last slot put back, plus one; 0 for none.
    free: u32,
    /// The first slot that was never used.
    fresh: Arc<AtomicU64>,
}

/// Another thread's view of the connections.
#[derive(Clone, Debug)]
pub(super) struct ConnectionReader {
    pub(super) slots: SlotReader<8>,
    fresh: Arc<AtomicU64>,
}

impl ConnectionReader {
    /// Returns how many slots were ever used.
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

    /// Takes a copy of the live connection in a slot, to work on.
    #[inline]
    pub(super) fn get(&self, slot: u32, paths: &Paths) -> Current {
        let connection: Connection = self.slots.get(slot);
        Current { slot, role: paths.shared(connection.shared).role, connection, unsettled: Unsettled }
    }

    /// Returns the name of the connection in a slot.
    #[inline]
    pub(super) fn key(&self, slot: u32, varies: Varies, paths: &Paths) -> FlowKey {
        let connection: Connection = self.slots.get(slot);
        connection.key(varies, paths.shared(connection.shared).end)
    }

    /// Writes the connection back.
    #[inline]
    pub(super) fn set(&mut self, current: Current) {
        self.slots.set(current.slot, &current.connection);
        current.settle();
    }

    /// Writes the connection back, and runs `meanwhile` inside the write section of the slot's sequence lock.
    #[inline]
    pub(super) fn set_with(&mut self, current: Current, meanwhile: impl FnOnce()) {
        self.slots.set_with(current.slot, &current.connection, meanwhile);
        current.settle();
    }

    /// Ends the connection in a slot. The line stays as it is until the slot is put back or has its next owner.
    #[inline]
    pub(super) fn vacate(current: Current) -> Vacant {
        let vacant = Vacant { slot: current.slot, armed: current.armed() };
        current.settle();
        vacant
    }

    /// Returns the number of the shared end if a live connection in this slot has this varying end.
    #[inline]
    pub(super) fn shared_of(&self, slot: u32, (address, port): (Address, u16)) -> Option<u16> {
        let address = address.halves();
        let [high, low, numbers, .., rest] = self.slots.words(slot);
        let is_called = [high, low] == address && numbers as u16 == port;
        (is_called && Tcb::peek(rest).0 != State::Closed).then_some((numbers >> 16) as u16)
    }

    #[inline]
    pub(super) fn state(&self, slot: u32) -> State {
        Tcb::peek(self.slots.word(slot, REST)).0
    }

    /// Returns the deadline of [`Tcb::timer`].
    #[inline]
    pub(super) fn deadline(&self, slot: u32) -> Millis {
        Tcb::peek_deadline(self.slots.word(slot, TIME))
    }

    #[inline]
    pub(super) fn memo(&self, slot: u32) -> Memo {
        Memo::of(self.slots.word(slot, MEMO))
    }

    #[inline]
    pub(super) fn set_memo(&mut self, slot: u32, memo: Memo) {
        self.slots.set_words(slot, MEMO, [memo.get()]);
    }

    /// Returns a free slot, if there is one.
    pub(super) fn take(&mut self) -> Option<Vacant> {
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
        Some(Vacant { slot, armed: self.armed(slot) })
    }

    /// Starts a connection in a vacant slot.
    #[inline(always)]
    pub(super) fn start(Vacant { slot, armed }: Vacant, role: u16, mut connection: Connection) -> Current {
        connection.set_armed(armed);
        Current { slot, role, connection, unsettled: Unsettled }
    }

    /// Frees a slot.
    pub(super) fn put(&mut self, Vacant { slot, armed }: Vacant) {
        let mut connection = Connection { memo: Memo::of(u64::from(self.free)), ..Connection::default() };
        connection.set_armed(armed);
        self.slots.set(slot, &connection);
        self.free = slot + 1;
    }

    /// Returns how many slots were ever used; those in CLOSED are free.
    pub(super) fn used(&self) -> u32 {
        self.fresh.load(Relaxed) as u32
    }
}

impl Deadlines for Connections {
    #[inline]
    fn armed(&self, slot: u32) -> Armed {
        Armed(Tcb::peek(self.slots.word(slot, REST)).2)
    }

    #[inline]
    fn set_armed(&mut self, slot: u32, armed: Armed) {
        let rest = Tcb::with_spare(self.slots.word(slot, REST), armed.0);
        self.slots.set_words(slot, REST, [rest]);
    }

    /// Returns the deadline, `None` in TIME-WAIT: connections there have an order of their own.
    #[inline]
    fn deadline(&self, slot: u32) -> Option<Millis> {
        let (state, timer, _) = Tcb::peek(self.slots.word(slot, REST));
        let has_one = timer != Timer::None && !matches!(state, State::Closed | State::TimeWait);
        has_one.then(|| self.deadline(slot))
    }

    #[inline]
    fn prefetch(&self, slot: u32) {
        self.prefetch(slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::paths::Shared;
    use crate::wire::Link;

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "neither put back nor ended")]
    fn a_connection_that_was_taken_out_is_put_back_or_ended() {
        let (mut connections, mut paths) = (Connections::new(1), Paths::new(1));
        let shared = Shared { end: (Address::default(), 0), role: 0 };
        assert_eq!(paths.take(&shared, &Link::default()), Some((0, 0)));
        let vacant = connections.take().unwrap();
        let connection =
            Connection::new(Varies::Remote, &FlowKey::default(), 0, 0, Tcb::default(), Instant::ZERO);
        connections.set(Connections::start(vacant, 0, connection));
        drop(connections.get(0, &paths));
    }
}
