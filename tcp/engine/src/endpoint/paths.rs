//! Numbers for the values that many connections share: an end with its role, and a next hop.

use std::collections::HashMap;
use std::hash::Hash;
use std::hint::cold_path;

use crate::flow::{Address, SlotReader, Slots, Words};
use crate::hint::{mostly, seldom};
use crate::wire::Link;

/// Values that have a number while connections use them. Their count is bounded; a value without a user makes room.
pub(super) struct Numbered<T> {
    values: Vec<(T, u32)>,
    numbers: HashMap<T, u16>,
    /// Numbers whose value has no user.
    unused: Vec<u16>,
    most: usize,
    last: u16,
}

impl<T: Copy + Eq + Hash> Numbered<T> {
    /// Returns room for `most` values at once, allocated now.
    pub(super) fn new(most: usize) -> Self {
        Self {
            values: Vec::with_capacity(most),
            numbers: HashMap::with_capacity(most),
            unused: Vec::with_capacity(most),
            most,
            last: 0,
        }
    }

    /// Returns the value's number and adds a user; a new value needs room.
    #[inline]
    pub(super) fn take(&mut self, value: &T) -> Option<u16> {
        let number = match self.values.get(usize::from(self.last)) {
            Some((last, users)) if mostly(last == value && *users > 0) => self.last,
            _ => self.find(value)?,
        };
        self.values[usize::from(number)].1 += 1;
        self.last = number;
        Some(number)
    }

    #[cold]
    fn find(&mut self, value: &T) -> Option<u16> {
        if let Some(number) = self.numbers.get(value) {
            return Some(*number);
        }
        let number = if let Some(number) = self.unused.pop() {
            self.values[usize::from(number)] = (*value, 0);
            number
        } else if self.values.len() < self.most {
            self.values.push((*value, 0));
            (self.values.len() - 1) as u16
        } else {
            return None;
        };
        self.numbers.insert(*value, number);
        Some(number)
    }

    /// Removes a user.
    pub(super) fn put(&mut self, number: u16) {
        let (value, users) = &mut self.values[usize::from(number)];
        *users -= 1;
        if seldom(*users == 0) {
            self.numbers.remove(value);
            self.unused.push(number);
        }
    }

    /// Has the value one user, as after its first [`Numbered::take`]?
    fn is_new(&self, number: u16) -> bool {
        self.values[usize::from(number)].1 == 1
    }

    #[inline]
    pub(super) fn get(&self, number: u16) -> &T {
        &self.values[usize::from(number)].0
    }
}

/// The end that many connections share, and the application's number for its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shared {
    /// Address and port.
    pub(super) end: (Address, u16),
    pub(super) role: u16,
}

impl Words<4> for Shared {
    fn to_words(&self) -> [u64; 4] {
        let [high, low] = self.end.0.halves();
        [high, low, self.end.1.into(), self.role.into()]
    }

    fn from_words([high, low, port, role]: [u64; 4]) -> Self {
        Self { end: (Address::from_halves([high, low]), port as u16), role: role as u16 }
    }
}

/// The values that connections share.
pub(super) struct Paths {
    shared: Numbered<Shared>,
    /// The shared ends by number, for other threads.
    published: Slots<4>,
    next_hops: Numbered<Link>,
}

impl Paths {
    /// Returns room for the values of `connections` connections.
    pub(super) fn new(connections: usize) -> Self {
        // A new connection takes its numbers before the connection that it evicts puts its own back.
        let most = (connections + 1).min(usize::from(u16::MAX));
        Self { shared: Numbered::new(most), published: Slots::new(most), next_hops: Numbered::new(most) }
    }

    /// Returns the values behind [`super::connection::Connection::shared`], for other threads.
    pub(super) fn reader(&self) -> SlotReader<4> {
        self.published.reader()
    }

    /// Returns the numbers of a new connection's shared end and next hop, if there is room for both.
    #[inline]
    pub(super) fn take(&mut self, shared: &Shared, next_hop: &Link) -> Option<(u16, u16)> {
        let number = self.shared.take(shared)?;
        match self.next_hops.take(next_hop) {
            Some(next_hop) => {
                if seldom(self.shared.is_new(number)) {
                    self.published.set(number.into(), shared);
                }
                Some((number, next_hop))
            }
            None => {
                cold_path();
                self.shared.put(number);
                None
            }
        }
    }

    /// Returns the shared end with this number.
    #[inline]
    pub(super) fn shared(&self, number: u16) -> &Shared {
        self.shared.get(number)
    }

    /// Returns the next hop with this number.
    #[inline]
    pub(super) fn next_hop(&self, number: u16) -> &Link {
        self.next_hops.get(number)
    }

    /// Returns the number of a connection's changed next hop; the old number if there is no room.
    pub(super) fn change(&mut self, old: u16, next_hop: &Link) -> u16 {
        match self.next_hops.take(next_hop) {
            Some(number) => {
                self.next_hops.put(old);
                number
            }
            None => old,
        }
    }

    /// Removes a connection's use of both.
    pub(super) fn put(&mut self, shared: u16, next_hop: u16) {
        self.shared.put(shared);
        self.next_hops.put(next_hop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_makes_room() {
        let mut numbered = Numbered::new(2);
        assert_eq!(
            [numbered.take(&'a'), numbered.take(&'b'), numbered.take(&'a')],
            [Some(0), Some(1), Some(0)]
        );
        assert_eq!(numbered.take(&'c'), None);
        numbered.put(0);
        assert_eq!(numbered.take(&'c'), None);
        numbered.put(0);
        assert_eq!((numbered.take(&'c'), *numbered.get(0)), (Some(0), 'c'));
        assert_eq!((numbered.take(&'b'), *numbered.get(1)), (Some(1), 'b'));
    }
}
