//! `cargo xtask run`, interrupted as by Ctrl-C, leaves nothing behind. Needs root.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use synmill_lab::{Lab, Process, output};

/// Returns whether a process has this argument.
fn is_running(argument: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    // A process that ends meanwhile has no command line any more.
    processes
        .filter_map(|process| fs::read_to_string(process.path().join("cmdline")).ok())
        .any(|line| line.split('\0').any(|known| known == argument))
}

#[test]
fn after_ctrl_c_nothing_is_left() {
    let binary = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let report = binary.ancestors().nth(2).unwrap().join("run.json");
    let mut command = Command::new(binary);
    command.arg("run").stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut run = Process::start(&mut command).unwrap();
    // It builds synmill first.
    run.patience = Duration::from_mins(30);
    run.until_line("== The responder").unwrap();

    // A terminal sends it to the whole group, and so does this.
    run.signal(Signal::SIGINT).unwrap();
    let status = run.end().unwrap();
    let printed = run.printed();
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(!printed.contains("\n== Done"), "{printed}");

    let namespaces = output(Command::new("ip").args(["netns", "list"])).unwrap();
    assert!(!namespaces.contains(&format!("{}-", Lab::DEMONSTRATION_PREFIX)), "{namespaces}");
    assert!(!is_running(report.to_str().unwrap()), "the responder is left");
}
