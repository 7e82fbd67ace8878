//! What is set on a NIC for a while so that packets come to certain queues, and how it is taken back. Knows flow rules and the RSS table;
//! never whose packets they are.

#[cfg(test)]
mod tests;

use std::io;

use super::ethtool::rules::{Action, Flow, Table};
use super::ethtool::{Ethtool, Nic, has_ntuple, hash, rules, set_ntuple};
use crate::text::{hex, ranges};

/// What is to be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steering {
    /// Nothing.
    Untouched,
    /// A flow rule for each of these: TCP is spread over the queues, everything else comes to the first of them.
    Rules(Vec<Flow>),
    /// The RSS table: every packet that is hashed is spread over the queues. Others, like ARP, come to queue 0 of most NICs.
    Table {
        /// And the hash's key.
        key: Option<Vec<u8>>,
    },
}

/// What is set, until this is dropped. A process that is killed leaves it behind.
pub struct Spread {
    nic: Box<dyn Ethtool>,
    context: u32,
    /// The latest last: rules before their context, the context before rules go out of force.
    undo: Vec<Undo>,
    notes: Vec<String>,
    tell: fn(&str),
}

enum Undo {
    RulesInForce,
    Context(u32),
    Rule(u32),
    Table { before: hash::Setting, was_default: bool, key_too: bool },
}

impl Undo {
    fn carry_out(&self, nic: &dyn Ethtool) -> io::Result<()> {
        match self {
            Self::RulesInForce => set_ntuple(nic, false),
            Self::Context(context) => hash::delete_context(nic, *context),
            Self::Rule(location) => rules::delete(nic, *location),
            Self::Table { before, was_default, key_too } => {
                let key = if *key_too { &before.key[..] } else { &[] };
                if *key_too || !*was_default {
                    hash::set(nic, &before.table, key, before)?;
                }
                // A table that was never set may follow the number of queues again.
                if *was_default { hash::reset(nic, before) } else { Ok(()) }
            }
        }
    }

    /// The line that does the same.
    fn by_hand(&self, name: &str) -> String {
        match self {
            Self::RulesInForce => format!("ethtool -K {name} ntuple off"),
            Self::Context(context) => format!("ethtool -X {name} context {context} delete"),
            Self::Rule(location) => format!("ethtool -N {name} delete {location}"),
            Self::Table { before, was_default, key_too } => {
                let mut line = format!("ethtool -X {name} default");
                if *key_too {
                    line += &format!(", ethtool -X {name} hkey {}", hex(&before.key));
                }
                // ethtool has no words for just any table.
                let which = if *was_default { "" } else { " (the table was another, though)" };
                line + which
            }
        }
    }
}

impl Spread {
    /// Nothing yet, on interface `name`. `tell` hears what cannot be taken back when this is dropped.
    #[must_use]
    pub fn new(name: &str, tell: fn(&str)) -> Self {
        Self::on(Box::new(Nic(name.into())), tell)
    }

    fn on(nic: Box<dyn Ethtool>, tell: fn(&str)) -> Self {
        Self { nic, context: 0, undo: Vec::new(), notes: Vec::new(), tell }
    }

    /// Sets this for `queues`.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it. What was set until then is taken back at the drop.
    pub fn set(&mut self, steering: &Steering, queues: &[usize]) -> Result<(), String> {
        match steering {
            Steering::Untouched => Ok(()),
            Steering::Rules(flows) => self.set_rules(flows, queues),
            Steering::Table { key } => self.set_table(key.as_deref(), queues),
        }
    }

    /// Is anything set? Some NICs lose their carrier by that.
    #[must_use]
    pub fn has_changed_anything(&self) -> bool {
        !self.undo.is_empty()
    }

    /// What was set, and how to undo it by hand, a line each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The context over whose queues TCP is spread, 0 where all packets are.
    #[must_use]
    pub const fn context(&self) -> u32 {
        self.context
    }

    /// Takes back what was set; what failed, a line each.
    pub fn restore(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        while let Some(undo) = self.undo.pop() {
            let Err(error) = undo.carry_out(&*self.nic) else { continue };
            // The interface is gone, or the rule was removed by somebody else.
            if !matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) {
                let by_hand = undo.by_hand(self.nic.name());
                failures.push(format!("what --steer set is still there ({error}): {by_hand}"));
            }
        }
        failures
    }

    fn set_rules(&mut self, flows: &[Flow], queues: &[usize]) -> Result<(), String> {
        let name = self.nic.name().to_owned();
        let failed = |error: io::Error| format!("asking {name} for its flow rules: {error}");
        let Some(&first) = queues.first() else { return Ok(()) };
        if !has_ntuple(&*self.nic).map_err(failed)? {
            match set_ntuple(&*self.nic, true) {
                Ok(()) => self.note("flow rules are in force", Undo::RulesInForce),
                // Not to be switched: they are always in force, or the first of them is refused.
                Err(error) if is_unsupported(&error) => {}
                Err(error) => return Err(format!("putting flow rules of {name} in force: {error}")),
            }
        }
        let mut table = Table::read(&*self.nic).map_err(failed)?;
        let to_first = Action::Queue(first as u32);
        let spread = match queues {
            [_] => to_first,
            _ => Action::Context(self.find_context(&table, flows, queues)?),
        };
        for &flow in flows {
            let action = match flow {
                Flow::TcpTo(_) | Flow::TcpFrom(_) => spread,
                Flow::Arp | Flow::Icmpv6 => to_first,
            };
            self.set_rule(&mut table, flow, action)?;
        }
        Ok(())
    }

    fn set_rule(&mut self, table: &mut Table, flow: Flow, action: Action) -> Result<(), String> {
        let name = self.nic.name().to_owned();
        let place = match action {
            Action::Queue(queue) => format!("queue {queue}"),
            Action::Context(context) => format!("RSS context {context}"),
        };
        let there =
            table.rules.iter().find(|rule| rule.is_for(flow)).map(|rule| (rule.location, rule.action));
        match there {
            Some((location, now)) if now == Some(action) => {
                self.note_stays(&format!("{flow} goes to {place}"), &Undo::Rule(location));
                Ok(())
            }
            Some((location, _)) => Err(format!(
                "flow rule {location} of {name} sends {flow} elsewhere: ethtool -N {name} delete {location}"
            )),
            None => {
                let location =
                    table.add(&*self.nic, flow, action).map_err(|error| refused(&name, flow, &error))?;
                self.note(&format!("{flow} goes to {place}"), Undo::Rule(location));
                Ok(())
            }
        }
    }

    /// The context that spreads over these queues: one that a rule for one of the flows names already, or a new one.
    fn find_context(&mut self, table: &Table, flows: &[Flow], queues: &[usize]) -> Result<u32, String> {
        let name = self.nic.name().to_owned();
        let failed = |error: io::Error| format!("asking {name} for its RSS table: {error}");
        let no_contexts = || {
            format!(
                "{name} cannot spread flow rules over several queues, it has no RSS contexts: \
                 give one queue with --queues, or use --steer rss"
            )
        };
        let common = hash::setting(&*self.nic, 0).map_err(failed)?.ok_or_else(no_contexts)?;
        let wanted = self.evenly(common.table.len(), queues)?;
        let what = |context: u32| format!("RSS context {context} spreads over queues {}", ranges(queues));
        for rule in table.rules.iter().filter(|rule| flows.iter().any(|&flow| rule.is_for(flow))) {
            let Some(Action::Context(context)) = rule.action else { continue };
            let setting = hash::setting(&*self.nic, context).map_err(failed)?;
            if setting.is_some_and(|setting| setting.table == wanted) {
                self.context = context;
                self.note_stays(&what(context), &Undo::Context(context));
                return Ok(context);
            }
        }
        let context = hash::add_context(&*self.nic, &wanted).map_err(|error| {
            if is_unsupported(&error) {
                no_contexts()
            } else {
                format!("making an RSS context on {name}: {error}")
            }
        })?;
        self.context = context;
        self.note(&what(context), Undo::Context(context));
        Ok(context)
    }

    fn set_table(&mut self, key: Option<&[u8]>, queues: &[usize]) -> Result<(), String> {
        let name = self.nic.name().to_owned();
        let failed = |error: io::Error| format!("asking {name} for its RSS table: {error}");
        let before = hash::setting(&*self.nic, 0).map_err(failed)?;
        let before = before.ok_or_else(|| format!("{name} has no RSS table: leave --steer out"))?;
        let key = key.filter(|key| *key != before.key).unwrap_or_default();
        if !key.is_empty() && before.key.iter().all(|&byte| byte == 0) {
            return Err(format!(
                "{name} does not show its RSS key, to which it would be set back: leave --rss-key out"
            ));
        }
        let table = self.evenly(before.table.len(), queues)?;
        let numbers = ranges(queues);
        if table == before.table && key.is_empty() {
            self.notes.push(format!(
                "{name} spreads over --queues {numbers} already: its RSS table stays as it is"
            ));
            return Ok(());
        }
        let was_default = hash::is_default(&*self.nic, &before.table).map_err(failed)?;
        hash::set(&*self.nic, &table, key, &before)
            .map_err(|error| format!("setting the RSS table of {name}: {error}: leave --steer out"))?;
        let key_too = !key.is_empty();
        let with_key = if key_too { ", with --rss-key" } else { "" };
        let what = format!("all that is hashed is spread over --queues {numbers}{with_key}");
        self.note(&what, Undo::Table { before, was_default, key_too });
        Ok(())
    }

    /// A table with each queue as often as the others.
    fn evenly(&self, len: usize, queues: &[usize]) -> Result<Vec<u32>, String> {
        if len < queues.len() {
            let name = self.nic.name();
            return Err(format!(
                "the RSS table of {name} has room for {len} queues of {}: name fewer with --queues",
                queues.len()
            ));
        }
        Ok(queues.iter().map(|&queue| queue as u32).cycle().take(len).collect())
    }

    fn note(&mut self, what: &str, undo: Undo) {
        let name = self.nic.name();
        self.notes.push(format!("{name}: {what}, until the end; by hand: {}", undo.by_hand(name)));
        self.undo.push(undo);
    }

    /// What is as it should be without us is not ours to take back: it may be somebody's own.
    fn note_stays(&mut self, what: &str, undo: &Undo) {
        let name = self.nic.name();
        let by_hand = undo.by_hand(name);
        self.notes.push(format!("{name}: {what}, which was there already, and stays; by hand: {by_hand}"));
    }
}

impl Drop for Spread {
    fn drop(&mut self) {
        for line in self.restore() {
            (self.tell)(&format!("note: {line}"));
        }
    }
}

/// Is this the answer of a driver that cannot?
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}

/// Why a rule is not there.
fn refused(name: &str, flow: Flow, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSPC) => format!(
            "{name} has no room for a flow rule for {flow}: ethtool -n {name} lists those there are, \
             ethtool -N {name} delete LOC removes one"
        ),
        Some(libc::EEXIST) => format!(
            "{name} has a flow rule in the way of one for {flow}: ethtool -n {name} lists them, \
             ethtool -N {name} delete LOC removes one"
        ),
        Some(libc::EOPNOTSUPP | libc::EINVAL) => format!(
            "{name} takes no flow rule for {flow} ({error}; the kernel log may say why): use --steer rss, \
             or every queue without --steer"
        ),
        _ => format!("setting a flow rule for {flow} on {name}: {error}"),
    }
}
