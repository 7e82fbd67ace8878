//! A segment's header as a value, RFC 9293 section 3.1, in either direction. Its text stays where it is; only the length is here.

use std::fmt;

use super::SeqNum;

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

    /// These and `flags` too.
    #[must_use]
    #[inline]
    pub const fn with(self, flags: Self) -> Self {
        Self(self.0 | flags.0)
    }
}

impl fmt::Debug for Flags {
    /// As tcpdump shows them: `S`, `S.`, `P.`, `F.`, `R`.
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
    /// In bytes, under a shift of `scale` bits.
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

/// Blocks of numbers received beyond the acknowledgement, RFC 2018 section 3: each its first number and the one after its last.
#[derive(Clone, Copy, Default)]
pub struct SackBlocks {
    blocks: [(SeqNum, SeqNum); Self::MOST],
    len: u8,
}

impl PartialEq for SackBlocks {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for SackBlocks {}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

impl SackBlocks {
    /// As many as fit beside timestamps.
    pub const MOST: usize = 3;
    /// None.
    pub const NONE: Self = Self { blocks: [(SeqNum(0), SeqNum(0)); Self::MOST], len: 0 };

    /// The blocks.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[(SeqNum, SeqNum)] {
        &self.blocks[..usize::from(self.len)]
    }

    /// Is there none?
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds one, as long as there is room.
    pub fn push(&mut self, start: SeqNum, end: SeqNum) {
        if let Some(block) = self.blocks.get_mut(usize::from(self.len)) {
            *block = (start, end);
            self.len += 1;
        }
    }
}

/// The options that synmill knows. Unknown ones are skipped on receipt.
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
    /// Are they what nearly every segment but the SYN carries: timestamps, or none?
    #[inline]
    pub(crate) const fn are_common(&self) -> bool {
        self.mss.is_none() && self.window_scale.is_none() && !self.sack_permitted && self.sack.is_empty()
    }

    /// Takes all options away. Old SACK blocks stay where they are and count no more.
    #[inline]
    pub const fn clear(&mut self) {
        self.mss = None;
        self.window_scale = None;
        self.sack_permitted = false;
        self.timestamps = None;
        self.sack.len = 0;
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
    /// SEG.UP; means something only with [`Flags::URG`].
    pub urgent: u16,
    /// Bytes of text.
    pub text_len: u16,
    /// The options.
    pub options: Options,
}

impl Segment {
    /// SEG.LEN: sequence numbers the segment takes, SYN and FIN counted (RFC 9293 section 3.3.1).
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

    /// The number after the segment's last one.
    #[must_use]
    #[inline]
    pub fn end(&self) -> SeqNum {
        self.seq + self.len()
    }
}
