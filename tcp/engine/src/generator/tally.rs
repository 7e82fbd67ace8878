//! The accounts of a trial: what became of every connection that counts. Knows causes; never how they came about.

use crate::stats::{Cell, Law};

macro_rules! tally {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// One worker's accounts, written by it alone and read by anybody.
        #[derive(Debug, Default)]
        pub struct Tally {
            $($(#[doc = $doc])+ pub $name: Cell,)+
        }

        /// Accounts at a moment, of one worker or of several.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Totals {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Tally {
            /// All values at this moment; sums close only when the writer has stopped.
            #[must_use]
            pub fn totals(&self) -> Totals {
                Totals { $($name: self.$name.get(),)+ }
            }

            /// A new trial begins.
            pub fn clear(&self) {
                $(self.$name.set(0);)+
            }
        }

        impl Totals {
            /// Adds another worker's.
            pub fn merge(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }
        }
    };
}

tally! {
    /// Connections whose SYN was sent, and whose intended start lies in the time that counts.
    started,
    /// Handshakes completed.
    established,
    /// Handshakes answered with RST.
    refused,
    /// Handshakes not completed in time.
    connect_timed_out,
    /// Handshakes whose peer, or the way to it, was reported unreachable (ICMP).
    unreachable,
    /// Handshakes under way when the trial ended.
    connect_cut,
    /// Established connections that did all they were meant to, with both FINs acknowledged (or our RST sent, with `--close rst`).
    closed,
    /// Established connections that the peer reset.
    reset_by_peer,
    /// Established connections that we reset, because what the peer said was not what was to be said.
    bad_response,
    /// Established connections whose peer did not answer in time.
    timed_out,
    /// Established connections under way when the trial ended.
    cut,
    /// Requests begun.
    requests_started,
    /// Requests answered whole.
    requests_done,
    /// SYNs sent for the first time in the time that counts.
    started_in_time,
    /// Handshakes completed in the time that counts, of whatever connection.
    established_in_time,
    /// Connections that ended, in whatever way, in the time that counts.
    ended_in_time,
    /// Requests answered whole in the time that counts, over whatever connection.
    requests_in_time,
    /// Answers whose HTTP status was not 2xx or 3xx; they are done all the same.
    http_errors,
    /// Connections that were due in the time that counts, and whose SYN was never sent.
    not_started,
    /// Times that a connection was due and no tuple was out of its TIME-WAIT.
    tuples_short,
    /// Times that a connection was due and the table was full.
    table_full,
}

impl Totals {
    /// Connections that did not do all they were meant to, those cut at the end included.
    #[must_use]
    pub const fn failed(&self) -> u64 {
        self.refused
            + self.connect_timed_out
            + self.unreachable
            + self.connect_cut
            + self.reset_by_peer
            + self.bad_response
            + self.timed_out
            + self.cut
    }

    /// The accounts: each holds once the trial is over.
    ///
    /// - started = established + refused + timed out + unreachable + cut, before the handshake was complete;
    /// - established = closed + reset + bad response + timed out + cut.
    #[must_use]
    pub const fn laws(&self) -> [Law; 2] {
        [
            Law {
                name: "started",
                left: self.started,
                right: self.established
                    + self.refused
                    + self.connect_timed_out
                    + self.unreachable
                    + self.connect_cut,
            },
            Law {
                name: "established",
                left: self.established,
                right: self.closed + self.reset_by_peer + self.bad_response + self.timed_out + self.cut,
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_in_one_account() {
        let totals = Totals {
            started: 9,
            established: 5,
            refused: 1,
            connect_timed_out: 1,
            unreachable: 1,
            connect_cut: 1,
            closed: 1,
            reset_by_peer: 1,
            bad_response: 1,
            timed_out: 1,
            cut: 1,
            ..Totals::default()
        };
        assert!(totals.laws().iter().all(Law::holds));
        assert_eq!(totals.failed(), 8);
        let wrong = Totals { started: 8, ..totals };
        assert!(!wrong.laws()[0].holds());
    }
}
