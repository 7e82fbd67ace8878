//! The plan of `synmill bench`: whose addresses its sources and targets are.

use std::net::{IpAddr, Ipv4Addr};

use super::memory::Wanted;
use super::{Machine, Plan};
use crate::face::config::Bench;
use crate::host::nic::{Flow, Interface};
use synmill_engine::endpoint::memory_needed;
use synmill_engine::flow::Prefix;
use synmill_engine::generator::{Generator, Load};

impl Plan {
    /// The plan for a generator: its sources are ours, and nobody else's on this host.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub fn bench(config: &Bench, interface: &Interface, machine: &Machine) -> Result<Self, String> {
        let mut plan = Self::new(&config.rings, interface, machine)?;
        check_addresses(config, interface)?;
        check_memory(config, interface, &plan, machine)?;
        plan.owned = config.sources().to_vec();
        plan.bring(config.targets().iter().map(|&target| Flow::TcpFrom(target)), interface)?;
        plan.notes.extend(config.sources().iter().filter_map(|source| note(source, interface)));
        Ok(plan)
    }
}

/// Endpoints and generators have room for all connections from the start.
fn check_memory(config: &Bench, interface: &Interface, plan: &Plan, machine: &Machine) -> Result<(), String> {
    let least = match config.load() {
        Load::Concurrency(count) => Some(("--concurrency", count as usize)),
        Load::Rate(_) | Load::Max => None,
    };
    let wanted = Wanted {
        connections: config.max_connections(),
        least,
        workers: &plan.workers,
        buffers: plan.buffers,
        mtu: interface.mtu,
    };
    wanted.check(machine.memory_bytes, |slots, frames| {
        memory_needed(slots, frames) + Generator::memory_needed(slots)
    })
}

/// The kernel's own addresses can be neither end of a connection.
fn check_addresses(config: &Bench, interface: &Interface) -> Result<(), String> {
    let name = &interface.name;
    let here = interface.addresses.iter().map(|(address, _)| (*address, name));
    let elsewhere = interface.elsewhere.iter().map(|(address, name)| (*address, name));
    for (address, owner) in here.chain(elsewhere) {
        if let Some(source) = config.sources().iter().find(|source| source.contains(address.into())) {
            return Err(format!(
                "--source {source} holds {address}, which the kernel has on {owner}: give addresses that nobody has, \
                 such as a part of it without {address}"
            ));
        }
        if let Some(target) = config.targets().iter().find(|target| target.ip() == address) {
            return Err(format!(
                "--target {target} is this host's own, on {owner}, and packets to it never leave by {name}: \
                 give another host's"
            ));
        }
    }
    Ok(())
}

/// What stands between a source's connections and their answers.
fn note(source: &Prefix, interface: &Interface) -> Option<String> {
    let name = &interface.name;
    if let Some((_, subnet)) = interface.addresses.iter().find(|(_, subnet)| subnet.overlaps(source)) {
        let address =
            not_a_hosts(subnet).into_iter().flatten().find(|&address| source.contains(address.into()))?;
        return Some(format!(
            "--source {source} holds {address}, which is no host's in {subnet}: connections from it fail; give a prefix without it"
        ));
    }
    let same_family = |(ip, _): &&(IpAddr, Prefix)| ip.is_ipv4() == source.first().is_v4();
    // A link-local address leads here, too, but only from this link: any other first.
    let ours: Vec<IpAddr> = interface.addresses.iter().filter(same_family).map(|&(ip, _)| ip).collect();
    let is_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let way = match ours.iter().find(|&ip| !is_local(ip)).or(ours.first()) {
        Some(ip) if is_local(ip) => format!("via {ip} dev <its interface>"),
        Some(ip) => format!("via {ip}"),
        None => "dev <its interface>".into(),
    };
    Some(format!(
        "--source {source} is in no subnet of {name}: answers come only if the target, or the router to it, has a route; \
         there: ip route add {source} {way}"
    ))
}

/// A subnet's own address and its broadcast address (RFC 1122 section 3.2.1.3), where it has them: IPv4, and more than two addresses
/// (RFC 3021).
fn not_a_hosts(subnet: &Prefix) -> Option<[IpAddr; 2]> {
    match subnet.first().to_ip() {
        IpAddr::V4(first) if subnet.len() < 31 => {
            let last = Ipv4Addr::from_bits(first.to_bits() | u32::MAX >> subnet.len());
            Some([first.into(), last.into()])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{interface, machine};
    use super::*;
    use crate::face::cli::{Command, parse};
    use crate::host::nic::spread::Steering;

    fn plan(arguments: &str, change: impl Fn(&mut Interface)) -> Result<Plan, String> {
        let arguments = format!("synmill bench --interface t0 --rate 1 {arguments}");
        let Ok(cli) = parse(arguments.split_whitespace()) else { panic!("{arguments}") };
        let Command::Bench(bench) = cli.command else { panic!("another command") };
        let mut interface = interface();
        change(&mut interface);
        Plan::bench(&Bench::new(*bench).unwrap(), &interface, &machine(4))
    }

    #[test]
    fn the_sources_are_owned() {
        let arguments = "--target 198.18.0.1:80 --source 198.18.0.64/26 --source fd00:19::/64 --workers 2";
        let plan = plan(arguments, |_| {}).unwrap();
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
            plan(&arguments, change).unwrap().steering
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
        let line = plan(&format!("{target} 1-3 --source 198.18.0.64/26"), |_| {}).unwrap_err();
        assert!(line.contains("ask for 198.18.0.64"), "{line}");
        assert!(plan(&format!("{target} 0 --source 198.18.0.64/26"), |_| {}).is_ok());
        assert!(plan(&format!("{target} 1-3 --source 198.20.0.0/16"), |_| {}).is_ok());
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
            let line = plan(arguments, |_| {}).expect_err(part);
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
            let Ok(cli) = parse(arguments.split_whitespace()) else { panic!("{arguments}") };
            let Command::Bench(bench) = cli.command else { panic!("another command") };
            let config = Bench::new(*bench).unwrap();
            let plan = |bytes| {
                let machine = Machine { memory_bytes: Some(bytes), ..machine(4) };
                Plan::bench(&config, &interface(), &machine)
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
            let notes = plan(&format!("{target} {source}"), change).unwrap().notes;
            let told = notes.join("\n");
            assert!(told.contains(part) && part.is_empty() == told.is_empty(), "{source}: {notes:?}");
        }
    }
}
