//! One virtual machine, from its start to its verdict. Knows QEMU and its serial lines; never what the tests are.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use synmill_lab::{Interrupt, Process, output, target};

use crate::console::{Console, Lines};
use crate::guest::{Driver, MACS, Message, NICS, Plan, Row, WAIT};
use crate::monitor::{self, Monitor};
use crate::packages::{Kernel, Qemu};
use crate::wires::Wires;

/// Megabytes: two endpoints with their frames, and the whole file system.
const MEMORY: &str = "1024";
/// The kernel's command line. An oops ends the guest, as a panic does. Emulated cores of a busy host stand still for seconds: the watchdogs would
/// take that for a fault, and so would the test of the timer at the start.
const APPEND: &str =
    "console=ttyS0 quiet oops=panic panic=-1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 no_timer_check";
/// All that QEMU can emulate but for an instruction of 16 bytes: the kernel's allocator lives on it where it is there, and QEMU 7.2 ends it in double
/// faults now and then.
const CPU: &str = "max,-cx16";
/// The file system's place in the folder of a run.
pub(crate) const INITRAMFS: &str = "initramfs";
/// Longest run.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Longest time without a line in the report: a wait of a test that fails, and as long again for what went well before it.
const SILENCE: Duration = WAIT.saturating_mul(2);
/// What a broken kernel has left to say all that it knows.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// How often the guest's lines are looked at.
const POLL: Duration = Duration::from_millis(20);

/// What boots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) qemu: &'a Qemu,
    pub(crate) kernel: &'a Kernel,
    /// For the files of this run; its file system is there already.
    pub(crate) folder: &'a Path,
    pub(crate) plan: &'a Plan,
}

/// How a guest ended that came to its end.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) rows: Vec<Row>,
}

impl Machine<'_> {
    /// Boots it, shows what it reports, and waits for its end. If anything is wrong, its console is shown and kept.
    pub(crate) fn run(&self, interrupt: &Interrupt) -> Result<Report> {
        let mut ears = Ears {
            report: Lines::create(&self.folder.join("report"))?,
            console: Console::create(&self.folder.join("console"))?,
            qemu: Lines::create(&self.folder.join("qemu"))?,
        };
        // The monitor is on QEMU's standard input and output: no file to find, and none to remove.
        let (ours, theirs) = UnixStream::pair().context("making a socket for the monitor")?;
        let mut command = bounded(&self.command());
        command.current_dir(self.folder).args([
            "-serial",
            "file:console",
            "-serial",
            "file:report",
            "-qmp",
            "stdio",
        ]);
        let said = fs::File::options().append(true).open(self.folder.join("qemu"));
        command
            .stdout(OwnedFd::from(theirs.try_clone().context("the monitor's socket")?))
            .stderr(said.context("opening the file for what QEMU says")?);
        let mut qemu = self
            .wires()
            .inside(move || Process::start(command.stdin(OwnedFd::from(theirs)).process_group(0)))?;
        let mut verdict = watch(interrupt, &mut qemu, ours, &mut ears);
        drop(qemu);
        interrupt.check()?;
        let complaints = ears.complaints(true)?;
        if !complaints.is_empty() {
            let complaints = complaints.join("; ");
            verdict = Err(match verdict {
                Ok(_) => anyhow!(complaints),
                Err(error) => error.context(complaints),
            });
        }
        if matches!(&verdict, Ok(report) if report.failed == 0) {
            return verdict;
        }
        ears.console.finish()?;
        let kept =
            target()?.join("guests").join(format!("{}-{}.console", self.plan.driver, self.kernel.release));
        fs::rename(self.folder.join("console"), &kept).context("keeping the console")?;
        eprintln!("The guest's console, kept as {}:", kept.display());
        for line in ears.console.last() {
            eprintln!("  | {line}");
        }
        verdict
    }

    /// Boots it with its console on the user's terminal, and waits for its end.
    pub(crate) fn shell(&self, interrupt: &Interrupt) -> Result<()> {
        let mut command = self.command();
        let mut report = Lines::create(&self.folder.join("report"))?;
        command.current_dir(self.folder).args(["-serial", "mon:stdio", "-serial", "file:report"]);
        let start = move || command.spawn().context("cannot start QEMU");
        let mut qemu = self.wires().inside(start)?;
        loop {
            if let Some(status) = qemu.try_wait().context("waiting for QEMU")? {
                // What it could not do, if anything.
                report.finish()?.iter().for_each(|line| println!("{line}"));
                ensure!(status.success(), "QEMU failed: {status}");
                return Ok(());
            }
            if interrupt.check().is_err() {
                // Asked, not killed: it gives the terminal back as it was.
                let id = i32::try_from(qemu.id()).context("a process id beyond its range")?;
                kill(Pid::from_raw(id), Signal::SIGTERM).context("ending QEMU")?;
                qemu.wait().context("waiting for QEMU")?;
                return interrupt.check();
            }
            thread::sleep(POLL);
        }
    }

    fn wires(&self) -> Wires {
        Wires::of(self.plan)
    }

    /// QEMU with all but serial lines and monitor.
    fn command(&self) -> Command {
        let Plan { driver, .. } = *self.plan;
        let mut command = Command::new(&self.qemu.program);
        if let Some(modules) = &self.qemu.modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        for folder in &self.qemu.data {
            command.arg("-L").arg(folder);
        }
        command.args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", CPU, "-m", MEMORY, "-smp"]);
        command.arg(cores(self.plan).to_string());
        command.args(["-nographic", "-nodefaults", "-no-reboot", "-append", APPEND]);
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(self.folder.join(INITRAMFS));
        for (end, (nic, mac)) in NICS.into_iter().zip(MACS).enumerate() {
            let (wire, back_end) = self.wires().back_end(end);
            command.args(["-netdev", &back_end]);
            // A NIC can be unplugged from a port of its own, not from the root complex.
            command.args(["-device", &format!("pcie-root-port,id=port{end},chassis={}", end + 1)]);
            let device = device(driver, self.plan.queues);
            command.args([
                "-device",
                &format!("{device},id={nic},bus=port{end},netdev={wire},mac={mac},romfile="),
            ]);
        }
        command
    }
}

/// The same command, which ends some time after [`LIMIT`] even if nobody is left to end it.
fn bounded(command: &Command) -> Command {
    let mut bounded = Command::new("timeout");
    bounded.arg("--kill-after=5").arg((LIMIT.as_secs() + 60).to_string());
    bounded.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            bounded.env(name, value);
        }
    }
    bounded
}

/// Cores of the guest. igb and vmxnet3 make a queue for each, and the emulated igb spreads flows over all of them by a key of chance. virtio-net
/// takes its queues from the device.
const fn cores(plan: &Plan) -> u32 {
    match plan.driver {
        Driver::Igb | Driver::Vmxnet3 => plan.queues,
        Driver::Virtio | Driver::VirtioCopy | Driver::E1000e => 2,
    }
}

/// QEMU's device, and its setting.
fn device(driver: Driver, queues: u32) -> String {
    let name = match driver {
        // Zero-copy takes memory that is mapped beforehand, and virtio-net maps only what goes through the IOMMU's interface. With descriptors in
        // tables of their own QEMU 7.2 found a "bogus descriptor" now and then when the ring to send was full, and the NIC never sent again.
        Driver::Virtio => "virtio-net-pci,disable-legacy=on,iommu_platform=on,indirect_desc=off",
        Driver::VirtioCopy => "virtio-net-pci",
        Driver::Igb => "igb",
        Driver::E1000e => "e1000e",
        Driver::Vmxnet3 => "vmxnet3",
    };
    match driver {
        // An interrupt for each queue's two directions, one for the control queue and one for changes of the configuration.
        Driver::Virtio | Driver::VirtioCopy if queues > 1 => {
            format!("{name},mq=on,vectors={}", 2 * queues + 2)
        }
        _ => name.to_owned(),
    }
}

/// What is heard from a guest and its QEMU.
struct Ears {
    report: Lines,
    console: Console,
    qemu: Lines,
}

impl Ears {
    /// What QEMU has said that is more than a warning: it warns of every hub that does not lead out of it.
    fn complaints(&mut self, ended: bool) -> Result<Vec<String>> {
        let mut said = if ended { self.qemu.finish()? } else { self.qemu.read()? };
        said.retain(|line| !line.contains("warning:"));
        Ok(said)
    }
}

/// Shows what the guest reports and does what it asks, until QEMU has ended.
fn watch(interrupt: &Interrupt, qemu: &mut Process, socket: UnixStream, ears: &mut Ears) -> Result<Report> {
    let mut monitor = Monitor::greet(socket)?;
    let mut result = Report::default();
    let (mut end, mut test) = (None, "the start".to_owned());
    let start = Instant::now();
    let (mut heard, mut fault) = (start, None);
    loop {
        interrupt.check()?;
        let ended = qemu.status()?.is_some();
        let lines = if ended { ears.report.finish()? } else { ears.report.read()? };
        if !lines.is_empty() {
            heard = Instant::now();
        }
        for line in lines {
            match Message::parse(&line)? {
                None => println!("{line}"),
                Some(Message::Begin(name)) => test = format!("test {name}"),
                Some(Message::Monitor(asked)) => monitor::Command::of_guest(&asked)
                    .and_then(|command| monitor.execute(command))
                    .with_context(|| format!("the guest asked the monitor for `{asked}`"))?,
                Some(Message::Row(row)) => result.rows.push(row),
                Some(Message::End { passed, failed }) => end = Some((passed, failed)),
            }
        }
        let broken = if ended { ears.console.finish()? } else { ears.console.read()? };
        if let Some(line) = broken {
            let since = *fault.get_or_insert_with(Instant::now);
            if ended || since.elapsed() > LAST_WORDS {
                bail!("the guest's kernel broke during {test}: {line}");
            }
        }
        // What its devices then do is of no use.
        let complaints = ears.complaints(ended)?;
        if !complaints.is_empty() {
            bail!("QEMU's own fault during {test}: {}", complaints.join("; "));
        }
        if ended {
            (result.passed, result.failed) =
                end.with_context(|| format!("the guest ended during {test}, before its tests did"))?;
            return Ok(result);
        }
        if heard.elapsed() > SILENCE {
            bail!("the guest hangs during {test}: it has reported nothing for {} s", SILENCE.as_secs());
        }
        if start.elapsed() > LIMIT {
            bail!("the guest did not end within {} s: {test} is under way", LIMIT.as_secs());
        }
        thread::sleep(POLL);
    }
}

/// The version that QEMU says it has.
pub(crate) fn version(qemu: &Qemu) -> Result<String> {
    let said = output(Command::new(&qemu.program).arg("--version"))?;
    let version = said.split_once("version ").and_then(|(_, rest)| rest.split_whitespace().next());
    version.map(str::to_owned).with_context(|| format!("QEMU calls itself `{}`", said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments for such NICs.
    fn arguments(driver: Driver, queues: u32) -> Vec<String> {
        let qemu =
            Qemu { program: "qemu".into(), modules: Some("modules".into()), data: vec!["data".into()] };
        let kernel = Kernel { release: "7.2.12".into(), image: "vmlinuz".into(), modules: "modules".into() };
        let plan = Plan { driver, modules: Vec::new(), queues, mtu: 3000, only: Vec::new(), shell: false };
        let machine = Machine { qemu: &qemu, kernel: &kernel, folder: Path::new("folder"), plan: &plan };
        let command = machine.command();
        command.get_args().map(|argument| argument.to_str().unwrap().to_owned()).collect()
    }

    /// What follows each of these options.
    fn of<'a>(arguments: &'a [String], option: &str) -> Vec<&'a str> {
        let pairs = arguments.windows(2).filter(|pair| pair[0] == option);
        pairs.map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn each_nic_has_a_port_a_wire_and_a_name() {
        let arguments = arguments(Driver::Virtio, 1);
        assert_eq!(
            of(&arguments, "-netdev"),
            ["hubport,hubid=0,id=wire-client", "hubport,hubid=0,id=wire-server"]
        );
        let virtio = "virtio-net-pci,disable-legacy=on,iommu_platform=on,indirect_desc=off";
        assert_eq!(
            of(&arguments, "-device"),
            [
                "pcie-root-port,id=port0,chassis=1",
                &format!(
                    "{virtio},id=nic-client,bus=port0,netdev=wire-client,mac=02:00:00:00:00:0a,romfile="
                ),
                "pcie-root-port,id=port1,chassis=2",
                &format!(
                    "{virtio},id=nic-server,bus=port1,netdev=wire-server,mac=02:00:00:00:00:0b,romfile="
                ),
            ]
        );
        assert_eq!(of(&arguments, "-L"), ["data"]);
        assert_eq!(of(&arguments, "-initrd"), ["folder/initramfs"]);
    }

    #[test]
    fn each_driver_has_its_device() {
        for (driver, queues, begin) in [
            (
                Driver::Virtio,
                2,
                "virtio-net-pci,disable-legacy=on,iommu_platform=on,indirect_desc=off,mq=on,vectors=6,id=",
            ),
            (Driver::VirtioCopy, 1, "virtio-net-pci,id="),
            (Driver::VirtioCopy, 4, "virtio-net-pci,mq=on,vectors=10,id="),
            (Driver::Igb, 2, "igb,id="),
            (Driver::E1000e, 1, "e1000e,id="),
            (Driver::Vmxnet3, 1, "vmxnet3,id="),
        ] {
            let arguments = arguments(driver, queues);
            for device in [1, 3].map(|at| of(&arguments, "-device")[at]) {
                assert!(device.starts_with(begin), "{device}");
            }
        }
    }

    #[test]
    fn where_cores_make_queues_there_are_as_many() {
        for (driver, queues, cores) in [
            (Driver::Virtio, 1, "2"),
            (Driver::Virtio, 4, "2"),
            (Driver::Igb, 1, "1"),
            (Driver::Igb, 2, "2"),
            (Driver::E1000e, 1, "2"),
            (Driver::Vmxnet3, 1, "1"),
        ] {
            assert_eq!(of(&arguments(driver, queues), "-smp"), [cores]);
        }
    }

    #[test]
    fn only_virtio_needs_several_queues_from_its_wire() {
        let taps =
            "tap,id=wire-client,ifname=tap-client,queues=2,script=no,downscript=no,vhost=off,vnet_hdr=off";
        assert_eq!(of(&arguments(Driver::Virtio, 2), "-netdev")[0], taps);
        assert_eq!(of(&arguments(Driver::Igb, 2), "-netdev")[0], "hubport,hubid=0,id=wire-client");
    }
}
