//! A server of which each answer follows from the segment that it answers, and that never loses a packet. Knows segments; never
//! time beyond `now`.

use synmill_engine::flow::FlowKey;
use synmill_engine::proto::{Flags, Options, Segment, SeqNum, Timestamps, WireWindow};
use synmill_engine::time::Instant;
use synmill_engine::wire::{self, Checks, Link, Packet};

use super::{ENGINE, PEER};

/// Something that is sent, and not yet delivered.
#[derive(Clone, Copy)]
struct Answer {
    key: FlowKey,
    segment: Segment,
    text: &'static [u8],
}

/// The server.
pub(super) struct Server {
    /// What answers an established connection's first segment, with FIN.
    response: &'static [u8],
    /// Established connections that it will leave open.
    holds: u64,
    answers: Vec<Answer>,
    random: u64,
}

impl Server {
    /// Leaves the first `holds` connections open, and closes the others: after `response`, or at once if there is none.
    pub(super) fn new(response: &'static [u8], holds: u64) -> Self {
        Self { response, holds, answers: Vec::with_capacity(super::FRAMES), random: 1 }
    }

    /// Are all connections open that stay?
    pub(super) fn holds_all(&self) -> bool {
        self.holds == 0
    }

    /// Answers that wait.
    pub(super) fn waiting(&self) -> usize {
        self.answers.len()
    }

    /// Answers a packet of the engine's, in [`Server::write`].
    ///
    /// # Panics
    /// If it is an RST, or no segment: the engine is wrong then.
    pub(super) fn hear(&mut self, packet: &[u8]) {
        let Ok(Packet::Tcp(packet)) = wire::parse(packet, Checks::default()) else {
            panic!("the engine sent what is no segment");
        };
        let heard = packet.segment;
        assert!(!heard.flags.has(Flags::RST), "the engine reset {:?}", packet.key);
        let echo = heard.options.timestamps.map_or(0, |times| times.value);
        let mut answer = Answer {
            key: packet.key,
            segment: Segment {
                seq: heard.ack,
                ack: heard.seq + u32::from(heard.text_len),
                flags: Flags::ACK,
                window: WireWindow(502),
                options: Options { timestamps: Some(Timestamps { value: 0, echo }), ..Options::NONE },
                ..Segment::default()
            },
            text: b"",
        };
        let segment = &mut answer.segment;
        if heard.flags.has(Flags::SYN) {
            segment.seq = SeqNum(heard.seq.0.wrapping_mul(0x9E37_79B1));
            segment.flags = Flags::SYN.with(Flags::ACK);
            segment.options =
                Options { mss: Some(1460), window_scale: Some(7), sack_permitted: true, ..segment.options };
            segment.ack += 1;
        } else if heard.flags.has(Flags::FIN) {
            segment.ack += 1;
        } else if self.holds > 0 {
            self.holds -= 1;
            if heard.text_len == 0 {
                return;
            }
        } else {
            segment.flags = Flags::ACK.with(Flags::FIN);
            segment.text_len = self.response.len() as u16;
            answer.text = self.response;
        }
        self.answers.push(answer);
    }

    /// Writes one of the answers that wait, whichever it is: connections are at all stages at once then.
    ///
    /// # Panics
    /// If none waits.
    pub(super) fn write(&mut self, now: Instant, frame: &mut [u8]) -> usize {
        // Xorshift (Marsaglia 2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let place = (self.random >> 32) as usize % self.answers.len();
        let Answer { key, mut segment, text } = self.answers.swap_remove(place);
        if let Some(times) = &mut segment.options.timestamps {
            times.value = now.millis().0.wrapping_add(77);
        }
        let link = Link { destination: ENGINE, source: PEER, tags: Default::default() };
        let start = wire::header_len(&link, &key, &segment.options);
        frame[start..][..text.len()].copy_from_slice(text);
        wire::emit(frame, &link, &key, &segment)
    }
}
