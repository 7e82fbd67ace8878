//! The lab: two network namespaces with a wire between them.
//!
//! ```text
//! namespace PREFIX-client                         namespace PREFIX-server
//!   smc0  198.18.0.1/24  fd00:18::1/64  <- veth ->  sms0  198.18.0.2/24  fd00:18::2/64
//!                                                         198.19.0.0/16, fd00:19::/64 via smc0
//! ```
//!
//! RFC 2544 reserves 198.18.0.0/15 for benchmarks. Each end of the veth pair is made inside its namespace, so the machine's own
//! network never sees it. In a virtual machine two NICs take the place of the veth pair, and its names.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

use crate::command::{Words, output};
use crate::wait::{until, wait, wait_uninterrupted};

/// The client's interface.
pub const CLIENT_INTERFACE: &str = "smc0";
/// The server's interface.
pub const SERVER_INTERFACE: &str = "sms0";
/// The client's IPv4 address.
pub const CLIENT_V4: &str = "198.18.0.1";
/// The server's IPv4 address.
pub const SERVER_V4: &str = "198.18.0.2";
/// The client's IPv6 address.
pub const CLIENT_V6: &str = "fd00:18::1";
/// The server's IPv6 address.
pub const SERVER_V6: &str = "fd00:18::2";
/// The IPv4 sources of a generator at the client's end.
pub const SOURCES_V4: &str = "198.19.0.0/16";
/// The IPv6 sources of a generator at the client's end.
pub const SOURCES_V6: &str = "fd00:19::/64";

/// Longest wait for a carrier: an emulated NIC is slow.
const LINK_LIMIT: Duration = Duration::from_secs(30);
/// Longest wait for processes to end after SIGTERM: longer than the default drain of `synmill serve`.
const END_LIMIT: Duration = Duration::from_secs(8);
/// Longest wait for processes to end after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for a lab's name: a forked child holds it, too, until it executes its own program.
const CLAIM_LIMIT: Duration = Duration::from_secs(1);
/// Characters of an ended process's command that are printed, at most.
const COMMAND_LEN: usize = 60;

/// An end of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The end of clients and generators.
    Client,
    /// The end of the endpoint under test.
    Server,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Client, Self::Server];

    /// Returns the name of its interface.
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

    const fn addresses(self) -> [&'static str; 2] {
        match self {
            Self::Client => [CLIENT_V4, CLIENT_V6],
            Self::Server => [SERVER_V4, SERVER_V6],
        }
    }
}

/// The choices about a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabOptions {
    /// RX and TX queues of each end.
    pub queues: u32,
    /// MTU of both ends, in bytes.
    pub mtu: u32,
    /// Whether the kernel leaves checksums to the veth pair, which has no NIC to finish them.
    pub checksum_offload: bool,
}

impl Default for LabOptions {
    fn default() -> Self {
        Self { queues: 1, mtu: 1500, checksum_offload: false }
    }
}

/// An XDP program's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// No program is attached.
    Nothing,
    /// The program runs in the driver.
    Native,
    /// The program runs in the kernel's stack, behind the driver.
    Generic,
}

/// Two namespaces with a wire between them. Its drop ends the processes in it and removes it.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    keep: bool,
    /// Reserves the prefix for this process.
    _claim: Option<UnixListener>,
}

impl Lab {
    /// The prefix of the lab that `cargo xtask lab` keeps: `synmill-client`, `synmill-server`.
    pub const DEFAULT_PREFIX: &'static str = "synmill";
    /// The prefix of the demonstration's lab, which leaves the kept lab alone.
    pub const DEMONSTRATION_PREFIX: &'static str = "synmill-run";

    /// Builds the lab over a veth pair and waits for its carrier. An older lab of this prefix is removed first.
    ///
    /// # Errors
    /// This process is not root, another process works in its own lab of this prefix, or a command failed. Nothing is left behind.
    pub fn up(prefix: &str, options: LabOptions) -> Result<Self> {
        Self::over(None, prefix, options)
    }

    /// Builds the lab over the client's and the server's NIC, which must see each other. Each NIC moves into its namespace and
    /// takes the name of the veth pair's end. A driver that cannot set its queues or its offloads keeps its own settings.
    ///
    /// # Errors
    /// As [`Lab::up`].
    pub fn up_over(nics: [&str; 2], prefix: &str, options: LabOptions) -> Result<Self> {
        Self::over(Some(nics), prefix, options)
    }

    fn over(nics: Option<[&str; 2]>, prefix: &str, options: LabOptions) -> Result<Self> {
        ensure!(
            geteuid().is_root(),
            "a lab is made of network namespaces, and that takes root: run it as root"
        );
        let lab = Self { prefix: prefix.to_owned(), keep: false, _claim: Some(claim(prefix)?) };
        lab.tear_down(true)?;
        lab.build(nics, options).with_context(|| format!("the lab `{prefix}` could not be built"))?;
        Ok(lab)
    }

    /// Returns the lab of this prefix that is up already.
    ///
    /// # Errors
    /// There is none.
    pub fn attach(prefix: &str) -> Result<Self> {
        let lab = Self::unclaimed(prefix);
        let present = namespaces()?;
        let is_up = Side::BOTH.iter().all(|side| present.contains(&lab.namespace(*side)));
        ensure!(is_up, "there is no lab `{prefix}`; `cargo xtask lab up` makes one");
        Ok(lab)
    }

    /// Leaves the lab up when this value is dropped.
    pub fn keep(mut self) {
        self.keep = true;
    }

    /// Removes the lab of this prefix, whole or in part, if there is one.
    ///
    /// # Errors
    /// A command failed.
    pub fn down(prefix: &str) -> Result<()> {
        Self::unclaimed(prefix).tear_down(true)
    }

    fn unclaimed(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), keep: true, _claim: None }
    }

    /// Returns the name of an end's namespace.
    #[must_use]
    pub fn namespace(&self, side: Side) -> String {
        format!("{}-{}", self.prefix, side.name())
    }

    /// Returns the command that runs `argv` at an end of the lab. Its process executes `argv` itself, so it keeps its id.
    #[must_use]
    pub fn exec<S: AsRef<OsStr>>(&self, side: Side, argv: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace(side)]).args(argv);
        command
    }

    /// Runs a command at an end of the lab and returns its standard output.
    ///
    /// # Errors
    /// It does not start, or it fails; then the error holds its standard error.
    pub fn output(&self, side: Side, command: &(impl Words + ?Sized)) -> Result<String> {
        output(&mut self.exec(side, command.words()))
    }

    /// Runs `action` on a thread at an end of the lab. A socket that it opens stays at that end, and any thread may use it.
    ///
    /// # Errors
    /// The thread cannot enter the namespace.
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

    /// Returns a TCP counter of the kernel at an end of the lab by its name in /proc/net/snmp, such as `RetransSegs`.
    ///
    /// # Errors
    /// There is no such counter.
    pub fn tcp_counter(&self, side: Side, name: &str) -> Result<u64> {
        tcp_counter(&self.output(side, "cat /proc/net/snmp")?, name)
    }

    /// Returns the place of the XDP program on an end's interface; an interface that is gone has none.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn attached(&self, side: Side) -> Result<Attached> {
        let links = self.output(side, "ip -details -oneline link")?;
        let name = format!(" {}", side.interface());
        let is_own = |line: &&str| line.split(['@', ':']).any(|part| part == name);
        let link = links.lines().find(is_own).unwrap_or_default();
        Ok(match (link.contains("xdpgeneric"), link.contains("xdp")) {
            (true, _) => Attached::Generic,
            (_, true) => Attached::Native,
            _ => Attached::Nothing,
        })
    }

    fn build(&self, nics: Option<[&str; 2]>, options: LabOptions) -> Result<()> {
        let [client, server] = Side::BOTH.map(|side| self.namespace(side));
        for namespace in [&client, &server] {
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        let LabOptions { queues, mtu, checksum_offload } = options;
        match nics {
            None => {
                let shape = format!("mtu {mtu} numtxqueues {queues} numrxqueues {queues}");
                ip(&format!(
                    "-n {client} link add name {CLIENT_INTERFACE} {shape} \
                     type veth peer name {SERVER_INTERFACE} netns {server} {shape}"
                ))?;
            }
            Some(nics) => {
                for (side, nic) in Side::BOTH.into_iter().zip(nics) {
                    let (namespace, interface) = (self.namespace(side), side.interface());
                    ip(&format!("link set dev {nic} down"))?;
                    ip(&format!("link set dev {nic} netns {namespace} name {interface}"))?;
                    ip(&format!("-n {namespace} link set dev {interface} mtu {mtu}"))?;
                    // It also fails where there are as many already, and where the driver has one queue only.
                    let _ = self.output(side, &format!("ethtool -L {interface} combined {queues}"));
                }
            }
        }

        for side in Side::BOTH {
            let (namespace, interface) = (self.namespace(side), side.interface());
            if !checksum_offload {
                let off = self.output(side, &format!("ethtool -K {interface} tx off"));
                if nics.is_none() {
                    off?;
                }
            }
            // Neighbour discovery for a link-local address would be in every capture.
            ip(&format!("-n {namespace} link set {interface} addrgenmode none"))?;
            ip(&format!("-n {namespace} link set {interface} up"))?;
            let [v4, v6] = side.addresses();
            ip(&format!("-n {namespace} address add {v4}/24 dev {interface}"))?;
            // Duplicate address detection would delay its use.
            ip(&format!("-n {namespace} address add {v6}/64 dev {interface} nodad"))?;
        }
        for side in Side::BOTH {
            self.wait_running(side)?;
        }
        ip(&format!("-n {server} route add {SOURCES_V4} via {CLIENT_V4}"))?;
        ip(&format!("-n {server} -6 route add {SOURCES_V6} via {CLIENT_V6}"))
    }

    /// Waits until an end's interface has a carrier.
    ///
    /// # Errors
    /// It has none for 30 s.
    pub fn wait_running(&self, side: Side) -> Result<()> {
        let interface = side.interface();
        let show = format!("-n {} -oneline link show {interface}", self.namespace(side));
        until(&format!("{interface} is up"), LINK_LIMIT, || Ok(ask_ip(&show)?.contains(" state UP ")))
    }

    /// Ends the processes in the namespaces and removes these. The veth pair goes with them; NICs return to the first namespace.
    /// With `names`, each process that ends is named.
    fn tear_down(&self, names: bool) -> Result<()> {
        let mut present = namespaces()?;
        let own = Side::BOTH.map(|side| self.namespace(side));
        present.retain(|namespace| own.contains(namespace));
        // One namespace takes the veth pair with it, and a process in the other would miss its interface.
        present.iter().try_for_each(|namespace| end_processes(namespace, names))?;
        present.iter().try_for_each(|namespace| ip(&format!("netns delete {namespace}")))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.tear_down(false)
        {
            eprintln!("the lab `{}` could not be removed: {error:#}", self.prefix);
        }
    }
}

/// Reserves a lab's prefix as the name of a socket: the kernel gives it to one process at a time, and takes it back at its end.
fn claim(prefix: &str) -> Result<UnixListener> {
    let name = SocketAddr::from_abstract_name(format!("synmill-lab-{prefix}"))?;
    let bound = wait("the name is free", CLAIM_LIMIT, || match UnixListener::bind_addr(&name) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
        bound => Ok(Some(bound)),
    });
    let bound = bound
        .with_context(|| format!("another process works in the lab `{prefix}`: wait until it has ended"))?;
    bound.with_context(|| format!("claiming the lab `{prefix}`"))
}

/// Ends the processes in a namespace and waits until they are gone, because one that stays keeps the devices alive. SIGTERM comes
/// first, so that each can remove its files.
fn end_processes(namespace: &str, names: bool) -> Result<()> {
    let mut signalled = HashSet::new();
    let mut commands = HashMap::new();
    let mut gone = Ok(());
    for (signal, limit) in [(Signal::SIGTERM, END_LIMIT), (Signal::SIGKILL, KILL_LIMIT)] {
        gone = wait_uninterrupted(&format!("no process is left in the namespace {namespace}"), limit, || {
            let left = processes(namespace)?;
            commands.retain(|pid, command| {
                let is_left = left.contains(pid);
                if !is_left && names {
                    eprintln!("ended: {command} (pid {pid})");
                }
                is_left
            });
            for &pid in &left {
                // Once each: a second SIGTERM would end a draining responder at once.
                if signalled.insert((pid, signal)) {
                    let command = command(pid);
                    // It may have ended meanwhile.
                    if kill(pid, signal).is_ok() {
                        commands.entry(pid).or_insert(command);
                    }
                }
            }
            Ok(left.is_empty().then_some(()))
        });
        if gone.is_ok() {
            break;
        }
    }
    gone
}

/// Returns a process's command as one types it, without its program's folder, and shortened.
fn command(pid: Pid) -> String {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = text.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    let line = words.join(" ");
    let line = line[words[0].rfind('/').map_or(0, |slash| slash + 1)..].trim_end();
    let printable = line.chars().map(|c| if c.is_control() { '?' } else { c });
    let rest = if line.chars().count() > COMMAND_LEN { "..." } else { "" };
    printable.take(COMMAND_LEN).collect::<String>() + rest
}

/// Returns the processes in a namespace.
fn processes(namespace: &str) -> Result<Vec<Pid>> {
    let pid = |word: &str| {
        word.parse().map(Pid::from_raw).with_context(|| format!("`ip netns pids` printed `{word}`"))
    };
    ask_ip(&format!("netns pids {namespace}"))?.split_whitespace().map(pid).collect()
}

/// Returns the names of all network namespaces.
fn namespaces() -> Result<Vec<String>> {
    let listed = ask_ip("netns list")?;
    Ok(listed.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn ip(line: &str) -> Result<()> {
    ask_ip(line).map(drop)
}

fn ask_ip(line: &str) -> Result<String> {
    output(Command::new("ip").args(line.words()))
}

/// Finds a counter by its name in the two TCP lines of /proc/net/snmp.
fn tcp_counter(snmp: &str, name: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = lines.next().zip(lines.next()).context("/proc/net/snmp has no lines for TCP")?;
    let found = names.split(' ').zip(values.split(' ')).find(|(known, _)| *known == name);
    found.and_then(|(_, value)| value.parse().ok()).with_context(|| format!("/proc/net/snmp has no {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found() {
        let snmp = "Ip: A B\nIp: 1 2\nTcp: InSegs RetransSegs\nTcp: 3 4\n";
        assert_eq!(tcp_counter(snmp, "RetransSegs").unwrap(), 4);
        assert!(tcp_counter(snmp, "A").is_err());
    }
}
