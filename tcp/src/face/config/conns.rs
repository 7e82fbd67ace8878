//! The options of `synmill conns`, checked.

use super::Valid;
use crate::face::cli;
use crate::face::conns::client::Whom;
use crate::face::conns::{Request, Top};

/// A question of `synmill conns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conns {
    /// The endpoint to ask.
    pub whom: Whom,
    /// The connections to list.
    pub request: Request,
    /// Print lines of JSON instead of a table.
    pub json: bool,
}

impl Conns {
    /// Checks the options against each other.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub fn new(options: cli::Conns) -> Result<Valid<Self>, String> {
        let whom = match (options.pid, options.socket) {
            (Some(pid), _) => Whom::Process(pid),
            (None, Some(path)) => Whom::Socket(path),
            (None, None) => Whom::Only,
        };
        let top = options.top.map(|count| Top { count, sort: options.sort.unwrap_or_default() });
        let request = Request { states: options.state, peers: options.peer, top };
        request.check()?;
        Ok(Valid(Self { whom, request, json: options.json }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::cli::{Cli, Command, Stop, parse};
    use crate::face::conns::Sort;
    use synmill_engine::proto::State;

    /// Parses and checks a command line. An error is the line that a user sees.
    fn configure(arguments: &str) -> Result<Valid<Conns>, String> {
        match parse("synmill conns".split(' ').chain(arguments.split_whitespace())) {
            Ok(Cli { command: Command::Conns(conns) }) => Conns::new(*conns),
            Ok(_) => panic!("another command"),
            Err(Stop::Usage(line)) => Err(line),
            Err(Stop::Text(text)) => panic!("help instead of a configuration: {text}"),
        }
    }

    #[test]
    fn without_options_all_of_the_only_endpoint_are_asked_for() {
        let conns = configure("").unwrap();
        assert_eq!(*conns, Conns { whom: Whom::Only, request: Request::default(), json: false });
    }

    #[test]
    fn values_may_be_repeated_or_have_commas() {
        let conns = configure(
            "--state ESTABLISHED,time_wait --state syn-recv --peer 198.18.0.0/15 --peer fd00:18::1,10.0.0.0/8 --top 2K \
             --sort rtt --json --pid 4711",
        )
        .unwrap();
        let states: Vec<State> = conns.request.states.iter().map(|state| state.0).collect();
        assert_eq!(states, [State::Established, State::TimeWait, State::SynReceived]);
        let peers: Vec<String> = conns.request.peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["198.18.0.0/15", "fd00:18::1/128", "10.0.0.0/8"]);
        assert_eq!(conns.request.top, Some(Top { count: 2000, sort: Sort::Rtt }));
        assert_eq!((&conns.whom, conns.json), (&Whom::Process(4711), true));
        assert_eq!(configure("--top 3").unwrap().request.top.unwrap().sort, Sort::Retransmissions);
        assert_eq!(configure("--socket ./none").unwrap().whom, Whom::Socket("./none".into()));
    }

    #[test]
    fn each_error_is_one_line_that_says_how_to_fix_it() {
        let table = [
            ("--state open", "one of syn-sent, syn-received, established"),
            ("--state closed", "no state of a connection"),
            ("--state established,", "no state of a connection"),
            ("--peer 198.18.0.1/24", "write 198.18.0.0/24"),
            ("--peer 198.18.0.0/33", "198.18.0.0/32 or less"),
            ("--peer lab", "write addresses such as"),
            ("--top 0", "from 1 to 100000"),
            ("--top 1M", "from 1 to 100000"),
            ("--top -1", "-1"),
            ("--top ten", "write a whole number"),
            ("--top 5 --sort size", "retransmissions, unacked, rtt, age"),
            ("--sort age", "--top <N>"),
            ("--pid one", "--pid"),
            ("--pid 1 --socket s", "cannot be used with"),
            ("eth0", "eth0"),
        ];
        for (arguments, part) in table {
            let line = configure(arguments).expect_err(arguments);
            assert!(line.contains(part), "{arguments}\n  says: {line}\n  not:  {part}");
            assert!(!line.contains('\n'), "{arguments}: more than a line: {line}");
        }
    }
}
