//! One virtual machine under QEMU, from its start to its verdict.

use std::fmt;
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
use synmill_lab::{Interrupt, Process, Words as _, output, target};

use crate::console::{Console, Lines};
use crate::guest::{Driver, MACS, Message, NICS, Plan, Row, WAIT};
use crate::monitor::{self, Monitor};
use crate::packages::{Kernel, Qemu};
use crate::wires::Wires;

/// MiB of memory, for two endpoints with their frames, and for the file system.
const MEMORY: &str = "1024";
/// The kernel's command line. An oops ends the guest, as a panic does. The emulated cores of a busy host stand still for seconds,
/// so the watchdogs and the timer's test at the start are off: they would report that as a fault.
const APPEND: &str =
    "console=ttyS0 quiet oops=panic panic=-1 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 no_timer_check";
/// All instructions that QEMU emulates, except for cmpxchg16b: the kernel's allocator uses it where it exists, and QEMU 7.2 then
/// ends in double faults now and then.
const CPU: &str = "max,-cx16";
/// The file system's name in the folder of a run.
pub(crate) const INITRAMFS: &str = "initramfs";
/// Longest run.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Longest time without a line in the report: a failing test waits [`WAIT`], and a good wait before it took as long.
const SILENCE: Duration = WAIT.saturating_mul(2);
/// Time for a broken kernel to print the rest of its report.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// Time between two looks at the guest's lines.
const POLL: Duration = Duration::from_millis(20);

/// A machine that can boot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) qemu: &'a Qemu,
    pub(crate) kernel: &'a Kernel,
    /// The folder of this run's files; it holds the file system already.
    pub(crate) folder: &'a Path,
    pub(crate) plan: &'a Plan,
}

/// The results of a guest that came to its end.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) rows: Vec<Row>,
}

/// The kernel broke before the guest's first process; with its line about that.
#[derive(Debug)]
pub(crate) struct BrokenBoot(pub(crate) String);

impl fmt::Display for BrokenBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the guest's kernel broke before its first process: {}", self.0)
    }
}

impl std::error::Error for BrokenBoot {}

impl Machine<'_> {
    /// Boots the machine, prints what it reports, and waits for its end. If anything is wrong, its console is printed and kept.
    pub(crate) fn run(&self, interrupt: &Interrupt) -> Result<Report> {
        let mut streams = Streams {
            report: Lines::create(&self.folder.join("report"))?,
            console: Console::create(&self.folder.join("console"))?,
            qemu: Lines::create(&self.folder.join("qemu"))?,
        };
        // The monitor uses QEMU's standard input and output, so no socket file is left behind.
        let (ours, theirs) = UnixStream::pair().context("making a socket for the monitor")?;
        let mut command = bounded(&self.command());
        command.current_dir(self.folder).args("-serial file:console -serial file:report -qmp stdio".words());
        let said = fs::File::options().append(true).open(self.folder.join("qemu"));
        command
            .stdout(OwnedFd::from(theirs.try_clone().context("the monitor's socket")?))
            .stderr(said.context("opening the file for what QEMU says")?);
        let mut qemu = self
            .wires()
            .inside(move || Process::start(command.stdin(OwnedFd::from(theirs)).process_group(0)))?;
        let mut verdict = watch(interrupt, &mut qemu, ours, &mut streams);
        drop(qemu);
        interrupt.check()?;
        let complaints = streams.complaints(true)?;
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
        streams.console.finish()?;
        let kept =
            target()?.join("guests").join(format!("{}-{}.console", self.plan.driver, self.kernel.release));
        fs::rename(self.folder.join("console"), &kept).context("keeping the console")?;
        eprintln!("The guest's console, kept as {}:", kept.display());
        for line in streams.console.last() {
            eprintln!("  | {line}");
        }
        verdict
    }

    /// Boots the machine with its console on the user's terminal, and waits for its end.
    pub(crate) fn shell(&self, interrupt: &Interrupt) -> Result<()> {
        let mut command = self.command();
        let mut report = Lines::create(&self.folder.join("report"))?;
        command.current_dir(self.folder).args(["-serial", "mon:stdio", "-serial", "file:report"]);
        let start = move || command.spawn().context("cannot start QEMU");
        let mut qemu = self.wires().inside(start)?;
        loop {
            if let Some(status) = qemu.try_wait().context("waiting for QEMU")? {
                // The guest reports an error, if anything.
                for line in report.finish()? {
                    if Message::parse(&line)?.is_none() {
                        println!("{line}");
                    }
                }
                ensure!(status.success(), "QEMU failed: {status}");
                return Ok(());
            }
            if interrupt.check().is_err() {
                // After SIGTERM, not SIGKILL, QEMU restores the terminal.
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

    /// Returns QEMU's command without serial lines and monitor.
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
            // QEMU unplugs a NIC from a port of its own, but not from the root complex.
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

/// Returns the command under `timeout`, which ends it after [`LIMIT`] and a minute even if this process is killed.
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

/// Returns the number of the guest's cores. igb and vmxnet3 make a queue for each core, and the emulated igb spreads flows over all
/// queues by a random key. virtio-net takes its queues from the device.
const fn cores(plan: &Plan) -> u32 {
    match plan.driver {
        Driver::Igb | Driver::Vmxnet3 => plan.queues,
        Driver::Virtio | Driver::VirtioCopy | Driver::E1000e => 2,
    }
}

/// Returns QEMU's device with its settings.
fn device(driver: Driver, queues: u32) -> String {
    let name = match driver {
        // Zero-copy needs memory that is mapped beforehand, and virtio-net maps memory only through the IOMMU's interface. With
        // indirect descriptors QEMU 7.2 reported a "bogus descriptor" now and then when the TX ring was full, and the NIC stopped
        // sending.
        Driver::Virtio => "virtio-net-pci,disable-legacy=on,iommu_platform=on,indirect_desc=off",
        Driver::VirtioCopy => "virtio-net-pci",
        Driver::Igb => "igb",
        Driver::E1000e => "e1000e",
        Driver::Vmxnet3 => "vmxnet3",
    };
    match driver {
        // An interrupt vector for each direction of each queue, one for the control queue, one for configuration changes.
        Driver::Virtio | Driver::VirtioCopy if queues > 1 => {
            format!("{name},mq=on,vectors={}", 2 * queues + 2)
        }
        _ => name.to_owned(),
    }
}

/// The output of a guest and of its QEMU.
struct Streams {
    report: Lines,
    console: Console,
    qemu: Lines,
}

impl Streams {
    /// Returns QEMU's own lines, without its warnings: it warns of every hub that leads nowhere outside.
    fn complaints(&mut self, ended: bool) -> Result<Vec<String>> {
        let mut said = if ended { self.qemu.finish()? } else { self.qemu.read()? };
        said.retain(|line| !line.contains("warning:"));
        Ok(said)
    }
}

/// Prints what the guest reports and executes its monitor commands, until QEMU has ended.
fn watch(
    interrupt: &Interrupt,
    qemu: &mut Process,
    socket: UnixStream,
    streams: &mut Streams,
) -> Result<Report> {
    let mut monitor = Monitor::greet(socket)?;
    let mut result = Report::default();
    let (mut end, mut test, mut started) = (None, "the start".to_owned(), false);
    let start = Instant::now();
    let (mut heard, mut fault) = (start, None);
    loop {
        interrupt.check()?;
        let ended = qemu.status()?.is_some();
        let lines = if ended { streams.report.finish()? } else { streams.report.read()? };
        if !lines.is_empty() {
            heard = Instant::now();
        }
        for line in lines {
            match Message::parse(&line)? {
                None => println!("{line}"),
                Some(Message::Started) => started = true,
                Some(Message::Begin(name)) => test = format!("test {name}"),
                Some(Message::Monitor(asked)) => monitor::Command::of_guest(&asked)
                    .and_then(|command| monitor.execute(command))
                    .with_context(|| format!("the guest asked the monitor for `{asked}`"))?,
                Some(Message::Row(row)) => result.rows.push(row),
                Some(Message::End { passed, failed }) => end = Some((passed, failed)),
            }
        }
        let broken = if ended { streams.console.finish()? } else { streams.console.read()? };
        if let Some(line) = broken {
            let since = *fault.get_or_insert_with(Instant::now);
            if ended || since.elapsed() > LAST_WORDS {
                ensure!(started, BrokenBoot(line.to_owned()));
                bail!("the guest's kernel broke during {test}: {line}");
            }
        }
        // After that its devices may do anything.
        let complaints = streams.complaints(ended)?;
        if !complaints.is_empty() {
            bail!("QEMU failed during {test}: {}", complaints.join("; "));
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

/// Returns the version that QEMU prints.
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
