//! The configuration as meant: complete, and valid as far as it can be without looking at the machine. Knows no device.

use std::fmt::Display;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::{Mode, Numbers, Queues, Serve};

/// The most connections one endpoint holds. A line, a place in the index and the timers' take some 97 bytes each
/// ([`crate::endpoint::Endpoint::memory_bytes`]): 9.7 GB then.
pub const MAX_CONNECTIONS: usize = 100_000_000;
/// The longest TIME-WAIT. RFC 9293's 2 MSL is four minutes.
pub const MAX_TIME_WAIT: Duration = Duration::from_secs(3600);
/// The most listeners of one endpoint.
pub const MAX_LISTENERS: usize = 256;
/// The longest run, and the longest drain: a deadline in milliseconds is told from the past for 24 days.
pub const MAX_DURATION: Duration = Duration::from_secs(20 * 24 * 3600);

/// Where connections are accepted, and what is said over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener<S> {
    /// Address and port; an unspecified address stands for all of its family, and a listener that names the address wins.
    pub address: SocketAddr,
    /// What is said.
    pub service: S,
    /// What the service is called in reports.
    pub name: String,
}

/// What a launch needs to know. The fields that could be wrong are private and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config<S> {
    interface: String,
    listeners: Vec<Listener<S>>,
    queues: Queues,
    workers: Option<NonZeroUsize>,
    cores: Option<Numbers>,
    max_connections: usize,
    time_wait: Duration,
    duration: Option<Duration>,
    drain: Duration,
    json: Option<PathBuf>,
    pcap: Option<PathBuf>,
    /// How to reach the driver.
    pub mode: Mode,
    /// Poll the driver from the workers' own system calls.
    pub busy_poll: bool,
    /// Accept segments whose checksum field holds only the pseudo-header's sum.
    pub accept_partial_checksums: bool,
    /// No line a second.
    pub quiet: bool,
}

impl<S> Config<S> {
    /// Checks the options against each other; `service` makes a service of its text, or says what is wrong with it.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub fn new<E: Display>(options: Serve, service: impl Fn(&str) -> Result<S, E>) -> Result<Self, String> {
        check_interface(&options.interface)?;
        let mut listeners: Vec<Listener<S>> = Vec::with_capacity(options.listen.len());
        for listen in options.listen {
            let address = check_address(listen.address)?;
            if listeners.iter().any(|other| other.address == address) {
                return Err(format!("--listen {address} is given twice: give each address and port once"));
            }
            let name = listen.service.unwrap_or_else(|| options.service.clone());
            let service = service(&name).map_err(|error| format!("--listen {address}={name}: {error}"))?;
            listeners.push(Listener { address, service, name });
        }
        if listeners.is_empty() || listeners.len() > MAX_LISTENERS {
            return Err(format!("{} listeners: give from 1 to {MAX_LISTENERS}", listeners.len()));
        }
        check_workers(&options.queues, options.workers, options.cores.as_ref())?;
        let workers = options.workers.map_or(1, NonZeroUsize::get);
        if !(workers..=MAX_CONNECTIONS).contains(&options.max_connections) {
            return Err(format!(
                "--max-connections {}: give from {workers} to {}M",
                options.max_connections,
                MAX_CONNECTIONS / 1_000_000
            ));
        }
        if options.time_wait > MAX_TIME_WAIT {
            return Err(format!("--time-wait {:?}: give at most 1h", options.time_wait));
        }
        for (name, time) in [("--duration", options.duration), ("--drain", Some(options.drain))] {
            if time.is_some_and(|time| time > MAX_DURATION) {
                return Err(format!("{name}: give at most 480h"));
            }
        }
        if options.duration.is_some_and(|duration| duration.is_zero()) {
            return Err("--duration 0: give at least 1ms, or leave it out to run until SIGINT".into());
        }
        if options.json.is_some() && options.json == options.pcap {
            return Err("--json and --pcap name the same file: give each its own".into());
        }
        Ok(Self {
            interface: options.interface,
            listeners,
            queues: options.queues,
            workers: options.workers,
            cores: options.cores,
            max_connections: options.max_connections,
            time_wait: options.time_wait,
            duration: options.duration,
            drain: options.drain,
            json: options.json,
            pcap: options.pcap,
            mode: options.mode,
            busy_poll: options.busy_poll,
            accept_partial_checksums: options.accept_partial_checksums,
            quiet: options.quiet,
        })
    }

    /// The interface's name.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// At least one, no two alike.
    #[must_use]
    pub fn listeners(&self) -> &[Listener<S>] {
        &self.listeners
    }

    /// The queues asked for.
    #[must_use]
    pub const fn queues(&self) -> &Queues {
        &self.queues
    }

    /// The workers asked for; `None` for one per queue.
    #[must_use]
    pub fn workers(&self) -> Option<usize> {
        self.workers.map(NonZeroUsize::get)
    }

    /// The cores asked for; `None` for those the process may run on.
    #[must_use]
    pub fn cores(&self) -> Option<&[usize]> {
        self.cores.as_ref().map(Numbers::as_slice)
    }

    /// Connections held at once, all workers together.
    #[must_use]
    pub const fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// 2 MSL.
    #[must_use]
    pub const fn time_wait(&self) -> Duration {
        self.time_wait
    }

    /// How long to run; `None` until a signal.
    #[must_use]
    pub const fn duration(&self) -> Option<Duration> {
        self.duration
    }

    /// How long open connections may take to end after the stop.
    #[must_use]
    pub const fn drain(&self) -> Duration {
        self.drain
    }

    /// Where the final report goes.
    #[must_use]
    pub const fn json(&self) -> Option<&PathBuf> {
        self.json.as_ref()
    }

    /// Where the frames go.
    #[must_use]
    pub const fn pcap(&self) -> Option<&PathBuf> {
        self.pcap.as_ref()
    }
}

/// Linux's rule for names (`dev_valid_name`): 1 to 15 bytes, no slash, colon or white space, not `.` or `..`.
fn check_interface(name: &str) -> Result<(), String> {
    let valid = (1..16).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0');
    if valid { Ok(()) } else { Err(format!("--interface {name:?}: give a name as `ip link` shows it")) }
}

/// The address, an IPv4-mapped one as IPv4: on the wire they are the same.
fn check_address(address: SocketAddr) -> Result<SocketAddr, String> {
    let refuse = |what: &str| Err(format!("--listen {address}: {what}"));
    if let SocketAddr::V6(v6) = address
        && v6.scope_id() != 0
    {
        return refuse("leave the zone out: --interface names it");
    }
    let ip = address.ip().to_canonical();
    let broadcast = matches!(ip, std::net::IpAddr::V4(v4) if v4.is_broadcast());
    if address.port() == 0 {
        refuse("port 0 cannot be listened on: give a port from 1 to 65535")
    } else if ip.is_loopback() {
        refuse("a loopback address never comes over an interface: give an address of the network")
    } else if ip.is_multicast() || broadcast {
        refuse("TCP has one receiver: give a unicast address")
    } else {
        Ok(SocketAddr::new(ip, address.port()))
    }
}

/// What can be said about queues, workers and cores before the interface is known.
fn check_workers(
    queues: &Queues,
    workers: Option<NonZeroUsize>,
    cores: Option<&Numbers>,
) -> Result<(), String> {
    let queues = match queues {
        Queues::All => None,
        Queues::Only(numbers) => Some(numbers.as_slice().len()),
    };
    let workers = workers.map(NonZeroUsize::get);
    if let (Some(queues), Some(workers)) = (queues, workers)
        && workers > queues
    {
        return Err(format!("--workers {workers} for {queues} queue(s): give at most --workers {queues}"));
    }
    if let (Some(workers), Some(cores)) = (workers.or(queues), cores.map(|cores| cores.as_slice().len()))
        && cores < workers
    {
        return Err(format!(
            "{cores} core(s) for {workers} workers: give more --cores, or --workers {cores}"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, Stop, parse};

    fn service(text: &str) -> Result<String, &'static str> {
        if text == "bad" { Err("no such service: one of close, echo") } else { Ok(text.to_owned()) }
    }

    /// Through clap and the checks; an error as the line a user sees.
    fn configure(arguments: &str) -> Result<Config<String>, String> {
        let arguments = "synmill serve".split(' ').chain(arguments.split_whitespace());
        match parse(arguments) {
            Ok(Cli { command: Command::Serve(serve) }) => Config::new(*serve, service),
            Err(Stop::Usage(line)) => Err(line),
            Err(Stop::Text(text)) => panic!("help instead of a configuration: {text}"),
        }
    }

    fn config(arguments: &str) -> Config<String> {
        configure(&format!("--interface t0 {arguments}")).unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_help() {
        let config = config("--listen 198.18.0.2:80");
        assert_eq!(config.interface(), "t0");
        assert_eq!(config.queues(), &Queues::All);
        assert_eq!((config.workers(), config.cores()), (None, None));
        assert_eq!(config.mode, Mode::Auto);
        assert_eq!(config.max_connections(), 1_000_000);
        assert_eq!(config.time_wait(), Duration::from_secs(60));
        assert_eq!((config.duration(), config.drain()), (None, Duration::from_secs(5)));
        assert_eq!((config.json(), config.pcap()), (None, None));
        assert!(!config.busy_poll && !config.accept_partial_checksums && !config.quiet);
        assert_eq!(config.listeners()[0].name, "http:1024");
    }

    #[test]
    fn a_listener_has_an_address_and_its_own_or_the_common_service() {
        let config = config(
            "--listen 0.0.0.0:80 --listen [::]:80=echo --listen [fd00:18::2]:7=http-file:/a=b \
             --listen [::ffff:198.18.0.2]:8 --service close",
        );
        let listeners: Vec<(String, &str)> =
            config.listeners().iter().map(|l| (l.address.to_string(), l.service.as_str())).collect();
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
        let Queues::Only(queues) = config.queues() else { panic!("all queues") };
        assert_eq!(queues.as_slice(), [0, 1, 2, 5]);
        assert_eq!(queues.to_string(), "0-2,5");
        assert_eq!(config.cores(), Some(&[3, 1][..]));
        assert_eq!(config.workers(), Some(2));
        assert_eq!(config.mode, Mode::ZeroCopy);
        assert_eq!(config.max_connections(), 500_000);
        assert_eq!(config.time_wait(), Duration::from_millis(250));
        assert_eq!(config.duration(), Some(Duration::from_secs(120)));
        assert_eq!(config.drain(), Duration::from_secs(3600));
        assert!(config.busy_poll && config.accept_partial_checksums && config.quiet);
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
        assert!(line.contains("synmill serve"));
    }
}
