//! The seam between an endpoint and the text of its connections.

/// Eight bytes of state for each connection, which only the service reads. Zero when the connection opens.
///
/// The memo describes the outgoing stream from its first unacknowledged byte on. [`Service::on_acked`] moves that point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Memo(pub [u8; 8]);

impl Memo {
    /// Returns the memo as one little-endian number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u64 {
        u64::from_le_bytes(self.0)
    }

    /// Returns a memo that holds one number.
    #[must_use]
    #[inline]
    pub const fn of(value: u64) -> Self {
        Self(value.to_le_bytes())
    }
}

/// The outgoing stream of a service, from its first unacknowledged byte on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Bytes ready to be sent, including those sent and not yet acknowledged.
    pub bytes: u64,
    /// The action after the last of these bytes.
    pub then: Then,
}

impl Pending {
    /// Returns the stream of a service without text: only the action.
    #[must_use]
    pub const fn only(then: Then) -> Self {
        Self { bytes: 0, then }
    }
}

/// The action after the last byte of [`Pending`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// None for now. The service waits for the peer, and decides in [`Service::on_peer_closed`] how to answer a FIN.
    Wait,
    /// The stream ends: the endpoint sends FIN now.
    Close,
    /// The stream ends unless more text arrives: the endpoint sends FIN once the peer has sent its own, the service has taken all text
    /// before it, and all answers to that text are sent.
    CloseAfterPeer,
    /// The service aborts the connection: the endpoint sends RST now.
    Reset,
}

/// How much of the received text a service took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many bytes from the start of the text. The endpoint offers the rest again, together with the text behind it, after the peer's
    /// next acknowledgement; meanwhile the receive window closes. So a service may leave text only while [`Pending::bytes`] is not
    /// zero: otherwise no acknowledgement would come.
    Bytes(usize),
    /// All of it, and the taken bytes join the outgoing stream: the endpoint keeps the received frames until the peer has acknowledged
    /// them. This is for a service that cannot write its stream again. It has no [`Pending::bytes`] of its own, and the endpoint never
    /// calls its [`Service::write`].
    Echo,
}

/// A server's or client's side of a connection, as a pure machine over a [`Memo`].
///
/// One value serves every connection of a worker. It holds the state that all connections share; the memo holds the state of one.
/// Without further methods, a service ignores all text and sends none.
pub trait Service {
    /// The connection is established. The endpoint calls this once, before any other method.
    fn on_open(&self, memo: &mut Memo) {
        let _ = memo;
    }

    /// Text has arrived, in order. It is never empty, and begins with the bytes that the service left the last time.
    fn on_data(&self, memo: &mut Memo, text: &[u8]) -> Taken {
        let _ = memo;
        Taken::Bytes(text.len())
    }

    /// The peer has acknowledged the first `bytes` bytes of the outgoing stream, so the memo must describe the stream behind them. FIN
    /// does not count, so `bytes` is at most [`Pending::bytes`].
    fn on_acked(&self, memo: &mut Memo, bytes: u64) {
        let _ = (memo, bytes);
    }

    /// The peer has closed: its FIN has arrived, and the service has taken all text before it.
    fn on_peer_closed(&self, memo: &mut Memo) {
        let _ = memo;
    }

    /// Returns the stream to send, and the action after it.
    fn pending(&self, memo: &Memo) -> Pending;

    /// Fills `into` with the outgoing stream from `at` on, counted from the first unacknowledged byte. `into` never reaches beyond
    /// [`Pending::bytes`]. This is a pure function of memo and position: a retransmission calls it again, so there is no send buffer.
    fn write(&self, memo: &Memo, at: u64, into: &mut [u8]) {
        let _ = (memo, at);
        debug_assert!(into.is_empty(), "a service that has pending bytes writes them");
    }
}
