//! A driver for tests, whose NIC keeps settings and refuses orders.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::facts::{GET_FLAGS, NTUPLE, SET_FLAGS};
use super::hash::{GET_HASH, GET_HASHED_FIELDS, GET_RINGS, NEW_CONTEXT, SET_HASH};
use super::request::{Class, ClassList, Ethtool, Hash, Request, Value};
use super::rules::{ADD_RULE, ANYWHERE, BY_CONTEXT, CHOOSES, COUNT_RULES, DELETE_RULE, GET_RULE, LIST_RULES};

/// Which flow rules a driver takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Takes {
    All,
    /// `ETHER_FLOW` alone.
    Ether,
    /// The driver does not know the requests.
    None,
}

/// A NIC with four queues.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) takes: Takes,
    pub(crate) flags: u32,
    pub(crate) chooses: bool,
    pub(crate) room: u32,
    /// By location.
    pub(crate) rules: BTreeMap<u32, Class>,
    /// `None`: the NIC has no contexts.
    pub(crate) contexts: Option<BTreeMap<u32, Vec<u32>>>,
    /// Empty: the NIC has no table.
    pub(crate) table: Vec<u32>,
    pub(crate) key: Vec<u8>,
    pub(crate) function: u8,
    pub(crate) mixing: u8,
    pub(crate) hashed_fields: u64,
    /// A command that fails from its nth time on, with this number.
    pub(crate) fails: Option<(u32, usize, i32)>,
    /// The number with which every command fails.
    pub(crate) broken: Option<i32>,
    /// The commands that change something, in order.
    pub(crate) orders: Vec<u32>,
}

/// The driver of the NIC t0, which clones share.
#[derive(Clone)]
pub(crate) struct Fake(pub(crate) Rc<RefCell<State>>);

impl Fake {
    /// A NIC like an ice or an mlx5: every rule, contexts, a table of eight.
    pub(crate) fn new(change: impl FnOnce(&mut State)) -> Self {
        let mut state = State {
            takes: Takes::All,
            flags: NTUPLE | 1 << 8,
            chooses: true,
            room: 4,
            rules: BTreeMap::new(),
            contexts: Some(BTreeMap::new()),
            table: vec![0, 1, 2, 3, 0, 1, 2, 3],
            key: (1..=40).collect(),
            function: 1,
            mixing: 0,
            hashed_fields: 0xf0,
            fails: None,
            broken: None,
            orders: Vec::new(),
        };
        change(&mut state);
        Self(Rc::new(RefCell::new(state)))
    }

    pub(crate) fn state(&self) -> State {
        self.0.borrow().clone()
    }
}

impl Class {
    /// Returns the rule's flow, queue and context.
    pub(crate) fn leads(&self) -> (u32, u64, u32) {
        let by_context = self.rule.flow & BY_CONTEXT != 0;
        (self.rule.flow, self.rule.ring, if by_context { self.count_or_context } else { 0 })
    }
}

impl Ethtool for Fake {
    fn name(&self) -> &str {
        "t0"
    }

    fn carry(&self, request: &mut dyn Request) -> io::Result<()> {
        let request: &mut dyn Any = request;
        let mut state = self.0.borrow_mut();
        let done = if let Some(errno) = state.broken {
            Err(errno)
        } else if let Some(request) = request.downcast_mut::<Class>() {
            state.class(request)
        } else if let Some(list) = request.downcast_mut::<ClassList>() {
            state.list(list)
        } else if let Some(hash) = request.downcast_mut::<Hash>() {
            state.hash(hash)
        } else if let Some(flags) = request.downcast_mut::<Value>() {
            state.value(flags)
        } else {
            Err(libc::EOPNOTSUPP)
        };
        done.map_err(io::Error::from_raw_os_error)
    }
}

impl State {
    fn order(&mut self, command: u32) -> Result<(), i32> {
        self.orders.push(command);
        match self.fails {
            Some((failing, from, errno))
                if failing == command
                    && self.orders.iter().filter(|&&order| order == command).count() >= from =>
            {
                Err(errno)
            }
            _ => Ok(()),
        }
    }

    fn value(&mut self, value: &mut Value) -> Result<(), i32> {
        match value.command {
            GET_FLAGS => value.data = self.flags,
            SET_FLAGS => {
                self.order(SET_FLAGS)?;
                self.flags = value.data;
            }
            _ => return Err(libc::EOPNOTSUPP),
        }
        Ok(())
    }

    fn class(&mut self, request: &mut Class) -> Result<(), i32> {
        match request.command {
            GET_RINGS => request.data = 4,
            GET_HASHED_FIELDS => request.data = self.hashed_fields,
            _ if self.takes == Takes::None => return Err(libc::EOPNOTSUPP),
            COUNT_RULES => {
                request.data = if self.chooses { CHOOSES } else { 0 };
                request.count_or_context = self.rules.len() as u32;
            }
            GET_RULE => {
                let rule = self.rules.get(&request.rule.location).ok_or(libc::ENOENT)?;
                *request = Class { command: GET_RULE, ..rule.clone() };
            }
            DELETE_RULE => {
                self.order(DELETE_RULE)?;
                self.rules.remove(&request.rule.location).ok_or(libc::ENOENT)?;
            }
            ADD_RULE => {
                self.order(ADD_RULE)?;
                let by_context = request.rule.flow & BY_CONTEXT != 0;
                let has_context =
                    |contexts: &BTreeMap<u32, _>| contexts.contains_key(&request.count_or_context);
                if by_context && !self.contexts.as_ref().is_some_and(has_context)
                    || self.takes == Takes::Ether && request.rule.flow != 0x12
                    || request.rule.ring >= 4
                {
                    return Err(libc::EINVAL);
                }
                if request.rule.location == ANYWHERE && self.chooses {
                    let free = (0..self.room).find(|location| !self.rules.contains_key(location));
                    request.rule.location = free.ok_or(libc::ENOSPC)?;
                }
                if request.rule.location >= self.room {
                    return Err(libc::EINVAL);
                }
                self.rules.insert(request.rule.location, request.clone());
            }
            _ => return Err(libc::EOPNOTSUPP),
        }
        Ok(())
    }

    fn list(&mut self, list: &mut ClassList) -> Result<(), i32> {
        if self.takes == Takes::None || list.command != LIST_RULES {
            return Err(libc::EOPNOTSUPP);
        }
        if (list.count_or_context as usize) < self.rules.len() {
            return Err(libc::EMSGSIZE);
        }
        list.data = self.room.into();
        list.count_or_context = self.rules.len() as u32;
        for (to, &location) in list.locations.iter_mut().zip(self.rules.keys()) {
            *to = location;
        }
        Ok(())
    }

    fn hash(&mut self, hash: &mut Hash) -> Result<(), i32> {
        if self.table.is_empty() && self.key.is_empty() {
            return Err(libc::EOPNOTSUPP);
        }
        if hash.context != 0 && self.contexts.is_none() {
            return Err(libc::EOPNOTSUPP);
        }
        match hash.command {
            GET_HASH => self.get_hash(hash),
            SET_HASH => self.set_hash(hash),
            _ => Err(libc::EOPNOTSUPP),
        }
    }

    fn get_hash(&self, hash: &mut Hash) -> Result<(), i32> {
        let own = self.contexts.as_ref().and_then(|contexts| contexts.get(&hash.context));
        let table = match hash.context {
            0 => &self.table,
            _ => own.ok_or(libc::ENOENT)?,
        };
        // A context has no key of its own.
        let key = if hash.context == 0 { &self.key[..] } else { &[] };
        let asked_for_table = hash.table_len > 0;
        if asked_for_table {
            hash.write(table, key);
        }
        (hash.table_len, hash.key_len) = (table.len() as u32, key.len() as u32);
        if hash.context == 0 {
            (hash.function, hash.mixing) = (self.function, self.mixing);
        }
        Ok(())
    }

    fn set_hash(&mut self, hash: &mut Hash) -> Result<(), i32> {
        self.order(SET_HASH)?;
        let len = hash.table_len as usize;
        let is_wrong = |queue: &u32| *queue >= 4;
        if len != 0 && len != self.table.len() || hash.words[..len].iter().any(is_wrong) {
            return Err(libc::EINVAL);
        }
        if hash.key_len != 0 && hash.key_len as usize != self.key.len() || hash.mixing != self.mixing {
            return Err(libc::EINVAL);
        }
        let given = hash.words[..len].to_vec();
        if hash.context == 0 {
            self.table = if len == 0 { (0..4).cycle().take(self.table.len()).collect() } else { given };
            // Kernels before 6.11 look for the key behind a table of the full length, though the order has no table.
            let key = hash.words[self.table.len()..].iter().flat_map(|word| word.to_ne_bytes());
            let key: Vec<u8> = key.take(hash.key_len as usize).collect();
            if !key.is_empty() {
                self.key = key;
            }
            return Ok(());
        }
        let in_use = self.rules.values().any(|rule| rule.rule.flow & BY_CONTEXT != 0);
        let contexts = self.contexts.as_mut().ok_or(libc::EOPNOTSUPP)?;
        if hash.context == NEW_CONTEXT {
            hash.context = contexts.keys().last().unwrap_or(&0) + 1;
            contexts.insert(hash.context, given);
        } else if len == 0 {
            if in_use {
                return Err(libc::EBUSY);
            }
            contexts.remove(&hash.context).ok_or(libc::ENOENT)?;
        }
        Ok(())
    }
}
