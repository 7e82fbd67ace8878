//! A connection's one cache line, and the array of them. Knows layout and free slots; never what happens on a connection.

use super::Varies;
use crate::flow::{Address, Armed, FlowKey, Marked, table_of};
use crate::proto::{State, Tcb};
use crate::service::Memo;

/// Everything about a connection that every segment needs: exactly one cache line, IPv4 and IPv6 alike.
///
/// | bytes | what |
/// |---|---|
/// | 0-15 | the address that varies: the peer's, or a generator's own |
/// | 16-23 | the peer's port, our port, the other address and the role (numbered), the next hop (numbered) with the ready mark |
/// | 24-31 | the service's memo; in a free slot, the number of the next free one |
/// | 32-63 | the control block, and in its spare byte the timer wheel's mark |
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Connection {
    address: Address,
    remote_port: u16,
    local_port: u16,
    /// The number of what it shares with others.
    pub(super) shared: u16,
    next_hop_and_ready: u16,
    pub(super) memo: Memo,
    pub(super) tcb: Tcb,
}

const _: () = assert!(size_of::<Connection>() == 64 && align_of::<Connection>() == 64, "one cache line");

const READY: u16 = 0x8000;
/// The most next hops that can be told apart.
pub(super) const NEXT_HOPS: usize = READY as usize;

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
    pub(super) fn new(varies: Varies, key: &FlowKey, shared: u16, next_hop: u16, tcb: Tcb) -> Self {
        debug_assert!(usize::from(next_hop) < NEXT_HOPS, "the top bit is the ready mark");
        Self {
            address: varies.split(key)[0],
            remote_port: key.remote_port,
            local_port: key.local_port,
            shared,
            next_hop_and_ready: next_hop,
            memo: Memo::default(),
            tcb,
        }
    }

    /// The connection's name, given the address that it shares with others.
    #[inline]
    pub(super) const fn key(&self, varies: Varies, shared: Address) -> FlowKey {
        let [local, remote] = varies.join(self.address, shared);
        FlowKey { local, remote, local_port: self.local_port, remote_port: self.remote_port }
    }

    /// Is it called so, as far as its own line tells? The shared address is for the caller to compare.
    #[inline]
    pub(super) fn is_called(&self, varies: Varies, key: &FlowKey) -> bool {
        self.remote_port == key.remote_port
            && self.local_port == key.local_port
            && self.address == varies.split(key)[0]
    }

    pub(super) const fn next_hop(&self) -> u16 {
        self.next_hop_and_ready & !READY
    }

    pub(super) const fn set_next_hop(&mut self, next_hop: u16) {
        self.next_hop_and_ready = self.next_hop_and_ready & READY | next_hop;
    }

    pub(super) const fn is_ready(&self) -> bool {
        self.next_hop_and_ready & READY != 0
    }

    pub(super) const fn set_ready(&mut self, ready: bool) {
        self.next_hop_and_ready =
            if ready { self.next_hop_and_ready | READY } else { self.next_hop_and_ready & !READY };
    }
}

/// All connections a worker can hold, allocated at the start.
pub(super) struct Connections {
    slots: Box<[Connection]>,
    /// The last slot given back, plus one; 0 for none.
    free: u32,
    /// Slots never used before start here.
    fresh: u32,
}

impl Connections {
    pub(super) fn new(capacity: usize) -> Self {
        let key = FlowKey {
            local: Address::v6([0; 16]),
            remote: Address::v6([0; 16]),
            local_port: 0,
            remote_port: 0,
        };
        let empty = Connection::new(Varies::Remote, &key, 0, 0, Tcb::default());
        Self { slots: table_of(capacity, |_| empty), free: 0, fresh: 0 }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    /// A free slot, if there is one. The wheel's mark and the ready mark stay with the slot: an entry of the last owner may
    /// still be in the wheel or in the queue.
    pub(super) fn take(&mut self) -> Option<u32> {
        if self.free != 0 {
            let slot = self.free - 1;
            self.free = self.slots[slot as usize].memo.get() as u32;
            Some(slot)
        } else if (self.fresh as usize) < self.slots.len() {
            self.fresh += 1;
            Some(self.fresh - 1)
        } else {
            None
        }
    }

    pub(super) fn put(&mut self, slot: u32) {
        let next = self.free;
        let connection = &mut self[slot];
        let armed = connection.armed();
        connection.tcb = Tcb::default();
        connection.set_armed(armed);
        connection.memo = Memo::of(u64::from(next));
        self.free = slot + 1;
    }

    /// All slots ever used; those in CLOSED are free.
    pub(super) fn used(&self) -> u32 {
        self.fresh
    }

    pub(super) fn is_live(&self, slot: u32) -> bool {
        self[slot].tcb.state() != State::Closed
    }

    pub(super) fn all_mut(&mut self) -> &mut [Connection] {
        &mut self.slots
    }
}

impl std::ops::Index<u32> for Connections {
    type Output = Connection;

    #[inline]
    fn index(&self, slot: u32) -> &Connection {
        &self.slots[slot as usize]
    }
}

impl std::ops::IndexMut<u32> for Connections {
    #[inline]
    fn index_mut(&mut self, slot: u32) -> &mut Connection {
        &mut self.slots[slot as usize]
    }
}
