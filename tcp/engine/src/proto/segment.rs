//! A segment's header as a value, RFC 9293 section 3.1, in either direction. The text stays in its frame: only its length is here.

use std::fmt;

use super::{SackBlocks, SeqNum};

/// The control bits, RFC 9293 section 3.1.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number means something.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer means something.
    pub const URG: Self = Self(0x20);

    /// The answer to a SYN.
    pub const SYN_ACK: Self = Self::SYN.with(Self::ACK);
    /// FIN, which rides on an acknowledgement.
    pub const FIN_ACK: Self = Self::FIN.with(Self::ACK);
    /// RST with an acknowledgement.
    pub const RST_ACK: Self = Self::RST.with(Self::ACK);
    /// Text that ends a write.
    pub const PSH_ACK: Self = Self::PSH.with(Self::ACK);

    /// Are all of `flags` set?
    #[must_use]
    #[inline]
    pub const fn has(self, flags: Self) -> bool {
        self.0 & flags.0 == flags.0
    }

    /// Is one of `flags` set?
    #[must_use]
    #[inline]
    pub const fn has_any(self, flags: Self) -> bool {
        self.0 & flags.0 != 0
    }

    /// Returns these and `flags` too.
    #[must_use]
    #[inline]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

impl fmt::Debug for Flags {
    /// Writes the flags as tcpdump shows them: `S`, `S.`, `P.`, `F.`, `R`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, letter) in [
            (Self::FIN, "F"),
            (Self::SYN, "S"),
            (Self::RST, "R"),
            (Self::PSH, "P"),
            (Self::URG, "U"),
            (Self::ACK, "."),
        ] {
            if self.has(flag) {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

/// A window as the header carries it: not yet scaled (RFC 7323 section 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct WireWindow(pub u16);

impl WireWindow {
    /// Returns the window in bytes, under a shift of `scale` bits.
    #[must_use]
    #[inline]
    pub const fn bytes(self, scale: u8) -> u32 {
        (self.0 as u32) << scale
    }
}

/// The timestamps option, RFC 7323 section 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: the last TSval the sender has seen.
    pub echo: u32,
}

/// The options that synmill knows. The receiver skips all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size in bytes, on SYN only (RFC 9293 section 3.7.1).
    pub mss: Option<u16>,
    /// Window shift in bits, at most 14, on SYN only (RFC 7323 section 2.2).
    pub window_scale: Option<u8>,
    /// Selective acknowledgement permitted, on SYN only (RFC 2018 section 2).
    pub sack_permitted: bool,
    /// RFC 7323 section 3.2.
    pub timestamps: Option<Timestamps>,
    /// Never on SYN (RFC 2018 section 3).
    pub sack: SackBlocks,
}

impl Options {
    /// Are these the options of nearly every segment but the SYN: timestamps, or none?
    #[inline]
    pub(crate) const fn are_common(&self) -> bool {
        self.mss.is_none() && self.window_scale.is_none() && !self.sack_permitted && self.sack.is_empty()
    }

    /// Removes all options. Old SACK blocks stay in memory and do not count.
    #[inline]
    pub const fn clear(&mut self) {
        self.mss = None;
        self.window_scale = None;
        self.sack_permitted = false;
        self.timestamps = None;
        self.sack.clear();
    }

    /// No option.
    pub const NONE: Self = Self {
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        sack: SackBlocks::NONE,
    };
}

/// A segment's header and the length of its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// SEG.SEQ
    pub seq: SeqNum,
    /// SEG.ACK; means something only with [`Flags::ACK`].
    pub ack: SeqNum,
    /// The control bits.
    pub flags: Flags,
    /// SEG.WND, unscaled.
    pub window: WireWindow,
    /// Bytes of text.
    pub text_len: u16,
    /// The options.
    pub options: Options,
}

impl Segment {
    /// Returns SEG.LEN: how many sequence numbers the segment takes, SYN and FIN included (RFC 9293 section 3.3.1).
    #[must_use]
    #[inline]
    pub const fn len(&self) -> u32 {
        self.text_len as u32 + self.flags.has(Flags::SYN) as u32 + self.flags.has(Flags::FIN) as u32
    }

    /// Does it take no sequence number?
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number after the segment's last one.
    #[must_use]
    #[inline]
    pub fn end(&self) -> SeqNum {
        self.seq + self.len()
    }
}
