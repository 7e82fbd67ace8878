//! What the NIC is told so that packets come to the workers' queues. Knows what was asked for and what the NIC can do; sets nothing.

use super::Plan;
use crate::face::config::Steer;
use crate::host::nic::spread::Steering;
use crate::host::nic::{Flow, Interface};
use crate::text::counted;
use synmill_engine::flow::Prefix;

impl Plan {
    /// Has these flows brought to our queues, where flow rules are to be set, and sees to it that neighbours find the addresses that are
    /// ours. What else comes for those, pings and stray segments, is ours only on our queues.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it.
    pub(super) fn bring(
        &mut self,
        flows: impl Iterator<Item = Flow>,
        interface: &Interface,
    ) -> Result<(), String> {
        let queues = self.queues();
        let asked_for = |v4: bool| {
            self.owned.iter().find(|owned| owned.first().is_v4() == v4 && is_asked_for(interface, owned))
        };
        // What is not hashed is not looked up in the RSS table: an igb has ARP on queue 0, others neighbour discovery, too.
        match &mut self.steering {
            Steering::Untouched => {}
            Steering::Rules(_) if queues.len() == interface.queues.rx => {
                self.steering = Steering::Untouched;
                self.notes.push(format!(
                    "--queues are all that {} receives on: what is ours comes to them without flow rules, and none is set",
                    interface.name
                ));
            }
            Steering::Rules(rules) => {
                rules.extend(flows);
                if !queues.contains(&0) {
                    rules.extend(asked_for(true).map(|_| Flow::Arp));
                }
                rules.extend(asked_for(false).map(|_| Flow::Icmpv6));
            }
            Steering::Table { .. } => {
                if let Some(owned) = asked_for(true).or(asked_for(false))
                    && !queues.contains(&0)
                {
                    return Err(format!(
                        "neighbours ask for {}, which only we have, and ARP comes to queue 0 of {} whatever its RSS table says: \
                         name queue 0 among --queues",
                        owned.first().to_ip(),
                        interface.name
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Do neighbours ask for the Ethernet address of this one, or of one in this prefix? Only on the link they do; others ask for the
/// router's. A single address may be anybody's neighbour.
#[must_use]
pub fn is_asked_for(interface: &Interface, owned: &Prefix) -> bool {
    owned.is_host() || interface.addresses.iter().any(|(_, subnet)| subnet.overlaps(owned))
}

/// Can the NIC do what is asked of it, as far as can be known before it is tried?
pub(super) fn check_steering(asked: &Steer, interface: &Interface) -> Result<Steering, String> {
    let Interface { name, driver, help, .. } = interface;
    let driver = if driver.is_empty() { "unknown" } else { driver };
    let errors = if help.errors.is_empty() { String::new() } else { format!("; {}", help.errors) };
    match asked {
        Steer::AsItIs => Ok(Steering::Untouched),
        Steer::Rules if !help.has_rules => {
            let rss = if help.table_len > 0 { ", or use --steer rss" } else { "" };
            Err(format!("{name} has no flow rules (driver {driver}{errors}): leave --steer out{rss}"))
        }
        Steer::Rules => Ok(Steering::Rules(Vec::new())),
        Steer::Table { .. } if help.table_len == 0 => {
            Err(format!("{name} has no RSS table (driver {driver}{errors}): leave --steer out"))
        }
        Steer::Table { key: Some(key) } if help.key_len == 0 => Err(format!(
            "{name} takes no RSS key (driver {driver}), and --rss-key has {}: leave it out",
            counted(key.len() as u64, "byte")
        )),
        Steer::Table { key: Some(key) } if help.key_len != key.len() => Err(format!(
            "the RSS key of {name} has {}, --rss-key {}: give as many",
            counted(help.key_len as u64, "byte"),
            key.len()
        )),
        Steer::Table { key } => Ok(Steering::Table { key: key.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, interface, machine};
    use super::*;

    #[test]
    fn queues_may_be_left_out_where_the_nic_is_told_to() {
        let steering = |arguments: &str, queues: &[usize]| {
            let plan = Plan::serve(&config(arguments), &interface(), &machine(4)).unwrap();
            assert_eq!(plan.queues(), queues, "{arguments}");
            plan.steering
        };
        let table = |key| Steering::Table { key };
        let key: Vec<u8> = (1..=40).collect();
        let text: Vec<String> = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(steering("", &[0, 1, 2, 3]), Steering::Untouched);
        assert_eq!(steering("--steer rss --queues 3,1", &[1, 3]), table(None));
        let arguments = format!("--steer rss --queues 2 --rss-key {}", text.join(":"));
        assert_eq!(steering(&arguments, &[2]), table(Some(key)));

        let to = |end: &str| Flow::TcpTo(end.parse().unwrap());
        let ours = to("198.18.0.2:80");
        assert_eq!(steering("--steer ntuple --queues 1", &[1]), Steering::Rules(vec![ours]));
        // Neighbours ask for what only we have: by ARP, or in ICMPv6.
        let listen = "--listen 198.18.0.9:81 --listen [fd00:18::9]:82 --listen 198.18.0.9:83";
        let flows = [ours, to("198.18.0.9:81"), to("[fd00:18::9]:82"), to("198.18.0.9:83")];
        let with_neighbours = [&flows[..], &[Flow::Arp, Flow::Icmpv6]].concat();
        let arguments = format!("--steer ntuple --queues 1 {listen}");
        assert_eq!(steering(&arguments, &[1]), Steering::Rules(with_neighbours));
        // ARP comes to queue 0 by itself.
        let with_neighbours = [&flows[..], &[Flow::Icmpv6]].concat();
        let arguments = format!("--steer ntuple --queues 0-1 {listen}");
        assert_eq!(steering(&arguments, &[0, 1]), Steering::Rules(with_neighbours));
        // Where they ask is not for the table to say.
        let plan = |arguments: &str| Plan::serve(&config(arguments), &interface(), &machine(4));
        let line = plan("--steer rss --queues 1-3 --listen 198.18.0.9:81").unwrap_err();
        assert!(line.contains("ask for 198.18.0.9") && line.contains("queue 0 among --queues"), "{line}");
        assert!(plan("--steer rss --queues 1-3").is_ok());
        assert!(plan("--steer rss --queues 0-2 --listen 198.18.0.9:81").is_ok());
        // All that comes is on our queues, if all are ours.
        let plan = plan(&format!("--steer ntuple {listen}")).unwrap();
        assert_eq!(plan.steering, Steering::Untouched);
        assert!(plan.notes[0].contains("without flow rules, and none is set"), "{:?}", plan.notes);
    }
}
