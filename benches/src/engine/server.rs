//! A server that never loses a packet. Each answer follows from the segment that it answers.

use synmill_engine::flow::FlowKey;
use synmill_engine::proto::{Flags, Segment, SeqNum};
use synmill_engine::time::Instant;
use synmill_engine::wire::{self, Checks, Packet};

use super::segments::{answer, write};

/// A segment that is not delivered yet.
#[derive(Clone, Copy)]
struct Answer {
    key: FlowKey,
    segment: Segment,
    text: &'static [u8],
}

/// The server.
pub(super) struct Server {
    /// The text that answers an established connection's first segment, with FIN.
    response: &'static [u8],
    /// Connections that it will leave open.
    holds: u64,
    answers: Vec<Answer>,
    random: u64,
}

impl Server {
    /// Returns a server that leaves the first `holds` connections open and closes the others, after `response` if it is not empty.
    pub(super) fn new(response: &'static [u8], holds: u64) -> Self {
        Self { response, holds, answers: Vec::with_capacity(super::FRAMES), random: 1 }
    }

    /// Whether all connections that stay are open.
    pub(super) fn holds_all(&self) -> bool {
        self.holds == 0
    }

    /// Returns the number of answers that are not delivered yet.
    pub(super) fn waiting(&self) -> usize {
        self.answers.len()
    }

    /// Takes a packet of the engine.
    ///
    /// # Panics
    /// It is an RST, or no segment: the engine is wrong.
    pub(super) fn hear(&mut self, packet: &[u8]) {
        let Ok(Packet::Tcp(packet)) = wire::parse(packet, Checks::default()) else {
            panic!("the engine sent a packet that is no segment");
        };
        let heard = packet.segment;
        assert!(!heard.flags.has(Flags::RST), "the engine reset {:?}", packet.key);
        let (mut segment, mut text) = (answer(&heard, 0), &b""[..]);
        if heard.flags.has(Flags::SYN) {
            segment.seq = SeqNum(heard.seq.0.wrapping_mul(0x9E37_79B1));
        } else if !heard.flags.has(Flags::FIN) && self.holds == 0 {
            segment.flags = Flags::ACK.with(Flags::FIN);
            text = self.response;
        } else if !heard.flags.has(Flags::FIN) {
            self.holds -= 1;
            if heard.text_len == 0 {
                return;
            }
        }
        self.answers.push(Answer { key: packet.key, segment, text });
    }

    /// Writes a random one of the answers, so that connections are at all stages at once.
    ///
    /// # Panics
    /// There is none.
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
        write(frame, &key, segment, text)
    }
}
