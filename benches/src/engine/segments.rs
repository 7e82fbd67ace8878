//! Segments of a peer that loses none, with the options of Linux.

use synmill_engine::flow::FlowKey;
use synmill_engine::proto::{Flags, Options, Segment, SeqNum, Timestamps, WireWindow};
use synmill_engine::wire::{self, Link};

use super::{ENGINE, PEER};

/// Returns a segment without text.
#[must_use]
#[inline]
pub fn segment(flags: Flags, seq: SeqNum, ack: SeqNum, times: Timestamps) -> Segment {
    let mut options = Options { timestamps: Some(times), ..Options::NONE };
    if flags.has(Flags::SYN) {
        options = Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..options };
    }
    Segment { seq, ack, flags, window: WireWindow(502), options, text_len: 0 }
}

/// Returns the segment without text that acknowledges all of `heard`; to a SYN, SYN and ACK.
#[inline]
pub(super) fn answer(heard: &Segment, time: u32) -> Segment {
    let echo = heard.options.timestamps.map_or(0, |times| times.value);
    let syn = Flags(heard.flags.0 & Flags::SYN.0);
    segment(Flags::ACK.with(syn), heard.ack, heard.end(), Timestamps { value: time, echo })
}

/// Writes a segment of the peer into a frame and returns its length.
pub(super) fn write(frame: &mut [u8], key: &FlowKey, mut segment: Segment, text: &[u8]) -> usize {
    let link = Link { destination: ENGINE, source: PEER, tags: Default::default() };
    let start = wire::header_len(&link, key, &segment.options);
    frame[start..][..text.len()].copy_from_slice(text);
    segment.text_len = text.len() as u16;
    wire::emit(frame, &link, key, &segment)
}
