//! The application that an endpoint works for: it accepts connections, opens them, and speaks over them.

use crate::flow::{Address, FlowKey};
use crate::proto::End;
use crate::service::{Memo, Pending, Service, Taken};
use crate::time::Instant;
use crate::wire::Link;

/// Why [`super::Endpoint::open`] opened nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// A connection with this name exists.
    Exists,
    /// No slot is free.
    TableFull,
    /// Too many distinct addresses or next hops.
    TooManyPaths,
}

/// A connection as its application sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id {
    /// Its number, below [`super::Settings::max_connections`]. A later connection may have the same number.
    pub slot: u32,
    /// The number of the listener that accepted it, or the number given with the active OPEN.
    pub role: u16,
}

/// The end whose address and port differ from connection to connection. The connection's line holds them; many connections share
/// the other end, which has a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Varies {
    /// The peer's end: in a responder.
    Remote,
    /// Our end: in a generator.
    Local,
}

impl Varies {
    /// Returns the two ends of a name, address and port each: the end that varies, then the shared one.
    #[inline]
    pub(super) const fn split(self, key: &FlowKey) -> [(Address, u16); 2] {
        let (local, remote) = ((key.local, key.local_port), (key.remote, key.remote_port));
        match self {
            Self::Remote => [remote, local],
            Self::Local => [local, remote],
        }
    }

    /// Returns the name with the end that varies, `own`, and the shared one.
    #[inline]
    pub(super) const fn join(self, own: (Address, u16), shared: (Address, u16)) -> FlowKey {
        let ((local, local_port), (remote, remote_port)) = match self {
            Self::Remote => (shared, own),
            Self::Local => (own, shared),
        };
        FlowKey { local, remote, local_port, remote_port }
    }
}

/// An application's order to its endpoint.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Active OPEN; [`Application::on_opened`] or [`Application::on_not_opened`] reports the outcome.
    Open(Open),
    /// The connection in this slot has something new to send, or now closes.
    Wake(u32),
    /// Abort of the connection in this slot: RST where the peer knows of the connection. The end is counted as given.
    Abort(u32, End),
}

/// An active OPEN.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// The connection's name.
    pub key: FlowKey,
    /// The link from us to the next hop.
    pub link: Link,
    /// See [`Id::role`].
    pub role: u16,
}

/// The application that an endpoint works for: one value for all connections of a worker.
///
/// The first functions are those of a [`Service`], with the connection's [`Id`]; [`Listeners`] puts services behind addresses, as
/// a responder does. The others are for an application that opens connections: it decides when, and learns how each fares.
pub trait Application {
    /// The end that differs from connection to connection.
    const VARIES: Varies = Varies::Remote;

    /// Returns the listener that takes a SYN for this name; `None` refuses it.
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

    /// Returns the next order, if one is due; the endpoint asks until there is none. Without a frame (`has_frame` is false)
    /// nothing can be opened, and an abort sends no RST.
    fn poll(&mut self, now: Instant, has_frame: bool) -> Option<Order> {
        let _ = (now, has_frame);
        None
    }

    /// Returns the name of a connection that it expects to open a few [`Order::Open`] later: the endpoint prefetches its index line.
    fn upcoming(&self) -> Option<&FlowKey> {
        None
    }

    /// Returns how many bytes of memory it takes for connections.
    fn memory_bytes(&self) -> usize {
        0
    }

    /// Returns when [`Application::poll`] has its next order, as far as it knows.
    fn next_poll(&self) -> Option<Instant> {
        None
    }

    /// Must its worker stay awake, though nothing is due?
    fn stays_awake(&self) -> bool {
        false
    }

    /// The last [`Order::Open`] opened this connection: its SYN goes out with this turn.
    fn on_opened(&mut self, id: Id, now: Instant) {
        let _ = (id, now);
    }

    /// The last [`Order::Open`] opened nothing.
    fn on_not_opened(&mut self, error: OpenError, now: Instant) {
        let _ = (error, now);
    }

    /// Our FIN went out for the first time.
    fn on_fin_sent(&mut self, id: Id, now: Instant) {
        let _ = (id, now);
    }

    /// Our FIN is acknowledged.
    fn on_fin_acked(&mut self, id: Id, now: Instant) {
        let _ = (id, now);
    }

    /// The connection is over: both ends have closed (TIME-WAIT may follow), or it ended otherwise. Called once.
    fn on_end(&mut self, id: Id, end: End, now: Instant) {
        let _ = (id, end, now);
    }
}

/// A port that accepts connections, and the service behind it.
#[derive(Clone, Debug)]
pub struct Listener<S> {
    /// Its address; the unspecified address of a family means all addresses of that family.
    pub address: Address,
    /// Its port.
    pub port: u16,
    /// The service for its connections.
    pub service: S,
}

/// A responder: services behind addresses. The first listener that matches takes the connection, exact addresses before
/// wildcards.
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
