//! The accounts of a trial: the end of every connection that counts.

use crate::stats::{Law, cells};

cells! {
    /// One worker's accounts, written by that worker alone and read by any thread.
    Tally => totals() ->
    /// The accounts of one or several workers at one moment.
    Totals {
        /// Connections whose SYN was sent, and whose intended start lies in the measured time.
        started,
        /// Handshakes completed.
        established,
        /// Handshakes answered with RST.
        refused,
        /// Handshakes not completed in time.
        connect_timed_out,
        /// Handshakes whose peer, or the path to it, was reported unreachable (ICMP).
        unreachable,
        /// Handshakes under way when the trial ended.
        connect_cut,
        /// Established connections that did all their work, with both FINs acknowledged (with `--close rst`: our RST sent).
        closed,
        /// Established connections that the peer reset.
        reset_by_peer,
        /// Established connections that this end reset because the peer's text was not the expected one.
        bad_response,
        /// Established connections whose peer did not answer in time.
        timed_out,
        /// Established connections under way when the trial ended.
        cut,
        /// Requests begun.
        requests_started,
        /// Requests answered whole.
        requests_done,
        /// First SYNs sent in the measured time.
        started_in_time,
        /// Handshakes completed in the measured time, of any connection.
        established_in_time,
        /// Connections that ended in the measured time, in whatever way.
        ended_in_time,
        /// Requests answered whole in the measured time, over any connection.
        requests_in_time,
        /// Responses whose HTTP status was not 2xx or 3xx. `requests_done` counts them too.
        http_errors,
        /// Connections due in the measured time whose SYN was never sent.
        not_started,
        /// Times that a connection was due and every tuple was in its TIME-WAIT.
        tuples_short,
        /// Times that a connection was due and the table was full.
        table_full,
    }
}

impl Totals {
    /// Returns the number of connections that did not do all their work, including those cut at the end.
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

    /// Returns the accounts. Each holds once the trial is over.
    ///
    /// - started = established + refused + timed out + unreachable + cut before the handshake was complete;
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
