//! A live connection as another thread sees it: read from its worker's memory without stopping the worker.

use std::time::Duration;

use super::application::Varies;
use super::connection::{Connection, ConnectionReader};
use super::paths::Shared;
use super::records::Summary;
use crate::flow::{FlowIndex, FlowKey, SlotReader};
use crate::proto::{RECEIVE_WINDOW, SeqNum, State, Timer};
use crate::time::Instant;

/// A connection at one moment: all values are from the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Its number, see [`super::Id::slot`].
    pub slot: u32,
    /// See [`super::Id::role`].
    pub role: u16,
    /// Its name.
    pub key: FlowKey,
    /// Never CLOSED.
    pub state: State,
    /// Did we send the first SYN?
    pub is_active: bool,
    /// SND.UNA
    pub snd_una: SeqNum,
    /// SND.NXT
    pub snd_nxt: SeqNum,
    /// SND.WND in bytes.
    pub snd_wnd: u32,
    /// The shift of SND.WND in bits.
    pub snd_scale: u8,
    /// RCV.NXT
    pub rcv_nxt: SeqNum,
    /// RCV.WND in bytes.
    pub rcv_wnd: u32,
    /// The most text in a segment to the peer, in bytes.
    pub mss: u16,
    /// Were timestamps negotiated (RFC 7323)?
    pub timestamps: bool,
    /// Was window scaling negotiated (RFC 7323)?
    pub window_scale: bool,
    /// Does the peer permit SACK (RFC 2018)?
    pub sack: bool,
    /// The running timer.
    pub timer: Timer,
    /// Milliseconds until the running timer is due; 0 when it is, or when none runs.
    pub timer_ms: u32,
    /// Smoothed round-trip time and its variation (RFC 6298) in microseconds, `None` before the first sample. Samples are whole
    /// milliseconds.
    pub rtt_us: Option<[u32; 2]>,
    /// The retransmission timeout now, in milliseconds.
    pub rto_ms: u32,
    /// Retransmissions in a row that found no answer.
    pub backoff: u8,
    /// Segments retransmitted. A connection without a transfer record knows only those in a row.
    pub retransmissions: u32,
    /// Congestion window and slow start threshold in bytes, `None` without a transfer record.
    pub congestion: Option<[u32; 2]>,
    /// The time since it was opened, in whole seconds modulo 2^16: some 18 hours.
    pub age: Duration,
}

/// Reads the connections of one endpoint from another thread.
#[derive(Clone, Debug)]
pub struct Viewer {
    pub(super) connections: ConnectionReader,
    pub(super) shared: SlotReader<4>,
    pub(super) transfers: SlotReader<4>,
    pub(super) varies: Varies,
}

impl Viewer {
    /// Returns how many slots were ever used. The number of each connection is below it.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.connections.used()
    }

    /// Returns the connection in a slot, if there is one. `now` is the endpoint's clock.
    #[must_use]
    pub fn view(&self, slot: u32, now: Instant) -> Option<View> {
        loop {
            let (connection, moment) = self.connections.slots.read::<Connection>(slot);
            if connection.tcb.state() == State::Closed {
                return None;
            }
            let (shared, _) = self.shared.read::<Shared>(connection.shared.into());
            let transfer = connection.tcb.transfer().map(|number| self.transfers.read(number).0);
            // Both numbers are the connection's as long as its line has not changed.
            if self.connections.slots.is_still(slot, moment) {
                return Some(self.show(slot, &connection, &shared, transfer, now));
            }
        }
    }

    /// Is this the slot of a live connection with this name?
    fn is(&self, slot: u32, key: &FlowKey) -> bool {
        loop {
            let (connection, moment) = self.connections.slots.read::<Connection>(slot);
            if connection.tcb.state() == State::Closed {
                return false;
            }
            let (shared, _) = self.shared.read::<Shared>(connection.shared.into());
            if self.connections.slots.is_still(slot, moment) {
                return connection.key(self.varies, shared.end) == *key;
            }
        }
    }

    fn show(
        &self,
        slot: u32,
        connection: &Connection,
        shared: &Shared,
        transfer: Option<Summary>,
        now: Instant,
    ) -> View {
        let tcb = &connection.tcb;
        let (timer, deadline) = tcb.timer();
        let rtt = transfer.map_or(tcb.own_rtt(), |transfer| transfer.rtt);
        View {
            slot,
            role: shared.role,
            key: connection.key(self.varies, shared.end),
            state: tcb.state(),
            is_active: tcb.is_active(),
            snd_una: tcb.snd_una(),
            snd_nxt: tcb.snd_nxt(),
            snd_wnd: tcb.snd_wnd(),
            snd_scale: tcb.snd_scale(),
            rcv_nxt: tcb.rcv_nxt(),
            rcv_wnd: RECEIVE_WINDOW - transfer.map_or(0, |transfer| transfer.held_bytes.min(RECEIVE_WINDOW)),
            mss: tcb.mss(),
            timestamps: tcb.uses_timestamps(),
            window_scale: tcb.uses_window_scale(),
            sack: tcb.permits_sack(),
            timer,
            timer_ms: if timer == Timer::None { 0 } else { deadline.since(now.millis()) },
            rtt_us: rtt.micros(),
            rto_ms: rtt.rto_ms(tcb.backoff()),
            backoff: tcb.backoff(),
            retransmissions: transfer
                .map_or(0, |transfer| transfer.retransmissions)
                .max(tcb.backoff().into()),
            congestion: transfer.map(|transfer| [transfer.congestion_window, transfer.slow_start_threshold]),
            age: Duration::from_secs(connection.age_s(now).into()),
        }
    }
}

/// Finds the flows of another worker's endpoint.
#[derive(Clone)]
pub struct Lookup {
    index: FlowIndex,
    viewer: Viewer,
}

impl Lookup {
    pub(super) fn new(index: FlowIndex, viewer: Viewer) -> Self {
        Self { index, viewer }
    }

    /// See [`FlowIndex::prefetch`].
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// See [`FlowIndex::may_hold`].
    #[inline]
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        self.index.may_hold(hash)
    }

    /// Has that endpoint a live connection with this name? The search reads some lines of its index, and a connection's line only
    /// where 16 bits of the hash match.
    #[must_use]
    pub fn has(&self, key: &FlowKey, hash: u64) -> bool {
        self.index.find(hash, |slot| self.viewer.is(slot, key)).is_some()
    }
}
