//! `cargo xtask run`, interrupted as Ctrl-C does it: nothing of it is left. Needs root.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use synmill_lab::{Lab, output};

/// Is a process running with this argument?
fn is_running(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    // One that ends while we look has no command line any more.
    processes
        .filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok())
        .any(|line| line.split('\0').any(|known| known == argument))
}

#[test]
fn after_ctrl_c_nothing_is_left() {
    let binary = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let report = binary.ancestors().nth(2).unwrap().join("run.json");
    let mut command = Command::new(binary);
    let mut child = command.arg("run").stdout(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("== The responder")), "it ended before it served");

    // A terminal sends it to the whole group.
    killpg(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{rest:#?}");
    assert!(!rest.iter().any(|line| line.starts_with("== Done")), "{rest:#?}");

    let namespaces = output(Command::new("ip").args(["netns", "list"])).unwrap();
    assert!(!namespaces.contains(&format!("{}-", Lab::DEMONSTRATION_PREFIX)), "{namespaces}");
    assert!(!is_running(report.to_str().unwrap()), "the responder is left");
}
