//! What is not TCP: ARP, neighbour discovery and echo for addresses of our own. Knows who owns an address; never a connection.

use super::{Application, Endpoint, Fate};
use crate::device::Frame;
use crate::flow::Address;
use crate::stats::{Cell, DropReason};
use crate::wire::{self, Packet};

/// Bits of an IPv4 address's mapped form in front of it.
const MAPPED_PREFIX_LEN: u8 = 96;

impl<A: Application> Endpoint<A> {
    /// What is not TCP, or not well: ARP, neighbour discovery and echo, answered in the frame for addresses of our own.
    pub(super) fn on_control(&self, frame: &mut Frame, parsed: Result<Packet, DropReason>) -> (Fate, usize) {
        let room = frame.capacity();
        let len = frame.len();
        let not_ours = (Fate::Dropped(DropReason::NotOurs), 0);
        match parsed {
            Ok(Packet::ArpRequest(request)) if self.owns(&request.target) => {
                frame.set_len(room);
                let len = wire::answer_arp(frame, &request, self.mac);
                self.answered(&self.counters.neighbour_answers, len)
            }
            Ok(Packet::NeighbourSolicitation(solicitation)) if self.owns(&solicitation.target) => {
                frame.set_len(room);
                let len = wire::answer_neighbour(frame, &solicitation, self.mac);
                self.answered(&self.counters.neighbour_answers, len)
            }
            Ok(Packet::EchoRequest(request)) if self.owns(&request.destination) => {
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

    fn answered(&self, counter: &Cell, len: usize) -> (Fate, usize) {
        if len == 0 {
            return (Fate::Dropped(DropReason::Malformed), 0);
        }
        counter.add(1);
        (Fate::Answered, len)
    }

    /// Is it an address that only synmill has?
    pub(super) fn owns(&self, address: &Address) -> bool {
        self.owned.iter().any(|&(prefix, len)| {
            prefix.shares_prefix(address, if prefix.is_v4() { MAPPED_PREFIX_LEN + len } else { len })
        })
    }
}
