//! The guest's first process in `cargo xtask vm`: it mounts, loads modules, runs the tests, and switches the machine off.
//!
//! It does not reap orphans: each test waits for the processes that it starts, and the machine does not live long.

mod broken;
mod busy;
mod faults;
mod harness;
mod ladder;
mod mtu;
mod pair;
mod peers;
mod report;
mod spare;
mod steering;
mod vlan;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use synmill_vm::guest::{MACS, Message, PLAN, Plan};

use harness::{Stage, Test};
use report::Reporter;
use synmill_lab::{CLIENT_INTERFACE, Lab, LabOptions, SERVER_INTERFACE, SERVER_V4, output, wait};

/// Returns the tests for a plan in their order. The last one leaves the guest without a NIC.
fn tests(plan: &Plan) -> Vec<Test> {
    [
        ladder::TESTS,
        pair::TESTS,
        peers::TESTS,
        busy::TESTS,
        mtu::TESTS,
        vlan::TESTS,
        steering::TESTS,
        spare::tests(plan),
        faults::TESTS,
        faults::LAST,
    ]
    .concat()
}

/// Longest wait for a driver to show its NICs.
const PROBED: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    // Anywhere else it would mount over folders in use, and switch off a real machine.
    if std::process::id() != 1 || !Path::new(PLAN).exists() {
        eprintln!("this is the first process of a guest of `cargo xtask vm`, and nothing else");
        return ExitCode::from(2);
    }
    let reporter = Reporter::open();
    let done = catch_unwind(AssertUnwindSafe(|| perform(&reporter)));
    if let Err(error) = done.unwrap_or_else(|panic| Err(anyhow!(said(&*panic)))) {
        reporter.say(&format!("guest: {error:#}"));
    }
    reporter.drain();
    // If it returns, the kernel panics.
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("guest: cannot switch off: {error}");
    ExitCode::FAILURE
}

fn perform(reporter: &Reporter) -> Result<()> {
    mount_all()?;
    reporter.reopen()?;
    reporter.tell(&Message::Started)?;
    let plan: Plan = serde_json::from_slice(&fs::read(PLAN).context(PLAN)?).context(PLAN)?;
    for path in &plan.modules {
        load(path)?;
    }
    output(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    let nics = find_nics()?;
    let options = LabOptions { queues: plan.queues, mtu: plan.mtu, checksum_offload: false };
    let lab = Lab::up_over([&nics[0], &nics[1]], Lab::DEFAULT_PREFIX, options)?;
    if plan.shell {
        return shell();
    }
    let end = run(&mut Stage::new(plan, lab, reporter)?, reporter)?;
    reporter.tell(&end)
}

/// Runs the tests of the plan. A test that fails or panics does not stop the others.
fn run(stage: &mut Stage<'_>, reporter: &Reporter) -> Result<Message> {
    let (mut passed, mut failed) = (0, 0);
    let only = stage.plan.only.clone();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part.as_str()));
    let named = |name: &str| only.iter().any(|part| name == part);
    let broken = broken::TESTS.iter().copied().filter(|(name, _)| named(name));
    for (name, test) in tests(&stage.plan).into_iter().filter(|(name, _)| wanted(name)).chain(broken) {
        stage.begin();
        reporter.tell(&Message::Begin(name.to_owned()))?;
        let done = catch_unwind(AssertUnwindSafe(|| test(stage)));
        match done.unwrap_or_else(|panic| Err(anyhow!(said(&*panic)))) {
            Ok(()) => {
                passed += 1;
                let line = format!("test {name} ... ok {}", stage.notes().join(", "));
                reporter.say(line.trim_end());
            }
            Err(error) => {
                failed += 1;
                reporter.say(&format!("test {name} ... FAILED"));
                let reason = format!("{error:#}\n{}", stage.tails());
                for line in reason.lines() {
                    reporter.say(&format!("    {line}"));
                }
            }
        }
    }
    Ok(Message::End { passed, failed })
}

/// Returns a panic's message.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_default())
}

/// Mounts the file systems that programs expect. `ip netns add` mounts /run/netns itself.
fn mount_all() -> Result<()> {
    for (kind, place) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp")]
    {
        fs::create_dir_all(place).context(place)?;
        match mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>) {
            // Some kernels mount /dev themselves.
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => bail!("mounting {kind} on {place}: {error}"),
        }
    }
    Ok(())
}

/// Loads a kernel module.
fn load(path: &str) -> Result<()> {
    let file = File::open(path).context(path.to_owned())?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => bail!("loading {path}: {error}"),
    }
}

/// Waits for the client's and the server's NIC, and returns their names.
fn find_nics() -> Result<[String; 2]> {
    wait("the NICs are there", PROBED, || Ok(named(MACS[0])?.zip(named(MACS[1])?).map(Into::into)))
}

/// Returns the interface with this Ethernet address.
fn named(mac: &str) -> Result<Option<String>> {
    for entry in fs::read_dir("/sys/class/net").context("/sys/class/net")? {
        let path = entry.context("/sys/class/net")?.path();
        let address = match fs::read_to_string(path.join("address")) {
            Ok(address) => address,
            // The driver may just be renaming it.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).context(path.display().to_string()),
        };
        if address.trim() == mac {
            return Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// Opens a console until the user leaves it.
fn shell() -> Result<()> {
    println!("{CLIENT_INTERFACE} is in the namespace synmill-client, {SERVER_INTERFACE} in synmill-server:");
    println!("  in() {{ /bin/ip netns exec synmill-$1 \"${{@:2}}\"; }}");
    println!("  in server synmill serve --interface {SERVER_INTERFACE} --listen {SERVER_V4}:80");
    println!("`exit` switches the machine off.");
    // Without its own session and terminal a shell has no job control.
    let busybox = Path::new("/bin/busybox");
    let arguments = ["setsid", "busybox", "cttyhack", "busybox", "sh"];
    // A user's shell may exit with any status.
    Command::new(busybox).args(arguments).status().map(drop).context("starting a shell")
}
