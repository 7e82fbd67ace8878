//! One connection in memory, for the tests of services.

use super::contract::{Memo, Service, Taken, Then};
use crate::random::Random;

/// A client of a service. It offers text, takes the service's stream in random pieces, acknowledges random amounts, and checks that
/// every retransmitted byte equals the first one.
pub(crate) struct Conversation<'a, S> {
    service: &'a S,
    memo: Memo,
    /// The client's text that the service has not taken.
    offered: Vec<u8>,
    /// The service's stream so far, from its first byte on.
    stream: Vec<u8>,
    acked: usize,
    /// The service has returned [`Taken::Echo`].
    echoed: bool,
    closed: bool,
    random: Random,
}

impl<'a, S: Service> Conversation<'a, S> {
    /// Returns an established connection. The pieces depend on `seed`.
    pub(crate) fn open(service: &'a S, seed: u64) -> Self {
        let mut memo = Memo::default();
        service.on_open(&mut memo);
        let (offered, stream, random) = (Vec::new(), Vec::new(), Random(seed));
        Self { service, memo, offered, stream, acked: 0, echoed: false, closed: false, random }
    }

    /// The client says `text`.
    pub(crate) fn say(&mut self, text: &[u8]) {
        self.offered.extend_from_slice(text);
        self.offer();
    }

    /// The client closes. The service hears of it once it has taken all text.
    pub(crate) fn close(&mut self) {
        self.closed = true;
        self.offer();
    }

    /// Returns the number of bytes that the service has not taken.
    pub(crate) fn untaken(&self) -> usize {
        self.offered.len()
    }

    fn offer(&mut self) {
        if !self.offered.is_empty() {
            match self.service.on_data(&mut self.memo, &self.offered) {
                Taken::Bytes(n) => {
                    let refused = n < self.offered.len();
                    assert!(!refused || self.pending() > 0, "text refused and no acknowledgement to come");
                    self.offered.drain(..n);
                }
                Taken::Echo => {
                    self.echoed = true;
                    self.stream.append(&mut self.offered);
                }
            }
        }
        if self.offered.is_empty() && self.closed {
            self.closed = false;
            self.service.on_peer_closed(&mut self.memo);
        }
    }

    fn pending(&self) -> u64 {
        self.service.pending(&self.memo).bytes
    }

    /// Takes the next piece of the stream, takes an old one again, and acknowledges some bytes. Returns false when there was nothing to
    /// do.
    pub(crate) fn turn(&mut self) -> bool {
        let ready = self.pending() as usize;
        if self.echoed {
            assert_eq!(ready, 0, "an echo has no bytes of its own");
            return false;
        }
        let write = |at, into: &mut [u8]| self.service.write(&self.memo, at, into);
        let sent = send(&mut self.stream, self.acked, ready, 3000, &mut self.random, write);
        if sent == 0 {
            return false;
        }
        // Now and then everything, so that runs end.
        let acked =
            if self.random.below(4) == 0 { sent } else { self.random.below(sent as u64 + 1) as usize };
        if acked > 0 {
            self.service.on_acked(&mut self.memo, acked as u64);
            self.acked += acked;
            self.offer();
        }
        true
    }

    /// Returns the service's stream so far.
    pub(crate) fn stream(&self) -> &[u8] {
        &self.stream
    }

    /// Returns the action after the stream.
    pub(crate) fn then(&self) -> Then {
        self.service.pending(&self.memo).then
    }

    /// Runs until the whole stream is acknowledged. Returns the stream since the opening, and the action after it.
    pub(crate) fn run(&mut self) -> (Vec<u8>, Then) {
        for _ in 0..1_000_000 {
            if !self.turn() {
                return (self.stream.clone(), self.then());
            }
        }
        panic!("the conversation does not end");
    }
}

/// Appends a piece of at most `most` bytes to `stream`, whose first `acked` bytes are acknowledged and of which `ready` more are
/// pending. Retransmits some of the unacknowledged bytes, and checks that they are equal. Returns how many bytes are unacknowledged.
pub(crate) fn send(
    stream: &mut Vec<u8>,
    acked: usize,
    ready: usize,
    most: u64,
    random: &mut Random,
    write: impl Fn(u64, &mut [u8]),
) -> usize {
    let sent = stream.len() - acked;
    assert!(sent <= ready, "bytes sent are no longer pending");
    let mut piece = vec![0xEE; (ready - sent).min(1 + random.below(most) as usize)];
    write(sent as u64, &mut piece);
    stream.append(&mut piece);
    let unacked = &stream[acked..];
    if !unacked.is_empty() {
        let from = random.below(unacked.len() as u64) as usize;
        let mut again = vec![0xEE; 1 + random.below((unacked.len() - from) as u64) as usize];
        write(from as u64, &mut again);
        assert!(again == unacked[from..][..again.len()], "a retransmission differs at {from}");
    }
    unacked.len()
}
