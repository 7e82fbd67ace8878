//! Numbers for what many connections share: an address and the role it plays, and the next hops. Knows tables of values
//! and how many use them.

use std::collections::HashMap;
use std::hash::Hash;
use std::hint::cold_path;

use crate::flow::{Address, SlotReader, Slots, Words};
use crate::hint::{mostly, seldom};
use crate::wire::Link;

/// Values numbered while connections use them. Their number is bounded; what nobody uses any more makes room.
pub(super) struct Numbered<T> {
    values: Vec<(T, u32)>,
    numbers: HashMap<T, u16>,
    /// Numbers whose value nobody uses.
    unused: Vec<u16>,
    most: usize,
    last: u16,
}

impl<T: Copy + Eq + Hash> Numbered<T> {
    /// Room for `most` values at once, allocated now.
    pub(super) fn new(most: usize) -> Self {
        Self {
            values: Vec::with_capacity(most),
            numbers: HashMap::with_capacity(most),
            unused: Vec::with_capacity(most),
            most,
            last: 0,
        }
    }

    /// The value's number, for one more user; a new one while there is room.
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

    /// One user fewer.
    pub(super) fn put(&mut self, number: u16) {
        let (value, users) = &mut self.values[usize::from(number)];
        *users -= 1;
        if seldom(*users == 0) {
            self.numbers.remove(value);
            self.unused.push(number);
        }
    }

    /// Has it one user, as after its first [`Numbered::take`]?
    fn is_new(&self, number: u16) -> bool {
        self.values[usize::from(number)].1 == 1
    }

    #[inline]
    pub(super) fn get(&self, number: u16) -> &T {
        &self.values[usize::from(number)].0
    }
}

/// The end that does not vary, and the application's number for what its connections are.
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

/// What connections share.
pub(super) struct Paths {
    shared: Numbered<Shared>,
    /// The same by number, for other threads.
    published: Slots<4>,
    next_hops: Numbered<Link>,
}

impl Paths {
    /// For at most `connections`, of which each uses one of both.
    pub(super) fn new(connections: usize) -> Self {
        // A new connection takes its numbers before the one that gives way to it puts its own back.
        let most = (connections + 1).min(usize::from(u16::MAX));
        Self { shared: Numbered::new(most), published: Slots::new(most), next_hops: Numbered::new(most) }
    }

    /// Another thread's view of what stands behind [`super::connection::Connection::shared`].
    pub(super) fn reader(&self) -> SlotReader<4> {
        self.published.reader()
    }

    /// The numbers for a new connection's shared end and next hop, if there is room for both.
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

    /// What connections with this number share.
    #[inline]
    pub(super) fn shared(&self, number: u16) -> &Shared {
        self.shared.get(number)
    }

    /// The next hop with this number.
    #[inline]
    pub(super) fn next_hop(&self, number: u16) -> &Link {
        self.next_hops.get(number)
    }

    /// The number of a connection's next hop that has changed, if there is room.
    pub(super) fn change(&mut self, old: u16, next_hop: &Link) -> u16 {
        match self.next_hops.take(next_hop) {
            Some(number) => {
                self.next_hops.put(old);
                number
            }
            None => old,
        }
    }

    /// A connection fewer.
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
