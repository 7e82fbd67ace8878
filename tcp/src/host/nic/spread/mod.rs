//! Settings of a NIC that bring packets to certain queues, and how they are taken back.

#[cfg(test)]
mod tests;

use std::io;

use super::ethtool::facts::{has_ntuple, set_ntuple};
use super::ethtool::hash::{self, HashKey};
use super::ethtool::request::{Ethtool, Nic};
use super::ethtool::rules::{self, Action, Flow, Table};
use crate::text::{hex, ranges};

/// The settings that a run makes on the NIC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Steering {
    /// Nothing.
    #[default]
    Untouched,
    /// A flow rule for each of these: TCP goes to all queues, everything else to the first.
    Rules(Vec<Flow>),
    /// The RSS table: all packets that the NIC hashes go to all queues. Most NICs send the others, like ARP, to queue 0.
    Table {
        /// The hash's key, if the run sets it.
        key: Option<HashKey>,
    },
}

/// The settings that a run has made. Dropping this takes them back. A killed process leaves them behind.
pub struct Spread {
    nic: Box<dyn Ethtool>,
    context: u32,
    /// In the order in which the settings were made. Undoing goes backwards: rules, then their context, then rules as such.
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

    /// Returns the command with the same effect.
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
                // ethtool has no command for just any table.
                let which = if *was_default { "" } else { " (the table was another, though)" };
                line + which
            }
        }
    }
}

impl Spread {
    /// No settings yet, on interface `name`. `tell` receives the settings that the drop cannot take back.
    #[must_use]
    pub fn new(name: &str, tell: fn(&str)) -> Self {
        Self::on(Box::new(Nic(name.into())), tell)
    }

    fn on(nic: Box<dyn Ethtool>, tell: fn(&str)) -> Self {
        Self { nic, context: 0, undo: Vec::new(), notes: Vec::new(), tell }
    }

    /// Makes these settings for `queues`.
    ///
    /// # Errors
    /// One line: what is wrong and how to fix it. The drop takes back the settings made until then.
    pub fn set(&mut self, steering: &Steering, queues: &[usize]) -> Result<(), String> {
        match steering {
            Steering::Untouched => Ok(()),
            Steering::Rules(flows) => self.set_rules(flows, queues),
            Steering::Table { key } => self.set_table(key.as_ref(), queues),
        }
    }

    /// Returns whether there is a setting to take back. Some NICs lose their carrier by one.
    #[must_use]
    pub fn has_changed_anything(&self) -> bool {
        !self.undo.is_empty()
    }

    /// Returns each setting and how to undo it by hand, a line each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns the RSS context of TCP's queues, 0 if all packets share one.
    #[must_use]
    pub const fn context(&self) -> u32 {
        self.context
    }

    /// Takes the settings back. Returns the failures, a line each.
    pub fn restore(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        while let Some(undo) = self.undo.pop() {
            let Err(error) = undo.carry_out(&*self.nic) else { continue };
            // The interface is gone, or somebody else removed the rule.
            if !matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) {
                let by_hand = undo.by_hand(self.nic.name());
                failures.push(format!("what --steer set is still there ({error}): {by_hand}"));
            }
        }
        failures
    }

    /// Returns the driver's answer to a question about a part of it.
    fn answer<T>(&self, part: &str, answer: io::Result<T>) -> Result<T, String> {
        answer.map_err(|error| format!("asking {} for its {part}: {error}", self.nic.name()))
    }

    fn setting(&self, context: u32) -> Result<Option<hash::Setting>, String> {
        self.answer("RSS table", hash::setting(&*self.nic, context))
    }

    fn set_rules(&mut self, flows: &[Flow], queues: &[usize]) -> Result<(), String> {
        let Some(&first) = queues.first() else { return Ok(()) };
        if !self.answer("flow rules", has_ntuple(&*self.nic))? {
            match set_ntuple(&*self.nic, true) {
                Ok(()) => self.note("flow rules are in force", Undo::RulesInForce),
                // The driver has no such switch: rules are always in force, or it refuses the first of them.
                Err(error) if is_unsupported(&error) => {}
                Err(error) => {
                    return Err(format!("putting flow rules of {} in force: {error}", self.nic.name()));
                }
            }
        }
        let mut table = self.answer("flow rules", Table::read(&*self.nic))?;
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

    /// Returns the context for these queues: one that a rule for one of the flows names already, or a new one.
    fn find_context(&mut self, table: &Table, flows: &[Flow], queues: &[usize]) -> Result<u32, String> {
        let name = self.nic.name().to_owned();
        let no_contexts = || {
            format!(
                "{name} cannot spread flow rules over several queues, it has no RSS contexts: \
                 give one queue with --queues, or use --steer rss"
            )
        };
        let common = self.setting(0)?.ok_or_else(no_contexts)?;
        let wanted = self.evenly(common.table.len(), queues)?;
        let what = |context: u32| format!("RSS context {context} spreads over queues {}", ranges(queues));
        for rule in table.rules.iter().filter(|rule| flows.iter().any(|&flow| rule.is_for(flow))) {
            let Some(Action::Context(context)) = rule.action else { continue };
            if self.setting(context)?.is_some_and(|setting| setting.table == wanted) {
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

    fn set_table(&mut self, key: Option<&HashKey>, queues: &[usize]) -> Result<(), String> {
        let name = self.nic.name().to_owned();
        let before = self.setting(0)?.ok_or_else(|| format!("{name} has no RSS table: leave --steer out"))?;
        let key = key.map(|key| &key[..]).filter(|key| *key != before.key).unwrap_or_default();
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
        let was_default = self.answer("RSS table", hash::is_default(&*self.nic, &before.table))?;
        hash::set(&*self.nic, &table, key, &before)
            .map_err(|error| format!("setting the RSS table of {name}: {error}: leave --steer out"))?;
        let key_too = !key.is_empty();
        let with_key = if key_too { ", with --rss-key" } else { "" };
        let what = format!("all that is hashed is spread over --queues {numbers}{with_key}");
        self.note(&what, Undo::Table { before, was_default, key_too });
        Ok(())
    }

    /// Returns a table with each queue as often as the others.
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

    /// A setting that was there before stays: it may be somebody else's.
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

/// Returns whether the driver says that it cannot do this.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}

/// Returns why the driver refuses a rule.
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
