//! What an endpoint works for: who may open connections to us, whom we open connections to, and what is said over them. Knows
//! connections by number, their text, and the time; never segments or frames.

use super::OpenError;
use crate::flow::{Address, FlowKey};
use crate::proto::End;
use crate::service::{Memo, Pending, Service, Taken};
use crate::time::Instant;
use crate::wire::Link;

/// A connection as its application sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// Its number, below [`super::Settings::max_connections`]; another connection may have it afterwards.
    pub slot: u32,
    /// The number of the listener that accepted it, or the one that was given with the active OPEN.
    pub role: u16,
}

/// Whose address and port differ from connection to connection. These stand in the connection's line; the others are shared by
/// many and numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varies {
    /// The peer's: a responder's.
    Remote,
    /// Ours: a generator's.
    Local,
}

impl Varies {
    /// A name's two ends, address and port each: the one that varies, and the one that is shared.
    #[inline]
    pub(super) const fn split(self, key: &FlowKey) -> [(Address, u16); 2] {
        let (local, remote) = ((key.local, key.local_port), (key.remote, key.remote_port));
        match self {
            Self::Remote => [remote, local],
            Self::Local => [local, remote],
        }
    }

    /// The name, from the end that varies and the one that is shared.
    #[inline]
    pub(super) const fn join(self, own: (Address, u16), shared: (Address, u16)) -> FlowKey {
        let ((local, local_port), (remote, remote_port)) = match self {
            Self::Remote => (shared, own),
            Self::Local => (own, shared),
        };
        FlowKey { local, remote, local_port, remote_port }
    }
}

/// What an application wants done.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Active OPEN; [`Application::on_opened`] or [`Application::on_not_opened`] says what came of it.
    Open(Open),
    /// The connection in this slot has something new to say, or has changed its mind about closing.
    Wake(u32),
    /// The connection in this slot is over: the peer is told by RST where it knows of it, and the end is counted as given.
    Abort(u32, End),
}

/// An active OPEN.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// The connection's name.
    pub key: FlowKey,
    /// From us to the next hop.
    pub link: Link,
    /// See [`Id::role`].
    pub role: u16,
}

/// What an endpoint works for. One value for all connections of a worker.
///
/// The first group of functions is a [`Service`]'s, told which connection it is about; [`Listeners`] is how a responder puts
/// services behind addresses. The second group is for who opens connections: it says when, and hears what becomes of them.
pub trait Application {
    /// Whose address differs from connection to connection.
    const VARIES: Varies = Varies::Remote;

    /// Who takes a SYN for this name; `None` refuses it.
    fn listener(&self, key: &FlowKey) -> Option<u16>;

    /// The handshake is complete.
    fn on_open(&mut self, id: Id, memo: &mut Memo, now: Instant);

    /// See [`Service::on_data`].
    fn on_data(&mut self, id: Id, memo: &mut Memo, text: &[u8], now: Instant) -> Taken;

    /// See [`Service::on_acked`].
    fn on_acked(&mut self, id: Id, memo: &mut Memo, bytes: u64, now: Instant);

    /// See [`Service::on_peer_closed`].
    fn on_peer_closed(&mut self, id: Id, memo: &mut Memo, now: Instant);

    /// See [`Service::pending`].
    fn pending(&self, id: Id, memo: &Memo) -> Pending;

    /// See [`Service::write`].
    fn write(&self, id: Id, memo: &Memo, at: u64, into: &mut [u8]);

    /// What is to be done next, if anything is due; asked until there is nothing. Without a frame (`has_frame`) nothing can be
    /// opened, and who is aborted is not told.
    fn poll(&mut self, now: Instant, has_frame: bool) -> Option<Order> {
        let _ = (now, has_frame);
        None
    }

    /// The name of a connection that it will want opened a few [`Order::Open`] after the last, as far as it knows: what is known of that
    /// name is asked for ahead.
    fn upcoming(&self) -> Option<&FlowKey> {
        None
    }

    /// Bytes of memory that it takes for connections.
    fn memory_bytes(&self) -> usize {
        0
    }

    /// When [`Application::poll`] has something next, as far as that is known now.
    fn next_poll(&self) -> Option<Instant> {
        None
    }

    /// Is its worker not to sleep, though nothing is due?
    fn stays_awake(&self) -> bool {
        false
    }

    /// The last [`Order::Open`] is this connection: SYN goes out with this turn.
    fn on_opened(&mut self, id: Id, now: Instant) {
        let _ = (id, now);
    }

    /// The last [`Order::Open`] opened nothing.
    fn on_not_opened(&mut self, error: OpenError, now: Instant) {
        let _ = (error, now);
    }

    /// Our FIN has been sent for the first time.
    fn on_fin_sent(&mut self, id: Id, now: Instant) {
        let _ = (id, now);
    }

    /// Our FIN is acknowledged.
    fn on_fin_acked(&mut self, id: Id, now: Instant) {
        let _ = (id, now);
    }

    /// The connection is over: both ends have closed (TIME-WAIT may follow, unheard), or it ended otherwise. Called once.
    fn on_end(&mut self, id: Id, end: End, now: Instant) {
        let _ = (id, end, now);
    }
}

/// A port that accepts connections, and what is said over them.
#[derive(Clone, Debug)]
pub struct Listener<S> {
    /// Its address; the unspecified address of a family stands for all addresses of that family.
    pub address: Address,
    /// Its port.
    pub port: u16,
    /// What is said over its connections.
    pub service: S,
}

/// A responder: services behind addresses. The first listener that fits has the connection, exact addresses before wildcards.
#[derive(Clone, Debug)]
pub struct Listeners<S>(pub Vec<Listener<S>>);

impl<S> Listeners<S> {
    fn service(&self, id: Id) -> &S {
        &self.0[usize::from(id.role)].service
    }
}

impl<S: Service> Application for Listeners<S> {
    fn listener(&self, key: &FlowKey) -> Option<u16> {
        let any = if key.local.is_v4() { Address::v4([0; 4]) } else { Address::v6([0; 16]) };
        let position = |address: &Address| {
            let fits =
                |listener: &Listener<S>| listener.port == key.local_port && listener.address == *address;
            self.0.iter().position(fits)
        };
        position(&key.local).or_else(|| position(&any)).map(|position| position as u16)
    }

    #[inline]
    fn on_open(&mut self, id: Id, memo: &mut Memo, _now: Instant) {
        self.service(id).on_open(memo);
    }

    #[inline(always)]
    fn on_data(&mut self, id: Id, memo: &mut Memo, text: &[u8], _now: Instant) -> Taken {
        self.service(id).on_data(memo, text)
    }

    #[inline]
    fn on_acked(&mut self, id: Id, memo: &mut Memo, bytes: u64, _now: Instant) {
        self.service(id).on_acked(memo, bytes);
    }

    #[inline]
    fn on_peer_closed(&mut self, id: Id, memo: &mut Memo, _now: Instant) {
        self.service(id).on_peer_closed(memo);
    }

    #[inline]
    fn pending(&self, id: Id, memo: &Memo) -> Pending {
        self.service(id).pending(memo)
    }

    #[inline]
    fn write(&self, id: Id, memo: &Memo, at: u64, into: &mut [u8]) {
        self.service(id).write(memo, at, into);
    }
}
