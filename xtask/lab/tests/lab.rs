//! The lab itself, with nothing but the kernel in it. Needs root.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

use synmill_lab::{
    CLIENT_INTERFACE, Lab, LabOptions, Process, SERVER_INTERFACE, SERVER_V4, SERVER_V6, Side, output,
};

fn namespaces() -> String {
    output(Command::new("ip").args(["netns", "list"])).unwrap()
}

/// Sends one byte to a kernel listener at the server's end, which receives it.
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
    let lab = Lab::up("smlab-a", LabOptions::default()).unwrap();
    exchange(&lab, SERVER_V4);
    exchange(&lab, SERVER_V6);
    drop(lab);
    assert!(!namespaces().contains("smlab-a"));
}

#[test]
fn options_are_in_force() {
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
    let old = Lab::up("smlab-d", LabOptions::default()).unwrap();
    let mut left = Process::spawn(&mut old.exec(Side::Server, ["sleep", "1000"])).unwrap();
    old.keep();
    // A process is gone once its parent has waited for it.
    let parent = std::thread::spawn(move || left.end().unwrap());
    let lab = Lab::up("smlab-d", LabOptions::default()).unwrap();
    assert!(!parent.join().unwrap().success(), "the process of the earlier run was ended");
    exchange(&lab, SERVER_V4);
}

#[test]
fn a_lab_that_is_in_use_is_not_taken_away() {
    let lab = Lab::up("smlab-g", LabOptions::default()).unwrap();
    let error = Lab::up("smlab-g", LabOptions::default()).unwrap_err().to_string();
    assert_eq!(error, "another process works in the lab `smlab-g`: wait until it has ended");
    exchange(&lab, SERVER_V4);
    drop(lab);
    Lab::up("smlab-g", LabOptions::default()).unwrap();
}

/// Returns a script's output and exit status when its lab is removed after its first line.
fn outlive(prefix: &str, script: &str) -> (String, ExitStatus) {
    let lab = Lab::up(prefix, LabOptions::default()).unwrap();
    let mut process = Process::spawn(&mut lab.exec(Side::Server, ["sh", "-c", script])).unwrap();
    process.until_line("ready").unwrap();
    let parent = std::thread::spawn(move || {
        let status = process.end().unwrap();
        (process.printed(), status)
    });
    drop(lab);
    parent.join().unwrap()
}

#[test]
fn what_runs_in_it_may_tidy_up_before_it_goes() {
    let script = "trap 'echo tidied; exit 7' TERM; echo ready; while :; do sleep 1; done";
    let (printed, status) = outlive("smlab-f", script);
    assert_eq!((printed.as_str(), status.code()), ("ready\ntidied\n", Some(7)));
    let (printed, status) = outlive("smlab-f", "trap '' TERM; echo ready; while :; do sleep 1; done");
    assert_eq!(
        (printed.as_str(), status.signal()),
        ("ready\n", Some(9)),
        "it ignores SIGTERM, so SIGKILL comes"
    );
}

/// The client's namespace takes the veth pair with it when it goes.
#[test]
fn what_runs_in_it_keeps_its_interface_to_the_end() {
    // The shell alone looks: each program that it started would be ended, too.
    let look = format!(
        "found=; while read name rest; do [ $name != {SERVER_INTERFACE}: ] || found=1; done </proc/net/dev"
    );
    let looks = format!("i=0; while [ $((i += 1)) -lt 2000 ]; do {look}; [ $found ] || exit 8; done");
    let script = format!("trap '{looks}; exit 7' TERM; echo ready; while :; do sleep 1; done");
    let (_, status) = outlive("smlab-i", &script);
    assert_eq!(status.code(), Some(7));
}

/// A variable of the process that takes a lab down.
const CHILD: &str = "SYNMILL_TEST_LAB_DOWN";

#[test]
fn what_is_ended_is_told() {
    if std::env::var_os(CHILD).is_some() {
        Lab::down("smlab-h").unwrap();
        return;
    }
    let lab = Lab::up("smlab-h", LabOptions::default()).unwrap();
    let long = "x".repeat(100);
    let script = "echo ready; read line";
    let mut command = lab.exec(Side::Server, ["/bin/sh", "-c", script, &long]);
    // Its input stays open, so the shell does not end by itself.
    let (input, _writer) = std::io::pipe().unwrap();
    let mut running = Process::start(command.stdin(input).stdout(Stdio::piped())).unwrap();
    running.until_line("ready").unwrap();
    let pid = running.pid();
    lab.keep();
    let parent = std::thread::spawn(move || running.end().unwrap());
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
    parent.join().unwrap();
    assert!(down().is_empty(), "there was nothing left to end");
}

#[test]
fn a_failure_half_way_leaves_nothing_and_names_the_command() {
    let error = Lab::up("smlab-e", LabOptions { mtu: 1, ..LabOptions::default() }).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("`ip -n smlab-e-client link add") && text.contains("mtu"), "{text}");
    assert!(!namespaces().contains("smlab-e"));
}
