//! Scripts against the services of this crate.

use super::*;
use crate::service::random::Random;
use crate::service::{Echo, Http, Memo, Service, Taken};

/// A script and a service in memory. Each takes and acknowledges the other's text in random pieces.
struct Talk<'a, S> {
    script: &'a Script,
    progress: Progress,
    service: &'a S,
    memo: Memo,
    outcome: Outcome,
    random: Random,
    /// The client's stream from its first unacknowledged byte, and how many of these bytes the service has taken.
    said: Vec<u8>,
    taken: usize,
    /// The bytes that the service sends back and the client has not heard yet.
    echo: Vec<u8>,
}

impl<'a, S: Service> Talk<'a, S> {
    fn open(script: &'a Script, service: &'a S, seed: u64) -> Self {
        let (mut progress, mut memo, mut outcome) =
            (Progress::default(), Memo::default(), Outcome::default());
        service.on_open(&mut memo);
        outcome.add(script.opened(&mut progress));
        let (random, said, echo) = (Random::new(seed), Vec::new(), Vec::new());
        Self { script, progress, service, memo, outcome, random, said, taken: 0, echo }
    }

    /// The client sends a piece, retransmits some of it, and the service takes some.
    fn ask(&mut self) -> bool {
        let Pending { bytes, then } = self.script.pending(&self.progress, false);
        if then == Then::Reset {
            return false;
        }
        let ready = bytes as usize;
        assert!(self.said.len() <= ready, "bytes said are no longer pending");
        let fresh = (ready - self.said.len()).min(1 + self.random.below(900));
        let mut piece = vec![0xEE; fresh];
        self.script.write(&self.progress, self.said.len() as u64, &mut piece);
        self.said.append(&mut piece);
        if self.said.is_empty() {
            return false;
        }
        let from = self.random.below(self.said.len());
        let mut again = vec![0xEE; 1 + self.random.below(self.said.len() - from)];
        self.script.write(&self.progress, from as u64, &mut again);
        assert!(again == self.said[from..][..again.len()], "a retransmission differs at {from}");
        let end = self.said.len() - self.random.below(self.said.len() - self.taken);
        if end > self.taken {
            let offered = &self.said[self.taken..end];
            match self.service.on_data(&mut self.memo, offered) {
                Taken::Bytes(bytes) => self.taken += bytes,
                Taken::Echo => {
                    self.echo.extend_from_slice(offered);
                    self.taken = end;
                }
            }
        }
        true
    }

    /// The service acknowledges the taken bytes, then sends a piece of the answer.
    fn answer(&mut self) -> bool {
        let taken = std::mem::take(&mut self.taken);
        if taken > 0 {
            self.outcome.add(self.script.acked(&mut self.progress, taken as u64));
            self.said.drain(..taken);
        }
        let bytes = self.service.pending(&self.memo).bytes as usize;
        let len = (bytes + self.echo.len()).min(1 + self.random.below(1500));
        let mut piece: Vec<u8> = self.echo.drain(..len.min(self.echo.len())).collect();
        if piece.is_empty() {
            piece.resize(len, 0xEE);
            self.service.write(&self.memo, 0, &mut piece);
            self.service.on_acked(&mut self.memo, len as u64);
        }
        self.outcome.add(self.script.heard(&mut self.progress, &piece));
        taken > 0 || !piece.is_empty()
    }

    fn run(&mut self) -> (Outcome, Then) {
        while self.ask() | self.answer() {}
        (self.outcome, self.service.pending(&self.memo).then)
    }
}

#[test]
fn with_the_services_of_this_crate() {
    for requests in (1..100).step_by(7).chain([2, 100]) {
        let want = Outcome { first_byte: 1, started: requests, done: requests, ..Outcome::default() };
        for close in [CloseBy::Fin, CloseBy::Peer] {
            for size in [0, 1, 1024, 5000] {
                let script = Script::http("a", "/", None, Some(size), requests, close);
                let service = Http::of_size(size);
                let mut talk = Talk::open(&script, &service, u64::from(requests) + size);
                let (outcome, then) = talk.run();
                assert_eq!(outcome, want, "{requests} of {size} bytes");
                let closes = if close == CloseBy::Peer { Then::Close } else { Then::Wait };
                assert_eq!(then, closes, "the last request asks for what is wanted");
                let ours = if close == CloseBy::Peer { Then::CloseAfterPeer } else { Then::Close };
                assert_eq!(script.pending(&talk.progress, false), Pending { bytes: 0, then: ours });
                if close == CloseBy::Peer {
                    assert_eq!(script.peer_closed(&mut talk.progress), Heard::default());
                }
                assert!(script.is_complete(&talk.progress));
            }
        }
        for size in [1, 64, 2000] {
            let script = Script::request(Payload::Pattern(size), size, requests, CloseBy::Fin);
            let mut talk = Talk::open(&script, &Echo, u64::from(requests) + size);
            assert_eq!(talk.run().0, want, "{requests} echoes of {size} bytes");
            assert!(script.is_complete(&talk.progress));
        }
    }
}

#[test]
fn an_error_is_an_answer() {
    let script = Script::http("a", "/", Some(Payload::Pattern(0)), Some(9), 1, CloseBy::Fin);
    let want = Outcome { first_byte: 1, started: 1, done: 1, errors: 1, bad: None };
    assert_eq!(Talk::open(&script, &Http::of_size(9), 1).run().0, want, "POST is not allowed there");
    let script = Script { requests: 2, ..script };
    let want = Outcome { bad: Some(Bad::Unanswered), ..want };
    assert_eq!(Talk::open(&script, &Http::of_size(9), 1).run().0, want);
}
