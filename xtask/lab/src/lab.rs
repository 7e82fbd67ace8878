//! The lab: two network namespaces and a wire between them. Knows `ip` and `ethtool`; never what runs in it.
//!
//! ```text
//! namespace PREFIX-client                         namespace PREFIX-server
//!   smc0  198.18.0.1/24  fd00:18::1/64  <- veth ->  sms0  198.18.0.2/24  fd00:18::2/64
//!                                                         198.19.0.0/16, fd00:19::/64 via smc0
//! ```
//!
//! 198.18.0.0/15 is what RFC 2544 sets aside for benchmarks. Both ends are made inside their namespaces, so nothing of
//! the lab is ever seen by the machine's own network. In a virtual machine two NICs take the veth pair's place, and its names.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The client's end of the wire.
pub const CLIENT_INTERFACE: &str = "smc0";
/// The server's end of the wire.
pub const SERVER_INTERFACE: &str = "sms0";
/// The client's IPv4 address.
pub const CLIENT_V4: &str = "198.18.0.1";
/// The server's IPv4 address.
pub const SERVER_V4: &str = "198.18.0.2";
/// The client's IPv6 address.
pub const CLIENT_V6: &str = "fd00:18::1";
/// The server's IPv6 address.
pub const SERVER_V6: &str = "fd00:18::2";
/// Where a generator on the client's end takes its IPv4 sources from.
pub const SOURCES_V4: &str = "198.19.0.0/16";
/// Where a generator on the client's end takes its IPv6 sources from.
pub const SOURCES_V6: &str = "fd00:19::/64";

/// Longest wait for the links to run: an emulated NIC takes its time.
const LINK_DEADLINE: Duration = Duration::from_secs(30);
/// Longest wait for processes left in a namespace to end when asked to: longer than `synmill serve` drains by default.
const END_DEADLINE: Duration = Duration::from_secs(8);
/// Longest wait for them to go when killed.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for a lab's name: a child that has not become its own program yet has it, too.
const CLAIM_DEADLINE: Duration = Duration::from_secs(1);
/// Letters of an ended process's command that are shown, at most.
const COMMAND: usize = 60;
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// An end of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where clients and generators run.
    Client,
    /// Where the endpoint under test runs.
    Server,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// This end of the wire.
    #[must_use]
    pub const fn interface(self) -> &'static str {
        match self {
            Self::Client => CLIENT_INTERFACE,
            Self::Server => SERVER_INTERFACE,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// What can be chosen about a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabOptions {
    /// RX and TX queues of each end.
    pub queues: u32,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// Leave checksums to a NIC that is not there. Off: the kernel writes whole checksums, as a wire would show them.
    pub checksum_offload: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { queues: 1, mtu: 1500, checksum_offload: false }
    }
}

/// What joins the two ends.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    /// A veth pair, which comes and goes with the lab.
    Veth,
    /// The client's and the server's NIC, by the names they have in our own namespace.
    Nics([&'a str; 2]),
}

/// Two namespaces and what joins them. Dropping it removes all of it, and ends what still runs in it.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    keep: bool,
    /// Held while the lab is used by who built it.
    _claim: Option<UnixListener>,
}

impl Lab {
    /// The prefix of the lab that a person plays in: `synmill-client`, `synmill-server`.
    pub const DEFAULT_PREFIX: &'static str = "synmill";
    /// The prefix of the demonstration's lab, which comes and goes beside the one that a person plays in.
    pub const DEMONSTRATION_PREFIX: &'static str = "synmill-run";

    /// Builds the lab, and waits until its links run. What an earlier lab of this prefix left behind is removed first.
    ///
    /// # Errors
    /// Another process works in its own lab of this prefix; or the command that failed, with what it said. Nothing is left behind.
    pub fn up(prefix: &str, options: LabOptions) -> Result<Self> {
        Self::over(Wire::Veth, prefix, options)
    }

    /// The same over two NICs that are there, the client's and the server's, and that see each other: each is moved into its
    /// namespace, and gets the name of the veth pair's end. A driver that cannot set its queues or its offloads keeps what it has.
    ///
    /// # Errors
    /// The command that failed, with what it said.
    pub fn up_over(nics: [&str; 2], prefix: &str, options: LabOptions) -> Result<Self> {
        Self::over(Wire::Nics(nics), prefix, options)
    }

    fn over(wire: Wire<'_>, prefix: &str, options: LabOptions) -> Result<Self> {
        let lab = Self { prefix: prefix.to_owned(), keep: false, _claim: Some(claim(prefix)?) };
        lab.tear_down(Told::Each)?;
        lab.build(wire, options).with_context(|| format!("the lab `{prefix}` could not be built"))?;
        Ok(lab)
    }

    /// The lab of this prefix that is up already.
    ///
    /// # Errors
    /// There is none.
    pub fn attach(prefix: &str) -> Result<Self> {
        let lab = Self::unclaimed(prefix, true);
        let present = namespaces()?;
        for side in Side::BOTH {
            if !present.contains(&lab.namespace(side)) {
                bail!("there is no lab `{prefix}`; `cargo xtask lab up` makes one");
            }
        }
        Ok(lab)
    }

    /// Leaves the lab up when this value is dropped.
    pub fn keep(mut self) {
        self.keep = true;
    }

    /// Removes the lab of this prefix, whole or in part, if there is one.
    ///
    /// # Errors
    /// The command that failed, with what it said.
    pub fn down(prefix: &str) -> Result<()> {
        Self::unclaimed(prefix, true).tear_down(Told::Each)
    }

    fn unclaimed(prefix: &str, keep: bool) -> Self {
        Self { prefix: prefix.to_owned(), keep, _claim: None }
    }

    /// The name of an end's namespace.
    #[must_use]
    pub fn namespace(&self, side: Side) -> String {
        format!("{}-{}", self.prefix, side.name())
    }

    /// The command that runs `argv` at an end of the lab. The process it starts becomes `argv` itself: its id is the
    /// child's.
    #[must_use]
    pub fn exec<S: AsRef<std::ffi::OsStr>>(&self, side: Side, argv: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(side)]).args(argv);
        command
    }

    /// Runs `argv` at an end of the lab and returns what it wrote to its standard output.
    ///
    /// # Errors
    /// It could not be started, or failed; then with what it wrote to its standard error.
    pub fn output(&self, side: Side, argv: &[&str]) -> Result<String> {
        output(&mut self.exec(side, argv))
    }

    /// Runs `action` on a thread that lives at an end of the lab. A socket it opens belongs to that end for good, and may
    /// be used from anywhere.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn inside<T: Send>(&self, side: Side, action: impl FnOnce() -> T + Send) -> Result<T> {
        let path = format!("/run/netns/{}", self.namespace(side));
        let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(&namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {path}"))?;
                Ok(action())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn build(&self, wire: Wire<'_>, options: LabOptions) -> Result<()> {
        let (client, server) = (self.namespace(Side::Client), self.namespace(Side::Server));
        for namespace in [&client, &server] {
            ip(&["netns", "add", namespace])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        match wire {
            Wire::Veth => self.join(options)?,
            Wire::Nics(nics) => {
                for (side, nic) in Side::BOTH.into_iter().zip(nics) {
                    self.take(side, nic, options)?;
                }
            }
        }

        for side in Side::BOTH {
            let (namespace, interface) = (self.namespace(side), side.interface());
            if !options.checksum_offload {
                let off = self.output(side, &["ethtool", "-K", interface, "tx", "off"]);
                if matches!(wire, Wire::Veth) {
                    off?;
                }
            }
            // No link-local address: its neighbour chatter would be in every capture.
            ip(&["-n", &namespace, "link", "set", interface, "addrgenmode", "none"])?;
            ip(&["-n", &namespace, "link", "set", interface, "up"])?;
        }

        for (namespace, interface, v4, v6) in [
            (&client, CLIENT_INTERFACE, CLIENT_V4, CLIENT_V6),
            (&server, SERVER_INTERFACE, SERVER_V4, SERVER_V6),
        ] {
            ip(&["-n", namespace, "address", "add", &format!("{v4}/24"), "dev", interface])?;
            // Without duplicate address detection it works at once.
            ip(&["-n", namespace, "address", "add", &format!("{v6}/64"), "dev", interface, "nodad"])?;
        }
        for side in Side::BOTH {
            self.wait_running(side)?;
        }
        ip(&["-n", &server, "route", "add", SOURCES_V4, "via", CLIENT_V4])?;
        ip(&["-n", &server, "-6", "route", "add", SOURCES_V6, "via", CLIENT_V6])
    }

    /// Makes the veth pair, each end in its namespace.
    fn join(&self, options: LabOptions) -> Result<()> {
        let (client, server) = (self.namespace(Side::Client), self.namespace(Side::Server));
        let (queues, mtu) = (options.queues.to_string(), options.mtu.to_string());
        let shape = ["mtu", &mtu, "numtxqueues", &queues, "numrxqueues", &queues];
        let mut pair = vec!["-n", &client, "link", "add", "name", CLIENT_INTERFACE];
        pair.extend(shape);
        pair.extend(["type", "veth", "peer", "name", SERVER_INTERFACE, "netns", &server]);
        pair.extend(shape);
        ip(&pair)
    }

    /// Moves a NIC to its end of the lab.
    fn take(&self, side: Side, nic: &str, options: LabOptions) -> Result<()> {
        let (namespace, interface) = (self.namespace(side), side.interface());
        let (queues, mtu) = (options.queues.to_string(), options.mtu.to_string());
        ip(&["link", "set", "dev", nic, "down"])?;
        ip(&["link", "set", "dev", nic, "netns", &namespace, "name", interface])?;
        ip(&["-n", &namespace, "link", "set", "dev", interface, "mtu", &mtu])?;
        // It also fails where there are as many already, or no more than one ever.
        let _ = self.output(side, &["ethtool", "-L", interface, "combined", &queues]);
        Ok(())
    }

    /// Waits until an end has a carrier.
    ///
    /// # Errors
    /// It has none for long.
    pub fn wait_running(&self, side: Side) -> Result<()> {
        let (namespace, interface) = (self.namespace(side), side.interface());
        let deadline = Instant::now() + LINK_DEADLINE;
        while !run("ip", &["-n", &namespace, "-oneline", "link", "show", interface])?.contains(" state UP ") {
            if Instant::now() > deadline {
                bail!("{interface} was not up after {LINK_DEADLINE:?}");
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Ends what runs in the namespaces and removes them; the veth pair goes with them, NICs come back to the first namespace.
    fn tear_down(&self, told: Told) -> Result<()> {
        let present = namespaces()?;
        for namespace in Side::BOTH.map(|side| self.namespace(side)) {
            if present.contains(&namespace) {
                end_processes(&namespace, told)?;
                ip(&["netns", "delete", &namespace])?;
            }
        }
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.tear_down(Told::Nothing)
        {
            eprintln!("the lab `{}` could not be removed: {error:#}", self.prefix);
        }
    }
}

/// What is said of processes that are ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Someone else's: each is named.
    Each,
    /// Whoever built the lab knows what it has started there.
    Nothing,
}

/// The name of a lab as a socket's: the kernel gives it to one process at a time, and takes it back when that ends, however it ends.
fn claim(prefix: &str) -> Result<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("synmill-lab-{prefix}"))?;
    let deadline = Instant::now() + CLAIM_DEADLINE;
    loop {
        match UnixListener::bind_addr(&name) {
            Err(error) if error.kind() != ErrorKind::AddrInUse => {
                return Err(error).with_context(|| format!("claiming the lab `{prefix}`"));
            }
            Err(_) if Instant::now() < deadline => thread::sleep(POLL),
            Err(_) => bail!("another process works in the lab `{prefix}`: wait until it has ended"),
            Ok(claim) => return Ok(claim),
        }
    }
}

/// Ends the processes that live in a namespace, and waits until they are gone: one that stays would keep the namespace's
/// devices alive. They are asked first, so that they can remove what they have outside of it.
fn end_processes(namespace: &str, told: Told) -> Result<()> {
    let mut asked = HashSet::new();
    let mut commands = HashMap::new();
    let mut left = Vec::new();
    for (signal, limit) in [(Signal::SIGTERM, END_DEADLINE), (Signal::SIGKILL, KILL_DEADLINE)] {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            left = processes(namespace)?;
            commands.retain(|pid, command| {
                let is_left = left.contains(pid);
                if !is_left && told == Told::Each {
                    eprintln!("ended: {command} (pid {pid})");
                }
                is_left
            });
            if left.is_empty() {
                return Ok(());
            }
            for &pid in &left {
                // Once each: a second one hurries a process that is about to end. One that has ended is what was wanted.
                if asked.insert((pid, signal)) {
                    let command = command(pid);
                    if kill(pid, signal).is_ok() {
                        commands.entry(pid).or_insert(command);
                    }
                }
            }
            thread::sleep(POLL);
        }
    }
    let left: Vec<String> = left.iter().map(Pid::to_string).collect();
    bail!("the processes {} do not leave the namespace {namespace}", left.join(" "));
}

/// A process's command as one would type it, shortened, without the folder its program is in.
fn command(pid: Pid) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = text.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let program = words.next().unwrap_or_default();
    let mut line = program.rsplit('/').next().unwrap_or_default().to_owned();
    words.for_each(|word| line = format!("{line} {word}"));
    let printable = line.trim_end().chars().map(|c| if c.is_control() { '?' } else { c });
    let mut short: String = printable.take(COMMAND).collect();
    if line.trim_end().chars().count() > COMMAND {
        short.push_str("...");
    }
    short
}

/// The processes that live in a namespace.
fn processes(namespace: &str) -> Result<Vec<Pid>> {
    let pid = |word: &str| {
        word.parse().map(Pid::from_raw).with_context(|| format!("`ip netns pids` printed `{word}`"))
    };
    run("ip", &["netns", "pids", namespace])?.split_whitespace().map(pid).collect()
}

/// The names of all network namespaces.
fn namespaces() -> Result<Vec<String>> {
    let listed = run("ip", &["netns", "list"])?;
    Ok(listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments).map(drop)
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    output(Command::new(program).args(arguments))
}

/// Runs a command to its end and returns its standard output; an error names the command and holds its standard error.
///
/// # Errors
/// It could not be started, or failed.
pub fn output(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    // In a group of its own a Ctrl-C at the terminal does not reach it: a lab is taken down in spite of it.
    let result = command
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .with_context(|| format!("cannot start `{shown}`"))?;
    if !result.status.success() {
        let said = String::from_utf8_lossy(&result.stderr);
        return Err(anyhow!("`{shown}` failed ({}): {}", result.status, said.trim()));
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// A command as one would type it, without the folder its program is in.
#[must_use]
pub fn shown(command: &Command) -> String {
    let program = command.get_program();
    let name = Path::new(program).file_name().unwrap_or(program);
    let mut line = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
