//! Plans from the command line, on an interface and a machine that are made up.

use super::*;
use crate::face::cli::{Command, parse};
use crate::face::config::{Bench, Serve};
use crate::host::nic::{self, Help, Offloads};
use crate::text::hex;

/// Returns the plan of a command line.
fn plan(arguments: &str, interface: &Interface, machine: &Machine) -> Result<Plan, String> {
    let Ok(cli) = parse(arguments.split_whitespace()) else { panic!("{arguments}") };
    match cli.command {
        Command::Serve(options) => {
            let serve = Serve::new(*options, |_| Ok::<(), String>(())).unwrap();
            Plan::new(serve.rings.clone(), serve.endpoint, &serve.role(), interface, machine)
        }
        Command::Bench(options) => {
            let bench = Bench::new(*options).unwrap();
            Plan::new(bench.rings.clone(), bench.endpoint, &bench.role(), interface, machine)
        }
        Command::Conns(_) => panic!("another command"),
    }
}

fn serve(arguments: &str, interface: &Interface, machine: &Machine) -> Result<Plan, String> {
    let arguments = format!("synmill serve --interface t0 --listen 198.18.0.2:80 {arguments}");
    plan(&arguments, interface, machine)
}

fn bench(arguments: &str, change: impl Fn(&mut Interface)) -> Result<Plan, String> {
    let mut interface = interface();
    change(&mut interface);
    plan(&format!("synmill bench --interface t0 --rate 1 {arguments}"), &interface, &machine(4))
}

fn interface() -> Interface {
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

fn machine(cores: usize) -> Machine {
    Machine {
        cores: (0..cores).collect(),
        capabilities: u64::MAX,
        local_ports: (32768, 60999),
        reserved_ports: vec![(40000, 40001)],
        forwards: (false, false),
        memory_bytes: Some(16_000_000_000),
        is_in_use: |_| false,
    }
}

#[test]
fn queues_are_dealt_out_in_turn() {
    let plan = serve("--workers 3 --cores 5,1,4", &interface(), &machine(6)).unwrap();
    let places: Vec<(usize, &[usize])> =
        plan.workers.iter().map(|place| (place.core, place.queues.as_slice())).collect();
    assert_eq!(places, [(5, &[0, 3][..]), (1, &[1]), (4, &[2])]);
    assert_eq!((plan.owned.len(), plan.notes.len()), (0, 0));

    let plan = serve("", &interface(), &machine(6)).unwrap();
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
        ("", |i, _| i.xdp_program = Some(u32::MAX), "unless it is on a BPF link, ip link set t0 xdp off"),
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
        ("--steer rss", |i, _| i.help.table_len = 0, "t0 has no RSS table (driver ice): leave --steer out"),
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
        let line = serve(arguments, &interface, &machine).expect_err(part);
        assert!(line.contains(part), "says: {line}\n not: {part}");
        assert!(!line.contains('\n'), "more than a line: {line}");
    }
}

#[test]
fn what_the_attachment_changes_amends_the_plan() {
    let mut interface = interface();
    interface.offloads.lro = true;
    let mut plan = serve("--listen 198.18.0.9:81", &interface, &machine(4)).unwrap();
    assert_eq!((plan.workers.len(), plan.notes.len()), (4, 1));
    (interface.offloads.lro, interface.queues.rx) = (false, 3);
    plan.amend(&interface).unwrap();
    assert_eq!((plan.queues(), plan.owned.len(), plan.notes.len()), (vec![0, 1, 2], 1, 0));
    interface.queues.tx = 2;
    assert!(plan.amend(&interface).unwrap_err().contains("ethtool -L t0 combined 2"));
}

#[test]
fn what_is_allowed_but_surprising_is_noted() {
    let mut veth = interface();
    veth.driver = "veth".into();
    veth.carrier = false;
    let plan = serve("--busy-poll --listen [::]:80", &veth, &machine(4)).unwrap();
    for part in ["no carrier", "--accept-partial-checksums", "--busy-poll does nothing", "--listen [::]:80"] {
        assert!(plan.notes.iter().any(|note| note.contains(part)), "{part}: {:?}", plan.notes);
    }
}

fn notes(arguments: &str, change: impl Fn(&mut Interface, &mut Machine)) -> Vec<String> {
    let (mut interface, mut machine) = (interface(), machine(4));
    change(&mut interface, &mut machine);
    serve(arguments, &interface, &machine).unwrap().notes
}

#[test]
fn what_the_driver_does_to_packets_is_noted() {
    let lro = notes("", |interface, _| interface.offloads.lro = true);
    assert!(lro[0].contains("ethtool -K t0 lro off"), "{lro:?}");
    let jumbo = notes("--accept-partial-checksums", |i, _| (i.driver, i.mtu) = ("veth".into(), 9000));
    assert!(jumbo.iter().any(|note| note.contains("MTU of 9000") && note.contains("tso off")), "{jumbo:?}");
    let vlan = notes("", |interface, _| interface.carries_vlans = true);
    assert!(vlan[0].contains("ethtool -K t0 rxvlan off"), "{vlan:?}");
}

#[test]
fn queues_may_be_left_out_where_the_nic_is_told_to() {
    let steering = |arguments: &str, queues: &[usize]| {
        let plan = serve(arguments, &interface(), &machine(4)).unwrap();
        assert_eq!(plan.queues(), queues, "{arguments}");
        plan.steering
    };
    let table = |key| Steering::Table { key };
    let key = hex(&(1..=40).collect::<Vec<_>>());
    assert_eq!(steering("", &[0, 1, 2, 3]), Steering::Untouched);
    assert_eq!(steering("--steer rss --queues 3,1", &[1, 3]), table(None));
    let arguments = format!("--steer rss --queues 2 --rss-key {key}");
    assert_eq!(steering(&arguments, &[2]), table(Some(key.parse().unwrap())));

    let to = |end: &str| Flow::TcpTo(end.parse().unwrap());
    let ours = to("198.18.0.2:80");
    assert_eq!(steering("--steer ntuple --queues 1", &[1]), Steering::Rules(vec![ours]));
    // Neighbours ask for owned addresses by ARP, or in ICMPv6.
    let listen = "--listen 198.18.0.9:81 --listen [fd00:18::9]:82 --listen 198.18.0.9:83";
    let flows = [ours, to("198.18.0.9:81"), to("[fd00:18::9]:82"), to("198.18.0.9:83")];
    let with_neighbours = [&flows[..], &[Flow::Arp, Flow::Icmpv6]].concat();
    let arguments = format!("--steer ntuple --queues 1 {listen}");
    assert_eq!(steering(&arguments, &[1]), Steering::Rules(with_neighbours));
    // ARP comes to queue 0 by itself.
    let with_neighbours = [&flows[..], &[Flow::Icmpv6]].concat();
    let arguments = format!("--steer ntuple --queues 0-1 {listen}");
    assert_eq!(steering(&arguments, &[0, 1]), Steering::Rules(with_neighbours));
    // The RSS table does not move ARP.
    let plan = |arguments: &str| serve(arguments, &interface(), &machine(4));
    let line = plan("--steer rss --queues 1-3 --listen 198.18.0.9:81").unwrap_err();
    assert!(line.contains("ask for 198.18.0.9") && line.contains("queue 0 among --queues"), "{line}");
    assert!(plan("--steer rss --queues 1-3").is_ok());
    assert!(plan("--steer rss --queues 0-2 --listen 198.18.0.9:81").is_ok());
    // All that comes is on our queues, if all are ours.
    let plan = plan(&format!("--steer ntuple {listen}")).unwrap();
    assert_eq!(plan.steering, Steering::Untouched);
    assert!(plan.notes[0].contains("so no flow rule is needed"), "{:?}", plan.notes);
}

#[test]
fn an_address_the_kernel_does_not_have_is_owned_once() {
    let listen = "--listen 198.18.0.9:1 --listen 198.18.0.9:2 --listen [fd00:18::9]:1 --listen 0.0.0.0:3";
    let plan = serve(listen, &interface(), &machine(4)).unwrap();
    let owned: Vec<String> = plan.owned.iter().map(ToString::to_string).collect();
    assert_eq!(owned, ["198.18.0.9/32", "fd00:18::9/128"]);
}

#[test]
fn what_the_kernels_tcp_has_is_refused() {
    let refused = |listen: &str, is_in_use: fn(SocketAddr) -> bool| {
        let machine = Machine { is_in_use, ..machine(4) };
        serve(&format!("--listen {listen}"), &interface(), &machine).err()
    };
    let port_22: fn(SocketAddr) -> bool = |address| address.port() == 22;
    for listen in ["198.18.0.2:22", "198.19.0.1:22", "0.0.0.0:22"] {
        let line = refused(listen, port_22).expect(listen);
        let words =
            format!("{listen} is in use: a socket of the kernel's TCP has it (see `ss -tanp sport = :22`): ");
        assert!(line.starts_with(&words), "{line}");
    }
    // Another port, an address that only we have, and a family that the kernel has no address of.
    for listen in ["198.18.0.2:23", "198.18.0.9:22", "[::]:22"] {
        assert_eq!(refused(listen, port_22), None, "{listen}");
    }
    let elsewhere: fn(SocketAddr) -> bool = |address| address.to_string() == "198.19.0.1:22";
    assert_eq!(refused("198.18.0.2:22", elsewhere), None);
    assert!(refused("0.0.0.0:22", elsewhere).is_some());
}

#[test]
fn ports_that_the_kernel_may_take_are_noted() {
    let listen = |address: &str| notes(&format!("--listen {address}"), |_, _| {});
    for address in ["198.18.0.2:50000", "0.0.0.0:32768", "198.19.0.1:60999"] {
        let notes = listen(address);
        assert!(notes.iter().any(|note| note.contains("ip_local_reserved_ports")), "{address}: {notes:?}");
    }
    // Outside the range, reserved, and at an address that the kernel does not have.
    for address in ["198.18.0.2:61000", "198.18.0.2:40001", "198.18.0.9:50000"] {
        assert_eq!(listen(address), [""; 0], "{address}");
    }
}

#[test]
fn traffic_that_is_not_for_this_host_is_noted() {
    let v4 = |_: &mut Interface, machine: &mut Machine| machine.forwards = (true, false);
    let taken = notes("--listen 0.0.0.0:81", v4);
    assert!(taken.iter().any(|note| note.contains("port 81 of any host")), "{taken:?}");
    assert_eq!(notes("--listen 198.18.0.2:81", v4), [""; 0]);
    let v6 = |interface: &mut Interface, machine: &mut Machine| {
        interface.addresses.push(("fd00:18::2".parse().unwrap(), "fd00:18::/64".parse().unwrap()));
        machine.forwards = (true, false);
    };
    assert_eq!(notes("--listen [::]:81", v6), [""; 0]);
}

#[test]
fn an_address_of_another_interface_stays_the_kernels() {
    let plan = serve("--listen 198.19.0.1:80", &interface(), &machine(4)).unwrap();
    assert_eq!(plan.owned, []);
    assert!(plan.notes[0].contains("198.19.0.1 is an address of t1"), "{:?}", plan.notes);
}

#[test]
fn the_sources_are_owned() {
    let arguments = "--target 198.18.0.1:80 --source 198.18.0.64/26 --source fd00:19::/64 --workers 2";
    let plan = bench(arguments, |_| {}).unwrap();
    assert_eq!(
        plan.owned.iter().map(Prefix::to_string).collect::<Vec<_>>(),
        ["198.18.0.64/26", "fd00:19::/64"]
    );
    assert_eq!(plan.workers.len(), 2);
}

#[test]
fn what_targets_send_is_brought_to_the_queues() {
    let steering = |source: &str, change: fn(&mut Interface)| {
        let target = "--target 198.18.0.1:80 --target [fd00:18::1]:80";
        let arguments = format!("{target} --source {source} --steer ntuple --queues 1");
        bench(&arguments, change).unwrap().steering
    };
    let from = |end: &str| Flow::TcpFrom(end.parse().unwrap());
    let both = [from("198.18.0.1:80"), from("[fd00:18::1]:80")];
    let rules = |more: &[Flow]| Steering::Rules([&both[..], more].concat());
    let v6 = |i: &mut Interface| {
        i.addresses.push(("fd00:18::2".parse().unwrap(), "fd00:18::/64".parse().unwrap()));
    };
    assert_eq!(steering("198.18.0.64/26 --source fd00:19::/64", v6), rules(&[Flow::Arp]));
    assert_eq!(steering("198.20.0.0/16 --source fd00:18::1:0/112", v6), rules(&[Flow::Icmpv6]));
    // Neighbours know the way to a prefix that is routed here; a single address may be asked for.
    assert_eq!(steering("198.20.0.0/16 --source fd00:19::/64", v6), rules(&[]));
    assert_eq!(steering("198.20.0.1 --source fd00:19::1", |_| {}), rules(&[Flow::Arp, Flow::Icmpv6]));
}

#[test]
fn neighbours_that_ask_for_a_source_ask_at_queue_0() {
    let target = "--target 198.18.0.1:80 --steer rss --queues";
    let line = bench(&format!("{target} 1-3 --source 198.18.0.64/26"), |_| {}).unwrap_err();
    assert!(line.contains("ask for 198.18.0.64"), "{line}");
    assert!(bench(&format!("{target} 0 --source 198.18.0.64/26"), |_| {}).is_ok());
    assert!(bench(&format!("{target} 1-3 --source 198.20.0.0/16"), |_| {}).is_ok());
}

#[test]
fn the_kernels_addresses_are_refused() {
    let table = [
        ("--target 198.18.1.1:80 --source 198.18.0.0/24", "holds 198.18.0.2, which the kernel has on t0"),
        ("--target 198.18.1.1:80 --source 198.18.0.2", "without 198.18.0.2"),
        ("--target 198.18.1.1:80 --source 198.19.0.0/16", "holds 198.19.0.1, which the kernel has on t1"),
        ("--target 198.18.0.2:80 --source 198.20.0.0/16", "never leave by t0: give another host's"),
        ("--target 198.19.0.1:80 --source 198.20.0.0/16", "this host's own, on t1"),
        ("--target 198.18.0.1:80 --source 198.20.0.0/16 --workers 5", "at most --workers 4"),
    ];
    for (arguments, part) in table {
        let line = bench(arguments, |_| {}).expect_err(part);
        assert!(line.contains(part), "says: {line}\n not: {part}");
        assert!(!line.contains('\n'), "more than a line: {line}");
    }
}

#[test]
fn a_load_beyond_memory_is_refused() {
    let addresses = "--target 198.18.0.1:80 --source 198.20.0.0/16";
    let table = [
        ("synmill bench --interface t0 --rate 1 --max-connections 100M", "at most --max-connections"),
        ("synmill bench --interface t0 --concurrency 80M --max-connections 80M", "at most --concurrency"),
        ("synmill bench --interface t0 --rate 20M", "at most --max-connections"),
    ];
    for (arguments, part) in table {
        let arguments = format!("{arguments} {addresses}");
        let plan = |bytes| {
            let machine = Machine { memory_bytes: Some(bytes), ..machine(4) };
            plan(&arguments, &interface(), &machine)
        };
        let line = plan(10_000_000_000).unwrap_err();
        assert!(line.contains("and 10,000,000,000 are available") && line.contains(part), "{line}");
        assert!(plan(64_000_000_000).is_ok());
    }
}

#[test]
fn a_source_needs_a_way_back() {
    let link_local =
        |i: &mut Interface| i.addresses.push(("fe80::1".parse().unwrap(), "fe80::/64".parse().unwrap()));
    let both = |i: &mut Interface| {
        link_local(i);
        i.addresses.push(("fd00:18::2".parse().unwrap(), "fd00:18::/64".parse().unwrap()));
    };
    let (v4, v6) = ("--target 198.18.0.1:80 --source", "--target [fd00:18::1]:80 --source");
    type Change<'a> = &'a dyn Fn(&mut Interface);
    let table: [(&str, &str, Change<'_>, &str); 8] = [
        (v4, "198.20.0.0/16", &|_| {}, "there: ip route add 198.20.0.0/16 via 198.18.0.2"),
        (v4, "198.18.0.64/26", &|_| {}, ""),
        (v4, "198.18.0.128/25", &|_| {}, "holds 198.18.0.255, which is no host's in 198.18.0.0/24"),
        (v4, "198.18.0.0/32", &|_| {}, "holds 198.18.0.0, which is no host's"),
        (v6, "fd00:19::/64", &|_| {}, "ip route add fd00:19::/64 dev <its interface>"),
        (v6, "fd00:19::/64", &link_local, "ip route add fd00:19::/64 via fe80::1 dev <its interface>"),
        (v6, "fd00:19::/64", &both, "ip route add fd00:19::/64 via fd00:18::2"),
        (v6, "fd00:18::1:0/112", &both, ""),
    ];
    for (target, source, change, part) in table {
        let notes = bench(&format!("{target} {source}"), change).unwrap().notes;
        let told = notes.join("\n");
        assert!(told.contains(part) && part.is_empty() == told.is_empty(), "{source}: {notes:?}");
    }
}

#[test]
fn each_of_several_workers_has_its_own_capture() {
    assert_eq!(captures(Path::new("a.pcap"), 1), [PathBuf::from("a.pcap")]);
    let two = ["a.pcap.0", "a.pcap.1"].map(PathBuf::from);
    assert_eq!(captures(Path::new("a.pcap"), 2), two);
}
