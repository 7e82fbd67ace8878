//! From an interface to bound sockets: attach, then bind, in the first mode that works. Knows modes and the kernel's refusals;
//! never workers.

use std::time::{Duration, Instant};

use super::signals::Signals;
use super::{Error, name};
use crate::face::cli::Mode;
use crate::host::nic::{Interface, Link, link, set_queues};
use crate::host::preflight::Plan;
use crate::host::program::{AttachMode, Steer, SteerError};
use crate::host::rings::{BindMode, OpenError, XdpDevice, XdpOptions};
use crate::text;

/// How long a carrier that the attachment took away may take to come back: an igb needs three seconds.
const CARRIER_BACK: Duration = Duration::from_secs(10);

/// One way to reach the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rung {
    mode: Mode,
    attach: AttachMode,
    bind: BindMode,
}

const RUNGS: [Rung; 3] = [
    Rung { mode: Mode::ZeroCopy, attach: AttachMode::Driver, bind: BindMode::ZeroCopy },
    Rung { mode: Mode::Copy, attach: AttachMode::Driver, bind: BindMode::Copy },
    Rung { mode: Mode::Skb, attach: AttachMode::Skb, bind: BindMode::Copy },
];

/// The rungs that a mode allows, from the top.
fn rungs(mode: Mode) -> impl Iterator<Item = Rung> {
    RUNGS.into_iter().filter(move |rung| mode == Mode::Auto || rung.mode == mode)
}

/// An interface in our hands.
pub(super) struct Reached {
    /// One for each worker, one device for each of its queues.
    pub(super) devices: Vec<Vec<XdpDevice>>,
    /// The plan, as it stands after the attachment.
    pub(super) plan: Plan,
    /// The mode in force, as read back from the sockets.
    pub(super) mode: String,
    /// Which faster modes were refused, and why; empty if none was.
    pub(super) refused: String,
}

/// What is in force where the program runs as `rung` says and these queues' sockets copy, or do not.
fn in_force(rung: Rung, queues: &[(usize, bool)]) -> String {
    let copied = name(if rung.mode == Mode::ZeroCopy { Mode::Copy } else { rung.mode });
    let of = |zero_copy: bool| -> Vec<usize> {
        queues.iter().filter(|&&(_, is)| is == zero_copy).map(|&(queue, _)| queue).collect()
    };
    match (&of(true)[..], &of(false)[..]) {
        ([], _) => copied,
        (_, []) => name(Mode::ZeroCopy),
        (zero_copy, others) => {
            let [zero_copy, others] = [zero_copy, others].map(text::queues);
            format!("mixed: {} on {zero_copy}, {copied} on {others}", name(Mode::ZeroCopy))
        }
    }
}

/// The refusals as one line: those with the same reason together.
fn reasons(refused: &[(Mode, String)]) -> String {
    let same = refused.chunk_by(|(_, one), (_, other)| one == other);
    let told = same.filter_map(|refused| {
        let modes: Vec<String> = refused.iter().map(|(mode, _)| name(*mode)).collect();
        refused.first().map(|(_, reason)| format!("{} refused: {reason}", modes.join(" and ")))
    });
    told.collect::<Vec<_>>().join("; ")
}

/// What stands in the way, and whether the next rung may be without it.
enum Refusal {
    /// The driver cannot do this: another mode may.
    Mode(String),
    /// No mode changes this.
    Final(Error),
}

impl From<SteerError> for Refusal {
    fn from(error: SteerError) -> Self {
        match error {
            SteerError::NoNativeXdp { .. } | SteerError::TooFewQueues { .. } | SteerError::Refused { .. } => {
                Self::Mode(error.to_string())
            }
            _ => Self::Final(error.into()),
        }
    }
}

impl Refusal {
    fn of_bind(error: &OpenError) -> Self {
        match error {
            OpenError::NoZeroCopy { .. } => Self::Mode(error.to_string()),
            _ => Self::Final(Error(error.to_string())),
        }
    }
}

/// What to reach, and how.
pub(super) struct Ladder<'a> {
    pub(super) interface: &'a Interface,
    pub(super) mode: Mode,
    pub(super) busy_poll: bool,
    /// Makes the plan anew when the attachment has changed the interface.
    pub(super) plan: &'a dyn Fn(&Interface) -> Result<Plan, String>,
}

impl Ladder<'_> {
    /// Attaches and binds in the first mode that works. When none does, nothing is left attached.
    pub(super) fn climb(&self, steer: &mut Steer, signals: &mut Signals) -> Result<Reached, Error> {
        let mut refused: Vec<(Mode, String)> = Vec::new();
        let mut attached = None;
        let mut not_attached: Option<(AttachMode, String)> = None;
        for rung in rungs(self.mode) {
            if let Some((_, reason)) = not_attached.as_ref().filter(|(attach, _)| *attach == rung.attach) {
                refused.push((rung.mode, reason.clone()));
                continue;
            }
            match self.step(rung, steer, &mut attached, signals) {
                Ok((plan, devices)) => {
                    let queues = plan.workers.iter().flat_map(|place| place.queues.iter().copied());
                    let zero_copy = devices.iter().flatten().map(XdpDevice::is_zero_copy);
                    let mode = in_force(rung, &queues.zip(zero_copy).collect::<Vec<_>>());
                    return Ok(Reached { devices, plan, mode, refused: reasons(&refused) });
                }
                Err(Refusal::Mode(reason)) => {
                    if attached.is_none() {
                        not_attached = Some((rung.attach, reason.clone()));
                    }
                    refused.push((rung.mode, reason));
                }
                Err(Refusal::Final(error)) => {
                    steer.detach();
                    return Err(error);
                }
            }
        }
        steer.detach();
        let way_out = if self.mode == Mode::Auto { "" } else { ": use --mode auto" };
        Err(Error(reasons(&refused) + way_out))
    }

    fn step(
        &self,
        rung: Rung,
        steer: &mut Steer,
        attached: &mut Option<AttachMode>,
        signals: &mut Signals,
    ) -> Result<(Plan, Vec<Vec<XdpDevice>>), Refusal> {
        // Attaching again would reset the link of some drivers again.
        if *attached != Some(rung.attach) {
            *attached = None;
            steer.attach(&self.interface.name, rung.attach)?;
            *attached = Some(rung.attach);
            Self::await_carrier(self.interface, "the XDP program was attached", signals)
                .map_err(Refusal::Final)?;
        }
        let plan = self.plan_now().map_err(Refusal::Final)?;
        let mut devices = Vec::with_capacity(plan.workers.len());
        for place in &plan.workers {
            let mut of_worker = Vec::with_capacity(place.queues.len());
            for (home, &queue) in (0..=u8::MAX).zip(&place.queues) {
                let device = XdpDevice::open(&XdpOptions {
                    mtu: self.interface.mtu,
                    buffers: plan.buffers,
                    busy_poll: self.busy_poll,
                    home,
                    ..XdpOptions::new(&self.interface.name, queue as u32, rung.bind)
                });
                of_worker.push(device.map_err(|error| Refusal::of_bind(&error))?);
            }
            devices.push(of_worker);
        }
        Ok((plan, devices))
    }

    /// The plan for the interface as the attachment has left it.
    fn plan_now(&self) -> Result<Plan, Error> {
        let mut now = self.interface.clone();
        now.read_again()
            .map_err(|error| Error(format!("asking for the queues and offloads of {}: {error}", now.name)))?;
        check_spare(&now.name, &now.driver, self.interface.queues.rx, now.queues.rx)?;
        (self.plan)(&now).map_err(Error)
    }

    /// Waits for the carrier, if there was one before this was done to it.
    pub(super) fn await_carrier(
        interface: &Interface,
        what: &str,
        signals: &mut Signals,
    ) -> Result<(), Error> {
        let name = &interface.name;
        if !interface.carrier {
            return Ok(());
        }
        let deadline = Instant::now() + CARRIER_BACK;
        loop {
            let state = link(interface.index)
                .map_err(|error| Error(format!("asking for the carrier of {name}: {error}")))?;
            match state {
                Link::Up => return Ok(()),
                Link::Gone | Link::Down => {
                    return Err(Error(format!("{name} went down when {what}")));
                }
                Link::NoCarrier if Instant::now() > deadline => {
                    return Err(Error(format!(
                        "{name} has had no carrier for {} s since {what}: check its other end",
                        CARRIER_BACK.as_secs()
                    )));
                }
                Link::NoCarrier => {
                    if signals.wait(Duration::from_millis(20)) {
                        return Err(Error("stopped by a signal while waiting for the carrier".into()));
                    }
                }
            }
        }
    }
}

/// Refuses queues that came with the attachment: virtio_net keeps them for its own redirects, so that they receive, and never send what a
/// socket gives them (Linux 7.2). With all queues on before, it goes without.
fn check_spare(name: &str, driver: &str, had: usize, receive: usize) -> Result<(), Error> {
    if receive <= had {
        return Ok(());
    }
    let change = set_queues(name, driver, receive);
    Err(Error(format!(
        "with the XDP program {name} receives on {receive} queues instead of {had}, and sends nothing on the new ones: `{change}` first"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_tries_all_from_the_fastest_and_an_explicit_mode_only_itself() {
        let modes = |mode| rungs(mode).map(|rung| rung.mode).collect::<Vec<_>>();
        assert_eq!(modes(Mode::Auto), [Mode::ZeroCopy, Mode::Copy, Mode::Skb]);
        for mode in [Mode::ZeroCopy, Mode::Copy, Mode::Skb] {
            assert_eq!(modes(mode), [mode]);
        }
    }

    #[test]
    fn the_mode_is_what_the_sockets_say() {
        let [zero_copy, copy, skb] = RUNGS;
        assert_eq!(in_force(zero_copy, &[(0, true), (1, true)]), "zerocopy");
        assert_eq!(in_force(zero_copy, &[(0, false)]), "copy");
        assert_eq!(in_force(copy, &[(0, false), (1, false)]), "copy");
        assert_eq!(in_force(skb, &[(0, false)]), "skb");
        assert_eq!(
            in_force(zero_copy, &[(0, true), (1, true), (2, false)]),
            "mixed: zerocopy on queues 0-1, copy on queue 2"
        );
    }

    #[test]
    fn queues_that_the_attachment_brought_are_refused_with_the_way_out() {
        assert!(check_spare("t0", "igb", 4, 4).is_ok());
        assert!(check_spare("t0", "igb", 4, 2).is_ok());
        let line = check_spare("t0", "virtio_net", 2, 4).unwrap_err().to_string();
        assert!(
            line.contains("4 queues instead of 2") && line.contains("`ethtool -L t0 combined 4` first"),
            "{line}"
        );
    }

    #[test]
    fn a_reason_is_told_once() {
        let refused = |modes: &[(Mode, &str)]| {
            reasons(&modes.iter().map(|&(mode, reason)| (mode, reason.to_owned())).collect::<Vec<_>>())
        };
        assert_eq!(refused(&[]), "");
        let all = [(Mode::ZeroCopy, "no"), (Mode::Copy, "no"), (Mode::Skb, "never")];
        assert_eq!(refused(&all), "zerocopy and copy refused: no; skb refused: never");
    }

    #[test]
    fn only_a_refusal_that_another_mode_may_mend_goes_on() {
        let name = || "t0".to_owned();
        let no_native_xdp = SteerError::NoNativeXdp { interface: name(), mtu: None };
        assert!(matches!(Refusal::from(no_native_xdp), Refusal::Mode(_)));
        assert!(matches!(Refusal::from(SteerError::KernelTooOld), Refusal::Final(_)));
        let kernel = || OpenError::Kernel {
            interface: name(),
            queue: 0,
            what: "bind",
            source: std::io::Error::from_raw_os_error(libc::ENOENT),
        };
        assert!(matches!(Refusal::of_bind(&kernel()), Refusal::Final(_)));
        let copied = OpenError::NoZeroCopy { interface: name(), queue: 0, way_out: None };
        assert!(matches!(Refusal::of_bind(&copied), Refusal::Mode(_)));
        let busy = OpenError::Busy { interface: name(), queue: 0 };
        assert!(matches!(Refusal::of_bind(&busy), Refusal::Final(_)));
    }
}
