//! The keys of sixteen databases, what they hold, when they expire and how much memory they take. It has no clock and no
//! socket: the time is given to it. Who waits for an element is in `waiting`.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use indexmap::{IndexMap, IndexSet};

use super::waiting::Waiting;

/// How many databases `SELECT` chooses from.
pub(super) const DATABASES: usize = 16;
/// What all keys and values may take, by this module's estimate.
pub(super) const MAX_MEMORY: usize = 256 << 20;
/// What a key and an element take beyond their bytes: an estimate of the tables' slots and the allocations' heads.
const KEY_OVERHEAD: usize = 96;
const ITEM_OVERHEAD: usize = 48;
/// Redis keeps a hash of up to so many fields in the order in which they came, and so do we.
const ORDERED_FIELDS: usize = 128;

/// Milliseconds since the server started.
pub(super) type Millis = i64;

/// The key holds something of another type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrongType;

/// One of a list's ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The head.
    Left,
    /// The tail.
    Right,
}

/// Where a command works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The database.
    pub db: usize,
    /// The time.
    pub now: Millis,
}

/// What a key holds.
#[derive(Debug)]
pub(super) enum Value {
    Text(Bytes),
    List(List),
    Hash(Hash),
    Set(Set),
}

impl Value {
    /// What `TYPE` calls it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(list) => list.size,
            Self::Hash(hash) => hash.size,
            Self::Set(set) => set.size,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Text(_) => false,
            Self::List(list) => list.items.is_empty(),
            Self::Hash(hash) => hash.fields.is_empty(),
            Self::Set(set) => set.members.is_empty(),
        }
    }
}

/// A copy of its own: a slice would keep the whole buffer alive that it was read into.
pub(super) fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A list that knows its size.
#[derive(Debug, Default)]
pub(super) struct List {
    items: VecDeque<Bytes>,
    size: usize,
}

impl List {
    pub(super) fn items(&self) -> &VecDeque<Bytes> {
        &self.items
    }

    pub(super) fn push(&mut self, end: End, item: &[u8]) {
        self.size += item.len() + ITEM_OVERHEAD;
        match end {
            End::Left => self.items.push_front(own(item)),
            End::Right => self.items.push_back(own(item)),
        }
    }

    pub(super) fn pop(&mut self, end: End) -> Option<Bytes> {
        let item = match end {
            End::Left => self.items.pop_front(),
            End::Right => self.items.pop_back(),
        }?;
        self.size -= item.len() + ITEM_OVERHEAD;
        Some(item)
    }

    /// Removes up to `most` equal items, from the given end on, and says how many.
    pub(super) fn remove(&mut self, item: &[u8], from: End, most: usize) -> usize {
        let mut found: Vec<usize> = match from {
            End::Left => (0..self.items.len()).filter(|i| self.items[*i] == item).take(most).collect(),
            End::Right => (0..self.items.len()).rev().filter(|i| self.items[*i] == item).take(most).collect(),
        };
        found.sort_unstable();
        if let [one] = found[..] {
            // The usual case, one entry near the head, moves few items.
            self.items.remove(one);
        } else if !found.is_empty() {
            let (mut index, mut next) = (0, found.iter().peekable());
            self.items.retain(|_| {
                let keep = next.next_if(|at| **at == index).is_none();
                index += 1;
                keep
            });
        }
        self.size -= found.len() * (item.len() + ITEM_OVERHEAD);
        found.len()
    }

    /// Puts an item in the place of another.
    pub(super) fn replace(&mut self, place: usize, item: &[u8]) {
        if let Some(old) = self.items.get_mut(place) {
            self.size = self.size + item.len() - old.len();
            *old = own(item);
        }
    }

    /// Keeps the items of a range; an empty one keeps none.
    pub(super) fn keep(&mut self, range: std::ops::Range<usize>) {
        self.items.truncate(range.end);
        self.items.drain(..range.start.min(self.items.len()));
        self.size = self.items.iter().map(|item| item.len() + ITEM_OVERHEAD).sum();
    }
}

/// A hash that knows its size.
#[derive(Debug, Default)]
pub(super) struct Hash {
    fields: IndexMap<Bytes, Bytes>,
    size: usize,
}

impl Hash {
    pub(super) fn fields(&self) -> &IndexMap<Bytes, Bytes> {
        &self.fields
    }

    /// Whether the field is new.
    pub(super) fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        self.size += value.len();
        if let Some(old) = self.fields.get_mut(field) {
            self.size -= old.len();
            *old = own(value);
            return false;
        }
        self.size += field.len() + 2 * ITEM_OVERHEAD;
        self.fields.insert(own(field), own(value));
        true
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let removed = if self.fields.len() <= ORDERED_FIELDS {
            self.fields.shift_remove_entry(field)
        } else {
            self.fields.swap_remove_entry(field)
        };
        if let Some((field, value)) = &removed {
            self.size -= field.len() + value.len() + 2 * ITEM_OVERHEAD;
        }
        removed.is_some()
    }
}

/// A set that knows its size.
#[derive(Debug, Default)]
pub(super) struct Set {
    members: IndexSet<Bytes>,
    size: usize,
}

impl Set {
    pub(super) fn members(&self) -> impl Iterator<Item = &Bytes> {
        self.members.iter()
    }

    /// Whether it is new.
    pub(super) fn add(&mut self, member: &[u8]) -> bool {
        let new = !self.members.contains(member);
        if new {
            self.size += member.len() + ITEM_OVERHEAD;
            self.members.insert(own(member));
        }
        new
    }

    /// Whether it was there.
    pub(super) fn take(&mut self, member: &[u8]) -> bool {
        let was = self.members.swap_remove(member);
        if was {
            self.size -= member.len() + ITEM_OVERHEAD;
        }
        was
    }
}

#[derive(Debug)]
struct Entry {
    value: Value,
    expires: Option<Millis>,
}

impl Entry {
    fn is_over(&self, now: Millis) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

/// All databases, and who waits for elements of their lists.
#[derive(Debug, Default)]
pub(super) struct Store {
    databases: [HashMap<Bytes, Entry>; DATABASES],
    used: usize,
    pub(super) waiting: Waiting,
}

impl Store {
    /// The estimate of the memory in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Whether there is memory for a command with these arguments, after what has expired is gone.
    pub(super) fn has_room(&mut self, at: Place, arguments: &[Bytes]) -> bool {
        // No command takes more for an argument.
        let needed: usize = arguments.iter().map(|argument| argument.len() + KEY_OVERHEAD).sum();
        if self.used + needed > MAX_MEMORY {
            (0..DATABASES).for_each(|db| self.purge(Place { db, ..at }));
        }
        self.used + needed <= MAX_MEMORY
    }

    fn entry(&mut self, at: Place, key: &[u8]) -> Option<&mut Entry> {
        if self.databases[at.db].get(key)?.is_over(at.now) {
            self.remove(at, key);
            return None;
        }
        self.databases[at.db].get_mut(key)
    }

    /// What a key holds.
    pub(super) fn value(&mut self, at: Place, key: &[u8]) -> Option<&Value> {
        self.entry(at, key).map(|entry| &entry.value)
    }

    pub(super) fn text(&mut self, at: Place, key: &[u8]) -> Result<Option<&Bytes>, WrongType> {
        match self.value(at, key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => Err(WrongType),
        }
    }

    pub(super) fn list(&mut self, at: Place, key: &[u8]) -> Result<Option<&List>, WrongType> {
        match self.value(at, key) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(_) => Err(WrongType),
        }
    }

    pub(super) fn hash(&mut self, at: Place, key: &[u8]) -> Result<Option<&Hash>, WrongType> {
        match self.value(at, key) {
            None => Ok(None),
            Some(Value::Hash(hash)) => Ok(Some(hash)),
            Some(_) => Err(WrongType),
        }
    }

    pub(super) fn members(&mut self, at: Place, key: &[u8]) -> Result<Option<&Set>, WrongType> {
        match self.value(at, key) {
            None => Ok(None),
            Some(Value::Set(set)) => Ok(Some(set)),
            Some(_) => Err(WrongType),
        }
    }

    /// Replaces whatever the key holds.
    pub(super) fn set(&mut self, at: Place, key: &[u8], text: &[u8], expires: Option<Millis>) {
        self.remove(at, key);
        self.insert(at, key, Value::Text(own(text)), expires);
    }

    /// Changes a list, which is made where there is none, and goes when it is empty.
    pub(super) fn edit_list<R>(
        &mut self,
        at: Place,
        key: &[u8],
        edit: impl FnOnce(&mut List) -> R,
    ) -> Result<R, WrongType> {
        let done = self.edit_or_make(at, key, Value::List(List::default()), |value| {
            if let Value::List(list) = value { Ok(edit(list)) } else { Err(WrongType) }
        });
        // A push made it so; anything else costs those who wait one look more.
        if done.is_ok() && self.databases[at.db].contains_key(key) {
            self.waiting.touched(at.db, key);
        }
        done
    }

    /// Changes a hash, which is made where there is none, and goes when it is empty.
    pub(super) fn edit_hash<R>(
        &mut self,
        at: Place,
        key: &[u8],
        edit: impl FnOnce(&mut Hash) -> R,
    ) -> Result<R, WrongType> {
        self.edit_or_make(at, key, Value::Hash(Hash::default()), |value| {
            if let Value::Hash(hash) = value { Ok(edit(hash)) } else { Err(WrongType) }
        })
    }

    /// Changes a set, which is made where there is none, and goes when it is empty.
    pub(super) fn edit_set<R>(
        &mut self,
        at: Place,
        key: &[u8],
        edit: impl FnOnce(&mut Set) -> R,
    ) -> Result<R, WrongType> {
        self.edit_or_make(at, key, Value::Set(Set::default()), |value| {
            if let Value::Set(set) = value { Ok(edit(set)) } else { Err(WrongType) }
        })
    }

    /// Changes what a key holds, or `empty` where it holds nothing.
    fn edit_or_make<R>(
        &mut self,
        at: Place,
        key: &[u8],
        empty: Value,
        edit: impl FnOnce(&mut Value) -> Result<R, WrongType>,
    ) -> Result<R, WrongType> {
        if self.value(at, key).is_none() {
            self.insert(at, key, empty, None);
        }
        self.edit(at, key, edit)
    }

    fn insert(&mut self, at: Place, key: &[u8], value: Value, expires: Option<Millis>) {
        self.used += key.len() + KEY_OVERHEAD + value.size();
        self.databases[at.db].insert(own(key), Entry { value, expires });
    }

    fn edit<R>(
        &mut self,
        at: Place,
        key: &[u8],
        edit: impl FnOnce(&mut Value) -> Result<R, WrongType>,
    ) -> Result<R, WrongType> {
        let Some(entry) = self.databases[at.db].get_mut(key) else { return Err(WrongType) };
        let before = entry.value.size();
        let done = edit(&mut entry.value);
        let (after, empty) = (entry.value.size(), entry.value.is_empty());
        self.used = self.used + after - before;
        if empty {
            self.remove(at, key);
        }
        done
    }

    /// Removes a key, and says whether there was one.
    pub(super) fn remove(&mut self, at: Place, key: &[u8]) -> bool {
        let Some((key, entry)) = self.databases[at.db].remove_entry(key) else { return false };
        self.used -= key.len() + KEY_OVERHEAD + entry.value.size();
        !entry.is_over(at.now)
    }

    /// When a key expires: `None` where there is no key, `Some(None)` where it stays.
    pub(super) fn expires(&mut self, at: Place, key: &[u8]) -> Option<Option<Millis>> {
        self.entry(at, key).map(|entry| entry.expires)
    }

    /// Sets when a key expires; a time that has passed removes it now.
    pub(super) fn expire(&mut self, at: Place, key: &[u8], expires: Option<Millis>) {
        if let Some(entry) = self.entry(at, key) {
            entry.expires = expires;
            if entry.is_over(at.now) {
                self.remove(at, key);
            }
        }
    }

    /// The keys of a database, with what they hold, in no order.
    pub(super) fn keys(&mut self, at: Place) -> impl Iterator<Item = (&Bytes, &Value)> {
        self.purge(at);
        self.databases[at.db].iter().map(|(key, entry)| (key, &entry.value))
    }

    /// How many keys a database has, and how many of them expire.
    pub(super) fn counts(&mut self, at: Place) -> (usize, usize) {
        self.purge(at);
        let entries = &self.databases[at.db];
        (entries.len(), entries.values().filter(|entry| entry.expires.is_some()).count())
    }

    /// Removes what has expired and was not asked for since.
    pub(super) fn purge(&mut self, at: Place) {
        let gone = self.databases[at.db].extract_if(|_, entry| entry.is_over(at.now));
        self.used -= gone.map(|(key, entry)| key.len() + KEY_OVERHEAD + entry.value.size()).sum::<usize>();
    }

    /// Empties a database.
    pub(super) fn flush(&mut self, db: usize) {
        let gone = std::mem::take(&mut self.databases[db]);
        self.used -= gone.iter().map(|(key, entry)| key.len() + KEY_OVERHEAD + entry.value.size()).sum::<usize>();
    }
}
