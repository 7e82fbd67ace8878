//! Scripts against the services of this crate.

use super::*;
use crate::random::Random;
use crate::service::driver::{Conversation, send};
use crate::service::{Echo, Http, Service};

/// A script and a service in memory. Each takes and acknowledges the other's text in random pieces.
struct Talk<'a, S> {
    script: &'a Script,
    progress: Progress,
    outcome: Outcome,
    service: Conversation<'a, S>,
    random: Random,
    /// The client's stream from its first unacknowledged byte, and how many of these bytes the service has got.
    said: Vec<u8>,
    given: usize,
    /// The bytes of the service's stream that the client has heard.
    heard: usize,
}

impl<'a, S: Service> Talk<'a, S> {
    fn open(script: &'a Script, service: &'a S, seed: u64) -> Self {
        let service = Conversation::open(service, seed);
        let (mut progress, mut outcome) = (Progress::default(), Outcome::default());
        outcome.add(script.opened(&mut progress));
        let (random, said) = (Random(seed), Vec::new());
        Self { script, progress, outcome, service, random, said, given: 0, heard: 0 }
    }

    /// The client sends a piece, retransmits some of it, and the service gets some.
    fn ask(&mut self) -> bool {
        let Pending { bytes, then } = self.script.pending(&self.progress, false);
        if then == Then::Reset {
            return false;
        }
        let write = |at, into: &mut [u8]| self.script.write(&self.progress, at, into);
        if send(&mut self.said, 0, bytes as usize, 900, &mut self.random, write) == 0 {
            return false;
        }
        let end = self.said.len() - self.random.below((self.said.len() - self.given) as u64) as usize;
        self.service.say(&self.said[self.given..end]);
        self.given = end;
        true
    }

    /// The service acknowledges the bytes that it has taken, then sends a piece of the answer.
    fn answer(&mut self) -> bool {
        let taken = self.given - self.service.untaken();
        if taken > 0 {
            self.outcome.add(self.script.acked(&mut self.progress, taken as u64));
            self.said.drain(..taken);
            self.given -= taken;
        }
        let sent = self.service.turn();
        let fresh = &self.service.stream()[self.heard..];
        let piece = &fresh[..fresh.len().min(1 + self.random.below(1500) as usize)];
        self.heard += piece.len();
        self.outcome.add(self.script.heard(&mut self.progress, piece));
        taken > 0 || sent || !piece.is_empty()
    }

    fn run(&mut self) -> (Outcome, Then) {
        while self.ask() | self.answer() {}
        (self.outcome, self.service.then())
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
