//! The options of `synmill serve`, checked.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use super::{
    MAX_DURATION, Output, Valid, check_addresses, check_max_connections, check_rings, check_time_wait,
    check_within,
};
use crate::face::cli;
use crate::host::plan::{self, Role};
use synmill_engine::endpoint::Settings;

/// An address to accept connections at, and the service behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener<S> {
    /// Address and port. The unspecified address stands for every address of its family; a listener that names the address wins.
    pub address: SocketAddr,
    /// The service.
    pub service: S,
    /// The service's name in reports.
    pub name: String,
}

/// A run of `synmill serve`.
#[derive(Clone, Debug, PartialEq)]
pub struct Serve<S> {
    /// How to take the interface.
    pub rings: plan::Options,
    /// The choices about the endpoints.
    pub endpoint: Settings,
    /// The output.
    pub output: Output,
    /// The listeners: at least one, no two alike.
    pub listeners: Vec<Listener<S>>,
    /// The length of the run; `None` until a signal.
    pub duration: Option<Duration>,
    /// Most time for open connections to end after the stop.
    pub drain: Duration,
}

impl<S> Serve<S> {
    /// Checks the options against each other. `service` makes a service of its text, or says what is wrong with it.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub fn new<E: Display>(
        options: cli::Serve,
        service: impl Fn(&str) -> Result<S, E>,
    ) -> Result<Valid<Self>, String> {
        let (rings, endpoint, output) = check_rings(options.rings)?;
        let endpoint =
            Settings { max_connections: options.max_connections, time_wait: options.time_wait, ..endpoint };
        let addresses = check_addresses("--listen", options.listen.iter().map(|listen| listen.address))?;
        let listener = |(address, listen): (SocketAddr, cli::Listen)| {
            let name = listen.service.unwrap_or_else(|| options.service.clone());
            let service = service(&name).map_err(|error| format!("--listen {address}={name}: {error}"))?;
            Ok(Listener { address, service, name })
        };
        let listeners =
            addresses.into_iter().zip(options.listen).map(listener).collect::<Result<_, String>>()?;
        check_max_connections(endpoint.max_connections, rings.workers.unwrap_or(1))?;
        check_time_wait(endpoint.time_wait)?;
        let (duration, drain) = (options.duration, options.drain);
        check_within("--duration", duration.unwrap_or_default(), MAX_DURATION)?;
        check_within("--drain", drain, MAX_DURATION)?;
        if duration.is_some_and(|duration| duration.is_zero()) {
            return Err("--duration 0: give at least 1ms, or leave it out to run until SIGINT".into());
        }
        Ok(Valid(Self { rings, endpoint, output, listeners, duration, drain }))
    }

    /// Returns the work of the workers.
    #[must_use]
    pub fn role(&self) -> Role {
        Role::Listen(self.listeners.iter().map(|listener| listener.address).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::cli::{Cli, Command, ControlSocket, Stop, parse};
    use crate::host::nic::spread::Steering;
    use crate::host::plan::{Mode, Queues};

    fn service(text: &str) -> Result<String, &'static str> {
        if text == "bad" { Err("no such service: one of close, echo") } else { Ok(text.to_owned()) }
    }

    /// Parses and checks a command line. An error is the line that a user sees.
    fn configure(arguments: &str) -> Result<Valid<Serve<String>>, String> {
        let arguments = "synmill serve".split(' ').chain(arguments.split_whitespace());
        match parse(arguments) {
            Ok(Cli { command: Command::Serve(serve) }) => Serve::new(*serve, service),
            Ok(_) => panic!("another command"),
            Err(Stop::Usage(line)) => Err(line),
            Err(Stop::Text(text)) => panic!("help instead of a configuration: {text}"),
        }
    }

    fn config(arguments: &str) -> Valid<Serve<String>> {
        configure(&format!("--interface t0 {arguments}")).unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let config = config("--listen 198.18.0.2:80");
        assert_eq!(config.rings, plan::Options { interface: "t0".into(), ..plan::Options::default() });
        assert_eq!(config.endpoint, Settings::default());
        let (connections, time_wait) = (config.endpoint.max_connections, config.endpoint.time_wait);
        assert_eq!((connections, time_wait), (1_000_000, Duration::from_secs(60)));
        assert_eq!((config.duration, config.drain), (None, Duration::from_secs(5)));
        assert_eq!(config.output, Output::default());
        assert_eq!(config.listeners[0].name, "http:1024");
    }

    #[test]
    fn the_socket_may_be_anywhere_or_nowhere() {
        let control =
            |text| config(&format!("--listen 198.18.0.2:80 --control {text}")).output.control.clone();
        assert_eq!(control("none"), Some(ControlSocket::None));
        assert_eq!(control("./none"), Some(ControlSocket::At("./none".into())));
    }

    #[test]
    fn a_key_is_for_the_table() {
        let steer = |arguments: &str| {
            configure(&format!("--interface t0 --listen 198.18.0.2:80 {arguments}"))
                .map(|config| config.rings.steering.clone())
        };
        assert_eq!(steer("--steer none"), Ok(Steering::Untouched));
        assert_eq!(steer("--steer ntuple"), Ok(Steering::Rules(Vec::new())));
        assert_eq!(steer("--steer rss"), Ok(Steering::Table { key: None }));
        let key = Some("6d:5a:00".parse().unwrap());
        assert_eq!(steer("--steer rss --rss-key 6d:5A:00"), Ok(Steering::Table { key }));
        for (arguments, part) in [
            ("--rss-key 6d:5a", "--rss-key is for --steer rss"),
            ("--steer ntuple --rss-key 6d:5a", "--rss-key is for --steer rss"),
            ("--steer rss --rss-key 6d5a", "bytes in hex with colons"),
            ("--steer rss --rss-key 6d:", "bytes in hex with colons"),
            ("--steer rss --rss-key 6d:+5", "bytes in hex with colons"),
            ("--steer rss --rss-key 00:00", "all zero"),
            ("--steer flow", "ntuple, rss"),
        ] {
            let line = steer(arguments).expect_err(arguments);
            assert!(line.contains(part) && !line.contains('\n'), "{arguments}: {line}");
        }
    }

    #[test]
    fn a_listener_has_an_address_and_its_own_or_the_common_service() {
        let config = config(
            "--listen 0.0.0.0:80 --listen [::]:80=echo --listen [fd00:18::2]:7=http-file:/a=b \
             --listen [::ffff:198.18.0.2]:8 --service close",
        );
        let listeners: Vec<(String, &str)> =
            config.listeners.iter().map(|l| (l.address.to_string(), l.service.as_str())).collect();
        let expected = [
            ("0.0.0.0:80", "close"),
            ("[::]:80", "echo"),
            ("[fd00:18::2]:7", "http-file:/a=b"),
            ("198.18.0.2:8", "close"),
        ];
        assert_eq!(listeners, expected.map(|(address, service)| (address.to_owned(), service)));
    }

    #[test]
    fn values_have_units() {
        let config = config(
            "--listen 198.18.0.2:80 --queues 0-2,5 --workers 2 --cores 3,1 --mode zerocopy --max-connections 500K \
             --time-wait 250ms --duration 2m --drain 1h --busy-poll --accept-partial-checksums --quiet \
             --json a.json --pcap a.pcap",
        );
        let Queues::Only(queues) = &config.rings.queues else { panic!("all queues") };
        assert_eq!(queues[..], [0, 1, 2, 5]);
        assert_eq!(queues.to_string(), "0-2,5");
        assert_eq!(config.rings.cores.as_deref(), Some(&[3, 1][..]));
        assert_eq!(config.rings.workers, Some(2));
        assert_eq!(config.rings.mode, Mode::ZeroCopy);
        assert_eq!(config.endpoint.max_connections, 500_000);
        assert_eq!(config.endpoint.time_wait, Duration::from_millis(250));
        assert_eq!(config.duration, Some(Duration::from_secs(120)));
        assert_eq!(config.drain, Duration::from_secs(3600));
        assert!(config.rings.busy_poll && config.endpoint.accept_partial_checksums && config.output.quiet);
    }

    #[test]
    fn each_error_is_one_line_that_says_how_to_fix_it() {
        let listen = "--interface t0 --listen 198.18.0.2:80";
        let table = [
            ("--listen 198.18.0.2:80", "--interface <IF>"),
            ("--interface t0", "--listen <ADDR:PORT[=SERVICE]>"),
            ("--interface a-name-of-sixteen --listen 198.18.0.2:80", "as `ip link` shows it"),
            ("--interface t0 --listen 198.18.0.2", "the port is missing: write 198.18.0.2:80"),
            ("--interface t0 --listen [fd00:18::2]", "the port is missing: write [fd00:18::2]:80"),
            ("--interface t0 --listen fd00:18::2", "the port is missing: write [fd00:18::2]:80"),
            (
                "--interface t0 --listen fd00:18::2:80",
                "an IPv6 address needs brackets: write [fd00:18::2]:80",
            ),
            ("--interface t0 --listen :::8080=close", "an IPv6 address needs brackets: write [::]:8080"),
            ("--interface t0 --listen fd00:18::2:a", "the port is missing: write [fd00:18::2:a]:80"),
            ("--interface t0 --listen fd00:18::2:x", "not an address and port: write"),
            ("--interface t0 --listen 198.18.0.2:65536", "a port from 1 to 65535"),
            ("--interface t0 --listen 198.18.0.2:0", "give a port from 1 to 65535"),
            ("--interface t0 --listen 198.18.0.2:80=", "a service is missing"),
            ("--interface t0 --listen 198.18.0.2:80=bad", "=bad: no such service: one of close, echo"),
            ("--interface t0 --listen 198.18.0.2:80 --service bad", "no such service"),
            ("--interface t0 --listen 127.0.0.1:80", "loopback"),
            ("--interface t0 --listen 224.0.0.1:80", "unicast"),
            ("--interface t0 --listen 255.255.255.255:80", "unicast"),
            ("--interface t0 --listen [ff02::1]:80", "unicast"),
            ("--interface t0 --listen [fe80::1%3]:80", "leave the zone out"),
            (&format!("{listen} --listen 198.18.0.2:80=echo"), "--listen 198.18.0.2:80 is given twice"),
            (&format!("{listen} --listen [::ffff:198.18.0.2]:80"), "--listen 198.18.0.2:80 is given twice"),
            (&format!("{listen} --queues"), "a value is required"),
            (&format!("{listen} --queues 0-"), "such as 0-3 or 0,2"),
            (&format!("{listen} --queues 3-0"), "write 0-3"),
            (&format!("{listen} --queues 1,0-2"), "1 is named twice"),
            (&format!("{listen} --queues 99999"), "from 0 to 4095"),
            (&format!("{listen} --workers 0"), "--workers"),
            (&format!("{listen} --queues 0,1 --workers 3"), "give at most --workers 2"),
            (&format!("{listen} --queues 0,1 --cores 1"), "--workers 1"),
            (&format!("{listen} --workers 2 --cores 1"), "--workers 1"),
            (&format!("{listen} --mode fast"), "zerocopy"),
            (&format!("{listen} --max-connections 0"), "give from 1 to 100M"),
            (&format!("{listen} --max-connections 101M"), "give from 1 to 100M"),
            (&format!("{listen} --max-connections 99999999999999999999M"), "write a whole number"),
            (&format!("{listen} --max-connections many"), "write a whole number"),
            (&format!("{listen} --time-wait 60"), "500ms, 30s, 5m or 1h"),
            (&format!("{listen} --time-wait 2h"), "give at most 1h"),
            (&format!("{listen} --duration 0s"), "at least 1ms"),
            (&format!("{listen} --duration 481h"), "at most 480h"),
            (&format!("{listen} --drain 99999999999999999h"), "500ms, 30s, 5m or 1h"),
            (&format!("{listen} --json a --pcap a"), "name the same file"),
            (&format!("{listen} --json -"), "--json - would be a file called `-`: give another name"),
            (&format!("{listen} --pcap -"), "--pcap - would be a file called `-`: give another name"),
            (&format!("{listen} --json a --control ./a"), "name the same file"),
            (&format!("{listen} --control="), "write a path, or `none`"),
            (&format!("{listen} --colour"), "--colour"),
        ];
        for (arguments, part) in table {
            let line = configure(arguments).expect_err(arguments);
            assert!(line.contains(part), "{arguments}\n  says: {line}\n  not:  {part}");
            assert!(!line.contains('\n'), "{arguments}: more than a line: {line}");
        }
    }

    #[test]
    fn help_is_text_and_a_missing_command_is_an_error() {
        let Err(Stop::Text(help)) = parse(["synmill", "serve", "--help"]) else { panic!("no help") };
        assert!(help.contains("Examples:") && help.contains("[default: 60s]"));
        let Err(Stop::Usage(line)) = parse(["synmill"]) else { panic!("no error") };
        assert!(line.contains("synmill serve") && line.contains("synmill bench"));
        let Err(Stop::Usage(line)) = parse(["synmill", "toast"]) else { panic!("no error") };
        assert!(line.ends_with("(see `synmill --help`)"), "{line}");
    }
}
