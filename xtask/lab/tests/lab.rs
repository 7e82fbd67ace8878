//! The lab itself, with nothing but the kernel in it. Needs root.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use synmill_lab::{CLIENT_INTERFACE, Lab, LabOptions, SERVER_INTERFACE, SERVER_V4, SERVER_V6, Side};

fn require_root() {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
}

fn namespaces() -> String {
    let listed = Command::new("ip").args(["netns", "list"]).output().expect("ip runs");
    String::from_utf8(listed.stdout).expect("names are text")
}

/// One byte to a kernel listener at the server's end, and back.
fn exchange(lab: &Lab, address: &str) {
    let address = (address, 7777);
    let listener = lab.inside(Side::Server, || TcpListener::bind(address)).unwrap().unwrap();
    let mut client = lab.inside(Side::Client, || TcpStream::connect(address)).unwrap().unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    server.read_exact(&mut byte).unwrap();
    assert_eq!(byte, *b"x");
}

#[test]
fn both_families_work_at_once_and_nothing_is_left() {
    require_root();
    let lab = Lab::up("smlab-a", LabOptions::default()).unwrap();
    exchange(&lab, SERVER_V4);
    exchange(&lab, SERVER_V6);
    drop(lab);
    assert!(!namespaces().contains("smlab-a"));
}

#[test]
fn options_are_in_force() {
    require_root();
    let options = LabOptions { queues: 4, mtu: 3000, ..LabOptions::default() };
    let lab = Lab::up("smlab-b", options).unwrap();
    for (side, interface) in [(Side::Client, CLIENT_INTERFACE), (Side::Server, SERVER_INTERFACE)] {
        let channels = lab.output(side, &["ethtool", "-l", interface]).unwrap();
        let current = channels.split("Current").nth(1).unwrap();
        assert!(current.contains("RX:\t\t4") && current.contains("TX:\t\t4"), "{channels}");
        let features = lab.output(side, &["ethtool", "-k", interface]).unwrap();
        assert!(features.contains("tx-checksumming: off"), "{features}");
        let link = lab.output(side, &["ip", "link", "show", interface]).unwrap();
        assert!(link.contains("mtu 3000"), "{link}");
    }
}

#[test]
fn what_a_killed_run_left_behind_is_cleaned() {
    require_root();
    let old = Lab::up("smlab-d", LabOptions::default()).unwrap();
    let mut left = old.exec(Side::Server, ["sleep", "1000"]).spawn().unwrap();
    old.keep();
    let reaper = std::thread::spawn(move || left.wait().unwrap());
    let lab = Lab::up("smlab-d", LabOptions::default()).unwrap();
    assert!(!reaper.join().unwrap().success(), "the process of the earlier run was ended");
    exchange(&lab, SERVER_V4);
}

#[test]
fn a_lab_that_is_in_use_is_not_taken_away() {
    require_root();
    let lab = Lab::up("smlab-g", LabOptions::default()).unwrap();
    let error = Lab::up("smlab-g", LabOptions::default()).unwrap_err().to_string();
    assert_eq!(error, "another process works in the lab `smlab-g`: wait until it has ended");
    exchange(&lab, SERVER_V4);
    drop(lab);
    Lab::up("smlab-g", LabOptions::default()).unwrap();
}

/// What a process says and how it ends when its lab is taken away, after its first line.
fn outlive(prefix: &str, script: &str) -> (String, ExitStatus) {
    let lab = Lab::up(prefix, LabOptions::default()).unwrap();
    let mut process =
        lab.exec(Side::Server, ["sh", "-c", script]).stdout(Stdio::piped()).spawn().expect("sh starts");
    let mut said = BufReader::new(process.stdout.take().unwrap());
    said.read_line(&mut String::new()).unwrap();
    drop(lab);
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    (rest, process.wait().unwrap())
}

#[test]
fn what_runs_in_it_may_tidy_up_before_it_goes() {
    require_root();
    let script = "trap 'echo tidied; exit 7' TERM; echo ready; while :; do sleep 1; done";
    let (said, status) = outlive("smlab-f", script);
    assert_eq!((said.as_str(), status.code()), ("tidied\n", Some(7)));
    let (said, status) = outlive("smlab-f", "trap '' TERM; echo ready; while :; do sleep 1; done");
    assert_eq!((said.as_str(), status.signal()), ("", Some(9)), "one that does not listen is killed");
}

/// Set in the process that takes a lab down.
const CHILD: &str = "SYNMILL_TEST_LAB_DOWN";

#[test]
fn what_is_ended_is_told() {
    if std::env::var_os(CHILD).is_some() {
        Lab::down("smlab-h").unwrap();
        return;
    }
    require_root();
    let lab = Lab::up("smlab-h", LabOptions::default()).unwrap();
    let long = "x".repeat(100);
    let script = "echo ready; read line";
    let mut command = lab.exec(Side::Server, ["/bin/sh", "-c", script, &long]);
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh starts");
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // Waiting would close it, and the shell would end by itself.
    let _input = running.stdin.take();
    let pid = running.id();
    lab.keep();
    let reaper = std::thread::spawn(move || running.wait().unwrap());
    let down = || {
        let program = std::env::current_exe().unwrap();
        let arguments = ["--exact", "what_is_ended_is_told", "--nocapture"];
        let output = Command::new(program).args(arguments).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        said.lines().filter(|line| line.starts_with("ended: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    let told = format!("sh -c {script} {long}");
    assert_eq!(down(), [format!("ended: {}... (pid {pid})", &told[..60])]);
    reaper.join().unwrap();
    assert!(down().is_empty(), "there was nothing left to end");
}

#[test]
fn a_failure_half_way_leaves_nothing_and_names_the_command() {
    require_root();
    let error = Lab::up("smlab-e", LabOptions { mtu: 1, ..LabOptions::default() }).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("`ip -n smlab-e-client link add") && text.contains("mtu"), "{text}");
    assert!(!namespaces().contains("smlab-e"));
}
