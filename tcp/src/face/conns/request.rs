//! A request: which connections to list, in which order, and how many of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use synmill_engine::endpoint::View;
use synmill_engine::flow::Prefix;
use synmill_engine::proto::State;

/// Maximum number of prefixes in a request.
pub const MOST_PEERS: usize = 64;
/// Maximum length of a list with an order. The endpoint holds such a list until it is complete.
pub const MOST_TOP: usize = 100_000;

/// The request of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// List connections in one of these states; in any state if empty.
    pub states: Vec<StateName>,
    /// List connections whose peer is in one of these prefixes; with any peer if empty.
    pub peers: Vec<Prefix>,
    /// List the first connections in an order; without it all connections, in the order of workers and slots.
    pub top: Option<Top>,
}

/// A number of connections in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Top {
    /// Maximum number of connections.
    pub count: usize,
    /// The order.
    pub sort: Sort,
}

/// An order of connections, the greatest value first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Segments retransmitted.
    #[default]
    Retransmissions,
    /// Sequence numbers sent and not acknowledged.
    Unacked,
    /// Smoothed round-trip time.
    Rtt,
    /// Time since the connection was opened.
    Age,
}

/// A connection's value in an order, then its age in nanoseconds. The greatest comes first.
pub(super) type Rank = (u64, u128);

impl Sort {
    /// Returns the rank of a connection in this order.
    pub(super) fn rank(self, view: &View) -> Rank {
        let value = match self {
            Self::Retransmissions => view.retransmissions.into(),
            Self::Unacked => (view.snd_nxt - view.snd_una).into(),
            Self::Rtt => view.rtt_us.map_or(0, |[smoothed, _]| smoothed.into()),
            Self::Age => 0,
        };
        (value, view.age.as_nanos())
    }
}

impl Request {
    /// Checks the limits of the request.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub fn check(&self) -> Result<(), String> {
        if self.peers.len() > MOST_PEERS {
            return Err(format!("--peer: {} prefixes: give at most {MOST_PEERS}", self.peers.len()));
        }
        match self.top {
            Some(Top { count, .. }) if !(1..=MOST_TOP).contains(&count) => {
                Err(format!("--top {count}: give a number from 1 to {MOST_TOP}"))
            }
            _ => Ok(()),
        }
    }

    /// Does the connection match the request?
    #[must_use]
    pub fn wants(&self, view: &View) -> bool {
        let is_in = |state: &StateName| state.0 == view.state;
        let is_from = |peer: &Prefix| peer.contains(view.key.remote);
        (self.states.is_empty() || self.states.iter().any(is_in))
            && (self.peers.is_empty() || self.peers.iter().any(is_from))
    }
}

/// A state by its name in RFC 9293. A listed connection is never in CLOSED or LISTEN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StateName(pub State);

/// Names of `ss` that differ from those of RFC 9293.
const SHORT: [(&str, State); 2] = [("estab", State::Established), ("synrecv", State::SynReceived)];

/// Returns a name in lower case and without hyphens and underscores.
fn bare(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// Returns the states of a connection.
fn states() -> impl Iterator<Item = State> {
    State::ALL.into_iter().filter(|&state| state != State::Closed)
}

impl FromStr for StateName {
    type Err = String;

    /// Parses `ESTABLISHED`, `time-wait`, and the names of `ss`.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = bare(text);
        let short = SHORT.into_iter().find(|(short, _)| *short == name).map(|(_, state)| state);
        short.or_else(|| states().find(|state| bare(state.name()) == name)).map(Self).ok_or_else(|| {
            let names: Vec<String> = states().map(|state| state.name().to_ascii_lowercase()).collect();
            format!("no state of a connection: give one of {}", names.join(", "))
        })
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl From<StateName> for String {
    fn from(state: StateName) -> Self {
        state.to_string()
    }
}

impl TryFrom<String> for StateName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|line| format!("{text}: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::view;
    use super::*;
    use synmill_engine::proto::SeqNum;

    fn request(states: &[&str], peers: &[&str]) -> Request {
        Request {
            states: states.iter().map(|state| state.parse().unwrap()).collect(),
            peers: peers.iter().map(|peer| peer.parse().unwrap()).collect(),
            top: None,
        }
    }

    #[test]
    fn a_state_has_the_rfcs_name_and_the_one_of_ss() {
        for state in states() {
            let name = state.name();
            for name in [name.to_owned(), name.to_lowercase(), name.replace('-', "_")] {
                assert_eq!(name.parse(), Ok(StateName(state)), "{name}");
            }
        }
        let of_ss = ["estab", "syn-recv", "fin-wait1"].map(|name| name.parse::<StateName>().unwrap().0);
        assert_eq!(of_ss, [State::Established, State::SynReceived, State::FinWait1]);
        for name in ["", "closed", "listen", "open", "ESTABLISHED "] {
            let line = name.parse::<StateName>().expect_err(name);
            assert!(line.contains("established") && line.contains("time-wait"), "{name}: {line}");
            assert!(!line.contains("closed"), "{line}");
        }
    }

    #[test]
    fn a_connection_is_wanted_by_state_and_by_peer() {
        let open = view(1, State::Established, "198.18.0.2:80", "198.18.0.1:1024");
        let over = view(2, State::TimeWait, "[fd00:18::2]:80", "[fd00:18::1]:1024");
        let table: [(&[&str], &[&str], [bool; 2]); 10] = [
            (&[], &[], [true, true]),
            (&["established"], &[], [true, false]),
            (&["time-wait", "closing"], &[], [false, true]),
            (&["time-wait", "estab"], &[], [true, true]),
            (&["syn-sent"], &[], [false, false]),
            (&[], &["198.18.0.0/24"], [true, false]),
            (&[], &["198.18.1.0/24"], [false, false]),
            (&[], &["198.18.0.1", "fd00:18::/64"], [true, true]),
            (&[], &["0.0.0.0/0"], [true, false]),
            (&["established"], &["::/0"], [false, false]),
        ];
        for (states, peers, expected) in table {
            let request = request(states, peers);
            assert_eq!([&open, &over].map(|view| request.wants(view)), expected, "{request:?}");
        }
    }

    #[test]
    fn each_order_has_its_first() {
        let plain = || view(1, State::Established, "198.18.0.2:80", "198.18.0.1:1024");
        let older = View { age: Duration::from_secs(90), ..plain() };
        let again = View { retransmissions: 1, ..plain() };
        let busy = View { snd_una: SeqNum(u32::MAX), snd_nxt: SeqNum(9), ..plain() };
        let far = View { rtt_us: Some([80_000, 1]), ..plain() };
        for (sort, first) in
            [(Sort::Age, &older), (Sort::Retransmissions, &again), (Sort::Unacked, &busy), (Sort::Rtt, &far)]
        {
            let most = [&older, &again, &busy, &far].into_iter().max_by_key(|view| sort.rank(view));
            assert_eq!(most, Some(first), "{sort:?}");
        }
        let never = View { rtt_us: None, ..plain() };
        assert!(Sort::Rtt.rank(&never) < Sort::Rtt.rank(&far));
        // Of equal values the oldest is first.
        assert!(Sort::Unacked.rank(&plain()) < Sort::Unacked.rank(&older));
    }

    #[test]
    fn a_request_is_one_line_and_comes_back_as_it_went() {
        let mut request = request(&["established", "time-wait"], &["198.18.0.0/15", "fd00:18::1"]);
        request.top = Some(Top { count: 10, sort: Sort::Rtt });
        let line = serde_json::to_string(&request).unwrap();
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), request);

        let table = [
            (r#"{"states":["closed"],"peers":[],"top":null}"#, "closed: no state"),
            (r#"{"states":[],"peers":["198.18.0.1/24"],"top":null}"#, "write 198.18.0.0/24"),
            (r#"{"states":[],"peers":[],"top":null,"colour":1}"#, "unknown field `colour`"),
            (r#"{"states":[],"peers":[],"top":{"count":1,"sort":"size"}}"#, "unknown variant `size`"),
            ("{}", "missing field"),
        ];
        for (text, part) in table {
            let error = serde_json::from_str::<Request>(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_request_has_bounds() {
        let top = |count| Request { top: Some(Top { count, sort: Sort::Age }), ..Request::default() };
        for request in [Request::default(), top(1), top(MOST_TOP)] {
            assert_eq!(request.check(), Ok(()));
        }
        let many = request(&[], &["::1"; MOST_PEERS + 1]);
        for (request, part) in [(top(0), "from 1 to"), (top(MOST_TOP + 1), "from 1 to"), (many, "at most 64")]
        {
            assert!(request.check().unwrap_err().contains(part));
        }
    }
}
