//! Packets other than TCP: ARP, neighbour discovery and echo for owned addresses, and ICMP errors about connections.

use super::application::Application;
use super::core::Endpoint;
use super::outbox::Outbox;
use super::work::Fate;
use crate::device::Frame;
use crate::flow::Address;
use crate::proto::{End, State};
use crate::stats::{Cell, DropReason};
use crate::time::Instant;
use crate::wire::{self, Packet, Unreachable};

impl<A: Application> Endpoint<A> {
    /// Handles a frame that holds no segment, or a bad one.
    #[cold]
    pub(super) fn on_other(
        &mut self,
        mut frame: Frame,
        parsed: Result<Option<Packet>, DropReason>,
        handed: bool,
        now: Instant,
        out: &mut Outbox,
    ) {
        if let Ok(Some(Packet::Unreachable(unreachable))) = &parsed {
            let fate = self.on_unreachable(frame, unreachable, handed, now, out);
            self.count(&fate);
            return;
        }
        let (fate, len) = self.on_control(&mut frame, parsed);
        self.count(&fate);
        if len > 0 {
            frame.set_len(len);
            out.transmit.push(frame);
        } else {
            out.recycle.push(frame);
        }
    }

    /// Answers ARP, neighbour solicitations and echo requests for owned addresses in the received frame. Returns the frame's fate and the
    /// length of the answer.
    fn on_control(&self, frame: &mut Frame, parsed: Result<Option<Packet>, DropReason>) -> (Fate, usize) {
        let room = frame.capacity();
        let len = frame.len();
        let not_ours = (Fate::Dropped(DropReason::NotOurs), 0);
        match parsed {
            Ok(Some(Packet::ArpRequest(request))) if self.owns(&request.target) => {
                frame.set_len(room);
                let len = wire::answer_arp(frame, &request, self.mac);
                self.answered(&self.counters.neighbour_answers, len)
            }
            Ok(Some(Packet::NeighbourSolicitation(solicitation))) if self.owns(&solicitation.target) => {
                frame.set_len(room);
                let len = wire::answer_neighbour(frame, &solicitation, self.mac);
                self.answered(&self.counters.neighbour_answers, len)
            }
            Ok(Some(Packet::EchoRequest(request))) if self.owns(&request.destination) => {
                frame.set_len(len);
                let len = wire::answer_echo(frame, &request);
                self.answered(&self.counters.echo_answers, len)
            }
            Ok(_) => not_ours,
            Err(reason) => {
                if matches!(
                    reason,
                    DropReason::TcpHeader
                        | DropReason::TcpOptions
                        | DropReason::TcpChecksum
                        | DropReason::PortZero
                ) {
                    self.counters.in_errs.add(1);
                }
                (Fate::Dropped(reason), 0)
            }
        }
    }

    /// Handles a router's report that a segment did not arrive. Its connection may be another worker's.
    fn on_unreachable(
        &mut self,
        frame: Frame,
        unreachable: &Unreachable,
        handed: bool,
        now: Instant,
        out: &mut Outbox,
    ) -> Fate {
        let hash = self.hasher.hash(&unreachable.key);
        let fate = if unreachable.link.destination != self.mac {
            Fate::Dropped(DropReason::NotOurs)
        } else if let Some(slot) = self.find(&unreachable.key, hash) {
            self.on_connection_unreachable(slot, unreachable, now, out)
        } else if !handed && let Some(worker) = self.sibling_with(&unreachable.key, hash) {
            out.hand_over.push((worker, frame));
            return Fate::HandedOut;
        } else {
            Fate::Dropped(DropReason::NoConnection)
        };
        out.recycle.push(frame);
        fate
    }

    /// Believes the report only about a segment in flight (RFC 5927 section 4.1). It ends a connection whose SYN has no answer yet,
    /// whatever its code, as in Linux. Later it is a soft error: retransmission decides (RFC 9293 section 3.9.2.2, RFC 5461).
    fn on_connection_unreachable(
        &mut self,
        slot: u32,
        unreachable: &Unreachable,
        now: Instant,
        out: &mut Outbox,
    ) -> Fate {
        let current = self.current(slot);
        let fate = if !unreachable.seq.is_within(current.tcb.snd_una(), current.tcb.flight()) {
            Fate::Dropped(DropReason::IcmpOutOfWindow)
        } else if current.tcb.state() == State::SynSent {
            self.end(current, End::Unreachable, now, out);
            return Fate::Absorbed;
        } else {
            self.counters.in_soft_errors.add(1);
            Fate::Absorbed
        };
        self.put_back(current);
        fate
    }

    fn answered(&self, counter: &Cell, len: usize) -> (Fate, usize) {
        if len == 0 {
            return (Fate::Dropped(DropReason::Malformed), 0);
        }
        counter.add(1);
        (Fate::Answered, len)
    }

    /// Does only synmill have this address?
    pub(super) fn owns(&self, address: &Address) -> bool {
        self.owned.iter().any(|prefix| prefix.contains(*address))
    }
}
