//! The settings of the NIC that bring packets to the workers' queues.

use synmill_engine::flow::Prefix;

use crate::host::nic::spread::Steering;
use crate::host::nic::{Flow, Interface};
use crate::text::counted;

/// Packets that must come to the workers' queues.
pub(super) struct Wanted<'a> {
    /// TCP of listeners or targets.
    pub(super) flows: &'a [Flow],
    /// Addresses that only synmill has, which neighbours ask for.
    pub(super) owned: &'a [Prefix],
    /// The workers' queues.
    pub(super) queues: &'a [usize],
}

impl Wanted<'_> {
    /// Completes the user's choice for this interface. Neighbours must find owned addresses whatever the queues are. Other packets for
    /// those addresses, pings and stray segments, are answered on the workers' queues only. A note says if no setting is needed.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub(super) fn complete(
        &self,
        asked: &Steering,
        interface: &Interface,
    ) -> Result<(Steering, Option<String>), String> {
        let asked_for = |v4: bool| {
            self.owned.iter().find(|owned| owned.first().is_v4() == v4 && is_asked_for(interface, owned))
        };
        let name = &interface.name;
        // The NIC does not look up packets without a hash in the RSS table: an igb has ARP on queue 0, others neighbour discovery, too.
        match asked {
            Steering::Untouched => {}
            Steering::Rules(_) if self.queues.len() == interface.queues.rx => {
                let note = format!("--queues covers every queue of {name}, so no flow rule is needed");
                return Ok((Steering::Untouched, Some(note)));
            }
            Steering::Rules(_) => {
                let mut rules = self.flows.to_vec();
                if !self.queues.contains(&0) {
                    rules.extend(asked_for(true).map(|_| Flow::Arp));
                }
                rules.extend(asked_for(false).map(|_| Flow::Icmpv6));
                return Ok((Steering::Rules(rules), None));
            }
            Steering::Table { .. } => {
                if let Some(owned) = asked_for(true).or(asked_for(false))
                    && !self.queues.contains(&0)
                {
                    return Err(format!(
                        "neighbours ask for {}, which only synmill has, and ARP comes to queue 0 of {name} whatever its RSS table says: \
                         name queue 0 among --queues",
                        owned.first().to_ip()
                    ));
                }
            }
        }
        Ok((asked.clone(), None))
    }
}

/// Returns whether neighbours ask for the Ethernet address of one of these addresses. They do so on the link only; others ask for the
/// router's. A single address may be any host's neighbour.
#[must_use]
pub fn is_asked_for(interface: &Interface, owned: &Prefix) -> bool {
    owned.is_host() || interface.addresses.iter().any(|(_, subnet)| subnet.overlaps(owned))
}

/// Refuses settings that the NIC is known not to have.
pub(super) fn check(asked: &Steering, interface: &Interface) -> Result<(), String> {
    let Interface { name, driver, help, .. } = interface;
    let driver = if driver.is_empty() { "unknown" } else { driver };
    let errors = if help.errors.is_empty() { String::new() } else { format!("; {}", help.errors) };
    match asked {
        Steering::Rules(_) if !help.has_rules => {
            let rss = if help.table_len > 0 { ", or use --steer rss" } else { "" };
            Err(format!("{name} has no flow rules (driver {driver}{errors}): leave --steer out{rss}"))
        }
        Steering::Table { .. } if help.table_len == 0 => {
            Err(format!("{name} has no RSS table (driver {driver}{errors}): leave --steer out"))
        }
        Steering::Table { key: Some(key) } if help.key_len == 0 => Err(format!(
            "{name} takes no RSS key (driver {driver}), and --rss-key has {}: leave it out",
            counted(key.len() as u64, "byte")
        )),
        Steering::Table { key: Some(key) } if help.key_len != key.len() => Err(format!(
            "the RSS key of {name} has {}, --rss-key {}: give as many",
            counted(help.key_len as u64, "byte"),
            key.len()
        )),
        _ => Ok(()),
    }
}
