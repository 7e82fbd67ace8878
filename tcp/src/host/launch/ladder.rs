//! From an interface to bound sockets: attach, then bind, in the first mode that works.

use std::time::{Duration, Instant};

use super::signals::Signals;
use crate::host::Error;
use crate::host::nic::{Interface, Link, link, set_queues};
use crate::host::plan::{Mode, Plan};
use crate::host::program::{AttachMode, Program};
use crate::host::rings::{BindMode, XdpDevice, XdpOptions};
use crate::text::queues;

/// How long a carrier may take to come back after the attachment: an igb needs three seconds.
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

/// Returns the rungs that a mode allows, from the top.
fn rungs(mode: Mode) -> impl Iterator<Item = Rung> {
    RUNGS.into_iter().filter(move |rung| mode == Mode::Auto || rung.mode == mode)
}

/// Bound sockets.
pub(super) struct Reached {
    /// The devices of each worker, one for each of its queues.
    pub(super) devices: Vec<Vec<XdpDevice>>,
    /// The mode in force, as read back from the sockets.
    pub(super) mode: String,
    /// The faster modes that were refused, and why; empty if none was.
    pub(super) refused: String,
}

/// Returns the mode in force where the program runs as `rung` says, and each queue's socket copies or does not.
fn in_force(rung: Rung, sockets: &[(usize, bool)]) -> String {
    let copied = if rung.mode == Mode::ZeroCopy { Mode::Copy } else { rung.mode }.name();
    let of = |zero_copy: bool| -> Vec<usize> {
        sockets.iter().filter(|&&(_, is)| is == zero_copy).map(|&(queue, _)| queue).collect()
    };
    match (&of(true)[..], &of(false)[..]) {
        ([], _) => copied.into(),
        (_, []) => Mode::ZeroCopy.name().into(),
        (zero_copy, others) => {
            let [zero_copy, others] = [zero_copy, others].map(queues);
            format!("mixed: {} on {zero_copy}, {copied} on {others}", Mode::ZeroCopy)
        }
    }
}

/// Returns the refusals as one line. Neighbours with the same reason share it.
fn reasons(refused: &[(Mode, String)]) -> String {
    let same = refused.chunk_by(|(_, one), (_, other)| one == other);
    let told = same.filter_map(|refused| {
        let modes: Vec<&str> = refused.iter().map(|(mode, _)| mode.name()).collect();
        refused.first().map(|(_, reason)| format!("{} refused: {reason}", modes.join(" and ")))
    });
    told.collect::<Vec<_>>().join("; ")
}

/// Attaches and binds in the first mode that works, and amends the plan by what the attachment changes.
///
/// # Errors
/// One line: why no mode works. Nothing is left attached.
pub(super) fn climb(
    interface: &Interface,
    plan: &mut Plan,
    program: &mut Program,
    signals: &mut Signals,
) -> Result<Reached, Error> {
    let wanted = plan.options.mode;
    let mut refused: Vec<(Mode, String)> = Vec::new();
    let mut attached = None;
    let mut not_attached: Option<(AttachMode, String)> = None;
    for rung in rungs(wanted) {
        if let Some((_, reason)) = not_attached.as_ref().filter(|(attach, _)| *attach == rung.attach) {
            refused.push((rung.mode, reason.clone()));
            continue;
        }
        match step(rung, interface, plan, program, &mut attached, signals) {
            Ok(devices) => {
                let queues = plan.workers.iter().flat_map(|place| place.queues.iter().copied());
                let zero_copy = devices.iter().flatten().map(XdpDevice::is_zero_copy);
                let mode = in_force(rung, &queues.zip(zero_copy).collect::<Vec<_>>());
                return Ok(Reached { devices, mode, refused: reasons(&refused) });
            }
            Err(error) if error.is_of_mode() => {
                let reason = error.to_string();
                if attached.is_none() {
                    not_attached = Some((rung.attach, reason.clone()));
                }
                refused.push((rung.mode, reason));
            }
            Err(error) => {
                program.detach();
                return Err(error);
            }
        }
    }
    program.detach();
    let way_out = if wanted == Mode::Auto { "" } else { ": use --mode auto" };
    Err((reasons(&refused) + way_out).into())
}

fn step(
    rung: Rung,
    interface: &Interface,
    plan: &mut Plan,
    program: &mut Program,
    attached: &mut Option<AttachMode>,
    signals: &mut Signals,
) -> Result<Vec<Vec<XdpDevice>>, Error> {
    // Attaching again would reset the link of some drivers again.
    if *attached != Some(rung.attach) {
        *attached = None;
        program.attach(&interface.name, rung.attach)?;
        *attached = Some(rung.attach);
        await_carrier(interface, "the XDP program was attached", signals)?;
    }
    let mut now = interface.clone();
    now.read_again()
        .map_err(|error| format!("asking for the queues and offloads of {}: {error}", now.name))?;
    check_spare(&now.name, &now.driver, interface.queues.rx, now.queues.rx)?;
    plan.amend(&now)?;
    let open = |home: usize, queue: usize| {
        XdpDevice::open(&XdpOptions {
            mtu: interface.mtu,
            buffers: plan.buffers,
            busy_poll: plan.options.busy_poll,
            home: home as u8,
            ..XdpOptions::new(&interface.name, queue as u32, rung.bind)
        })
    };
    let of_worker =
        |queues: &[usize]| queues.iter().enumerate().map(|(home, &queue)| open(home, queue)).collect();
    plan.workers.iter().map(|place| of_worker(&place.queues)).collect()
}

/// Waits for the carrier, if there was one before `event`.
///
/// # Errors
/// One line: the carrier does not come back, or a signal arrives.
pub(super) fn await_carrier(interface: &Interface, event: &str, signals: &mut Signals) -> Result<(), Error> {
    let name = &interface.name;
    if !interface.carrier {
        return Ok(());
    }
    let deadline = Instant::now() + CARRIER_BACK;
    loop {
        let state =
            link(interface.index).map_err(|error| format!("asking for the carrier of {name}: {error}"))?;
        match state {
            Link::Up => return Ok(()),
            Link::Gone | Link::Down => return Err(format!("{name} went down when {event}").into()),
            Link::NoCarrier if Instant::now() > deadline => {
                return Err(format!(
                    "{name} has had no carrier for {} s since {event}: check its other end",
                    CARRIER_BACK.as_secs()
                )
                .into());
            }
            Link::NoCarrier => {
                if signals.wait(Duration::from_millis(20)) {
                    return Err("stopped by a signal while waiting for the carrier".into());
                }
            }
        }
    }
}

/// Refuses queues that came with the attachment. virtio_net keeps them for its own redirects: they receive, and never send a socket's
/// frames (Linux 7.2). If all queues were active before, there are no such queues.
fn check_spare(name: &str, driver: &str, had: usize, receive: usize) -> Result<(), Error> {
    if receive <= had {
        return Ok(());
    }
    let change = set_queues(name, driver, receive);
    Err(format!(
        "with the XDP program {name} receives on {receive} queues instead of {had}, and sends nothing on the new ones: `{change}` first"
    )
    .into())
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
}
