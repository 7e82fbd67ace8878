//! Which connections are asked for, and how many of them. Knows a [`View`]; never how it is sent or shown.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use synmill_engine::endpoint::View;
use synmill_engine::flow::Prefix;
use synmill_engine::proto::State;

/// The most prefixes of one request.
pub const MOST_PEERS: usize = 64;
/// The longest list that has an order: the endpoint keeps it until it is whole.
pub const MOST_TOP: usize = 100_000;

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Connections in one of these states; in any if there is none.
    pub states: Vec<StateName>,
    /// Connections whose peer is in one of these; all if there is none.
    pub peers: Vec<Prefix>,
    /// Only the first so many in an order; without it all, as they come.
    pub top: Option<Top>,
}

/// So many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Top {
    /// How many.
    pub count: usize,
    /// The first of which order.
    pub sort: Sort,
}

/// An order of connections, the most first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Segments sent again
    #[default]
    Retransmissions,
    /// Sequence numbers sent and not acknowledged
    Unacked,
    /// Smoothed round-trip time
    Rtt,
    /// Time since it was opened
    Age,
}

/// A connection's place in an order: a greater one comes first. Of those that are alike the oldest.
pub(super) type Rank = (u64, u128);

impl Sort {
    /// The place of a connection.
    pub(super) fn rank(self, view: &View) -> Rank {
        let age_ns = view.age.as_nanos();
        let most = match self {
            Self::Retransmissions => view.retransmissions.into(),
            Self::Unacked => (view.snd_nxt - view.snd_una).into(),
            Self::Rtt => view.rtt_us.map_or(0, |[smoothed, _]| smoothed.into()),
            Self::Age => 0,
        };
        (most, age_ns)
    }
}

impl Request {
    /// Is there nothing in it that an endpoint would refuse?
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub fn check(&self) -> Result<(), String> {
        if self.peers.len() > MOST_PEERS {
            return Err(format!("{} prefixes of peers: give at most {MOST_PEERS}", self.peers.len()));
        }
        match self.top {
            Some(Top { count, .. }) if !(1..=MOST_TOP).contains(&count) => {
                Err(format!("the top {count}: give from 1 to {MOST_TOP}"))
            }
            _ => Ok(()),
        }
    }

    /// Is the connection one of those that are asked for?
    #[must_use]
    pub fn wants(&self, view: &View) -> bool {
        let is_in = |state: &StateName| state.0 == view.state;
        let is_from = |peer: &Prefix| peer.contains(view.key.remote);
        (self.states.is_empty() || self.states.iter().any(is_in))
            && (self.peers.is_empty() || self.peers.iter().any(is_from))
    }
}

/// A state by its name in RFC 9293. A connection that is listed is never CLOSED.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct StateName(pub State);

/// What `ss` calls some of them.
const SHORT: [(&str, State); 2] = [("estab", State::Established), ("synrecv", State::SynReceived)];

/// A name without what people write differently: capitals, hyphens and underscores.
fn bare(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).map(|c| c.to_ascii_lowercase()).collect()
}

/// The states that a connection can be in.
fn states() -> impl Iterator<Item = State> {
    State::ALL.into_iter().filter(|&state| state != State::Closed)
}

impl FromStr for StateName {
    type Err = String;

    /// `ESTABLISHED`, `time-wait`, and what `ss` calls them.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = bare(text);
        let short = SHORT.into_iter().find(|(short, _)| *short == name).map(|(_, state)| state);
        short.or_else(|| states().find(|state| bare(state.name()) == name)).map(Self).ok_or_else(|| {
            let names: Vec<String> = states().map(|state| state.name().to_ascii_lowercase()).collect();
            format!("no state of a connection: one of {}", names.join(", "))
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
            for name in [state.name().to_owned(), state.name().to_lowercase(), state.name().replace('-', "_")]
            {
                assert_eq!(name.parse(), Ok(StateName(state)), "{name}");
            }
        }
        assert_eq!("estab".parse(), Ok(StateName(State::Established)));
        assert_eq!("syn-recv".parse(), Ok(StateName(State::SynReceived)));
        assert_eq!("fin-wait1".parse(), Ok(StateName(State::FinWait1)));
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
        assert!(Sort::Unacked.rank(&plain()) < Sort::Unacked.rank(&older), "of those alike the oldest");
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
        assert_eq!(
            (Request::default().check(), top(1).check(), top(MOST_TOP).check()),
            (Ok(()), Ok(()), Ok(()))
        );
        assert!(top(0).check().unwrap_err().contains("from 1 to"));
        assert!(top(MOST_TOP + 1).check().unwrap_err().contains("from 1 to"));
        let many = request(&[], &["::1"; MOST_PEERS + 1]);
        assert!(many.check().unwrap_err().contains("at most 64"));
    }
}
