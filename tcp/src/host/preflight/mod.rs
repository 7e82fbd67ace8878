//! Everything that can be refused before the machine is touched, and the plan when nothing is. Knows facts; changes nothing.

mod bench;
mod holder;
mod memory;
mod serve;
mod steering;

use std::fs;
use std::net::SocketAddr;

use crate::face::cli::Queues;
use crate::face::config::Rings;
use crate::host::nic::spread::Steering;
use crate::host::nic::{self, Help, Interface};
use crate::text::{counted, parse_range, ranges};
use synmill_engine::device::umem::HEADROOM;
use synmill_engine::device::{Buffers, LINK_HEADER, MAX_FRAME_SIZE, MAX_PIECES};
use synmill_engine::flow::Prefix;
use synmill_engine::wire::Mac;

pub use self::holder::Holder;
use self::steering::check_steering;
pub use self::steering::is_asked_for;

/// The largest MTU that fits a page beside what XDP and the socket buffer's end need (veth: `ERANGE` above).
const MAX_MTU: usize = 3506;

/// The same for virtio_net. Its own header of 12 bytes shares the page, and in copy mode it drops what does not fit, after granting up to
/// [`MAX_MTU`] (Linux 7.2).
const MAX_MTU_VIRTIO: usize = MAX_MTU - 12;

/// The largest MTU, in bytes, whose packets are served where they lie in such buffers.
#[must_use]
pub const fn max_mtu(buffers: Buffers) -> usize {
    match buffers {
        Buffers::One => MAX_MTU,
        Buffers::Several => MAX_PIECES * (MAX_FRAME_SIZE - HEADROOM) - LINK_HEADER,
    }
}

/// The largest MTU, in bytes, whose packets lie in one buffer each of this driver.
#[must_use]
pub fn one_buffer_mtu(driver: &str) -> usize {
    if driver == "virtio_net" { MAX_MTU_VIRTIO } else { MAX_MTU }
}

/// How packets lie in the memory of this driver at this MTU, in bytes.
#[must_use]
pub fn buffers(driver: &str, mtu: usize) -> Buffers {
    if mtu > one_buffer_mtu(driver) { Buffers::Several } else { Buffers::One }
}

/// The most queues of one worker: a frame says in eight bits which of them it belongs to.
const QUEUES_PER_WORKER: usize = 256;

/// What the machine is, as far as a plan depends on it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Cores this process may run on.
    pub cores: Vec<usize>,
    /// Effective capabilities, one bit each (`CapEff` of proc_pid_status(5)).
    pub capabilities: u64,
    /// First and last port that the kernel may give its own connections, and what is left out of them
    /// (`net.ipv4.ip_local_port_range` and `ip_local_reserved_ports`, for IPv6 too).
    pub local_ports: (u16, u16),
    /// See `local_ports`: ranges, both ends included.
    pub reserved_ports: Vec<(u16, u16)>,
    /// Does it forward packets: IPv4, IPv6?
    pub forwards: (bool, bool),
    /// Bytes of memory that this process may still take, if that is known.
    pub memory_bytes: Option<u64>,
    /// Does the kernel refuse a server of its own TCP this address and port, because a socket has them?
    pub is_in_use: fn(SocketAddr) -> bool,
    /// What there is to know of the XDP program with this identifier.
    pub xdp_holder: fn(u32) -> Holder,
}

/// What will be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The interface's Ethernet address.
    pub mac: Mac,
    /// How packets lie in the driver's memory.
    pub buffers: Buffers,
    /// One for each worker.
    pub workers: Vec<Place>,
    /// Prefixes of addresses that the kernel does not have, with their lengths (0 to 32 for IPv4, 0 to 128 for IPv6): we answer
    /// ARP and neighbour solicitations for them.
    pub owned: Vec<Prefix>,
    /// What is set on the NIC so that packets come to the workers' queues.
    pub steering: Steering,
    /// Lines the user should read, none of them an error.
    pub notes: Vec<String>,
}

/// Where a worker sits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The core it is pinned to.
    pub core: usize,
    /// The queues it serves.
    pub queues: Vec<usize>,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        let cores =
            core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        // Without /proc nothing is known: let the kernel decide.
        let capabilities =
            effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(u64::MAX);
        let setting = |name: &str| fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap_or_default();
        let range = setting("ipv4/ip_local_port_range");
        let mut range = range.split_whitespace().map_while(|port| port.parse().ok());
        let forwards = |name: &str| !matches!(setting(name).trim(), "" | "0");
        Self {
            cores,
            capabilities,
            // Where nothing is known, there is none: no port is above the first and below the last.
            local_ports: range.next().zip(range.next()).unwrap_or((u16::MAX, 0)),
            reserved_ports: port_ranges(&setting("ipv4/ip_local_reserved_ports")),
            forwards: (forwards("ipv4/ip_forward"), forwards("ipv6/conf/all/forwarding")),
            memory_bytes: memory::available_bytes(),
            is_in_use: serve::is_in_use,
            xdp_holder: crate::host::program::holder,
        }
    }

    /// May the kernel give this port to a connection of its own?
    fn may_take(&self, port: u16) -> bool {
        let within = |&(first, last): &(u16, u16)| (first..=last).contains(&port);
        within(&self.local_ports) && !self.reserved_ports.iter().any(within)
    }
}

/// Ports as the kernel lists them: `8080,9000-9010`.
fn port_ranges(list: &str) -> Vec<(u16, u16)> {
    list.trim().split(',').filter_map(parse_range).collect()
}

impl Plan {
    /// Who does what, if nothing speaks against it. What a command owns, and what it has to say beyond the rings, it adds.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    fn new(rings: &Rings, interface: &Interface, machine: &Machine) -> Result<Self, String> {
        let name = &interface.name;
        check_capabilities(machine.capabilities)?;
        let Some(mac) = interface.mac else {
            return Err(format!("{name} is not an Ethernet interface: give one that is"));
        };
        if !interface.up {
            return Err(format!("{name} is down: ip link set {name} up"));
        }
        let buffers = buffers(&interface.driver, interface.mtu);
        let most = max_mtu(buffers);
        if interface.mtu > most {
            return Err(format!(
                "{name} has an MTU of {}, there are frames for {most}: ip link set {name} mtu {most}",
                interface.mtu
            ));
        }
        if let Some(id) = interface.xdp_program {
            return Err((machine.xdp_holder)(id).refuses(name));
        }
        let steering = check_steering(rings.steer(), interface)?;
        let queues = check_queues(rings.queues(), interface, &steering)?;
        let workers = deal(&queues, rings.workers(), rings.cores(), &machine.cores)?;
        Ok(Self { mac, buffers, workers, owned: Vec::new(), steering, notes: notes(rings, interface) })
    }

    /// All the queues of all workers.
    #[must_use]
    pub fn queues(&self) -> Vec<usize> {
        let mut queues: Vec<usize> =
            self.workers.iter().flat_map(|place| place.queues.iter().copied()).collect();
        queues.sort_unstable();
        queues
    }
}

/// What AF_XDP, the program and its attachment need: number in linux/capability.h, and name. Without `CAP_PERFMON` the verifier
/// refuses the program its variable packet offsets.
const NEEDED: [(u32, &str); 4] =
    [(13, "cap_net_raw"), (12, "cap_net_admin"), (CAP_BPF, "cap_bpf"), (CAP_PERFMON, "cap_perfmon")];
const CAP_BPF: u32 = 39;
const CAP_PERFMON: u32 = 38;
/// `CAP_SYS_ADMIN` stands in for those two.
const SYS_ADMIN: u32 = 21;

/// How to be allowed everything, the memory for frames beyond RLIMIT_MEMLOCK included: what the user can type.
#[must_use]
pub fn how_to_permit() -> String {
    let program =
        std::env::current_exe().map_or_else(|_| "PATH-OF-SYNMILL".into(), |path| path.display().to_string());
    format!(
        "run it with sudo, or once: sudo setcap {},cap_ipc_lock+ep {program}",
        NEEDED.map(|(_, name)| name).join(",")
    )
}

fn check_capabilities(effective: u64) -> Result<(), String> {
    let has = |number: u32| effective & (1 << number) != 0;
    let stood_in = |number| matches!(number, CAP_BPF | CAP_PERFMON) && has(SYS_ADMIN);
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|&&(number, _)| !has(number) && !stood_in(number))
        .map(|&(_, name)| name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(format!("missing {}: {}", missing.join(", ").to_uppercase(), how_to_permit()))
}

/// `ethtool -L` with `count` queues each way.
fn set_queues(interface: &Interface, count: usize) -> String {
    nic::set_queues(&interface.name, &interface.driver, count)
}

/// The queues to serve: all that receive, unless the NIC is told to spare the others, and each of them can send.
fn check_queues(asked: &Queues, interface: &Interface, steering: &Steering) -> Result<Vec<usize>, String> {
    let name = &interface.name;
    let active: Vec<usize> = (0..interface.queues.rx).collect();
    let queues = match asked {
        Queues::All => active.clone(),
        Queues::Only(numbers) => numbers.to_vec(),
    };
    if let Some(beyond) = queues.iter().find(|queue| !active.contains(queue)) {
        return Err(format!(
            "queue {beyond} of {name} is not active, {} is: use --queues all, or {}",
            ranges(&active),
            set_queues(interface, beyond + 1)
        ));
    }
    let uncovered: Vec<usize> = active.iter().copied().filter(|queue| !queues.contains(queue)).collect();
    if let Some(first) = uncovered.first()
        && *steering == Steering::Untouched
    {
        let fewer = if *first > 0 && queues.len() == *first {
            format!(", or {}", set_queues(interface, *first))
        } else {
            String::new()
        };
        let help = match interface.help {
            // An igb says that it has rules, and may refuse each.
            Help { table_len: 1.., has_rules: true, .. } => ", or --steer rss or ntuple",
            Help { table_len: 1.., .. } => ", or --steer rss",
            Help { has_rules: true, .. } => ", or --steer ntuple",
            Help { .. } => "",
        };
        return Err(format!(
            "queue {} of {name} would stay with the kernel, which resets what arrives there: use --queues all{fewer}{help}",
            ranges(&uncovered)
        ));
    }
    let (rx, tx) = (interface.queues.rx, interface.queues.tx);
    if queues.iter().any(|&queue| queue >= tx) {
        return Err(format!(
            "{name} has {rx} receive queues and {tx} to transmit, a worker needs both: {}",
            set_queues(interface, tx)
        ));
    }
    Ok(queues)
}

/// Deals queues out to workers in turn, and workers to cores.
fn deal(
    queues: &[usize],
    workers: Option<usize>,
    cores: Option<&[usize]>,
    allowed: &[usize],
) -> Result<Vec<Place>, String> {
    let count = workers.unwrap_or(queues.len());
    if count > queues.len() {
        let most = queues.len();
        return Err(format!(
            "--workers {count} for {}: give at most --workers {most}",
            counted(most as u64, "queue")
        ));
    }
    if queues.len() > count * QUEUES_PER_WORKER {
        let least = queues.len().div_ceil(QUEUES_PER_WORKER);
        return Err(format!(
            "--workers {count} for {} queues: give at least --workers {least}",
            queues.len()
        ));
    }
    let cores = cores.unwrap_or(allowed);
    if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
        let allowed = ranges(allowed);
        return Err(format!("core {core} is not one this process may run on: give --cores from {allowed}"));
    }
    if cores.len() < count {
        let cores = cores.len();
        return Err(format!(
            "{} for {}, each needs its own: give --workers {cores}",
            counted(cores as u64, "core"),
            counted(count as u64, "worker")
        ));
    }
    let place = |(number, &core): (usize, &usize)| Place {
        core,
        queues: queues.iter().copied().skip(number).step_by(count).collect(),
    };
    Ok(cores.iter().take(count).enumerate().map(place).collect())
}

fn notes(rings: &Rings, interface: &Interface) -> Vec<String> {
    let mut notes = Vec::new();
    let name = &interface.name;
    if !interface.carrier {
        notes.push(format!("{name} has no carrier yet: nothing arrives until its other end is up"));
    }
    if interface.driver == "veth" && !rings.accept_partial_checksums {
        notes.push(format!(
            "{name} is a veth: a kernel at its other end may leave checksums unfinished, and those segments are dropped; \
             there: ethtool -K <peer> tx off, or here: --accept-partial-checksums"
        ));
    }
    let several = buffers(&interface.driver, interface.mtu) == Buffers::Several;
    if interface.driver == "veth" && several && rings.accept_partial_checksums {
        notes.push(format!(
            "{name} is a veth with an MTU of {}: a kernel at its other end may send many segments as one packet, larger than a frame, and \
             they are lost; there: ethtool -K <peer> tso off",
            interface.mtu
        ));
    }
    if interface.driver == "veth" && rings.busy_poll {
        notes.push(format!("--busy-poll does nothing on {name}: veth has no NAPI to poll"));
    }
    if interface.offloads.lro {
        notes.push(format!(
            "{name} merges segments (LRO) into packets that may be larger than a frame, and are lost then: \
             ethtool -K {name} lro off"
        ));
    }
    if interface.offloads.strips_vlan && interface.carries_vlans {
        let fix = if interface.driver == "veth" {
            "at its other end: ethtool -K <peer> txvlan off".into()
        } else {
            format!("ethtool -K {name} rxvlan off")
        };
        notes.push(format!(
            "{name} has VLANs and takes their tags off: what comes with a tag is answered without one; {fix}"
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::cli::{Command, parse};
    use crate::face::config::Config;
    use crate::host::nic::Offloads;

    pub(super) fn config(arguments: &str) -> Config<()> {
        let arguments = format!("synmill serve --interface t0 --listen 198.18.0.2:80 {arguments}");
        let Ok(cli) = parse(arguments.split_whitespace()) else { panic!("{arguments}") };
        let Command::Serve(serve) = cli.command else { panic!("another command") };
        Config::new(*serve, |_| Ok::<(), String>(())).unwrap()
    }

    pub(super) fn interface() -> Interface {
        Interface {
            name: "t0".into(),
            index: 2,
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            up: true,
            carrier: true,
            addresses: vec![("198.18.0.2".parse().unwrap(), "198.18.0.0/24".parse().unwrap())],
            elsewhere: vec![("198.19.0.1".parse().unwrap(), "t1".into())],
            carries_vlans: false,
            offloads: Offloads { lro: false, strips_vlan: true },
            queues: nic::Queues { rx: 4, tx: 4 },
            help: Help { has_rules: true, table_len: 128, key_len: 40, errors: String::new() },
            driver: "ice".into(),
            xdp_program: None,
        }
    }

    pub(super) fn machine(cores: usize) -> Machine {
        Machine {
            cores: (0..cores).collect(),
            capabilities: u64::MAX,
            local_ports: (32768, 60999),
            reserved_ports: vec![(40000, 40001)],
            forwards: (false, false),
            memory_bytes: Some(16_000_000_000),
            is_in_use: |_| false,
            xdp_holder: |id| Holder { id: Some(id), name: None },
        }
    }

    #[test]
    fn queues_are_dealt_out_in_turn() {
        let plan = Plan::serve(&config("--workers 3 --cores 5,1,4"), &interface(), &machine(6)).unwrap();
        let places: Vec<(usize, &[usize])> =
            plan.workers.iter().map(|place| (place.core, place.queues.as_slice())).collect();
        assert_eq!(places, [(5, &[0, 3][..]), (1, &[1]), (4, &[2])]);
        assert_eq!((plan.owned.len(), plan.notes.len()), (0, 0));

        let plan = Plan::serve(&config(""), &interface(), &machine(6)).unwrap();
        assert_eq!(plan.workers.len(), 4);
        assert!(plan.workers.iter().enumerate().all(|(number, place)| place.core == number));
    }

    #[test]
    fn each_refusal_says_how_to_fix_it() {
        type Change = fn(&mut Interface, &mut Machine);
        let table: [(&str, Change, &str); 31] = [
            ("", |i, _| i.up = false, "ip link set t0 up"),
            ("", |i, _| i.mac = None, "not an Ethernet interface"),
            ("", |i, _| i.mtu = 16_000, "frames for 15338: ip link set t0 mtu 15338"),
            (
                "",
                |i, _| (i.mtu, i.driver) = (15_339, "virtio_net".into()),
                "frames for 15338: ip link set t0 mtu 15338",
            ),
            ("", |i, _| i.xdp_program = Some(7), "unless it is on a BPF link, ip link set t0 xdp off"),
            ("--queues 0-4", |_, _| {}, "queue 4 of t0 is not active, 0-3 is"),
            ("--queues 0-4", |_, _| {}, "ethtool -L t0 combined 5"),
            ("--queues 0,1", |_, _| {}, "queue 2-3 of t0 would stay with the kernel"),
            ("--queues 0,1", |i, _| i.driver = "veth".into(), "or ethtool -L t0 rx 2 tx 2"),
            ("--queues 0,2", |_, _| {}, "use --queues all"),
            ("", |i, _| i.queues.tx = 2, "ethtool -L t0 combined 2"),
            ("--queues 1-2 --steer rss", |i, _| i.queues.tx = 2, "ethtool -L t0 combined 2"),
            ("--queues 4 --steer rss", |_, _| {}, "queue 4 of t0 is not active, 0-3 is"),
            ("--queues 0,2", |_, _| {}, "use --queues all, or --steer rss or ntuple"),
            ("--queues 0,2", |i, _| i.help.table_len = 0, "use --queues all, or --steer ntuple"),
            ("--queues 0,2", |i, _| i.help.has_rules = false, "use --queues all, or --steer rss"),
            (
                "--steer ntuple",
                |i, _| i.help.has_rules = false,
                "t0 has no flow rules (driver ice): leave --steer out, or",
            ),
            (
                "--steer ntuple",
                |i, _| i.help = Help::default(),
                "t0 has no flow rules (driver ice): leave --steer out",
            ),
            (
                "--steer rss",
                |i, _| i.help.table_len = 0,
                "t0 has no RSS table (driver ice): leave --steer out",
            ),
            (
                "--steer rss",
                |i, _| i.help = Help { errors: "asked for it: no".into(), ..Help::default() },
                "t0 has no RSS table (driver ice; asked for it: no): leave",
            ),
            (
                "--steer rss --rss-key 01:02",
                |_, _| {},
                "the RSS key of t0 has 40 bytes, --rss-key 2: give as many",
            ),
            (
                "--steer rss --rss-key 01",
                |i, _| i.help.key_len = 0,
                "takes no RSS key (driver ice), and --rss-key has 1 byte",
            ),
            ("--workers 5", |_, _| {}, "at most --workers 4"),
            ("--workers 1", |i, _| (i.queues.rx, i.queues.tx) = (300, 300), "at least --workers 2"),
            ("--cores 0-2,9", |_, _| {}, "core 9 is not one this process may run on: give --cores from 0-3"),
            ("", |_, m| m.cores = vec![0, 1], "give --workers 2"),
            ("", |_, m| m.capabilities = 1 << 12 | 1 << 21, "missing CAP_NET_RAW: run it with sudo"),
            (
                "",
                |_, m| m.capabilities = 0,
                "setcap cap_net_raw,cap_net_admin,cap_bpf,cap_perfmon,cap_ipc_lock+ep",
            ),
            ("", |_, m| m.capabilities = !(1 << 38 | 1 << 21), "missing CAP_PERFMON: "),
            (
                "--max-connections 10M",
                |_, m| m.memory_bytes = Some(500_000_000),
                "room for 10,000,000 connections needs 1,",
            ),
            (
                "--max-connections 10M",
                |_, m| m.memory_bytes = Some(500_000_000),
                "and 500,000,000 are available: give at most --max-connections 3",
            ),
        ];
        for (arguments, change, part) in table {
            let (mut interface, mut machine) = (interface(), machine(4));
            change(&mut interface, &mut machine);
            let line = Plan::serve(&config(arguments), &interface, &machine).expect_err(part);
            assert!(line.contains(part), "says: {line}\n not: {part}");
            assert!(!line.contains('\n'), "more than a line: {line}");
        }
    }

    #[test]
    fn what_is_allowed_but_surprising_is_noted() {
        let mut veth = interface();
        veth.driver = "veth".into();
        veth.carrier = false;
        let plan = Plan::serve(&config("--busy-poll --listen [::]:80"), &veth, &machine(4)).unwrap();
        for part in
            ["no carrier", "--accept-partial-checksums", "--busy-poll does nothing", "--listen [::]:80"]
        {
            assert!(plan.notes.iter().any(|note| note.contains(part)), "{part}: {:?}", plan.notes);
        }
    }

    pub(super) fn notes(arguments: &str, change: impl Fn(&mut Interface, &mut Machine)) -> Vec<String> {
        let (mut interface, mut machine) = (interface(), machine(4));
        change(&mut interface, &mut machine);
        Plan::serve(&config(arguments), &interface, &machine).unwrap().notes
    }

    #[test]
    fn what_the_driver_does_to_packets_is_noted() {
        let lro = notes("", |interface, _| interface.offloads.lro = true);
        assert!(lro[0].contains("ethtool -K t0 lro off"), "{lro:?}");
        let jumbo = notes("--accept-partial-checksums", |i, _| (i.driver, i.mtu) = ("veth".into(), 9000));
        assert!(
            jumbo.iter().any(|note| note.contains("MTU of 9000") && note.contains("tso off")),
            "{jumbo:?}"
        );
        let vlan = notes("", |interface, _| interface.carries_vlans = true);
        assert!(vlan[0].contains("ethtool -K t0 rxvlan off"), "{vlan:?}");
    }

    #[test]
    fn this_machine_has_cores() {
        assert!(!Machine::here().cores.is_empty());
    }
}
