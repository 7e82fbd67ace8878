use std::fs;

use super::*;
use crate::face::cli::{Cli, Command, Stop, parse};

const REST: &str = "--interface t0 --target 198.18.0.2:80 --source 198.19.0.0/16";

/// Parses and checks a command line. An error is the line that a user sees.
fn configure(arguments: &str) -> Result<Valid<Bench>, String> {
    match parse("synmill bench".split(' ').chain(arguments.split_whitespace())) {
        Ok(Cli { command: Command::Bench(bench) }) => Bench::new(*bench),
        Ok(_) => panic!("another command"),
        Err(Stop::Usage(line)) => Err(line),
        Err(Stop::Text(text)) => panic!("help instead of a configuration: {text}"),
    }
}

fn bench(arguments: &str) -> Valid<Bench> {
    configure(&format!("{REST} {arguments}")).unwrap()
}

#[test]
fn defaults_are_those_of_the_help() {
    let bench = bench("--rate 100K/s");
    assert_eq!(bench.targets, ["198.18.0.2:80".parse().unwrap()]);
    assert_eq!(bench.sources, ["198.19.0.0/16".parse().unwrap()]);
    assert_eq!(bench.source_ports, 1024..=65535);
    assert_eq!((bench.load, bench.search), (Load::Rate(100_000), None));
    assert_eq!((&bench.workload, bench.requests), (&Workload::Connect, 1));
    assert_eq!((bench.close_by, bench.endpoint.piggyback), (CloseBy::Fin, true));
    let seconds = [bench.ramp, bench.warmup, bench.duration, bench.drain, bench.timeout];
    assert_eq!(seconds.map(|time| time.as_secs()), [0, 1, 10, 5, 5]);
    assert_eq!(bench.endpoint.time_wait, Duration::from_secs(60));
    assert_eq!((&bench.hdr, &bench.output.json, bench.rings.interface.as_str()), (&None, &None, "t0"));
}

#[test]
fn a_load_is_one_of_three() {
    let table = [
        ("--rate 1", Load::Rate(1), None),
        ("--rate 2M", Load::Rate(2_000_000), None),
        ("--rate max", Load::Max, None),
        ("--concurrency 10K", Load::Concurrency(10_000), None),
        ("--search", Load::Max, Some(0.0)),
        ("--search --loss 0.001", Load::Max, Some(0.001)),
        ("--search --loss 0.1%", Load::Max, Some(0.001)),
    ];
    for (arguments, load, search) in table {
        let bench = bench(arguments);
        assert_eq!((bench.load, bench.search), (load, search), "{arguments}");
    }
}

#[test]
fn each_workload_has_what_it_needs() {
    let Workload::Request { payload, expect } = bench("--rate 1 --workload request").workload.clone() else {
        panic!("no request")
    };
    assert_eq!((payload.len(), expect), (64, 64));
    assert_eq!(payload[9], pattern::byte(9));
    let Workload::Request { payload, expect } =
        bench("--rate 1 --workload request --payload 1K --expect 0").workload.clone()
    else {
        panic!("no request")
    };
    assert_eq!((payload.len(), expect), (1024, 0));
    let plain = Workload::Http { path: "/".into(), payload: None, expect: None };
    assert_eq!(bench("--rate 1 --workload http").workload, plain);
    let post = bench("--rate 1 --workload http --path /a?b=%20 --payload 2 --expect 1M --requests 1K");
    let body = [pattern::byte(0), pattern::byte(1)];
    let expected =
        Workload::Http { path: "/a?b=%20".into(), payload: Some(body.into()), expect: Some(1 << 20) };
    assert_eq!((&post.workload, post.requests), (&expected, 1000));
    assert_eq!(bench("--rate 1 --workload hold").workload, Workload::Hold);
}

#[test]
fn who_closes_depends_on_the_workload() {
    let table = [
        ("connect", CloseBy::Fin),
        ("request", CloseBy::Fin),
        ("http", CloseBy::Peer),
        ("hold", CloseBy::Fin),
        ("connect --close peer", CloseBy::Peer),
        ("http --close rst", CloseBy::Rst),
        ("http --close fin", CloseBy::Fin),
    ];
    for (arguments, close_by) in table {
        assert_eq!(bench(&format!("--rate 1 --workload {arguments}")).close_by, close_by, "{arguments}");
    }
}

#[test]
fn a_load_has_the_room_it_needs() {
    let table = [
        ("--rate 1", 64_005),
        ("--rate 100K --timeout 500ms", 114_000),
        ("--rate 1000M", MAX_CONNECTIONS),
        ("--rate 1K --workload hold --ramp 10s --warmup 0s --duration 90s", 164_000),
        ("--rate max", 64_000),
        ("--search", 64_000),
        ("--concurrency 1", 64_001),
        ("--concurrency 1M", 1_250_000),
        ("--concurrency 90M", MAX_CONNECTIONS),
        ("--concurrency 10 --max-connections 10", 10),
        ("--rate 100K --max-connections 2M", 2_000_000),
    ];
    for (arguments, connections) in table {
        assert_eq!(bench(arguments).endpoint.max_connections, connections, "{arguments}");
    }
}

#[test]
fn each_error_is_one_line_that_says_how_to_fix_it() {
    let table = [
        ("", "--rate <N[/s]|max>|--concurrency <N>|--search"),
        ("--rate 1 --search", "cannot be used with"),
        ("--rate 1 --concurrency 1", "cannot be used with"),
        ("--rate 0", "give from 1 to 1000M a second, or max"),
        ("--rate 1001M", "give from 1 to 1000M"),
        ("--rate fast", "or `max`"),
        ("--concurrency 0", "give from 1 to 100M"),
        ("--concurrency 101M", "give from 1 to 100M"),
        ("--rate 1 --loss 0.1", "give --search, or leave it out"),
        ("--search --loss 1", "from 0 to below 1"),
        ("--search --loss 100%", "from 0 to below 1"),
        ("--search --loss=-0.1", "from 0 to below 1"),
        ("--search --loss nan", "such as 0.001 or 0.1%"),
        ("--search --loss few", "such as 0.001 or 0.1%"),
        ("--search --workload hold", "give --concurrency, or another workload"),
        ("--rate 1 --source-ports 1024", "such as 1024-65535"),
        ("--rate 1 --source-ports 0-10", "from 1 to 65535"),
        ("--rate 1 --source-ports 1-65536", "from 1 to 65535"),
        ("--rate 1 --source-ports 20-10", "write 10-20"),
        ("--rate 1 --source 127.0.0.0/16", "loopback"),
        ("--rate 1 --source 0.0.0.0/0", "unspecified"),
        ("--rate 1 --source 239.0.0.0/24", "multicast"),
        ("--rate 1 --source 255.255.255.255", "broadcast"),
        ("--rate 1 --source ::/0", "unspecified"),
        ("--rate 1 --source ::1", "loopback"),
        ("--rate 1 --source ff02::/16", "multicast"),
        ("--rate 1 --source 198.19.0.0/33", "198.19.0.0/32 or less"),
        ("--rate 1 --source 198.19.7.0/24", "overlap: give each address once"),
        ("--rate 1 --source 198.18.0.0/24", "give another source"),
        ("--rate 1 --target 198.18.0.3:0", "give a port from 1 to 65535"),
        ("--rate 1 --target 198.18.0.3", "write 198.18.0.3:80"),
        ("--rate 1 --target fd00:18::3:80", "an IPv6 address needs brackets: write [fd00:18::3]:80"),
        ("--rate 1 --target 224.0.0.1:80", "unicast"),
        ("--rate 1 --target 127.0.0.1:80", "loopback"),
        ("--rate 1 --target 0.0.0.0:80", "give a host's"),
        ("--rate 1 --target [fe80::1%3]:80", "leave the zone out"),
        ("--rate 1 --target [::ffff:198.18.0.2]:80", "198.18.0.2:80 is given twice"),
        ("--rate 1 --target [fd00:18::2]:80", "no --source of its family: give one of IPv6"),
        ("--rate 1 --requests 0 --workload http", "give from 1 to 1000M"),
        ("--rate 1 --requests 2", "leave it out, or use --workload request or http"),
        ("--rate 1 --requests 2 --workload hold", "--requests means nothing to --workload hold"),
        ("--rate 1 --payload 1", "--payload means nothing to --workload connect"),
        ("--rate 1 --expect 1 --workload hold", "--expect means nothing to --workload hold"),
        ("--rate 1 --path / --workload request", "leave it out, or use --workload http"),
        ("--rate 1 --path a --workload http", "begin it with `/`"),
        ("--rate 1 --path /\u{1} --workload http", "%20"),
        ("--rate 1 --path /ä --workload http", "%20"),
        ("--rate 1 --expect many --workload http", "such as 0, 512, 64K"),
        ("--rate 1 --expect 5G --workload http", "at most 4G"),
        ("--rate 1 --payload 0 --workload request", "at least 1 byte"),
        ("--rate 1 --payload 17M --workload request", "--payload: SIZE is at most 16M"),
        ("--rate 1 --payload /nowhere/at-all --workload http", "give a file, or a SIZE"),
        ("--rate 1 --payload / --workload http", "give a file, or a SIZE"),
        ("--rate 1 --payload /dev/null --workload http", "the file is empty"),
        ("--rate 1 --payload /dev/zero --workload http", "at most 16M"),
        ("--rate 1 --close later", "--close"),
        ("--rate 1 --close peer --workload hold", "give fin or rst"),
        ("--rate 1 --duration 0s", "--duration 0: give at least 1ms"),
        ("--rate 1 --timeout 0s", "--timeout 0: give at least 1ms"),
        ("--rate 1 --timeout 2h", "at most 1h"),
        ("--rate 1 --time-wait 2h", "at most 1h"),
        ("--rate 1 --ramp 481h", "at most 480h"),
        ("--rate 1 --warmup 300h --duration 300h", "together: 2160000s: give at most 480h"),
        ("--rate 1 --max-connections 0", "give from 1 to 100M"),
        ("--concurrency 100 --max-connections 99", "give from 100 to 100M"),
        ("--rate 1 --workers 3 --max-connections 2", "give from 3 to 100M"),
        ("--rate 1 --hdr -", "--hdr - would be a file called `-`: give another name"),
        ("--rate 1 --hdr a --json a", "--json and --hdr name the same file"),
        ("--rate 1 --hdr a --json ./a", "--json and --hdr name the same file"),
        ("--rate 1 --hdr a --json src/../a", "--json and --hdr name the same file"),
        ("--rate 1 --hdr a --pcap a", "--pcap and --hdr name the same file"),
        ("--rate 1 --listen 198.18.0.3:80", "see `synmill bench --help`"),
    ];
    for (arguments, part) in table {
        let line = configure(&format!("{REST} {arguments}")).expect_err(arguments);
        assert!(line.contains(part), "{arguments}\n  says: {line}\n  not:  {part}");
        assert!(!line.contains('\n'), "{arguments}: more than a line: {line}");
    }
    for (arguments, part) in [
        ("--interface t0 --source 198.19.0.0/16 --rate 1", "--target <ADDR:PORT>"),
        ("--interface t0 --target 198.18.0.2:80 --rate 1", "--source <CIDR>"),
        ("--source 198.19.0.0/16 --target 198.18.0.2:80 --rate 1", "--interface <IF>"),
    ] {
        let line = configure(arguments).expect_err(arguments);
        assert!(line.contains(part), "{arguments}: {line}");
    }
}

#[test]
fn a_payload_may_be_a_file() {
    let path = std::env::temp_dir().join(format!("synmill-payload-{}", std::process::id()));
    fs::write(&path, "ping\n").unwrap();
    let bench = configure(&format!("{REST} --rate 1 --workload request --payload {}", path.display()));
    fs::remove_file(&path).unwrap();
    let expected = Workload::Request { payload: b"ping\n".as_slice().into(), expect: 5 };
    assert_eq!(bench.unwrap().workload, expected);
}

#[test]
fn both_families_may_be_used_at_once() {
    let bench = bench("--rate 1 --target [fd00:18::2]:80 --source fd00:19::/64 --source fd00:20::1");
    assert_eq!(bench.targets.len(), 2);
    let sources: Vec<String> = bench.sources.iter().map(Prefix::to_string).collect();
    assert_eq!(sources, ["198.19.0.0/16", "fd00:19::/64", "fd00:20::1/128"]);
}

#[test]
fn help_says_what_is_needed_first() {
    let Err(Stop::Text(help)) = parse(["synmill", "bench", "--help"]) else { panic!("no help") };
    assert!(help.contains("Examples:") && help.contains("Exit status: 0 done"));
    let order = ["--interface <IF>", "--target <ADDR:PORT>", "Load", "Workload:", "Times", "Output:"];
    let options = help.split_once("Options:").unwrap().1;
    let places = order.map(|part| options.find(part).unwrap_or_else(|| panic!("{part}: {help}")));
    assert!(places.is_sorted(), "{help}");
}
