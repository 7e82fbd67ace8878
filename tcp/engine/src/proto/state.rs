//! A connection's state (RFC 9293 section 3.3.2), the purpose of its one timer, and the ways in which it ends.

/// A connection's state, RFC 9293 section 3.3.2. LISTEN is a listener's, not a connection's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// No connection: an unused record.
    #[default]
    Closed = 0,
    /// We have sent SYN.
    SynSent,
    /// SYN came, and our SYN,ACK is out.
    SynReceived,
    /// Open.
    Established,
    /// Our FIN is out.
    FinWait1,
    /// Our FIN is acknowledged.
    FinWait2,
    /// The peer's FIN has come.
    CloseWait,
    /// Both FINs are out; ours is not acknowledged.
    Closing,
    /// The peer's FIN came first, and ours is out.
    LastAck,
    /// Both ends have closed; the connection stays to answer what still arrives.
    TimeWait,
}

impl State {
    /// All states, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Closed,
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait1,
        Self::FinWait2,
        Self::CloseWait,
        Self::Closing,
        Self::LastAck,
        Self::TimeWait,
    ];

    /// Returns the state with this number, CLOSED where no state has it.
    #[inline]
    pub(super) const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::SynSent,
            2 => Self::SynReceived,
            3 => Self::Established,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::CloseWait,
            7 => Self::Closing,
            8 => Self::LastAck,
            9 => Self::TimeWait,
            _ => Self::Closed,
        }
    }

    /// Returns the RFC's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait => "TIME-WAIT",
        }
    }

    /// Is our FIN out and not yet acknowledged?
    #[must_use]
    #[inline]
    pub const fn fin_is_out(self) -> bool {
        matches!(self, Self::FinWait1 | Self::Closing | Self::LastAck)
    }

    /// Was our FIN sent, acknowledged or not?
    #[must_use]
    #[inline]
    pub const fn fin_was_sent(self) -> bool {
        self.fin_is_out() || self.fin_is_acked()
    }

    /// Is our FIN acknowledged, with the connection still in the table?
    #[must_use]
    #[inline]
    pub const fn fin_is_acked(self) -> bool {
        matches!(self, Self::FinWait2 | Self::TimeWait)
    }

    /// May the service's stream be sent?
    #[must_use]
    #[inline]
    pub const fn may_send(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait)
    }

    /// Can the peer still send text?
    #[must_use]
    #[inline]
    pub const fn may_receive(self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2)
    }

    /// Has the peer's FIN been received, with all text before it?
    #[must_use]
    #[inline]
    pub const fn peer_has_closed(self) -> bool {
        matches!(self, Self::CloseWait | Self::Closing | Self::LastAck | Self::TimeWait)
    }

    /// Is the handshake still under way?
    #[must_use]
    #[inline]
    pub const fn is_half_open(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived)
    }

    /// Does an abort send RST? In the states before, the peer knows of no connection; in those after, it has closed its own
    /// (RFC 9293 section 3.10.5).
    #[must_use]
    #[inline]
    pub const fn aborts_with_rst(self) -> bool {
        matches!(
            self,
            Self::SynReceived | Self::Established | Self::FinWait1 | Self::FinWait2 | Self::CloseWait
        )
    }

    /// Is this ESTABLISHED or CLOSE-WAIT, the states that RFC 4022's tcpCurrEstab counts?
    #[must_use]
    #[inline]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Established | Self::CloseWait)
    }
}

/// Facts of a state as bits, so that one comparison shows all that a change of state changes.
impl State {
    /// [`State::is_half_open`], as a bit of [`State::traits`].
    pub(crate) const IS_HALF_OPEN: u8 = 1;
    /// [`State::is_open`], as a bit of [`State::traits`].
    pub(crate) const IS_OPEN: u8 = 2;
    /// [`State::fin_was_sent`], as a bit of [`State::traits`].
    pub(crate) const FIN_WAS_SENT: u8 = 4;
    /// [`State::fin_is_acked`], as a bit of [`State::traits`].
    pub(crate) const FIN_IS_ACKED: u8 = 8;

    const TRAITS: [u8; Self::ALL.len()] = {
        let mut traits = [0; Self::ALL.len()];
        let mut number = 0;
        while number < traits.len() {
            let state = Self::ALL[number];
            traits[number] = (state.is_half_open() as u8 * Self::IS_HALF_OPEN)
                | (state.is_open() as u8 * Self::IS_OPEN)
                | (state.fin_was_sent() as u8 * Self::FIN_WAS_SENT)
                | (state.fin_is_acked() as u8 * Self::FIN_IS_ACKED);
            number += 1;
        }
        traits
    };

    /// Returns what is true of the state, one bit a fact.
    #[inline]
    pub(crate) const fn traits(self) -> u8 {
        Self::TRAITS[self as usize]
    }
}

/// The purpose of the connection's one deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Timer {
    /// No deadline.
    #[default]
    None = 0,
    /// RFC 6298's retransmission timer, for SYN and SYN,ACK too.
    Retransmit,
    /// RFC 9293 section 3.8.6.1: the peer's window is shut.
    Persist,
    /// RFC 9293 section 3.8.6.3. It runs only while nothing of ours is out, so it never delays a retransmission.
    DelayedAck,
    /// 2 MSL in TIME-WAIT, or the wait for the peer's FIN in FIN-WAIT-2.
    Linger,
}

impl Timer {
    /// Returns the timer with this number, `None` where no timer has it.
    #[inline]
    pub(super) const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Retransmit,
            2 => Self::Persist,
            3 => Self::DelayedAck,
            4 => Self::Linger,
            _ => Self::None,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both FINs were acknowledged.
    Closed,
    /// The peer sent RST; before ESTABLISHED that is a refusal.
    ResetByPeer,
    /// We sent RST.
    ResetByUs,
    /// The peer stopped answering.
    TimedOut,
    /// The peer never answered our SYN, and a router reported that it cannot be reached.
    Unreachable,
}
