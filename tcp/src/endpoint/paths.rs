//! Numbers for what many connections share: our addresses with their listeners, and the next hops. Knows tables of values.

use std::collections::HashMap;
use std::hash::Hash;

use crate::flow::Address;
use crate::wire::Link;

/// Values numbered in the order they were first seen; never forgotten, and bounded.
pub(super) struct Numbered<T> {
    values: Vec<T>,
    numbers: HashMap<T, u16>,
    most: usize,
    last: u16,
}

impl<T: Copy + Eq + Hash> Numbered<T> {
    pub(super) fn new(most: usize) -> Self {
        Self { values: Vec::new(), numbers: HashMap::new(), most, last: 0 }
    }

    /// The value's number; a new one while there is room.
    pub(super) fn number(&mut self, value: T) -> Option<u16> {
        if self.values.get(usize::from(self.last)) == Some(&value) {
            return Some(self.last);
        }
        let number = match self.numbers.get(&value) {
            Some(number) => *number,
            None if self.values.len() < self.most => {
                let number = self.values.len() as u16;
                self.values.push(value);
                self.numbers.insert(value, number);
                number
            }
            None => return None,
        };
        self.last = number;
        Some(number)
    }

    #[inline]
    pub(super) fn get(&self, number: usize) -> &T {
        &self.values[number]
    }
}

/// One of our addresses, and the listener (or opener) whose connections use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Local {
    pub(super) address: Address,
    pub(super) listener: u16,
}

/// What connections share.
pub(super) struct Paths {
    pub(super) locals: Numbered<Local>,
    pub(super) next_hops: Numbered<Link>,
}

impl Paths {
    pub(super) fn new() -> Self {
        Self {
            locals: Numbered::new(usize::from(u16::MAX)),
            next_hops: Numbered::new(super::connection::NEXT_HOPS),
        }
    }
}
