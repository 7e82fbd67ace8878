//! Which worker serves which queues, on which core.

use super::options::{Options, Queues};
use crate::host::nic::spread::Steering;
use crate::host::nic::{self, Help, Interface};
use crate::text::{counted, ranges};

/// Most queues of one worker: a frame names its queue in eight bits.
const QUEUES_PER_WORKER: usize = 256;

/// The place of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The core that the worker is pinned to.
    pub core: usize,
    /// The queues that the worker serves.
    pub queues: Vec<usize>,
}

/// Returns the command that sets `count` queues each way.
fn set_queues(interface: &Interface, count: usize) -> String {
    nic::set_queues(&interface.name, &interface.driver, count)
}

/// Returns the queues to serve: all receive queues, unless the NIC's settings spare the others. Each of them can send.
///
/// # Errors
/// One line: what is wrong and how to fix it.
pub(super) fn choose(options: &Options, interface: &Interface) -> Result<Vec<usize>, String> {
    let name = &interface.name;
    let active: Vec<usize> = (0..interface.queues.rx).collect();
    let queues = match &options.queues {
        Queues::All => active.clone(),
        Queues::Only(numbers) => numbers.to_vec(),
    };
    if let Some(beyond) = queues.iter().find(|queue| !active.contains(queue)) {
        return Err(format!(
            "queue {beyond} of {name} is not active, {} is: use --queues all, or {}",
            ranges(&active),
            set_queues(interface, beyond + 1)
        ));
    }
    let uncovered: Vec<usize> = active.iter().copied().filter(|queue| !queues.contains(queue)).collect();
    if let Some(first) = uncovered.first()
        && options.steering == Steering::Untouched
    {
        let fewer = if *first > 0 && queues.len() == *first {
            format!(", or {}", set_queues(interface, *first))
        } else {
            String::new()
        };
        let help = match interface.help {
            // An igb says that it has rules, and may refuse each.
            Help { table_len: 1.., has_rules: true, .. } => ", or --steer rss or ntuple",
            Help { table_len: 1.., .. } => ", or --steer rss",
            Help { has_rules: true, .. } => ", or --steer ntuple",
            Help { .. } => "",
        };
        return Err(format!(
            "queue {} of {name} would stay with the kernel, which resets what arrives there: use --queues all{fewer}{help}",
            ranges(&uncovered)
        ));
    }
    let (rx, tx) = (interface.queues.rx, interface.queues.tx);
    if queues.iter().any(|&queue| queue >= tx) {
        return Err(format!(
            "{name} has {rx} receive queues and {tx} to transmit, a worker needs both: {}",
            set_queues(interface, tx)
        ));
    }
    Ok(queues)
}

/// Deals queues out to workers in turn, and workers to cores. The process may run on the cores `allowed`.
///
/// # Errors
/// One line: what is wrong and how to fix it.
pub(super) fn deal(queues: &[usize], options: &Options, allowed: &[usize]) -> Result<Vec<Place>, String> {
    let count = options.workers.unwrap_or(queues.len());
    if count > queues.len() {
        let most = queues.len();
        return Err(format!(
            "--workers {count} for {}: give at most --workers {most}",
            counted(most as u64, "queue")
        ));
    }
    if queues.len() > count * QUEUES_PER_WORKER {
        let least = queues.len().div_ceil(QUEUES_PER_WORKER);
        return Err(format!(
            "--workers {count} for {} queues: give at least --workers {least}",
            queues.len()
        ));
    }
    let cores = options.cores.as_deref().unwrap_or(allowed);
    if let Some(core) = cores.iter().find(|core| !allowed.contains(core)) {
        let allowed = ranges(allowed);
        return Err(format!("core {core} is not one this process may run on: give --cores from {allowed}"));
    }
    if cores.len() < count {
        let cores = cores.len();
        return Err(format!(
            "{} for {}, each needs its own: give --workers {cores}",
            counted(cores as u64, "core"),
            counted(count as u64, "worker")
        ));
    }
    let place = |(number, &core): (usize, &usize)| Place {
        core,
        queues: queues.iter().copied().skip(number).step_by(count).collect(),
    };
    Ok(cores.iter().take(count).enumerate().map(place).collect())
}
