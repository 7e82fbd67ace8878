//! The plan of a run. It refuses what it can before the machine is changed.

mod claims;
mod memory;
mod notes;
mod options;
mod queues;
mod steering;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use synmill_engine::device::Buffers;
use synmill_engine::endpoint::{Settings, memory_needed};
use synmill_engine::flow::Prefix;
use synmill_engine::generator::Generator;
use synmill_engine::wire::Mac;

use self::claims::Claims;
use self::memory::Need;
use self::notes::notes;
use super::machine::{Machine, check_capabilities};
use super::nic::spread::Steering;
use super::nic::{Flow, Interface, buffers, max_mtu};
use super::program::Holder;

pub use self::claims::Role;
pub use self::options::{Mode, Options, Queues};
pub use self::queues::Place;
pub use self::steering::is_asked_for;

/// The plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The user's choices about the interface.
    pub options: Options,
    /// The user's choices about the endpoints, all workers together.
    pub settings: Settings,
    /// The interface's Ethernet address.
    pub mac: Mac,
    /// How packets lie in the driver's memory.
    pub buffers: Buffers,
    /// The place of each worker.
    pub workers: Vec<Place>,
    /// Addresses and ports whose TCP the program steers, beside that of owned addresses.
    pub listeners: Vec<SocketAddr>,
    /// Addresses that only synmill has: the endpoints answer ARP and neighbour solicitations for them.
    pub owned: Vec<Prefix>,
    /// The settings of the NIC that bring packets to the workers' queues.
    pub steering: Steering,
    /// Lines that the user should read, none of them an error.
    pub notes: Vec<String>,
    /// The cores that the process may run on.
    cores: Vec<usize>,
    /// The TCP that must come to the workers' queues.
    flows: Vec<Flow>,
    /// The notes that do not depend on the attachment.
    lasting_notes: Vec<String>,
}

impl Plan {
    /// The plan for an interface as it is before the attachment.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub fn new(
        options: Options,
        settings: Settings,
        role: &Role,
        interface: &Interface,
        machine: &Machine,
    ) -> Result<Self, String> {
        let Interface { name, mtu, driver, .. } = interface;
        check_capabilities(machine.capabilities)?;
        let Some(mac) = interface.mac else {
            return Err(format!("{name} is not an Ethernet interface: give one that is"));
        };
        if !interface.up {
            return Err(format!("{name} is down: ip link set {name} up"));
        }
        let buffers = buffers(driver, *mtu);
        let most = max_mtu(buffers);
        if *mtu > most {
            return Err(format!(
                "{name} has an MTU of {mtu}, there are frames for {most}: ip link set {name} mtu {most}"
            ));
        }
        if let Some(id) = interface.xdp_program {
            return Err(Holder::find(id).refuses(name));
        }
        let Claims { listeners, owned, flows, notes } = Claims::of(role, interface, machine)?;
        let mut plan = Self {
            options,
            settings,
            mac,
            buffers,
            workers: Vec::new(),
            listeners,
            owned,
            steering: Steering::Untouched,
            notes: Vec::new(),
            cores: machine.cores.clone(),
            flows,
            lasting_notes: notes,
        };
        plan.amend(interface)?;
        plan.check_memory(role, *mtu, machine.memory_bytes)?;
        Ok(plan)
    }

    /// Brings the plan up to date with the interface's queues and offloads, which an attachment may have changed.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub fn amend(&mut self, interface: &Interface) -> Result<(), String> {
        let queues = queues::choose(&self.options, interface)?;
        steering::check(&self.options.steering, interface)?;
        self.workers = queues::deal(&queues, &self.options, &self.cores)?;
        let wanted = steering::Wanted { flows: &self.flows, owned: &self.owned, queues: &self.queues() };
        let (steering, note) = wanted.complete(&self.options.steering, interface)?;
        self.steering = steering;
        self.notes = notes(&self.options, &self.settings, interface);
        self.notes.extend(note);
        self.notes.extend_from_slice(&self.lasting_notes);
        Ok(())
    }

    /// Adds a note that stays whatever the attachment changes.
    pub fn add_note(&mut self, note: Option<String>) {
        self.notes.extend(note.clone());
        self.lasting_notes.extend(note);
    }

    /// Returns the queues of all workers, in order.
    #[must_use]
    pub fn queues(&self) -> Vec<usize> {
        let mut queues: Vec<usize> =
            self.workers.iter().flat_map(|place| place.queues.iter().copied()).collect();
        queues.sort_unstable();
        queues
    }

    /// Returns the capture file of each worker: `FILE`, or `FILE.0`, `FILE.1` and so on for several; none without `--pcap`.
    #[must_use]
    pub fn captures(&self) -> Vec<PathBuf> {
        self.options.pcap.as_ref().map_or_else(Vec::new, |path| captures(path, self.workers.len()))
    }

    /// Endpoints and generators have room for all connections from the start.
    fn check_memory(&self, role: &Role, mtu: usize, available: Option<u64>) -> Result<(), String> {
        let (least, generators) = match role {
            Role::Listen(_) => (None, false),
            Role::Generate { concurrency, .. } => (concurrency.map(|count| ("--concurrency", count)), true),
        };
        let need = Need {
            connections: self.settings.max_connections,
            least,
            workers: &self.workers,
            buffers: self.buffers,
            mtu,
        };
        need.check(available, |slots, frames| {
            memory_needed(slots, frames) + if generators { Generator::memory_needed(slots) } else { 0 }
        })
    }
}

fn captures(path: &Path, workers: usize) -> Vec<PathBuf> {
    match workers {
        1 => vec![path.into()],
        _ => (0..workers).map(|number| path.with_added_extension(number.to_string())).collect(),
    }
}
